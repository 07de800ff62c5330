"""Declared workflows (``workflows/*.yaml``): which detectors run on which studies, and what follows from a result.

Unknown keys are errors; conditions are compiled and typed at load; the tasks must form an acyclic graph.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wetread.core.completeness import Duration
from wetread.core.errors import ConfigurationError
from wetread.core.expression_types import BOOL, ExpressionError, Kind, Type
from wetread.core.expressions import Expression, compile_expression
from wetread.core.identifiers import digest
from wetread.core.priority import Priority

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Condition = Annotated[str, Field(min_length=1, max_length=4000)]
EVIDENCE = "evidence/standard"
_USES = re.compile(r"detector/(?P<name>[a-z][a-z0-9-]{0,62})@(?P<range>\*|\^?\d+(\.\d+){0,2})")


class WorkflowError(ConfigurationError):
    """A workflow that cannot be loaded. ``where`` is a path of keys such as ``("tasks", "ich", "uses")``."""

    slug, title = "workflow", "Invalid workflow"

    def __init__(self, detail: str, where: tuple[str | int, ...] = ()) -> None:
        super().__init__(detail)
        self.where = where


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Trigger(_Strict):
    """When to look and whether to act. ``when`` is a condition over study, series, instances, source and now."""

    event: Literal["study.received", "study.changed", "study.stable"]
    when: Condition


class Urgency(_Strict):
    """Class of the tasks. ``stat_if`` raises it to stat; neither ever lowers what the study already has."""

    base: Priority = Priority.ROUTINE
    stat_if: Condition | None = None


class Retries(_Strict):
    """Attempts after a transient failure (network, lock, model loading); data errors are never retried."""

    max: Annotated[int, Field(ge=0, le=10)] = 3
    backoff: Duration = 0.5


class JoinSome(_Strict):
    """``n_of``: so many of the needed tasks must have ended."""

    n_of: Annotated[int, Field(ge=1)]


class Fallback(_Strict):
    """``run``: the task to run instead."""

    run: Name


class TaskSpec(_Strict):
    """One node. ``uses``: ``detector/<name>@<range>`` or ``evidence/standard`` (always done, listed for readers)."""

    uses: str
    needs: tuple[Name, ...] = ()
    join: Literal["all", "any"] | JoinSome = "all"
    over: Condition | None = Field(default=None, alias="for")
    """Series to fan out over, such as ``select(s for s in series if s.modality == 'CT')``: one task for each."""
    condition: Condition | None = Field(default=None, alias="if")
    parameters: dict[str, Any] = Field(default_factory=dict, alias="with")
    timeout: Duration | None = None
    shadow: bool = False
    retries: Retries = Retries()
    performer: Literal["own", "external"] = "own"
    """``external``: the task is only offered as a workitem; the detector need not be installed."""
    label: Annotated[str, Field(max_length=64)] = ""
    """(0074,1202) of an offered workitem; empty: the workflow's name."""
    claim_within: Duration | None = None
    """How long a workitem is offered; unset: as long as the workflow may take."""
    on_lease_lost: Literal["flag", "replace", "fail"] = "flag"
    """What follows when an external performer falls silent: tell the operator, offer anew, or fail."""
    on_failure: Literal["continue", "stop"] | Fallback = "continue"
    """What follows when the task ends without an answer: nothing, no further task, or another task instead."""

    @property
    def detector(self) -> str | None:
        """Name of the detector, None for the built-in evidence task."""
        match = _USES.fullmatch(self.uses)
        return match["name"] if match else None

    @property
    def external(self) -> bool:
        """Whether others perform it."""
        return self.performer == "external"

    @property
    def fallback(self) -> str | None:
        """The task that runs when this one ends without an answer."""
        return self.on_failure.run if isinstance(self.on_failure, Fallback) else None

    @property
    def version_range(self) -> str:
        """Accepted versions of the detector."""
        match = _USES.fullmatch(self.uses)
        return match["range"] if match else "*"


class Consequence(_Strict):
    """What a result leads to: the class the study is raised to, and who is told."""

    raise_to: Priority | None = None
    notify: Name | None = None
    reason: Annotated[str, Field(max_length=200)] = ""


class TriageRule(_Strict):
    condition: Condition = Field(alias="if")
    then: Consequence


class WorkflowModel(_Strict):
    """One ``workflows/<name>.yaml``."""

    workflow: Name
    version: Annotated[int, Field(ge=1)]
    on: Trigger
    priority: Urgency = Urgency()
    tasks: Annotated[dict[Name, TaskSpec], Field(min_length=1)]
    triage: tuple[TriageRule, ...] = ()
    timeout: Duration = 3600.0
    """No task may be allowed longer than this."""


@dataclass(frozen=True)
class Workflow:
    """A checked workflow with compiled conditions. Build with ``check_workflow``."""

    model: WorkflowModel
    when: Expression
    stat_if: Expression | None
    conditions: Mapping[str, Expression]
    """``if`` of tasks that have one."""
    triage: tuple[tuple[Expression, Consequence], ...]
    over: Mapping[str, Expression] = field(default_factory=dict)
    """``for`` of tasks that fan out."""

    @property
    def name(self) -> str:
        """Its name."""
        return self.model.workflow

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """Every compiled condition."""
        rules = (condition for condition, _ in self.triage)
        stat = [self.stat_if] if self.stat_if else []
        return (self.when, *stat, *self.conditions.values(), *self.over.values(), *rules)

    def task_of(self, detector: str) -> str | None:
        """Return the task that runs a detector, or one of its fan-out (``ich.3f2a9c1d``); None for another's."""
        return self.detectors.get(base_detector(detector))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the typed content: the identity of a rule version."""
        return digest(self.model.model_dump(mode="json", by_alias=True))

    @cached_property
    def detectors(self) -> Mapping[str, str]:
        """Detector name -> task name, for the tasks that run one."""
        return {spec.detector: name for name, spec in self.model.tasks.items() if spec.detector}


def pair_name(detector: str, series_uid: str) -> str:
    """Return the name of a detector's pair with one series of a fan-out; no UID in it."""
    return f"{detector}.{digest('pair', series_uid)[:8]}"


