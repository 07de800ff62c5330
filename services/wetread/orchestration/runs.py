"""Applies plans to tasks: waiting, starting, promoting, superseding. One transaction per evaluation.

What a plan means depends on what the pair already is; the table of ``core.states`` has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from wetread.core.completeness import Timing
from wetread.core.events import EventType
from wetread.core.findings import ResultSet
from wetread.core.identifiers import digest
from wetread.core.ports.database import Transaction
from wetread.core.ports.inference import DetectorInfo, RunRequest
from wetread.core.ports.orchestration import RunInput
from wetread.core.ports.work import Task
from wetread.core.priority import Priority, due_at, most_urgent
from wetread.core.states import BY_PERSON, FINAL, READ, AiState
from wetread.core.workqueue import RUN, detector_lane
from wetread.orchestration import workitems
from wetread.orchestration.announce import Announcer, Stamps
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.plan import Plan, StudyPlan, Verdict
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.requests import Requests, Verb
from wetread.orchestration.unanswered import unanswered

S = AiState
IN_FLIGHT: Final = frozenset({S.QUEUED, S.RUNNING})
_BACKOFF_SECONDS: Final = (0.0, 0.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Wait before a pair's n-th run: the first after an early one starts at once, then late images are damped."""
_NOT_READY: Final[workitems.Json] = {}


@dataclass(frozen=True, slots=True)
class Situation:
    """What one evaluation knows beside the plans."""

    study: StudyPlan
    tasks: Mapping[str, Task]
    """What is there of the study, by detector."""
    timing: Timing
    arriving_since: float
    """Unix seconds of the study's first commit."""
    transfer_open: bool
    """Nothing has yet said that the sender finished or paused."""
    stamps: Stamps
    now: float


