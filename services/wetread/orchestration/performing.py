"""The life of an offered task: claimed, silent, overdue, performed or given up by an external performer.

Runs in the orchestration, on what ``offers`` noted in the transaction of the outside request. The row decides whether
a message still counts: every one names the run that it is about.
"""

from __future__ import annotations

from dataclasses import replace

from wetread import __version__
from wetread.core.errors import NotFound
from wetread.core.events import EventType
from wetread.core.facts import StudyFacts
from wetread.core.findings import ResultSet, Run, StoredSeries
from wetread.core.identifiers import digest
from wetread.core.ports.database import Transaction
from wetread.core.ports.work import Task
from wetread.core.states import AiState
from wetread.core.ups_dataset import items, text
from wetread.core.workflow import TaskSpec
from wetread.orchestration import workitems
from wetread.orchestration.announce import Announcer
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.foreign_outputs import outputs_of
from wetread.orchestration.foreign_report import findings_of
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.requests import Requests, Verb

_REPORT_CLASSES = "1.2.840.10008.5.1.4.1.1.88."
"""Structured reports (PS3.4 table B.5-1)."""


class Performing:
    """Applies what happened to an offered workitem to its task."""

    def __init__(self, ports: Ports, rules: Rules, conclusions: Conclusions) -> None:
        self._ports = ports
        self._rules = rules
        self._conclusions = conclusions
        self._announce = Announcer(ports.events, ports.clock)
        self._requests = Requests(ports.database, ports.tasks, ports.events, ports.queue, ports.clock)

    def claimed(self, tx: Transaction, task: Task) -> str:
        """Somebody has taken the workitem: the clock of the task's time limit starts."""
        if task.state is not AiState.QUEUED:
            return "too late"
        now = self._ports.clock.now()
        running = replace(task, state=AiState.RUNNING, attempt=task.attempt + 1, updated_at=now)
        self._ports.tasks.put(tx, running)
        stamps = {"started": now}
        self._announce.task(tx, EventType.TASK_STARTED, running, stamps, cause=f"attempt {running.attempt}")
        limit = self._spec(task).timeout or self._limit(task)
        self._requests.about(tx, running, Verb.OVERDUE, delay_seconds=limit)
        return "running"

    def unclaimed(self, tx: Transaction, task: Task) -> str:
        """Nobody took the workitem while it was offered."""
        if task.state is not AiState.QUEUED:
            return "claimed"
        self._conclusions.fail(tx, task, "not_claimed", "no performer took the workitem in time", {})
        return "failed"

    def overdue(self, tx: Transaction, task: Task) -> str:
        """The performer has had its time."""
        if task.state is not AiState.RUNNING:
            return "ended"
        self._conclusions.fail(tx, task, "timeout", "the external performer did not end in time", {})
        return "failed"

    def lease_lost(self, tx: Transaction, task: Task) -> str:
        """The performer has been silent for a lease: tell, offer anew, or fail (``on_lease_lost``)."""
        if task.state is not AiState.RUNNING:
            return "ended"
        spec = self._spec(task)
        detail = "the external performer fell silent"
        self._announce.task(tx, EventType.TASK_STALLED, task, {}, cause=str(task.attempt), detail=detail)
        if spec.on_lease_lost == "flag":
            return "flagged"
        if spec.on_lease_lost == "fail" or task.attempt > spec.retries.max:
            self._conclusions.fail(tx, task, "performer_lost", detail, {}, dead=spec.on_lease_lost == "replace")
            return "failed"
        self._replace(tx, task)
        return "offered again"

    def performed(self, tx: Transaction, task: Task) -> str:
        """The performer has completed: its outputs, checked when it said so, become the task's result."""
        if task.state is not AiState.RUNNING or task.workitem_uid is None:
            return "ended"
        item = self._ports.workitems.get(tx, task.tenant, task.workitem_uid)
        series, classes = outputs_of(item.dataset)
        try:
            result = self._result(tx, task, series, classes)
        except NotFound:
            self._conclusions.fail(tx, task, "outputs_missing", "the outputs were deleted meanwhile", {})
            return "failed"
        modality = {s.series_instance_uid: s.modality for s in self._facts(tx, task).series}
        stored = tuple(s.model_copy(update={"modality": modality.get(s.series_uid, "")}) for s in series)
        stamps = {"inferred": item.updated_at, "stored": item.updated_at}
        final = replace(task, early=False)
        return str(self._conclusions.conclude(tx, final, result, stamps, stored=stored).state)

    def given_up(self, tx: Transaction, task: Task) -> str:
        """The performer has ended the workitem CANCELED, or it was called off before anybody took it."""
        if task.state is AiState.QUEUED:
            self._conclusions.cancel(tx, task, "ups_request", "called off on the worklist", {})
            return "cancelled"
        if task.state is not AiState.RUNNING or task.workitem_uid is None:
            return "ended"
        item = self._ports.workitems.get(tx, task.tenant, task.workitem_uid)
        [progress, *_] = [*items(item.dataset, workitems.PROGRESS), {}]
        [code, *_] = [*items(progress, "0074100E"), {}]
        why = text(code, "00080104") or text(progress, "00741238") or "no reason given"
        self._conclusions.fail(tx, task, "performer_discontinued", why, {})
        return "failed"

    # --- parts -----------------------------------------------------------------------------------------------------

    def _spec(self, task: Task) -> TaskSpec:
        workflow = self._rules.workflow(task.workflow)
        name = workflow.task_of(task.detector) if workflow else None
        if workflow is None or name is None:  # the rules have changed: their defaults hold for what is still out
            return TaskSpec(uses=f"detector/{task.detector}@*", performer="external")
        return workflow.model.tasks[name]

    def _facts(self, tx: Transaction, task: Task) -> StudyFacts:
        return self._ports.studies.facts(tx, task.tenant, task.study_uid)

    def _limit(self, task: Task) -> float:
        workflow = self._rules.workflow(task.workflow)
        return workflow.model.timeout if workflow else 3600.0

    def _replace(self, tx: Transaction, task: Task) -> None:
        """End the silent claim and offer a new workitem that points back to it (0074,1224)."""
        assert task.workitem_uid is not None
        now = self._ports.clock.now()
        info = self._ports.runner.detectors()[task.detector]
        item = self._ports.workitems.get(tx, task.tenant, task.workitem_uid)
        ending = workitems.Ending(task.study_uid, info, now, now)
        attributes = workitems.canceled(ending, "performer_lost", "offered again")
        self._conclusions.finish_workitem(tx, task, completed=False, attributes=attributes)
        uid = workitems.workitem_uid(task.tenant, task.study_uid, task.detector, task.runs + 1)
        self._ports.workitems.schedule(tx, task.tenant, uid, workitems.replacing(item.dataset, task.workitem_uid, now))
        again = replace(
            task,
            state=AiState.QUEUED,
            workitem_uid=uid,
            runs=task.runs + 1,
            run_id=digest("offer", task.tenant, task.study_uid, task.detector, task.input_digest, task.runs + 1),
            updated_at=now,
        )
        self._ports.tasks.put(tx, again)
        self._announce.task(tx, EventType.TASK_QUEUED, again, {})
        spec = self._spec(task)
        self._requests.about(tx, again, Verb.UNCLAIMED, delay_seconds=spec.claim_within or self._limit(task))

    def _result(
        self, tx: Transaction, task: Task, series: tuple[StoredSeries, ...], classes: dict[str, str]
    ) -> ResultSet:
        info = self._ports.runner.detectors()[task.detector]
        assert task.result_key is not None
        assert task.input_digest is not None
        uids = [uid for s in series for uid in s.sop_instance_uids if classes[uid].startswith(_REPORT_CLASSES)]
        located = self._ports.studies.locate(tx, task.tenant, task.study_uid, uids) if uids else []
        state, findings = findings_of([self._ports.objects.read(item.ref) for item in located], task.result_key)
        chosen = self._ports.inputs.get(tx, task.tenant, task.input_digest)
        run = Run(
            result_key=task.result_key,
            tenant=task.tenant,
            study_uid=task.study_uid,
            series_uid=chosen.series_uid,
            detector=task.detector,
            version=info.version,
            title=info.manifest.title,
            model_digest=info.model_digest,
            params_digest=digest({}),
            input_digest=task.input_digest,
            rules_digest=self._rules.digest,
            software=f"external performer; imported by wetread {__version__}",
            engine="external",
            started_at=task.updated_at,
            shadow=task.shadow,
        )
        return ResultSet(run=run, state=state, findings=findings, sop_instance_uids=chosen.sop_instance_uids)
