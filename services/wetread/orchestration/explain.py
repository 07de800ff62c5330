"""Why a study was decided on as it was: recorded facts under the recorded rules give the recorded decision again.

A decision keeps the name space that its conditions saw and the digest of the rules; the rules themselves are kept once
per digest. Nothing here needs images, detectors or the running orchestration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wetread.core.errors import NotFound
from wetread.core.expression_types import FIELDS, UNKNOWN, Kind, Namespace
from wetread.core.expressions import Explanation, Expression
from wetread.core.instants import iso_utc
from wetread.core.ports.database import Database
from wetread.core.ports.orchestration import Decision, DecisionRepository, RuleSetRepository
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.workflow import Workflow, WorkflowModel, check_workflow, rules_digest

Json = dict[str, Any]
_PARTS: Final = (("study", Kind.STUDY), ("source", Kind.SOURCE), ("now", Kind.NOW))
_LISTS: Final = (("series", Kind.SERIES), ("instances", Kind.INSTANCE))


def recorded(space: Namespace, results: Mapping[str, Mapping[str, Any]]) -> Json:
    """Return a name space as JSON: Unknown is what is not there. *results*: values by workflow and task."""
    facts: Json = {name: _known(getattr(space, name)) for name, _ in _PARTS}
    facts |= {name: [_known(item) for item in getattr(space, name)] for name, _ in _LISTS}
    facts["results"] = {
        workflow: {task: _known(value) for task, value in values.items()} for workflow, values in results.items()
    }
    return facts


def restored(facts: Mapping[str, Any], workflow: str) -> Namespace:
    """Return the name space that ``recorded`` wrote, as the conditions of *workflow* saw it."""
    values: dict[str, Any] = {name: _filled(kind, facts[name]) for name, kind in _PARTS}
    values |= {name: tuple(_filled(kind, item) for item in facts[name]) for name, kind in _LISTS}
    results = facts["results"].get(workflow, {})
    values["results"] = {task: _filled(Kind.RESULT, value) for task, value in results.items()}
    return Namespace(**values)


def _known(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if value is not UNKNOWN}


def _filled(kind: Kind, values: Mapping[str, Any]) -> Json:
    filled: Json = dict.fromkeys(FIELDS[kind], UNKNOWN)
    for name, value in values.items():
        filled[name] = tuple(value) if isinstance(value, list) else value
    return filled


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the decisions on a study. *today*: the active workflows."""

    database: Database
    decisions: DecisionRepository
    rule_sets: RuleSetRepository
    today: tuple[Workflow, ...]

    def explain(self, tenant: str, study_uid: str, *, every: bool = False) -> Json:
        """Return the latest decision on a study (*every*: all, oldest first), replayed, beside today's rules.

        Raises NotFound for a study that no evaluation has seen.
        """
        with self.database.read() as tx:
            made = self.decisions.of_study(tx, tenant, study_uid)
            if not made:
                msg = "no decision on such a study"
                raise NotFound(msg)
            chosen = made if every else made[-1:]
            facts = [self.decisions.facts(tx, decision) for decision in chosen]
            kept = {d.rules_digest: self.rule_sets.get(tx, d.rules_digest) for d in chosen}
        rules = {key: _workflows(models) for key, models in kept.items()}
        entries = [self._entry(d, rules[d.rules_digest], f) for d, f in zip(chosen, facts, strict=True)]
        return {"study_uid": study_uid, "decisions": entries, "ruo": RUO_STATEMENT}

    def _entry(self, decision: Decision, rules: Sequence[Workflow] | None, facts: Mapping[str, Any] | None) -> Json:
        trace = decision.trace
        entry: Json = {
            "at": iso_utc(decision.at),
            "generation": decision.generation,
            "signal": decision.signal.split(":", 1)[0],
            "rules_digest": decision.rules_digest,
            "completeness": trace.get("study"),
            "detectors": trace.get("plans", []),
        }
        if facts is None or rules is None:  # of a version before facts were kept
            return entry | {"replayed": False, "workflows": [], "today": []}
        replay = [_replayed(workflow, facts) for workflow in rules]
        recorded_values = trace.get("rules", {})
        same = all(recorded_values.get(item["workflow"]) == item["matched"] for item in replay)
        return entry | {
            "replayed": True,
            "agrees": same and set(recorded_values) == {item["workflow"] for item in replay},
            "workflows": replay,
            "today": [_replayed(workflow, facts) for workflow in self.today],
            "rules_changed": rules_digest(self.today) != decision.rules_digest,
        }


def _workflows(models: Sequence[Mapping[str, Any]] | None) -> tuple[Workflow, ...] | None:
    return None if models is None else tuple(check_workflow(WorkflowModel.model_validate(model)) for model in models)


def _replayed(workflow: Workflow, facts: Mapping[str, Any]) -> Json:
    names = restored(facts, workflow.name)
    when = workflow.when.explain(names)
    matched = verdict(when.value)
    entry: Json = {
        "workflow": workflow.name,
        "version": workflow.model.version,
        "matched": matched,
        "when": shown(when),
    }
    if matched is True:
        conditions: list[tuple[str, Expression]] = []
        if workflow.stat_if is not None:
            conditions.append(("priority.stat_if", workflow.stat_if))
        conditions += [(f"tasks.{name}.if", condition) for name, condition in workflow.conditions.items()]
        conditions += [(f"triage[{n}].if", condition) for n, (condition, _) in enumerate(workflow.triage)]
        entry["conditions"] = {place: shown(condition.explain(names)) for place, condition in conditions}
    return entry


def verdict(value: Any) -> bool | str:
    """Return a truth value of the condition language as JSON: true, false or ``"unknown"``."""
    return "unknown" if value is UNKNOWN else bool(value)


def shown(explanation: Explanation) -> Json:
    """Return an explanation as JSON."""
    steps = explanation.steps.as_json() if explanation.steps else None
    return {"value": verdict(explanation.value), "note": explanation.note, "steps": steps}
