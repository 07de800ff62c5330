"""What should happen to a study, as a pure function of facts, signals, rules and what happened before.

For every detector that some workflow uses there is one plan: not wanted (with a reason), wait, refused by the data,
or run. Nothing is written here, so the dry run and the durable evaluation decide by the same code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from wetread.core.completeness import Evidence, Judgement, Timing, judge_input, judge_study
from wetread.core.detector import InputSet
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.expression_types import UNKNOWN, Namespace
from wetread.core.facts import StudyFacts
from wetread.core.findings import ResultSet
from wetread.core.identifiers import digest
from wetread.core.ports.inference import DetectorChooser
from wetread.core.ports.work import Task
from wetread.core.priority import Priority
from wetread.core.priors import NO_PRIORS, Priors
from wetread.core.states import FINAL, UNANSWERED, AiState
from wetread.core.workflow import TaskSpec, Workflow, base_detector, pair_name
from wetread.orchestration.namespace import namespace, results_of, source_study
from wetread.orchestration.ports import Rules


class Verdict(StrEnum):
    """What a detector should do with a study now."""

    NOT_WANTED = "not wanted"
    WAIT = "wait"
    REFUSED = "refused"
    RUN = "run"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Plan:
    """One detector's plan. ``wanted``: a workflow asks for it, so it is on the worklist even while it waits."""

    detector: str
    verdict: Verdict
    wanted: bool
    reason: str = ""
    detail: str = ""
    workflow: Workflow | None = None
    task: str = ""
    priority: Priority = Priority.ROUTINE
    chosen: InputSet | None = None
    digest: str = ""
    """Of the selected instances; of all source instances when nothing could be selected."""
    judgement: Judgement | None = None
    priors: Priors = NO_PRIORS
    """Earlier results for a detector that asks for them; the digest covers them."""
    only: str = ""
    """Series Instance UID of one task of a fan-out: it sees no other series."""

    @property
    def spec(self) -> TaskSpec | None:
        """The task's declaration."""
        return self.workflow.model.tasks[self.task] if self.workflow else None

    @property
    def complete(self) -> bool:
        """Whether the input is final."""
        return self.judgement is not None and self.judgement.level == "complete"

    def as_json(self) -> dict[str, Any]:
        """Return the plan for the decision trace."""
        handed = {
            "priors": [prior.study_uid for prior in self.priors.results],
            "priors_left_out": list(self.priors.left_out),
        }
        return {
            "detector": self.detector,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "detail": self.detail,
            "workflow": self.workflow.name if self.workflow else None,
            "priority": str(self.priority),
            "series": self.chosen.series_instance_uid if self.chosen else None,
            "instances": len(self.chosen.sop_instance_uids) if self.chosen else 0,
            "why_this_series": self.chosen.reason if self.chosen else "",
            "input": self.judgement.level if self.judgement else None,
            "by": self.judgement.by if self.judgement else None,
            **(handed if self.priors else {}),
        }


