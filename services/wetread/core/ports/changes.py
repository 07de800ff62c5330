"""What happened to stored instances, in order (change feed), who removed what (audit), and removals themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from wetread.core.ports.access import Chain
from wetread.core.ports.database import Transaction

KEY_SECONDS: Final = 86_400.0
"""How long a removal is known by its key."""

ChangeAction = Literal["create", "update", "delete"]
ChangeState = Literal["current", "replaced", "deleted"]
"""State of what the change brought, now: still there, superseded by a later change, or removed."""


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of a tenant's change feed. ``sequence`` is gapless from 1 in commit order; ``at``: Unix seconds."""

    sequence: int
    study_uid: str
    series_uid: str
    sop_uid: str
    action: ChangeAction
    at: float
    state: ChangeState


@dataclass(frozen=True, slots=True)
class RemovedInstance:
    """An instance that was removed, and the very record that held it: a later copy has another locator."""

    series_uid: str
    sop_uid: str
    locator: str


def joined(study_uid: str, series_uid: str | None, sop_uid: str | None) -> str:
    """Return the UIDs of a study, series or instance as one path, from the study down."""
    return "/".join(uid for uid in (study_uid, series_uid, sop_uid) if uid)


@dataclass(frozen=True, slots=True)
class Removal:
    """A study, series or instance that was deleted. ``by``: name of the credential; ``at``: Unix seconds.

    ``key``: digest of the ``Idempotency-Key`` of the request, empty without one.
    """

    study_uid: str
    series_uid: str | None
    sop_uid: str | None
    instances: tuple[RemovedInstance, ...]
    at: float
    by: str
    request_id: str
    key: str = ""

    @property
    def path(self) -> str:
        """UIDs of what was deleted, from the study down."""
        return joined(self.study_uid, self.series_uid, self.sop_uid)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to what, when, with which outcome. UIDs only: no patient data."""

    at: float
    actor: str
    action: str
    study_uid: str
    series_uid: str
    sop_uid: str
    outcome: str
    request_id: str


class ChangeFeed(Protocol):
    """Read side of the change feed."""

    def changes(
        self,
        tx: Transaction,
        tenant: str,
        *,
        limit: int,
        offset: int = 0,
        after: int = 0,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Change]:
        """Return changes in order: those behind sequence *after*, at or after *since* and before *until*."""

    def latest_change(self, tx: Transaction, tenant: str) -> Change | None:
        """Return the newest change."""

    def last_change(self, tx: Transaction, tenant: str) -> int:
        """Return the sequence of the tenant's newest change; 0 when there is none."""

    def changes_of_all(self, tx: Transaction) -> int:
        """Return how many changes all tenants have had: it grows with every one, and says of none whose it was."""


class AuditLog(Chain, Protocol):
    """What was taken out of the archive and by whom: append-only, each tenant's entries chained by digests."""

    def audit(self, tx: Transaction, tenant: str, entry: AuditEntry) -> None:
        """Append an entry in the transaction of what it tells."""

    def audit_entries(self, tx: Transaction, tenant: str) -> Sequence[tuple[AuditEntry, str]]:
        """Return the tenant's entries with their digests, oldest first."""
