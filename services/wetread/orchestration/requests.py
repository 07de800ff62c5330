"""What people and UPS clients ask of tasks, as rows of the durable queue: the asking half, for any process.

The answering half is ``operations``: it runs where the rules and the detectors are. Each request is enqueued in the
transaction of its caller, under an id of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from wetread.core.errors import Conflict, NotFound
from wetread.core.identifiers import digest
from wetread.core.ports.database import Clock, Database, Transaction
from wetread.core.ports.events import EventLog
from wetread.core.ports.notifications import Deliveries
from wetread.core.ports.work import Task, TaskRepository, WorkQueue
from wetread.core.priority import Priority, due_at
from wetread.core.states import CANCELLABLE, PENDING, READ, RERUNNABLE, AiState
from wetread.core.ups import UpsState
from wetread.core.workqueue import OPERATE


class Verb(StrEnum):
    """What may be asked for. ``retry`` is the worklist's own: it needs nothing but the row."""

    CANCEL = "cancel"
    DISCARD = "discard"
    RERUN = "rerun"
    REENCODE = "re-encode"
    REEVALUATE = "re-evaluate"
    EXPEDITE = "expedite"
    REMOVED = "removed"
    """Not asked for by a person: instances of the study were deleted."""
    FOLLOW = "follow"
    """Nor this: an earlier study of the patient has a result now, which the detector asks for."""
    CLAIMED = "claimed"
    """This and the following: what happened to a workitem that external performers are offered."""
    UNCLAIMED = "unclaimed"
    OVERDUE = "overdue"
    LEASE_LOST = "lease-lost"
    PERFORMED = "performed"
    GIVEN_UP = "given-up"


ALLOWED: Final[dict[Verb, frozenset[AiState]]] = {
    Verb.CANCEL: CANCELLABLE,
    Verb.DISCARD: frozenset({AiState.FAILED}),
    Verb.RERUN: RERUNNABLE,
    Verb.FOLLOW: READ,
    Verb.REENCODE: READ | {AiState.NOT_PROCESSABLE, AiState.PRELIMINARY_POSITIVE},
}
"""States of the task in which each verb makes sense."""


