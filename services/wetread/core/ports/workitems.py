"""UPS workitems: every AI task as the standard worklist shows it (PS3.4 Annex CC, PS3.18 chapter 11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wetread.core.ports.database import Transaction


@dataclass(frozen=True, slots=True)
class Workitem:
    """A Unified Procedure Step. ``dataset`` is DICOM JSON without the Transaction UID, which is never shown."""

    tenant: str
    uid: str
    state: str
    """SCHEDULED, IN PROGRESS, COMPLETED or CANCELED."""
    dataset: Mapping[str, Any]
    updated_at: float


class WorkitemRepository(Protocol):
    """Workitems of our own tasks; the full UPS-RS service is the worklist's."""

    def schedule(self, tx: Transaction, tenant: str, uid: str, dataset: Mapping[str, Any]) -> bool:
        """Create in state SCHEDULED. False: it already exists (a repeated message)."""

    def start(self, tx: Transaction, tenant: str, uid: str) -> None:
        """Claim for our own performer: SCHEDULED -> IN PROGRESS. Repeating is harmless."""

    def update(self, tx: Transaction, tenant: str, uid: str, attributes: Mapping[str, Any]) -> None:
        """Replace top-level attributes of a workitem that we perform (progress, priority, readiness)."""

    def finish(self, tx: Transaction, tenant: str, uid: str, *, completed: bool, attributes: Mapping[str, Any]) -> None:
        """End in COMPLETED or CANCELED with the final-state attributes. Repeating is harmless."""

    def get(self, tx: Transaction, tenant: str, uid: str) -> Workitem:
        """Return a workitem. Raises NotFound."""
