"""The study index as other services see it (search and metadata are the gateway's own affair)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wetread.core.facts import StudyFacts
from wetread.core.ports.database import Transaction
from wetread.core.ports.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class StudySummary:
    """What lists show of a study."""

    study_uid: str
    patient_id: str
    patient_name: str
    modalities: tuple[str, ...]
    description: str
    received_at: float
    instances: int
    generation: int


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """Where the bytes of one instance are."""

    sop_instance_uid: str
    series_instance_uid: str
    ref: ObjectRef
    content_hash: str
    transfer_syntax_uid: str


class StudyIndex(Protocol):
    """Read side of the index. Unknown studies raise NotFound."""

    def facts(self, tx: Transaction, tenant: str, study_uid: str) -> StudyFacts:
        """Return the header facts of a study, result series of our own marked as such."""

    def summary(self, tx: Transaction, tenant: str, study_uid: str) -> StudySummary:
        """Return one study's summary."""

    def locate(
        self, tx: Transaction, tenant: str, study_uid: str, sop_instance_uids: Sequence[str] | None = None
    ) -> list[StoredInstance]:
        """Return where the instances are, in the order asked for (None: all)."""
