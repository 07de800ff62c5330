"""The worklist as lists show it: studies in reading order, each with the state of every detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wetread.core.ports.database import Transaction
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.reading_order import Band
from wetread.core.states import AiState, StudyAiState, summarise


@dataclass(frozen=True, slots=True)
class WorklistTask:
    """The state of one detector on a listed study. Times are Unix seconds."""

    detector: str
    version: str
    state: AiState
    reason: str | None
    shadow: bool
    attempt: int
    progress: int
    due_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A study in the hands of a reader. ``reader``: name of the credential, or whom it was assigned to."""

    reader: str
    since: float
    read_at: float | None = None


@dataclass(frozen=True, slots=True)
class WorklistItem:
    """One study on the list. ``modality``: those of the source series, ``/`` between several."""

    study_uid: str
    patient_id: str
    patient_name: str
    modality: str
    description: str
    study_date: str
    instances: int
    received_at: float
    due_at: float
    priority: Priority
    band: Band
    reasons: tuple[Reason, ...]
    tasks: tuple[WorklistTask, ...]
    evaluated: bool
    """Whether the rules have looked at this study at all."""
    reading: Reading | None = None
    """Who reads it or has read it; None while it waits."""

    @property
    def ai_state(self) -> StudyAiState:
        """Summary over the non-shadow tasks. A study that nobody has looked at yet is pending, not "not applicable"."""
        if not self.tasks and not self.evaluated:
            return StudyAiState.PENDING
        return summarise(task.state for task in self.tasks if not task.shadow)


@dataclass(frozen=True, slots=True)
class WorklistFilter:
    """What to list; None or empty: everything."""

    priority: Priority | None = None
    modality: str | None = None
    state: StudyAiState | None = None
    text: str = ""
    """Part of the patient's id or name or of the description, case-blind."""


@dataclass(frozen=True, slots=True)
class WorklistPage:
    """A page. ``next`` is an opaque cursor; None on the last page."""

    items: tuple[WorklistItem, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image of a study."""

    series_uid: str
    sop_instance_uid: str


class ReadingClaims(Protocol):
    """Who takes which study from the list: the rows that the guard's share is counted from."""

    def assign(self, tx: Transaction, tenant: str, study_uid: str, reader: str, *, now: float) -> bool:
        """Give a listed study to a reader; False: they have it already, the time starts anew.

        Raises NotFound for a study that is not listed, Conflict when another reader holds it or it has been read.
        """

    def release(self, tx: Transaction, tenant: str, study_uid: str, *, now: float) -> Reading:
        """Put a study back into its place and return who held it. Raises Conflict when nobody does."""

    def complete(self, tx: Transaction, tenant: str, study_uid: str, reader: str, *, now: float) -> bool:
        """Take a read study off the list; False: it was read already. Raises NotFound, Conflict as ``assign``."""


class Worklist(Protocol):
    """Read side of the reading order. Every open study is listed, registered or not."""

    def page(
        self,
        tx: Transaction,
        tenant: str,
        *,
        now: float,
        wanted: WorklistFilter,
        limit: int,
        cursor: str | None = None,
    ) -> WorklistPage:
        """Return a page in reading order.

        Pages of one traversal share the clock of its first page: a study that does not change its class is neither
        skipped nor repeated. Raises InvalidInput for a cursor that is not ours.
        """

    def item(self, tx: Transaction, tenant: str, study_uid: str, *, now: float) -> WorklistItem:
        """Return one study. Raises NotFound."""

    def unanswered(self, tx: Transaction, tenant: str, study_uid: str) -> bool:
        """Whether something is certainly still to come: rules to look, or a detector that readers see. Raises NotFound.

        One statement, for those who ask again and again.
        """

    def counts(self, tx: Transaction, tenant: str) -> dict[Priority, int]:
        """Return how many open studies each class has."""

    def source_image(self, tx: Transaction, tenant: str, study_uid: str) -> ImageReference | None:
        """Return the middle image of the largest source series; None when there is no picture. Raises NotFound."""