class Runs:
    """Turns plans into changed tasks, workitems and queued work; collects the ids of runs to cancel afterwards."""

    def __init__(self, ports: Ports, rules: Rules, conclusions: Conclusions) -> None:
        self._ports = ports
        self._rules = rules
        self._conclusions = conclusions
        self._announce = Announcer(ports.events, ports.clock)
        self._requests = Requests(ports.database, ports.tasks, ports.events, ports.queue, ports.clock)

    def apply(self, tx: Transaction, situation: Situation) -> list[str]:
        """Apply all plans. Returns ids of runs that are to be cancelled once the transaction is committed."""
        begun, left_out, cancelled = [], [], []
        for plan in situation.study.plans:
            task = situation.tasks.get(plan.detector)
            if plan.verdict is Verdict.NOT_WANTED:
                left_out.append((plan, task))
            elif plan.verdict is Verdict.WAIT and not plan.wanted and task is None:
                begun.append(plan)
            else:
                cancelled += self._apply(tx, plan, task, situation)
        self._begin(tx, begun, situation)
        return cancelled + self._leave_out(tx, left_out, situation)

    def _apply(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> list[str]:
        if task is not None and task.state is S.CANCELLED and task.reason in BY_PERSON:
            return []
        if plan.verdict is Verdict.WAIT:
            return self._wait(tx, plan, task, situation)
        if plan.verdict in {Verdict.REFUSED, Verdict.BROKEN}:
            return self._without_input(tx, plan, task, situation)
        return self._run(tx, plan, task, situation)

    def restart(self, tx: Transaction, plan: Plan, task: Task, situation: Situation) -> list[str]:
        """Run a finished pair again because somebody asked: in the batch lane, with the detector of today.

        An input that this very detector has read with these parameters is not read again: its result stands.
        """
        batch = replace(plan, priority=Priority.BATCH)
        return self._start(tx, batch, replace(task, priority=Priority.BATCH, early=False), situation)

    # --- waiting and not wanted ------------------------------------------------------------------------------------

    def _wait(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> list[str]:
        if task is None or (task.state is S.NOT_APPLICABLE and plan.wanted and task.input_digest != plan.digest):
            task = self._put(tx, self._fresh(tx, plan, task, situation), S.AWAITING_IMAGES, plan.detail, situation)
        if task.state is S.AWAITING_IMAGES and plan.wanted:
            owned = self._owned(tx, plan, task, situation)
            scheduled = self._schedule(tx, owned, owned.runs + 1, situation)
            if scheduled != task:
                self._put(tx, scheduled, S.AWAITING_IMAGES, plan.detail, situation)
        return []

    def _begin(self, tx: Transaction, plans: Sequence[Plan], situation: Situation) -> None:
        """Pairs that nothing wants yet: of most studies all but one or two, so their rows are written at once."""
        begun = [
            replace(self._fresh(tx, plan, None, situation), detail=plan.detail[:500], updated_at=situation.now)
            for plan in plans
        ]
        self._ports.tasks.put_all(tx, begun)

    def _leave_out(self, tx: Transaction, plans: Sequence[tuple[Plan, Task | None]], situation: Situation) -> list[str]:
        """Pairs that nothing wants: most pairs of most studies, so all at once."""
        tasks, cancelled = [], []
        for plan, task in plans:
            if task is None:
                base = self._fresh(tx, plan, None, situation)
            elif task.state in FINAL or task.state is S.PRELIMINARY_POSITIVE:
                continue
            else:
                base = replace(task, run_id=None)
                cancelled += [task.run_id] if task.run_id else []
            base = replace(base, state=S.NOT_APPLICABLE, reason=plan.reason, detail=plan.detail[:500])
            tasks.append(replace(base, input_digest=plan.digest, updated_at=situation.now))
        self._ports.tasks.put_all(tx, tasks)
        self._announce.tasks(tx, EventType.TASK_FINISHED, tasks, situation.stamps)
        for task in tasks:
            self._conclusions.end_workitem(tx, task, ())
        return cancelled

    def _without_input(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> list[str]:
        """The data refuse (a report says so), or the detector's own selection is broken (failed)."""
        if task is not None and (task.state in FINAL and (task.input_digest == plan.digest or task.state in READ)):
            return []
        base = task or self._put(tx, self._fresh(tx, plan, None, situation), S.AWAITING_IMAGES, "", situation)
        cancelled = [base.run_id] if base.run_id else []
        base = replace(self._owned(tx, plan, base, situation), run_id=None, input_digest=plan.digest, early=False)
        if base.state in FINAL:  # refused before, on fewer images: a new workitem tells of the new attempt
            base = self._put(tx, replace(base, workitem_uid=None), S.AWAITING_IMAGES, "", situation)
        base = self._schedule(tx, replace(base, runs=base.runs + 1), base.runs + 1, situation)
        if plan.verdict is Verdict.BROKEN:
            self._conclusions.fail(tx, base, plan.reason, plan.detail, situation.stamps)
        else:
            self._conclusions.conclude(tx, base, self._refusal(base, plan, situation.now), situation.stamps)
        return cancelled

    # --- running ---------------------------------------------------------------------------------------------------

    def _run(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> list[str]:
        same = task is not None and task.input_digest == plan.digest
        if task is None or task.state is S.AWAITING_IMAGES:
            if plan.complete and task is not None and same and task.result_key:
                self._promote(tx, self._owned(tx, plan, task, situation), plan, situation)
                return []
            if plan.complete or self._early_allowed(task, situation):
                return self._start(tx, plan, task, situation)
            return self._wait(tx, plan, task, situation)
        if same:
            self._confirm(tx, plan, task, situation)
            return []
        if not plan.complete:
            return self._reopen_unwanted(tx, plan, task, situation)
        return self._start(tx, plan, task, situation)

    def _reopen_unwanted(self, tx: Transaction, plan: Plan, task: Task, situation: Situation) -> list[str]:
        """Images that make an excluded pair wanted after all put it back to AI pending at once."""
        if task.state is S.NOT_APPLICABLE and task.runs == 0:
            return self._wait(tx, plan, task, situation)
        return []

    def _confirm(self, tx: Transaction, plan: Plan, task: Task, situation: Situation) -> None:
        """The input is the one already run or running; when it is complete now, the outcome is final."""
        if not plan.complete or not task.early:
            return
        if task.state in IN_FLIGHT:
            self._ports.tasks.put(tx, replace(task, early=False, updated_at=situation.now))
        elif task.state is S.PRELIMINARY_POSITIVE:
            self._promote(tx, task, plan, situation)

    def _promote(self, tx: Transaction, task: Task, plan: Plan, situation: Situation) -> None:
        """The early result is final without a second run: its input turned out to be the complete one."""
        assert task.result_key is not None
        known = self._ports.results.get(tx, task.tenant, task.result_key)
        if known is None:
            self._start(tx, plan, task, situation)
            return
        if task.state is S.AWAITING_IMAGES:  # along the table: waiting -> queued -> outcome
            task = self._put(tx, task, S.QUEUED, "", situation)
        self._conclusions.conclude(tx, replace(task, early=False), known[0], situation.stamps, flags=_flags(plan))

    def _early_allowed(self, task: Task | None, situation: Situation) -> bool:
        """One early run per pair; inside an open transfer only when that has lasted a while."""
        if not situation.timing.early or (task is not None and task.runs > 0):
            return False
        waited = situation.now - situation.arriving_since
        return not situation.transfer_open or waited >= situation.timing.early_after

    def _start(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> list[str]:
        assert plan.chosen is not None
        assert plan.spec is not None
        cancelled: list[str] = []
        base = self._owned(tx, plan, task, situation) if task else self._fresh(tx, plan, None, situation)
        if task is not None and task.state not in {S.AWAITING_IMAGES, S.NOT_APPLICABLE}:
            cancelled = self._supersede_run(tx, task)
            base = replace(base, workitem_uid=None)
        info = self._ports.runner.detectors()[plan.detector]
        run = base.runs + 1
        request = self.request(base, info, plan.chosen.series_instance_uid, plan.digest, situation.now)
        queued = replace(
            base,
            version=info.version,
            input_digest=plan.digest,
            result_key=self._ports.runner.result_key(request),
            run_id=digest(RUN, base.tenant, base.study_uid, base.detector, info.version, plan.digest, run),
            runs=run,
            attempt=0,
            progress=0,
            early=not plan.complete,
        )
        ready = self._ready(queued, plan, situation)
        if queued.workitem_uid is None:
            queued = self._schedule(tx, queued, run, situation, ready)
        else:
            self._conclusions.update_workitem(tx, queued, ready)
        queued = self._put(tx, queued, S.QUEUED, "", situation)
        given = RunInput(
            tenant=queued.tenant,
            digest=plan.digest,
            study_uid=queued.study_uid,
            series_uid=plan.chosen.series_instance_uid,
            sop_instance_uids=plan.chosen.sop_instance_uids,
            priors=plan.priors,
        )
        self._ports.inputs.put(tx, given)
        self._announce.task(tx, EventType.TASK_QUEUED, queued, situation.stamps, early=queued.early)
        known = self._ports.results.get(tx, queued.tenant, queued.result_key or "")
        if known is not None:  # this very input was read before: its result stands, nothing runs
            self._conclusions.conclude(tx, queued, known[0], situation.stamps, flags=_flags(plan))
            return cancelled
        if plan.spec.external:
            limit = plan.workflow.model.timeout if plan.workflow else 3600.0
            self._requests.about(tx, queued, Verb.UNCLAIMED, delay_seconds=plan.spec.claim_within or limit)
            return cancelled
        self.enqueue(tx, queued, plan.spec.timeout or info.manifest.resources.timeout_s, situation.stamps, _flags(plan))
        return cancelled

    def enqueue(self, tx: Transaction, task: Task, timeout: float, stamps: Stamps, flags: tuple[str, ...] = ()) -> None:
        """Queue the durable run of a task that is ``queued``."""
        assert task.run_id is not None
        workflow = self._rules.workflow(task.workflow)
        name = workflow.task_of(task.detector) if workflow else None
        retries = workflow.model.tasks[name].retries if workflow and name else None
        backoff = _BACKOFF_SECONDS[min(task.runs - 1, len(_BACKOFF_SECONDS) - 1)]
        self._ports.queue.enqueue(
            tx,
            workflow=RUN,
            workflow_id=task.run_id,
            queue=detector_lane(task.priority, slide=self._ports.runner.detectors()[task.detector].kind == "slide"),
            due=task.due_at,
            arguments={
                "run_id": task.run_id,
                "timeout_seconds": timeout,
                "attempts": 1 + (retries.max if retries else 3),
                "backoff_seconds": retries.backoff if retries else 0.5,
                "flags": list(flags),
                "stamps": dict(stamps),
            },
            delay_seconds=max(backoff, self._rules.early_settle_seconds if task.early else 0.0) or None,
        )

    def request(self, task: Task, info: DetectorInfo, series_uid: str, input_digest: str, now: float) -> RunRequest:
        """Return what identifies a run; the instances are located when it starts."""
        return RunRequest(
            tenant=task.tenant,
            study_uid=task.study_uid,
            series_uid=series_uid,
            detector=info.name,
            version=info.version,
            instances=(),
            parameters=self.parameters(task, info),
            rules_digest=self._rules.digest,
            input_digest=input_digest,
            started_at=now,
            shadow=task.shadow,
        )

    def parameters(self, task: Task, info: DetectorInfo) -> Mapping[str, Any]:
        """Return the manifest's parameters with the workflow's ``with`` over them."""
        workflow = self._rules.workflow(task.workflow)
        name = workflow.task_of(task.detector) if workflow else None
        chosen = workflow.model.tasks[name].parameters if workflow and name else {}
        return {**info.manifest.parameters, **chosen}

    # --- parts -----------------------------------------------------------------------------------------------------

    def _fresh(self, tx: Transaction, plan: Plan, task: Task | None, situation: Situation) -> Task:
        study = situation.study.study
        info = self._ports.runner.detectors()[plan.detector]
        blank = Task(
            study.tenant,
            study.study_instance_uid,
            plan.detector,
            info.version,
            S.AWAITING_IMAGES,
            priority=plan.priority,
        )
        kept = task or blank
        return self._owned(tx, plan, replace(kept, reason=None, workitem_uid=None), situation)

    def _owned(self, tx: Transaction, plan: Plan, task: Task, situation: Situation) -> Task:
        """Return the task with the owner, class and due time that hold now.

        A class only rises, to that of the study on the worklist; batch work stays batch.
        """
        study = situation.study.study
        priority = task.priority
        if plan.wanted and plan.priority is not Priority.BATCH:
            listed = self._ports.reading.priority(tx, task.tenant, task.study_uid)
            priority = most_urgent(task.priority, plan.priority, *([listed[0]] if listed else []))
        info = self._ports.runner.detectors()[plan.detector]
        shadow = (plan.spec.shadow if plan.spec else False) or info.card.shadow
        workflow = f"{plan.workflow.name}@{plan.workflow.model.version}" if plan.workflow else task.workflow
        due = due_at(study.received_at, priority)
        return replace(task, workflow=workflow, priority=priority, due_at=due, shadow=shadow)

    def _put(
        self, tx: Transaction, task: Task, state: AiState, detail: str, situation: Situation, reason: str | None = None
    ) -> Task:
        changed = replace(task, state=state, reason=reason, detail=detail[:500], updated_at=situation.now)
        self._ports.tasks.put(tx, changed)
        return changed

    def _schedule(
        self, tx: Transaction, task: Task, number: int, situation: Situation, ready: workitems.Json = _NOT_READY
    ) -> Task:
        """Give the task its *number*-th workitem unless it has one. *ready*: what is known of its input."""
        if task.workitem_uid is None:
            uid = workitems.workitem_uid(task.tenant, task.study_uid, task.detector, number)
            info = self._ports.runner.detectors()[task.detector]
            summary = self._ports.studies.summary(tx, task.tenant, task.study_uid)
            dataset = workitems.scheduled(task, info, summary, now=situation.now, label=self._label(task))
            self._ports.workitems.schedule(tx, task.tenant, uid, {**dataset, **ready})
            task = replace(task, workitem_uid=uid)
        return task

    def _label(self, task: Task) -> str:
        """Return the worklist (0074,1202) that a task is on: external performers look for theirs."""
        workflow = self._rules.workflow(task.workflow)
        name = workflow.task_of(task.detector) if workflow else None
        if workflow is None or name is None or not workflow.model.tasks[name].external:
            return workitems.OWN_WORKLIST
        return workflow.model.tasks[name].label or workflow.name

    def _ready(self, task: Task, plan: Plan, situation: Situation) -> workitems.Json:
        """Return what a workitem says once its input is chosen."""
        assert plan.chosen is not None
        wanted = set(plan.chosen.sop_instance_uids)
        selected = [
            (
                s.series_instance_uid,
                {i.sop_instance_uid: i.sop_class_uid for i in s.instances if i.sop_instance_uid in wanted},
            )
            for s in situation.study.study.series
        ]
        attributes = workitems.ready(task.study_uid, [(uid, classes) for uid, classes in selected if classes])
        return attributes | workitems.urgency(task.priority, task.due_at)

    def _supersede_run(self, tx: Transaction, task: Task) -> list[str]:
        """End the workitem of a run whose input is no longer the input; return its id when it is in flight."""
        if task.state in IN_FLIGHT or task.state is S.PRELIMINARY_POSITIVE:
            info = self._ports.runner.detectors()[task.detector]
            ending = workitems.Ending(task.study_uid, info, self._ports.clock.now(), self._ports.clock.now())
            attributes = workitems.canceled(ending, "superseded", "more images arrived")
            if task.workitem_uid is not None:
                self._conclusions.finish_workitem(tx, task, completed=False, attributes=attributes)
        return [task.run_id] if task.run_id else []

    def _refusal(self, task: Task, plan: Plan, now: float) -> ResultSet:
        """Return the result that says why nothing could be run: it gets a report like any other."""
        info = self._ports.runner.detectors()[plan.detector]
        request = self.request(task, info, "", plan.digest, now)
        return unanswered(
            task,
            info,
            key=self._ports.runner.result_key(request),
            parameters=request.parameters,
            rules_digest=self._rules.digest,
            now=now,
            state=S.NOT_PROCESSABLE,
            reason=plan.reason,
            detail=plan.detail,
        )


def _flags(plan: Plan) -> tuple[str, ...]:
    return ("forced",) if plan.judgement is not None and plan.judgement.forced else ()