class Offers(Protocol):
    """What is known of workitems that are offered to external performers."""

    def holds(self, tx: Transaction, task: Task) -> bool:
        """Return whether the task's workitem is offered to external performers."""

    def check(self, tx: Transaction, task: Task) -> None:
        """Raise WorkitemStateError (C304) unless the outputs of the task's workitem hold."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Enqueues requests; holds no state."""

    database: Database
    tasks: TaskRepository
    events: EventLog
    queue: WorkQueue
    clock: Clock
    offers: Offers | None = None
    """Known where outside requests come in; elsewhere nothing is claimed."""

    def ask(self, tenant: str, verb: Verb, study_uid: str, detector: str, text: str = "") -> Task:
        """Ask for *verb* on one task and return the task as it is now.

        Raises NotFound, and Conflict when the task's state does not allow it.
        """
        with self.database.write() as tx:
            task = self.tasks.get(tx, tenant, study_uid, detector)
            if task is None:
                msg = "no such task"
                raise NotFound(msg)
            if task.state not in ALLOWED[verb]:
                states = ", ".join(sorted(ALLOWED[verb]))
                msg = f"the task is {task.state}: {verb} is for {states}"
                raise Conflict(msg)
            self.enqueue(tx, tenant, verb, study_uid, detector, text=text)
            return task

    def ask_study(self, tenant: str, verb: Verb, study_uid: str) -> None:
        """Ask for *verb* on a whole study. Raises NotFound for one that no task knows."""
        with self.database.write() as tx:
            if not self.tasks.of_study(tx, tenant, study_uid):
                msg = "no task of such a study"
                raise NotFound(msg)
            self.enqueue(tx, tenant, verb, study_uid)

    def expedite(self, tx: Transaction, tenant: str, study_uid: str) -> None:
        """After a study was raised: have its waiting tasks follow. Nothing is enqueued when none waits."""
        if any(task.state in PENDING for task in self.tasks.of_study(tx, tenant, study_uid)):
            self.enqueue(tx, tenant, Verb.EXPEDITE, study_uid)

    def enqueue(
        self,
        tx: Transaction,
        tenant: str,
        verb: str,
        study_uid: str,
        detector: str = "",
        *,
        text: str = "",
        reason: str = "operator",
        delay_seconds: float | None = None,
    ) -> None:
        """Enqueue a request in the caller's transaction."""
        number = self.events.latest(tx)
        now = self.clock.now()
        self.queue.enqueue(
            tx,
            workflow=OPERATE,
            # Two requests at one instant that change nothing in between are one request.
            workflow_id=digest(OPERATE, tenant, study_uid, detector, verb, number, now),
            queue="control",
            due=due_at(now, Priority.STAT),
            arguments={
                "tenant": tenant,
                "study_uid": study_uid,
                "detector": detector,
                "verb": str(verb),
                "text": text[:200],
                "reason": reason,
            },
            delay_seconds=delay_seconds,
        )

    def about(self, tx: Transaction, task: Task, verb: Verb, *, delay_seconds: float | None = None) -> None:
        """Enqueue what happened, or may have happened by then, to an offered workitem; it names the run."""
        self.enqueue(
            tx, task.tenant, verb, task.study_uid, task.detector, reason=task.run_id or "", delay_seconds=delay_seconds
        )

    # --- UPS (hooks of the worklist service, in the transaction of the outside request) ----------------------------

    def cancel_requested(self, tx: Transaction, tenant: str, workitem_uid: str) -> bool:
        """A UPS client asks to cancel a running task of ours (PS3.4 CC.2.2). False: there is nothing to stop."""
        task = self.tasks.by_workitem(tx, tenant, workitem_uid)
        if task is None or task.state not in CANCELLABLE:
            return False
        self._cancel(tx, task)
        return True

    def workitem_changed(self, tx: Transaction, tenant: str, workitem_uid: str, state: UpsState) -> None:
        """A UPS client has changed the state of a workitem that stands for a task of ours.

        Only tasks of external performers can be claimed from outside: ours are cancelled at most. Raises
        WorkitemStateError (C304) when a performer completes with outputs that do not hold.
        """
        task = self.tasks.by_workitem(tx, tenant, workitem_uid)
        if task is None or task.state not in CANCELLABLE:
            return
        if self.offers is None or not self.offers.holds(tx, task):
            if state is UpsState.CANCELED:
                self._cancel(tx, task)
            return
        if state is UpsState.COMPLETED:
            self.offers.check(tx, task)
        verb = {
            UpsState.IN_PROGRESS: Verb.CLAIMED,
            UpsState.COMPLETED: Verb.PERFORMED,
            UpsState.CANCELED: Verb.GIVEN_UP,
        }
        if state in verb:
            self.about(tx, task, verb[state])

    def performers_silent(self, silent: Sequence[tuple[str, str]]) -> None:
        """External performers have missed their lease: (tenant, workitem UID) of each."""
        with self.database.write() as tx:
            for tenant, workitem_uid in silent:
                task = self.tasks.by_workitem(tx, tenant, workitem_uid)
                if task is not None:
                    self.about(tx, task, Verb.LEASE_LOST)

    def _cancel(self, tx: Transaction, task: Task) -> None:
        text = "called off on the worklist"
        self.enqueue(tx, task.tenant, Verb.CANCEL, task.study_uid, task.detector, text=text, reason="ups_request")


@dataclass(frozen=True, slots=True)
class Renotification:
    """Tells receivers again what they may have lost; the ids of the events are those of the first time."""

    database: Database
    events: EventLog
    deliveries: Deliveries
    clock: Clock

    def since(self, tenant: str, after: int) -> tuple[int, int]:
        """Deliver the events after a cursor to the webhooks anew; returns how many events and deliveries."""
        told = sent = 0
        while True:
            with self.database.write() as tx:  # a page at a time: nobody waits long for the write lock
                page = self.events.after(tx, tenant, after, limit=200)
                sent += sum(self.deliveries.again(tx, event, now=self.clock.now()) for event in page)
            told += len(page)
            if len(page) < 200:
                return told, sent
            after = page[-1].cursor
