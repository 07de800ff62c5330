"""What people and UPS clients ask of tasks (``requests``), carried out: cancel, discard, run again, encode again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from wetread.core.errors import NotFound
from wetread.core.events import EventType
from wetread.core.identifiers import digest
from wetread.core.ports.database import Transaction
from wetread.core.ports.work import Task
from wetread.core.priority import Priority, due_at, most_urgent
from wetread.core.states import CANCELLABLE, PENDING, AiState
from wetread.core.workqueue import COMPOSE, detector_lane
from wetread.orchestration import workitems
from wetread.orchestration.announce import Announcer
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.performing import Performing
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.requests import ALLOWED, Verb

_NOTHING: Final = "nothing to do"


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What a request led to. ``cancel``, ``expedite``: runs to stop or to move once it is committed."""

    outcome: str
    cancel: tuple[str, ...] = ()
    expedite: tuple[str, ...] = ()


class Operations:
    """Carries requests out. Each is one transaction; what it leaves to do afterwards is returned."""

    def __init__(self, ports: Ports, rules: Rules, evaluator: Evaluator) -> None:
        self._ports = ports
        self._rules = rules
        self._evaluator = evaluator
        self._conclusions = Conclusions(ports, rules)
        self._announce = Announcer(ports.events, ports.clock)
        self._verbs: dict[Verb, Callable[[Transaction, Task, str, str], Afterwards]] = {
            Verb.CANCEL: self._cancel,
            Verb.DISCARD: self._discard,
            Verb.RERUN: self._rerun,
            Verb.FOLLOW: self._follow,
            Verb.REENCODE: self._reencode,
        }

        performing = Performing(ports, rules, self._conclusions)
        self._offered: dict[Verb, Callable[[Transaction, Task], str]] = {
            Verb.CLAIMED: performing.claimed,
            Verb.UNCLAIMED: performing.unclaimed,
            Verb.OVERDUE: performing.overdue,
            Verb.LEASE_LOST: performing.lease_lost,
            Verb.PERFORMED: performing.performed,
            Verb.GIVEN_UP: performing.given_up,
        }

    def perform(self, tenant: str, study_uid: str, detector: str, verb: str, text: str, reason: str) -> Afterwards:
        """Carry a request out; one whose task has moved on meanwhile does nothing."""
        wanted = Verb(verb)
        self._ports.runner.prepare()
        with self._ports.database.write() as tx:
            if wanted is Verb.REEVALUATE:
                return self._reevaluate(tx, tenant, study_uid)
            if wanted is Verb.EXPEDITE:
                return self._expedite(tx, tenant, study_uid)
            if wanted is Verb.REMOVED:
                return self._removed(tx, tenant, study_uid)
            task = self._ports.tasks.get(tx, tenant, study_uid, detector)
            if wanted in self._offered:
                if task is None or task.run_id is None or task.run_id != reason:
                    return Afterwards(_NOTHING)  # about a run that is over
                return Afterwards(self._offered[wanted](tx, task))
            if task is None or task.state not in ALLOWED[wanted]:
                return Afterwards(_NOTHING)
            return self._verbs[wanted](tx, task, text, reason)

    def finish(self, afterwards: Afterwards) -> None:
        """Do what is left once the transaction is committed: stop runs, move them to another lane."""
        if afterwards.cancel:
            self._ports.control.cancel(afterwards.cancel)
        if afterwards.expedite:
            self._ports.control.move(afterwards.expedite, detector_lane(Priority.STAT))

    # --- verbs -----------------------------------------------------------------------------------------------------

    def _cancel(self, tx: Transaction, task: Task, text: str, reason: str) -> Afterwards:
        run = (task.run_id,) if task.run_id else ()
        self._conclusions.cancel(tx, task, reason, text or "called off by an operator", {})
        return Afterwards("cancelled", cancel=run)

    def _discard(self, tx: Transaction, task: Task, text: str, _reason: str) -> Afterwards:
        """The operator has seen it: no dead letter any more, and still failed, never negative."""
        discarded = replace(
            task,
            reason="discarded",
            detail=f"was {task.reason}{f': {text}' if text else ''}"[:500],
            updated_at=self._ports.clock.now(),
        )
        self._ports.tasks.put(tx, discarded)
        self._announce.task(tx, EventType.TASK_DISCARDED, discarded, {}, cause=str(task.updated_at), text=text)
        return Afterwards("discarded")

    def _rerun(self, tx: Transaction, task: Task, text: str, _reason: str) -> Afterwards:
        data = {"text": text or "run again with the model and the parameters of today"}
        self._announce.task(tx, EventType.TASK_RETRIED, task, {}, cause=f"rerun {task.updated_at}", **data)
        return Afterwards("queued again", cancel=self._evaluator.rerun(tx, task))

    def _follow(self, tx: Transaction, task: Task, _text: str, _reason: str) -> Afterwards:
        """Read again with the earlier results that have come since; when they say nothing new, nothing happens."""
        return Afterwards("looked again", cancel=self._evaluator.rerun(tx, task, unless_same=True))

    def _reencode(self, tx: Transaction, task: Task, _text: str, _reason: str) -> Afterwards:
        if task.result_key is None:
            return Afterwards(_NOTHING)
        now = self._ports.clock.now()
        self._ports.queue.enqueue(
            tx,
            workflow=COMPOSE,
            workflow_id=digest(COMPOSE, task.tenant, task.result_key, "again", now),
            queue="evidence",
            due=due_at(now, Priority.BATCH),
            arguments={"tenant": task.tenant, "result_key": task.result_key, "stamps": {}, "again": True},
        )
        return Afterwards("encoding again")

    def _reevaluate(self, tx: Transaction, tenant: str, study_uid: str) -> Afterwards:
        """Today's rules over the recorded facts: what is read stays read, what they newly want starts."""
        try:
            generation = self._ports.studies.summary(tx, tenant, study_uid).generation
        except NotFound:
            return Afterwards(_NOTHING)
        signal = f"request:re-evaluate:{self._ports.clock.now()}"
        evaluation = self._evaluator.evaluate_in(tx, tenant, study_uid, generation, signal, {})
        for task in self._ports.tasks.of_study(tx, tenant, study_uid):
            self._conclusions.reapply(tx, task)
        return Afterwards("re-evaluated", cancel=evaluation.cancel)

    def _removed(self, tx: Transaction, tenant: str, study_uid: str) -> Afterwards:
        """After a deletion: what is left of the study is evaluated anew; of a deleted study nothing goes on."""
        try:
            generation = self._ports.studies.summary(tx, tenant, study_uid).generation
        except NotFound:
            alive = [t for t in self._ports.tasks.of_study(tx, tenant, study_uid) if t.state in CANCELLABLE]
            for task in alive:
                self._conclusions.cancel(tx, task, "study_deleted", "the study was deleted", {})
            self._ports.watches.delete(tx, tenant, study_uid)
            return Afterwards("stopped", cancel=tuple(task.run_id for task in alive if task.run_id))
        signal = f"request:removed:{self._ports.clock.now()}"
        evaluation = self._evaluator.evaluate_in(tx, tenant, study_uid, generation, signal, {})
        return Afterwards("re-evaluated", cancel=evaluation.cancel)

    def _expedite(self, tx: Transaction, tenant: str, study_uid: str) -> Afterwards:
        """Bring the waiting tasks of a study to the class that it has now; STAT work changes its lane."""
        listed = self._ports.reading.priority(tx, tenant, study_uid)
        if listed is None:
            return Afterwards(_NOTHING)
        moved = []
        for task in self._ports.tasks.of_study(tx, tenant, study_uid):
            priority = most_urgent(task.priority, listed[0])
            if task.state not in PENDING or priority is task.priority or task.priority is Priority.BATCH:
                continue
            raised = replace(task, priority=priority, due_at=listed[1], updated_at=self._ports.clock.now())
            self._ports.tasks.put(tx, raised)
            if task.workitem_uid is not None:
                self._conclusions.update_workitem(tx, raised, workitems.urgency(priority, listed[1]))
            slide = self._ports.runner.detectors()[task.detector].kind == "slide"
            if task.state is AiState.QUEUED and task.run_id and priority is Priority.STAT and not slide:
                moved.append(task.run_id)
        return Afterwards("expedited", expedite=tuple(moved))
