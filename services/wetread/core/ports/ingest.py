"""The one way in for instances: STOW-RS, the DIMSE edge and our own results all call ``Ingest``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from wetread.core.facts import Source
from wetread.core.ports.database import Transaction


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What became of one part. ``failure_reason``/``warning_reason``: (0008,1197)/(0008,1196), PS3.18 annex I.2."""

    sop_class_uid: str | None
    sop_instance_uid: str | None
    study_instance_uid: str | None
    series_instance_uid: str | None = None
    failure_reason: int | None = None
    warning_reason: int | None = None
    comment: str = ""
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class IngestReport:
    """One outcome per part, in the order of the parts."""

    outcomes: tuple[InstanceOutcome, ...]

    @property
    def failed(self) -> int:
        """Number of parts that were not stored."""
        return sum(o.failure_reason is not None for o in self.outcomes)


class Ingest(Protocol):
    """Durable store of instances: bytes synced, index row and event committed, before it returns."""

    def store(
        self,
        tenant: str,
        parts: Iterable[bytes | memoryview],
        *,
        source: Source,
        study_uid: str | None = None,
        own_result: bool = False,
    ) -> IngestReport:
        """Store PS3.10 byte strings.

        ``study_uid``: the study named in the STOW URL. ``own_result``: written by wetread itself, never triggers rules.
        """


class IncomingTransfer(Protocol):
    """One association (or any other stream of single instances): what it brings counts as one transfer."""

    def store(
        self, part: bytes | memoryview, *, sop_class_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> InstanceOutcome:
        """Store one PS3.10 byte string; durable when it returns.

        ``sop_class_uid``, ``sop_instance_uid``: what the sender says it is; a data set that says otherwise is refused.
        Calls of one transfer follow one another; calls of several transfers may run at once.
        """

    def end(self) -> None:
        """Tell the studies of this transfer that nothing follows. Not called when the sender broke off."""


class Intake(Protocol):
    """The way in for senders that wait for an answer after each instance: the DIMSE edge."""

    def recover(self) -> None:
        """Index what a crash left stored and not indexed (on start)."""

    def begin(self, tenant: str, source: Source) -> IncomingTransfer:
        """Begin a transfer."""


@dataclass(frozen=True, slots=True)
class StudyChange:
    """One commit group's effect on one study."""

    tenant: str
    study_uid: str
    generation: int
    first: bool
    """True when this commit created the study."""
    transfer_end: bool
    """True when the request or association that brought the instances has ended."""
    new_instances: int
    source: Source
    received_at: float
    """Unix seconds of the last byte of this group."""
    stamps: dict[str, float] = field(default_factory=dict)
    replaced_instances: int = 0
    """Instances that were there and have another content now."""


class Outbox(Protocol):
    """What rides in the ingest transaction: the event rows and the queued evaluation."""

    def study_changed(self, tx: Transaction, change: StudyChange) -> None:
        """Record the change and enqueue its evaluation in the same transaction."""

    def waits(self, tx: Transaction, tenant: str, study_uid: str) -> bool:
        """Return whether the study, as it is now, still waits for the end of a transfer."""

    def transfer_repeated(self, tx: Transaction, tenant: str, study_uid: str, *, received_at: float) -> None:
        """A transfer has ended that brought again what was there: enqueue the evaluation that a waiting study needs.

        No event: nothing has changed.
        """

    def study_removed(self, tx: Transaction, tenant: str, study_uid: str) -> None:
        """Instances of a study, or all of it, were deleted: enqueue what follows in the same transaction."""