@dataclass(frozen=True, slots=True)
class History:
    """What happened to the study before: its tasks and current results."""

    tasks: Sequence[Task] = ()
    results: Sequence[ResultSet] = ()
    asked: frozenset[str] = frozenset()
    """Detectors that somebody asked for by name: wanted whether or not a rule matches."""

    def of(self, detector: str) -> list[Task]:
        """Return the tasks of a detector: one, or those of its fan-out."""
        return [task for task in self.tasks if base_detector(task.detector) == detector]


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All plans of a study with the value of every rule, and what the rules saw."""

    study: StudyFacts
    whole: Judgement
    plans: tuple[Plan, ...]
    rules: Mapping[str, Any] = field(default_factory=dict)
    names: Namespace | None = None
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """``result`` values by workflow and task."""

    def as_json(self) -> dict[str, Any]:
        """Return the decision trace."""
        return {
            "study": {"level": self.whole.level, "by": self.whole.by, "forced": self.whole.forced},
            "rules": {name: "unknown" if value is UNKNOWN else value for name, value in self.rules.items()},
            "plans": [plan.as_json() for plan in self.plans],
        }


def instances_digest(study: StudyFacts, sop_instance_uids: Sequence[str] | None = None) -> str:
    """Return the SHA-256 over the sorted (SOP Instance UID, content hash) of instances (None: all)."""
    wanted = None if sop_instance_uids is None else set(sop_instance_uids)
    pairs = sorted(
        (i.sop_instance_uid, i.content_hash)
        for s in study.series
        for i in s.instances
        if wanted is None or i.sop_instance_uid in wanted
    )
    return hashlib.sha256("\n".join(f"{uid} {content}" for uid, content in pairs).encode()).hexdigest()


def plan_study(
    facts: StudyFacts, evidence: Evidence, rules: Rules, runner: DetectorChooser, history: History, *, now: float
) -> StudyPlan:
    """Return the plans for every detector of the rules."""
    study = source_study(facts)
    timing = rules.completeness.timing(study.source)
    whole = judge_study(study, evidence, timing)
    space = namespace(study, now=now, zone=rules.zone, with_instances=rules.need_instances)
    before = rules.workflows if history.tasks else ()
    results = {w.name: results_of(w.detectors, history.tasks, history.results) for w in before}
    planner = _Planner(study, evidence, timing, whole, rules, runner, history, space, results)
    values = {workflow.name: workflow.when.evaluate(planner.names(workflow)) for workflow in rules.workflows}
    plans = tuple(plan for detector in rules.detectors for plan in planner.plans(detector, values))
    return StudyPlan(study, whole, plans, values, space, results)


@dataclass(frozen=True, slots=True)
class _Planner:
    study: StudyFacts
    evidence: Evidence
    timing: Timing
    whole: Judgement
    rules: Rules
    runner: DetectorChooser
    history: History
    space: Namespace
    results: Mapping[str, Mapping[str, Any]]

    def names(self, workflow: Workflow) -> Namespace:
        results = self.results.get(workflow.name)
        return replace(self.space, results=results) if results else self.space

    def everything(self) -> str:
        """Digest of the whole study, never equal to that of a selection."""
        return digest("study", instances_digest(self.study))

    def plans(self, detector: str, values: Mapping[str, Any]) -> list[Plan]:
        users = [w for w in self.rules.workflows if detector in w.detectors]
        for workflow in users:
            due = workflow.model.on.event != "study.stable" or self.whole.level == "complete"
            if values[workflow.name] is True and due:
                return self._wanted_pairs(detector, workflow)
        if users and detector in self.history.asked:
            return self._wanted_pairs(detector, users[0])
        return [self._unwanted(detector, users, values)]

    def _wanted_pairs(self, detector: str, workflow: Workflow) -> list[Plan]:
        """Return the plan of a detector, or one per series that it fans out over."""
        over = workflow.over.get(workflow.detectors[detector])
        if over is None:
            return [self._wanted(detector, workflow)]
        chosen = over.evaluate(self.names(workflow))
        uids = [] if chosen is UNKNOWN else [str(series["_uid"]) for series in chosen]
        if not uids:
            detail = (
                "its series are unknown: an attribute is missing" if chosen is UNKNOWN else "no series to fan out over"
            )
            waiting = Plan(detector, Verdict.WAIT, wanted=False, detail=detail, digest=self.everything())
            if self.whole.level != "complete":
                return [waiting]
            return [self._not_wanted(waiting, "no_suitable_series", detail)]
        pairs = [
            replace(self._alone(uid)._wanted(detector, workflow), detector=pair_name(detector, uid), only=uid)  # noqa: SLF001
            for uid in uids
        ]
        if any(task.detector == detector and task.state is AiState.AWAITING_IMAGES for task in self.history.tasks):
            # It waited under its own name before the rule was due: its series wait under theirs now.
            whole = Plan(detector, Verdict.WAIT, wanted=False, digest=self.everything())
            pairs.append(self._not_wanted(whole, "per_series", "every series has a task of its own"))
        return pairs

    def _alone(self, series_uid: str) -> _Planner:
        """Return a planner that sees one series only."""
        series = tuple(s for s in self.study.series if s.series_instance_uid == series_uid)
        return replace(self, study=replace(self.study, series=series))

    def _unwanted(self, detector: str, users: Sequence[Workflow], values: Mapping[str, Any]) -> Plan:
        unknown = [w.name for w in users if values[w.name] is UNKNOWN]
        detail = f"rule of {', '.join(unknown)} is unknown: an attribute is missing" if unknown else "no rule matches"
        base = Plan(detector, Verdict.WAIT, wanted=False, detail=detail, digest=self.everything())
        if self.whole.level != "complete":
            return base
        answer = self.runner.applicable(detector, self.study)
        reason = None if answer.applicable else answer.reason
        return self._not_wanted(base, reason or "tenant_policy", answer.detail or detail)

    def _not_wanted(self, base: Plan, reason: str, detail: str) -> Plan:
        return replace(
            base, verdict=Verdict.NOT_WANTED, wanted=False, reason=reason, detail=detail, judgement=self.whole
        )

    def _wanted(self, detector: str, workflow: Workflow) -> Plan:
        task = workflow.detectors[detector]
        base = Plan(
            detector,
            Verdict.WAIT,
            wanted=True,
            workflow=workflow,
            task=task,
            priority=self._priority(workflow),
            digest=self.everything(),
        )
        waiting_for, skipped = self._needs(workflow, task)
        if skipped:
            return self._not_wanted(base, "tenant_policy", skipped)
        if waiting_for:
            return replace(base, detail=waiting_for)
        try:
            chosen = self._choose(detector)
        except Exception as error:
            return self._excluded(base, error)
        external = workflow.model.tasks[task].external
        judgement = self.whole if external else judge_input(self.study, chosen, self.evidence, self.timing)
        if chosen.lacking:
            return self._lacking(base, chosen)
        if judgement.level == "incomplete":
            return replace(base, detail=judgement.by, judgement=judgement)
        return replace(
            base,
            verdict=Verdict.RUN,
            chosen=chosen,
            digest=instances_digest(self.study, chosen.sop_instance_uids),
            judgement=judgement,
        )

    def _choose(self, detector: str) -> InputSet:
        answer = self.runner.applicable(detector, self.study)
        if not answer.applicable:
            raise NotApplicable(answer.reason or "no_suitable_series", answer.detail)
        return self.runner.select(detector, self.study)

    def _excluded(self, base: Plan, error: Exception) -> Plan:
        """Return the plan for a selection that failed; while images may still come, a typed refusal only waits."""
        if isinstance(error, NotApplicable | NotProcessable) and self.whole.level != "complete":
            return replace(base, wanted=isinstance(error, NotProcessable), detail=error.detail)
        if isinstance(error, NotApplicable):
            return self._not_wanted(base, error.reason, error.detail)
        if isinstance(error, NotProcessable):
            refused = replace(base, verdict=Verdict.REFUSED, judgement=self.whole)
            return replace(refused, reason=error.reason, detail=error.detail)
        # A detector's own fault must not leave the study without an answer.
        broken = replace(base, verdict=Verdict.BROKEN, judgement=self.whole)
        return replace(broken, reason="crashed", detail=f"selection failed: {type(error).__name__}")

    def _lacking(self, base: Plan, chosen: InputSet) -> Plan:
        """Return the plan for an input that more images could still cure: wait for them, then refuse."""
        known = replace(base, chosen=chosen, judgement=self.whole, detail=chosen.reason)
        if self.whole.level != "complete":
            return known
        selected = instances_digest(self.study, chosen.sop_instance_uids)
        return replace(known, verdict=Verdict.REFUSED, reason=chosen.lacking, digest=digest("lacking", selected))

    def _needs(self, workflow: Workflow, task: str) -> tuple[str, str]:
        """Return (what the task still waits for, why it is skipped); both empty when it may run."""
        spec = workflow.model.tasks[task]
        waiting_for, skipped = self._failures(workflow, task)
        if waiting_for or skipped:
            return waiting_for, skipped
        detectors = {name: d for d, name in workflow.detectors.items()}
        needed = [self.history.of(detectors[name]) for name in spec.needs if name in detectors]
        done = [self._ended(tasks, any_of=spec.join == "any") for tasks in needed]
        wanted = {"all": len(done), "any": 1}.get(spec.join, 0) if isinstance(spec.join, str) else spec.join.n_of
        if needed and sum(done) < min(wanted, len(done)):
            return "waits for " + ", ".join(spec.needs), ""
        condition = workflow.conditions.get(task)
        if condition is None:
            return "", ""
        value = condition.evaluate(self.names(workflow))
        return "", "" if value is True else f"its condition is {'unknown' if value is UNKNOWN else 'false'}"

    @staticmethod
    def _ended(tasks: Sequence[Task], *, any_of: bool) -> bool:
        """Whether a needed task has ended; of a fan-out all, or with ``join: any`` one."""
        ends = [task.state in FINAL for task in tasks]
        return bool(ends) and (any(ends) if any_of else all(ends))

    def _failures(self, workflow: Workflow, task: str) -> tuple[str, str]:
        """Return what ``on_failure`` of other tasks says: (what to wait for, why not at all)."""
        own = self.history.of({name: d for d, name in workflow.detectors.items()}[task])
        begun = any(t.runs > 0 for t in own)
        for detector, name in workflow.detectors.items():
            spec, others = workflow.model.tasks[name], self.history.of(detector)
            failed = any(t.state in UNANSWERED for t in others)
            if spec.on_failure == "stop" and failed and name != task and not begun:
                return "", f"{name} ended without an answer and stops the workflow"
            if spec.fallback == task:
                if not self._ended(others, any_of=False):
                    return f"runs only if {name} ends without an answer", ""
                if not failed:
                    return "", f"{name} has answered"
        return "", ""

    def _priority(self, workflow: Workflow) -> Priority:
        if workflow.stat_if is not None and workflow.stat_if.evaluate(self.names(workflow)) is True:
            return Priority.STAT
        return workflow.model.priority.base
