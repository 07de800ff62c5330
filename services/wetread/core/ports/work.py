"""Tasks (study x detector), their results, and the durable queue that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wetread.core.findings import ResultSet, StoredSeries
from wetread.core.ports.database import Transaction
from wetread.core.priority import Priority
from wetread.core.priors import PatientStudy, PriorCandidate
from wetread.core.states import AiState


@dataclass(frozen=True, slots=True)
class Task:
    """The state of one detector on one study."""

    tenant: str
    study_uid: str
    detector: str
    version: str
    state: AiState
    reason: str | None = None
    detail: str = ""
    shadow: bool = False
    workflow: str = ""
    """Name@version of the declared workflow that wants it."""
    priority: Priority = Priority.ROUTINE
    due_at: float = 0.0
    input_digest: str | None = None
    result_key: str | None = None
    run_id: str | None = None
    """Id of the durable workflow in flight, if any."""
    workitem_uid: str | None = None
    attempt: int = 0
    progress: int = 0
    updated_at: float = 0.0
    runs: int = 0
    """Runs started for this pair so far: part of each run's id, so a repeated input can run again after a failure."""
    early: bool = False
    """True while the run in flight, or the outcome kept from it, is of an input that may not be complete."""


class TaskRepository(Protocol):
    """Rows of (tenant, study, detector)."""

    def get(self, tx: Transaction, tenant: str, study_uid: str, detector: str) -> Task | None:
        """Return the task, or None."""

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> list[Task]:
        """Return all tasks of a study, by detector name."""

    def put(self, tx: Transaction, task: Task) -> None:
        """Insert or update. Raises Conflict on an illegal state change (core.states)."""

    def put_all(self, tx: Transaction, tasks: Sequence[Task]) -> None:
        """``put`` of several tasks of one study, with far fewer statements."""

    def by_run(self, tx: Transaction, run_id: str) -> Task | None:
        """Return the task whose run in flight has this id, or None (superseded, cancelled or unknown)."""

    def by_workitem(self, tx: Transaction, tenant: str, workitem_uid: str) -> Task | None:
        """Return the task that a workitem stands for now, or None."""

    def in_flight(self, tx: Transaction) -> list[Task]:
        """Return all tasks of all tenants that have a run in flight."""

    def search(
        self,
        tx: Transaction,
        tenant: str,
        states: Sequence[AiState] = (),
        *,
        reason: str | None = None,
        limit: int = 100,
    ) -> list[Task]:
        """Return a tenant's tasks, latest change first (empty *states*: any; no *reason*: any)."""


class ResultRepository(Protocol):
    """Result sets by result key; at most one per (study, detector) is current."""

    def put(self, tx: Transaction, result: ResultSet, stored: Sequence[StoredSeries], *, current: bool = True) -> bool:
        """Store a result; the former current one of the pair becomes superseded.

        A known key is kept as it is (False), but a preliminary result is replaced by the final one of the same run.
        """

    def attach(self, tx: Transaction, tenant: str, result_key: str, stored: Sequence[StoredSeries]) -> None:
        """Note the DICOM objects of a result once they are stored. Raises NotFound."""

    def get(self, tx: Transaction, tenant: str, result_key: str) -> tuple[ResultSet, tuple[StoredSeries, ...]] | None:
        """Return a result set by key."""

    def current(self, tx: Transaction, tenant: str, study_uid: str) -> list[tuple[ResultSet, tuple[StoredSeries, ...]]]:
        """Return the current result sets of a study, by detector name."""

    def of_patient(
        self, tx: Transaction, tenant: str, study_uid: str, detector: str
    ) -> tuple[PatientStudy, list[PriorCandidate]] | None:
        """Return the study, and a detector's current results on others of its Patient ID that are not later.

        Newest first, a bounded number. None: no such study, or it names no patient.
        """

    def read_later(self, tx: Transaction, tenant: str, study_uid: str, detector: str) -> list[str]:
        """Return the UIDs of later studies of the same Patient ID on which a detector has a current result."""


class WorkQueue(Protocol):
    """The only door to the durable queue. Always on a named queue, always with a priority (due time)."""

    def enqueue(
        self,
        tx: Transaction,
        *,
        workflow: str,
        workflow_id: str,
        queue: str,
        due: float,
        arguments: Mapping[str, Any],
        delay_seconds: float | None = None,
    ) -> None:
        """Enqueue in the given transaction. The same id again is ignored."""


class QueueSignal(Protocol):
    """Tells a worker that the queue may have changed; a lost signal costs time, never work."""

    def wait(self, seconds: float) -> frozenset[str] | None:
        """Wait for a change, at most so long. Raises Unavailable.

        Returns the queues that were given work, empty when anything may have changed; None: nothing has.
        """
