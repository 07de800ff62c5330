"""What the rules would do with a study, without doing it: decided by the code that decides for the server.

The study counts as complete (its own list of instances is its manifest), and nothing has happened to it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from wetread.core.completeness import Evidence, StudyManifest
from wetread.core.detector import InputSet
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.expression_types import UNKNOWN
from wetread.core.expressions import Explanation
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.instants import iso_utc
from wetread.core.ports.inference import DetectorChooser
from wetread.core.priority import Priority, due_at, most_urgent
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.workflow import Consequence, Workflow, base_detector
from wetread.orchestration.explain import shown
from wetread.orchestration.external import ExternalChooser
from wetread.orchestration.namespace import namespace, source_study
from wetread.orchestration.plan import History, Plan, plan_study
from wetread.orchestration.ports import Rules


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """One workflow's rule on the study; ``stat`` explains its ``stat_if`` when it has one and the rule matched."""

    workflow: Workflow
    when: Explanation
    stat: Explanation | None

    @property
    def verdict(self) -> str:
        """``matched``, ``not matched`` or ``unknown`` (an attribute is missing)."""
        return _verdict(self.when)

    def as_json(self) -> dict[str, Any]:
        """Return the verdict with every sub-expression that was looked at."""
        return {
            "workflow": self.workflow.name,
            "version": self.workflow.model.version,
            "event": self.workflow.model.on.event,
            "verdict": self.verdict,
            "when": shown(self.when),
            "stat_if": shown(self.stat) if self.stat else None,
        }


@dataclass(frozen=True, slots=True)
class SeriesVerdict:
    """Whether a detector would read a series, and why."""

    series: SeriesFacts
    selected: bool
    why: str

    def as_json(self) -> dict[str, Any]:
        """Return what identifies the series and the reason."""
        return {
            "series_uid": self.series.series_instance_uid,
            "number": self.series.series_number,
            "modality": self.series.modality,
            "description": self.series.description,
            "instances": len(self.series.instances),
            "selected": self.selected,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class DetectorVerdict:
    """What would become of a detector's task. ``consequences``: conditions over results that are not known yet."""

    plan: Plan
    version: str
    due_at: float
    series: tuple[SeriesVerdict, ...]
    consequences: tuple[tuple[str, Consequence], ...]

    def as_json(self) -> dict[str, Any]:
        """Return the plan with the verdict on every series."""
        return {
            "detector": self.plan.detector,
            "version": self.version,
            "verdict": str(self.plan.verdict),
            "reason": self.plan.reason,
            "detail": self.plan.detail,
            "workflow": self.plan.workflow.name if self.plan.workflow else None,
            "task": self.plan.task or None,
            "priority": str(self.plan.priority),
            "due_at": iso_utc(self.due_at),
            "series": [series.as_json() for series in self.series],
            "consequences": [
                {"if": text, **then.model_dump(mode="json", exclude_none=True)} for text, then in self.consequences
            ],
        }


@dataclass(frozen=True, slots=True)
class DryRun:
    """A study under the rules. ``priority`` and ``due_at``: its place on the worklist before any result."""

    study: StudyFacts
    priority: Priority
    due_at: float
    rules: tuple[RuleVerdict, ...]
    detectors: tuple[DetectorVerdict, ...]

    def as_json(self) -> dict[str, Any]:
        """Return everything, for tools."""
        return {
            "study_uid": self.study.study_instance_uid,
            "description": self.study.description,
            "at": iso_utc(self.study.received_at),
            "priority": str(self.priority),
            "due_at": iso_utc(self.due_at),
            "workflows": [rule.as_json() for rule in self.rules],
            "detectors": [detector.as_json() for detector in self.detectors],
            "ruo": RUO_STATEMENT,
        }


def dry_run(facts: StudyFacts, rules: Rules, chooser: DetectorChooser, *, at: float) -> DryRun:
    """Return what would happen to a complete study that arrives at the Unix time *at*."""
    chooser = ExternalChooser(chooser, rules.external)
    study = source_study(replace(facts, received_at=at, last_received_at=at))
    uids = tuple(i.sop_instance_uid for s in study.series for i in s.instances)
    evidence = Evidence(manifest=StudyManifest(sop_instance_uids=uids))
    planned = plan_study(study, evidence, rules, chooser, History(), now=at)
    names = namespace(study, now=at, zone=rules.zone)
    verdicts = []
    for workflow in rules.workflows:
        when = workflow.when.explain(names)
        stat = workflow.stat_if.explain(names) if workflow.stat_if and when.value is True else None
        verdicts.append(RuleVerdict(workflow, when, stat))
    wanted = [plan.priority for plan in planned.plans if plan.wanted]
    priority = most_urgent(Priority.ROUTINE, *wanted)
    return DryRun(
        study,
        priority,
        due_at(at, priority),
        tuple(verdicts),
        tuple(_detector(plan, study, chooser, at) for plan in planned.plans),
    )


def _detector(plan: Plan, study: StudyFacts, chooser: DetectorChooser, at: float) -> DetectorVerdict:
    triage: Sequence[tuple[str, Consequence]] = ()
    if plan.workflow is not None and plan.wanted:
        triage = [(rule.text, then) for rule, then in plan.workflow.triage]
    return DetectorVerdict(
        plan,
        chooser.detectors()[plan.detector].version,
        due_at(at, plan.priority),
        tuple(_choices(base_detector(plan.detector), _seen_by(plan, study), chooser)),
        tuple(triage),
    )


def _seen_by(plan: Plan, study: StudyFacts) -> StudyFacts:
    """Return the study as a plan sees it: a task of a fan-out has one series."""
    only = tuple(s for s in study.series if s.series_instance_uid == plan.only)
    return replace(study, series=only) if plan.only else study


def _choices(detector: str, study: StudyFacts, chooser: DetectorChooser) -> list[SeriesVerdict]:
    """Ask for the whole study, then for each series that was not taken as if it were alone: that is the reason."""
    chosen = _ask(detector, study, chooser)
    taken = chosen.series_instance_uid if isinstance(chosen, InputSet) else None
    verdicts = []
    for series in study.series:
        if isinstance(chosen, InputSet) and series.series_instance_uid == taken:
            verdicts.append(SeriesVerdict(series, selected=True, why=_state(chosen)))
            continue
        alone = _ask(detector, replace(study, series=(series,)), chooser)
        why = f"possible, but another ranks before it: {_state(alone)}" if isinstance(alone, InputSet) else alone
        verdicts.append(SeriesVerdict(series, selected=False, why=why))
    return verdicts


def _ask(detector: str, study: StudyFacts, chooser: DetectorChooser) -> InputSet | str:
    """Return the input, or the typed reason why there is none."""
    try:
        answer = chooser.applicable(detector, study)
        if not answer.applicable:
            return f"{answer.reason or 'no_suitable_series'}: {answer.detail}"
        return chooser.select(detector, study)
    except (NotApplicable, NotProcessable) as refusal:
        return f"{refusal.reason}: {refusal.detail}"
    except Exception as error:  # a detector's own fault is what a dry run is to find
        return f"crashed: {type(error).__name__}"


def _state(chosen: InputSet) -> str:
    return f"{chosen.lacking}: {chosen.reason}" if chosen.lacking else chosen.reason


def _verdict(explanation: Explanation) -> str:
    if explanation.value is UNKNOWN:
        return "unknown"
    return "matched" if explanation.value else "not matched"