def base_detector(name: str) -> str:
    """Return the detector behind the name of a pair: a fan-out adds a mark of its series after a dot."""
    return name.partition(".")[0]


def check_workflow(model: WorkflowModel) -> Workflow:
    """Compile and check one workflow. Raises WorkflowError with the path of keys of the first fault."""
    tasks = model.tasks
    seen: dict[str, str] = {}
    for name, spec in tasks.items():
        where: tuple[str | int, ...] = ("tasks", name)
        if spec.detector is None and spec.uses != EVIDENCE:
            msg = f"{spec.uses!r} is neither detector/<name>@<version range> nor {EVIDENCE}"
            raise WorkflowError(msg, (*where, "uses"))
        if spec.detector in seen:
            msg = f"detector {spec.detector} is already used by task {seen[spec.detector]}"
            raise WorkflowError(msg, (*where, "uses"))
        if spec.detector:
            seen[spec.detector] = name
        if spec.timeout is not None and spec.timeout > model.timeout:
            msg = "the task's timeout is longer than the workflow's"
            raise WorkflowError(msg, (*where, "timeout"))
        for need in spec.needs:
            if need not in tasks:
                msg = f"there is no task {need!r}"
                raise WorkflowError(msg, (*where, "needs"))
        if isinstance(spec.join, JoinSome) and spec.join.n_of > len(spec.needs):
            msg = f"n_of {spec.join.n_of} of {len(spec.needs)} needed tasks can never be"
            raise WorkflowError(msg, (*where, "join"))
        if spec.over and (spec.detector is None or spec.external):
            msg = "only a detector that runs here fans out over series"
            raise WorkflowError(msg, (*where, "for"))
        if spec.external and spec.detector is None:
            msg = "an external performer needs detector/<name>@<version range>"
            raise WorkflowError(msg, (*where, "performer"))
        _check_fallback(tasks, name, where)
    _check_acyclic(tasks)
    named = frozenset(name for name, spec in tasks.items() if spec.detector)
    return Workflow(
        model=model,
        when=_compiled(model.on.when, ("on", "when")),
        stat_if=_compiled(model.priority.stat_if, ("priority", "stat_if")) if model.priority.stat_if else None,
        conditions={
            name: _compiled(spec.condition, ("tasks", name, "if"), frozenset(spec.needs) & named)
            for name, spec in tasks.items()
            if spec.condition
        },
        over={
            name: _compiled(spec.over, ("tasks", name, "for"), expect=Type(Kind.SERIES_LIST))
            for name, spec in tasks.items()
            if spec.over
        },
        triage=tuple(
            (_compiled(rule.condition, ("triage", index, "if"), named), rule.then)
            for index, rule in enumerate(model.triage)
        ),
    )


def _compiled(
    text: str, where: tuple[str | int, ...], results: frozenset[str] = frozenset(), *, expect: Type = BOOL
) -> Expression:
    try:
        return compile_expression(text, results=results, expect=expect)
    except ExpressionError as error:
        msg = f"{error.detail} (line {error.line}, column {error.column} of the condition)"
        raise WorkflowError(msg, where) from error


def _check_fallback(tasks: Mapping[str, TaskSpec], name: str, where: tuple[str | int, ...]) -> None:
    fallback = tasks[name].fallback
    if fallback is None:
        return
    if fallback not in tasks or tasks[fallback].detector is None:
        msg = f"there is no task {fallback!r} with a detector"
        raise WorkflowError(msg, (*where, "on_failure", "run"))
    passed = {name}
    following: str | None = fallback
    while following is not None:
        if following in passed:
            msg = f"tasks fall back on one another in a circle: {', '.join(sorted(passed))}"
            raise WorkflowError(msg, (*where, "on_failure", "run"))
        passed.add(following)
        following = tasks[following].fallback


def _check_acyclic(tasks: Mapping[str, TaskSpec]) -> None:
    done: set[str] = set()
    while len(done) < len(tasks):
        ready = {name for name, spec in tasks.items() if name not in done and set(spec.needs) <= done}
        if not ready:
            stuck = sorted(set(tasks) - done)
            msg = f"tasks need one another in a circle: {', '.join(stuck)}"
            raise WorkflowError(msg, ("tasks", stuck[0], "needs"))
        done |= ready


def version_fits(version: str, wanted: str) -> bool:
    """Return whether *version* lies in a range: ``*``, ``1.2`` (a prefix) or ``^1.2``.

    ``^``: the left-most part that is not zero is the same, and it is not older.
    """
    if wanted == "*":
        return True
    have = [int(part) for part in version.split(".")]
    parts = [int(part) for part in wanted.removeprefix("^").split(".")]
    if not wanted.startswith("^"):
        return have[: len(parts)] == parts
    leading = next((index for index, part in enumerate(parts) if part), len(parts) - 1)
    return have[: leading + 1] == parts[: leading + 1] and have[: len(parts)] >= parts


def rules_digest(workflows: tuple[Workflow, ...]) -> str:
    """Return the identity of a whole set of workflows."""
    return digest([w.digest for w in sorted(workflows, key=lambda w: w.name)])


def schema_json() -> bytes:
    """Return the JSON Schema (2020-12) of a workflow file, committed as ``wetread/schemas/workflow.schema.json``."""
    schema = WorkflowModel.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["$id"] = "urn:wetread:schema:workflow:1"

    return (json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
