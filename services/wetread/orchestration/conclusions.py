"""What follows from an outcome: the state, the stored result, triage, events and the report to write.

Everything happens in one transaction. A positive finding is told here, right after inference: the DICOM objects follow
(``compose``), because a reader must not wait for encodings to know that a study is dangerous.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from wetread.core import tracing
from wetread.core.errors import NotFound, WorkitemStateError
from wetread.core.events import EventType
from wetread.core.facts import StudyFacts
from wetread.core.findings import Finding, ResultSet, StoredSeries
from wetread.core.identifiers import digest
from wetread.core.ports.database import Transaction
from wetread.core.ports.events import Reason
from wetread.core.ports.work import Task
from wetread.core.states import READ, REASONED, AiState
from wetread.core.workflow import Consequence
from wetread.core.workqueue import COMPOSE, EVALUATE
from wetread.orchestration import workitems
from wetread.orchestration.announce import Announcer, Stamps
from wetread.orchestration.namespace import namespace, results_of, source_study
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.requests import Requests, Verb
from wetread.orchestration.unanswered import unanswered

_POSITIVE = frozenset({AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE})


class Conclusions:
    """Applies outcomes of runs to tasks, results, reading order and workitems."""

    def __init__(self, ports: Ports, rules: Rules) -> None:
        self._ports = ports
        self._rules = rules
        self._announce = Announcer(ports.events, ports.clock)
        self._requests = Requests(ports.database, ports.tasks, ports.events, ports.queue, ports.clock)

    def conclude(
        self,
        tx: Transaction,
        task: Task,
        result: ResultSet,
        stamps: Stamps,
        *,
        flags: Iterable[str] = (),
        stored: tuple[StoredSeries, ...] = (),
    ) -> Task:
        """Apply a result. ``task.early`` says whether its input may still grow; the former state is the stored one.

        An early run that is not positive leaves the pair at AI pending: only the complete set may say "negative".
        ``stored``: objects that the study holds already, of an external performer; no report of ours is written then.
        """
        quality = tuple(dict.fromkeys((*result.quality, *flags)))
        run = result.run.model_copy(update={"detector": task.detector})  # of a fan-out: the pair
        result = result.model_copy(update={"quality": quality, "run": run})
        former = self._current(tx, task)
        if task.early and result.state not in _POSITIVE:
            self._ports.results.put(tx, _preliminary(result), (), current=False)
            return self._put(tx, task, AiState.AWAITING_IMAGES, result, early=True)
        final = _preliminary(result) if task.early else _final(result)
        self._ports.results.put(tx, final, stored)
        task = self._put(tx, task, final.state, final, early=task.early)
        first = former is None or former.run.result_key != final.run.result_key
        if former is not None and first:
            self._announce.superseded(tx, former, final, stamps)
        if not task.shadow:
            self._tell(tx, task, final, former, stamps)
        if not task.early:
            kind = EventType.TASK_FAILED if final.state is AiState.FAILED else EventType.TASK_FINISHED
            self._announce.task(tx, kind, task, stamps)
            self._wake_dependants(tx, task)
            self._follow(tx, task, final)
        self._report(tx, task, final, stamps)
        return task

    def fail(
        self, tx: Transaction, task: Task, reason: str, detail: str, stamps: Stamps, *, dead: bool = False
    ) -> None:
        """End a run that gave no result: ``failed(reason)``. *dead*: every attempt was used up."""
        if task.state is AiState.PRELIMINARY_POSITIVE or task.state in READ:
            return
        failed = replace(
            task,
            state=AiState.FAILED,
            reason=reason,
            detail=detail[:500],
            run_id=None,
            updated_at=self._ports.clock.now(),
        )
        result = self._failure(tx, failed)
        if result is not None:
            failed = replace(failed, result_key=result.run.result_key, early=False)
        self._ports.tasks.put(tx, failed)
        self._announce.task(tx, EventType.TASK_FAILED, failed, stamps, detail=failed.detail)
        if dead:
            self._announce.task(tx, EventType.TASK_DEAD, failed, stamps, detail=failed.detail)
        if result is None:
            self.end_workitem(tx, failed, ())
        else:  # the workitem ends when the report is stored, and names it
            former = self._current(tx, failed)
            self._ports.results.put(tx, result, ())
            if former is not None and former.run.result_key != result.run.result_key:
                self._announce.superseded(tx, former, result, stamps)
            self._report(tx, failed, result, stamps)
        self._wake_dependants(tx, failed)

    def cancel(self, tx: Transaction, task: Task, reason: str, detail: str, stamps: Stamps) -> None:
        """End a run that somebody called off: ``cancelled(reason)``."""
        changed = replace(
            task, state=AiState.CANCELLED, reason=reason, detail=detail, run_id=None, updated_at=self._ports.clock.now()
        )
        self._ports.tasks.put(tx, changed)
        self._announce.task(tx, EventType.TASK_FINISHED, changed, stamps)
        self.end_workitem(tx, changed, ())
        self._wake_dependants(tx, changed)

    def reapply(self, tx: Transaction, task: Task) -> None:
        """Raise the study by today's rules for a positive result that stands; nobody is told again."""
        result = self._current(tx, task)
        if result is not None and not task.shadow and _positives(result):
            self._raise(tx, task, result, self._consequences(tx, task), {})

    def stored(
        self, tx: Transaction, tenant: str, result_key: str, stored: tuple[StoredSeries, ...], stamps: Stamps
    ) -> None:
        """Note that the report of a result is in the study; end the workitem when the result is final."""
        self._ports.results.attach(tx, tenant, result_key, stored)
        known = self._ports.results.get(tx, tenant, result_key)
        assert known is not None
        result = known[0]
        task = self._ports.tasks.get(tx, tenant, result.run.study_uid, result.run.detector)
        self._announce.result_ready(tx, result, stored, stamps)
        if task is not None and task.result_key == result_key and not task.early and task.run_id is None:
            self.end_workitem(tx, task, stored)

    def end_workitem(self, tx: Transaction, task: Task, stored: tuple[StoredSeries, ...]) -> None:
        """Bring the task's workitem to the final state of the task's state."""
        if task.workitem_uid is None:
            return
        info = self._ports.runner.detectors()[task.detector]
        now = self._ports.clock.now()
        try:
            facts = self._ports.studies.facts(tx, task.tenant, task.study_uid)
        except NotFound:  # the study was deleted: its workitems end all the same
            facts = StudyFacts(task.tenant, task.study_uid, ())
        known = self._ports.results.get(tx, task.tenant, task.result_key) if task.result_key else None
        ending = workitems.Ending(
            study_uid=task.study_uid,
            info=info,
            started=known[0].run.started_at if known else now,
            ended=now,
            stored=stored,
            sop_classes={i.sop_instance_uid: i.sop_class_uid for s in facts.series for i in s.instances},
        )
        completed = task.state in READ
        attributes = (
            workitems.completed(ending)
            if completed
            else workitems.canceled(ending, task.reason or str(task.state), task.detail)
        )
        self.finish_workitem(tx, task, completed=completed, attributes=attributes)

    def update_workitem(self, tx: Transaction, task: Task, attributes: workitems.Json) -> None:
        """Change a workitem that waits or runs; one that somebody else has ended stays as it is."""
        assert task.workitem_uid is not None
        try:
            self._ports.workitems.update(tx, task.tenant, task.workitem_uid, attributes)
        except WorkitemStateError:
            return

    def finish_workitem(self, tx: Transaction, task: Task, *, completed: bool, attributes: workitems.Json) -> None:
        """End a workitem; one that somebody else has ended stays as it is."""
        assert task.workitem_uid is not None
        try:
            self._ports.workitems.finish(tx, task.tenant, task.workitem_uid, completed=completed, attributes=attributes)
        except WorkitemStateError:
            return

    def _failure(self, tx: Transaction, task: Task) -> ResultSet | None:
        """Return the result that says that the detector failed; None when no study is left to say it in."""
        try:
            facts = self._ports.studies.facts(tx, task.tenant, task.study_uid)
        except NotFound:
            return None
        if not source_study(facts).series:
            return None
        info = self._ports.runner.detectors()[task.detector]
        return unanswered(
            task,
            info,
            key=digest(task.tenant, task.study_uid, task.detector, task.input_digest, task.runs),
            parameters=info.manifest.parameters,
            rules_digest=self._rules.digest,
            now=task.updated_at,
            state=AiState.FAILED,
            reason=task.reason or "crashed",
            detail=task.detail,
        )

    # --- parts -----------------------------------------------------------------------------------------------------

    def _current(self, tx: Transaction, task: Task) -> ResultSet | None:
        results = self._ports.results.current(tx, task.tenant, task.study_uid)
        return next((r for r, _ in results if r.run.detector == task.detector), None)

    def _put(self, tx: Transaction, task: Task, state: AiState, result: ResultSet, *, early: bool) -> Task:
        changed = replace(
            task,
            state=state,
            reason=result.reason if state in REASONED else None,
            detail=result.detail if state in REASONED else "",
            result_key=result.run.result_key,
            early=early,
            run_id=None,
            progress=100,
            updated_at=self._ports.clock.now(),
        )
        self._ports.tasks.put(tx, changed)
        return changed

    def _tell(self, tx: Transaction, task: Task, result: ResultSet, former: ResultSet | None, stamps: Stamps) -> None:
        """Raise the study, tell positives once, and take back what was told and no longer holds."""
        told = _positives(former)
        now_positive = _positives(result)
        if now_positive:
            known = former is not None and former.run.result_key == result.run.result_key
            consequences = self._consequences(tx, task)
            channels = [c.notify for c in consequences if c.notify]
            if not known:
                self._raise(tx, task, result, consequences, stamps)
            for code, finding in now_positive.items():
                if code not in told or known:  # the same result again gives the same event id
                    data = {"notify": channels, "reason": next((c.reason for c in consequences if c.reason), "")}
                    self._announce.finding(tx, EventType.FINDING_POSITIVE, result, finding, data, stamps)
        if former is not None:
            for code, finding in told.items():
                if code not in now_positive:
                    data = {"retracts": former.run.result_key}
                    self._announce.finding(tx, EventType.FINDING_RETRACTED, result, finding, data, stamps)

    def _consequences(self, tx: Transaction, task: Task) -> list[Consequence]:
        workflow = self._rules.workflow(task.workflow)
        if workflow is None or not workflow.triage:
            return []
        tasks = self._ports.tasks.of_study(tx, task.tenant, task.study_uid)
        current = [r for r, _ in self._ports.results.current(tx, task.tenant, task.study_uid)]
        facts = source_study(self._ports.studies.facts(tx, task.tenant, task.study_uid))
        names = namespace(
            facts,
            now=self._ports.clock.now(),
            zone=self._rules.zone,
            results=results_of(workflow.detectors, tasks, current),
        )
        return [then for condition, then in workflow.triage if condition.evaluate(names) is True]

    def _raise(
        self, tx: Transaction, task: Task, result: ResultSet, consequences: list[Consequence], stamps: Stamps
    ) -> None:
        finding = next((f for f in result.findings if f.state == "positive"), None)
        for then in consequences:
            if then.raise_to is None:
                continue
            reason = Reason(
                source="ai",
                text=then.reason or (finding.code.meaning if finding else f"{task.detector} positive"),
                priority=then.raise_to,
                at=self._ports.clock.now(),
                detector=task.detector,
                finding_id=finding.finding_id if finding else None,
            )
            attributes = {"wetread.priority": str(then.raise_to), "wetread.detector": task.detector}
            with tracing.span("worklist.raise", attributes=attributes) as span:
                raised = self._ports.reading.raise_to(tx, task.tenant, task.study_uid, reason, stamps)
                span.set("wetread.raised", raised)
                if raised:
                    self._requests.expedite(tx, task.tenant, task.study_uid)

    def _report(self, tx: Transaction, task: Task, result: ResultSet, stamps: Stamps) -> None:
        """Queue the report; when it is there already (an early result was promoted), end the workitem now."""
        known = self._ports.results.get(tx, task.tenant, result.run.result_key)
        stored = known[1] if known else ()
        if stored:
            self._announce.result_ready(tx, result, stored, stamps)
            if not task.early:
                self.end_workitem(tx, task, stored)
            return
        self._ports.queue.enqueue(
            tx,
            workflow=COMPOSE,
            workflow_id=digest(COMPOSE, task.tenant, result.run.result_key),
            queue="evidence",
            due=task.due_at,
            arguments={"tenant": task.tenant, "result_key": result.run.result_key, "stamps": dict(stamps)},
        )

    def _wake_dependants(self, tx: Transaction, task: Task) -> None:
        """Re-evaluate the study when another task of the workflow needs this one."""
        workflow = self._rules.workflow(task.workflow)
        name = workflow.task_of(task.detector) if workflow else None
        if workflow is None or name is None:
            return
        needed = any(name in s.needs and s.detector for s in workflow.model.tasks.values())
        if not needed and workflow.model.tasks[name].on_failure == "continue":
            return
        try:
            generation = self._ports.studies.summary(tx, task.tenant, task.study_uid).generation
        except NotFound:
            return
        cause = f"request:{task.detector}:{task.runs}"
        self._ports.queue.enqueue(
            tx,
            workflow=EVALUATE,
            workflow_id=digest(EVALUATE, task.tenant, task.study_uid, generation, cause),
            queue="control",
            due=task.due_at,
            arguments={
                "tenant": task.tenant,
                "study_uid": task.study_uid,
                "generation": generation,
                "signal": cause,
                "stamps": {},
            },
        )

    def _follow(self, tx: Transaction, task: Task, result: ResultSet) -> None:
        """Have the patient's later studies looked at again, which this one is an earlier result of.

        And this one, when an earlier study was read while it was: what it was handed had been sealed before.
        """
        needs = self._ports.runner.detectors()[task.detector].manifest.input.priors
        if needs is None or result.state not in READ:
            return
        about = (tx, task.tenant, task.study_uid, task.detector)
        later = self._ports.results.read_later(*about)
        found = self._ports.results.of_patient(*about)
        handed = {prior.study_uid for prior in result.run.priors.results} if result.run.priors else set()
        missed = found is not None and any(c.study.study_uid not in handed for c in found[1])
        for study_uid in [*later, *([task.study_uid] if missed else [])]:
            self._requests.enqueue(tx, task.tenant, Verb.FOLLOW, study_uid, task.detector)


def _positives(result: ResultSet | None) -> dict[str, Finding | None]:
    """Return the positive findings of a result by code; a positive result without any has one without a code."""
    if result is None or result.state not in _POSITIVE or result.run.shadow:
        return {}
    found: dict[str, Finding | None] = {f.code.value: f for f in result.findings if f.state == "positive"}
    return found or {"": None}


def _preliminary(result: ResultSet) -> ResultSet:
    state = AiState.PRELIMINARY_POSITIVE if result.state in _POSITIVE else result.state
    findings = tuple(f.model_copy(update={"preliminary": True}) for f in result.findings)
    return result.model_copy(update={"preliminary": True, "state": state, "findings": findings})


def _final(result: ResultSet) -> ResultSet:
    state = AiState.POSITIVE if result.state in _POSITIVE else result.state
    findings = tuple(f.model_copy(update={"preliminary": False}) for f in result.findings)
    return result.model_copy(update={"preliminary": False, "state": state, "findings": findings})
