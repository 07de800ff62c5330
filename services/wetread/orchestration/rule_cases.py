"""Rule tests are data: ``workflows/tests/*.yaml`` says which workflows match which header facts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from wetread.core.errors import ConfigurationError
from wetread.core.expression_types import UNKNOWN
from wetread.core.expressions import Step
from wetread.core.facts import SeriesFacts, Source, StudyFacts
from wetread.core.workflow import Workflow
from wetread.orchestration.load import plain, read_yaml
from wetread.orchestration.namespace import namespace


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudyGiven(_Strict):
    description: str = ""
    sex: str = ""
    age_years: float | None = None


class SeriesGiven(_Strict):
    modality: str
    description: str = ""
    body_part: str = ""
    protocol: str = ""
    kernel: str = ""
    manufacturer: str = ""
    contrast: bool | None = None


class SourceGiven(_Strict):
    ae: str = ""
    client: str = ""
    site: str = ""


class RuleCase(_Strict):
    """Facts and the decisions they must lead to."""

    name: str
    series: tuple[SeriesGiven, ...]
    study: StudyGiven = StudyGiven()
    source: SourceGiven = SourceGiven()
    at: float = 0.0
    """Unix seconds, for conditions on the time."""
    matches: tuple[str, ...]
    unknown: tuple[str, ...] | None = None
    stat: bool | None = None
    """Whether the first matching workflow makes it stat."""

    def facts(self) -> StudyFacts:
        """Return the study that the case describes."""
        series = tuple(SeriesFacts(f"1.{n}", instances=(), **s.model_dump()) for n, s in enumerate(self.series))
        return StudyFacts(
            "default",
            "1",
            series,
            description=self.study.description,
            patient_age_years=self.study.age_years,
            patient_sex=self.study.sex,
            source=Source(**self.source.model_dump()),
        )


class _Cases(_Strict):
    cases: tuple[RuleCase, ...]


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """A case and what was wrong with it; empty *faults*: it holds."""

    case: RuleCase
    faults: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """A truth-valued part of a rule that the cases never saw *missing* (``true`` or ``false``)."""

    workflow: str
    expression: str
    missing: str


def load_cases(file: Path) -> tuple[RuleCase, ...]:
    """Return the cases of a file. Raises ConfigurationError."""
    try:
        return _Cases.model_validate(plain(read_yaml(file))).cases
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{file.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigurationError(msg) from error


def run_cases(cases: Sequence[RuleCase], workflows: Sequence[Workflow]) -> tuple[list[CaseOutcome], list[Coverage]]:
    """Return the outcome of every case, and which parts of the rules they leave untested."""
    outcomes = []
    seen: dict[tuple[str, str], set[bool]] = {}
    for case in cases:
        names = namespace(case.facts(), now=case.at)
        values: dict[str, Any] = {}
        for workflow in workflows:
            explanation = workflow.when.explain(names)
            values[workflow.name] = explanation.value
            for step in _truths(explanation.steps):
                seen.setdefault((workflow.name, step.text), set()).add(step.value)
        outcomes.append(CaseOutcome(case, tuple(_faults(case, values, workflows))))
    missing = [
        Coverage(name, text, str(value).lower())
        for (name, text), found in sorted(seen.items())
        for value in (True, False)
        if value not in found
    ]
    return outcomes, missing


def _faults(case: RuleCase, values: dict[str, Any], workflows: Sequence[Workflow]) -> Iterator[str]:
    matched = tuple(name for name, value in values.items() if value is True)
    if matched != case.matches:
        yield f"matches {list(matched)}, not {list(case.matches)}"
    unknown = tuple(name for name, value in values.items() if value is UNKNOWN)
    if case.unknown is not None and unknown != case.unknown:
        yield f"unknown are {list(unknown)}, not {list(case.unknown)}"
    if case.stat is not None:
        owner = next((w for w in workflows if w.name in matched), None)
        expression = owner.stat_if if owner else None
        stat = expression is not None and expression.evaluate(namespace(case.facts(), now=case.at)) is True
        if stat is not case.stat:
            yield f"stat is {stat}"


def _truths(step: Step | None) -> Iterator[Step]:
    """Yield every sub-expression that was true or false."""
    if step is None:
        return
    if isinstance(step.value, bool):
        yield step
    for part in step.parts:
        yield from _truths(part)
