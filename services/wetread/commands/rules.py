"""``wetread rules test``: what workflow files would do with a folder of DICOM, and whether their cases hold."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from wetread.bootstrap.house import load_rules, workflow_folder
from wetread.bootstrap.runners import ChooserSet
from wetread.core.errors import InvalidInput, WetreadError
from wetread.core.expression_types import UNKNOWN
from wetread.core.expressions import Step
from wetread.core.facts import Source
from wetread.core.instants import iso_utc
from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.chooser import InstalledChooser
from wetread.detection.folder import studies_in
from wetread.detection.registry import discover
from wetread.orchestration.dry_run import DetectorVerdict, DryRun, RuleVerdict, dry_run
from wetread.orchestration.plan import Verdict
from wetread.orchestration.ports import Rules
from wetread.orchestration.rule_cases import load_cases, run_cases
from wetread.pathology.study import SlideChooser
from wetread.pathology.tile_model import detector_info, installed_tile_models
from wetread.settings import Settings

_LINE: Final = 110
"""Sub-expressions are cut to this many characters on the screen; ``--json`` has them whole."""


def run_rules_test(folder: Path | None, *, dicom: Path | None, at: str | None, ae: str, as_json: bool) -> int:
    """Print the dry run of a DICOM folder, or the outcome of the rule cases. Returns the exit code."""
    settings = Settings()
    if folder is not None:
        settings = settings.model_copy(update={"workflows": folder})
    try:
        rules = load_rules(settings)
        if dicom is not None:
            return _dry_runs(rules, settings, dicom, instant(at), Source(ae=ae), as_json=as_json)
        if at is not None or ae:
            raise InvalidInput("--at and --ae are for --dicom: a case says its own time and source")
        return _cases(rules, workflow_folder(settings) / "tests", as_json=as_json)
    except WetreadError as error:
        print(json.dumps(error.problem()) if as_json else f"wetread: {error.detail}", file=sys.stderr)
        return 2


def instant(text: str | None) -> float:
    """Return Unix seconds of an ISO 8601 instant with its offset, now for None. Raises InvalidInput."""
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise InvalidInput("--at is an instant with its offset, such as 2026-03-01T02:00+01:00")
    return moment.timestamp()


# --- dry run ---------------------------------------------------------------------------------------------------------


def _dry_runs(rules: Rules, settings: Settings, dicom: Path, at: float, source: Source, *, as_json: bool) -> int:
    if not dicom.is_dir():
        raise InvalidInput(f"{dicom.name} is not a folder")
    studies = studies_in(dicom)
    if not studies:
        raise InvalidInput(f"no DICOM instances in {dicom.name}")
    slides = {name: detector_info(model) for name, model in installed_tile_models().items()}
    chooser = ChooserSet(InstalledChooser(discover(settings.detectors)), SlideChooser(slides))
    broken = False
    for study in studies:
        outcome = dry_run(replace(study.facts, source=source), rules, chooser, at=at)
        broken = broken or any(d.plan.verdict is Verdict.BROKEN for d in outcome.detectors)
        print(json.dumps(outcome.as_json()) if as_json else "\n".join(_study_lines(outcome)), flush=True)
    if not as_json:
        print(RUO_STATEMENT)
    return 1 if broken else 0


def _study_lines(outcome: DryRun) -> Iterator[str]:
    study = outcome.study
    title = f' "{study.description}"' if study.description else ""
    images = sum(len(s.instances) for s in study.series)
    yield f"study ...{study.study_instance_uid[-8:]}{title}: {len(study.series)} series, {images} images"
    yield f"  place on the worklist: {outcome.priority}, due {iso_utc(outcome.due_at)}"
    for rule in outcome.rules:
        yield from _rule_lines(rule)
    for detector in outcome.detectors:
        yield from _detector_lines(detector)


def _rule_lines(rule: RuleVerdict) -> Iterator[str]:
    yield f"  workflow {rule.workflow.name}@{rule.workflow.model.version}: {rule.verdict} {rule.when.note}".rstrip()
    yield from _step_lines(rule.when.steps, 4)
    if rule.stat is not None:
        yield "    stat_if:"
        yield from _step_lines(rule.stat.steps, 6)


def _step_lines(step: Step | None, indent: int) -> Iterator[str]:
    if step is None:
        return
    text = step.text if len(step.text) <= _LINE else step.text[: _LINE - 3] + "..."
    origin = f"  [{step.tag}]" if step.tag else ""
    yield f"{' ' * indent}{_value(step.value):<9} {text}{origin}"
    for part in step.parts:
        yield from _step_lines(part, indent + 2)


def _value(value: Any) -> str:
    if value is UNKNOWN:
        return "unknown"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) or hasattr(value, "keys"):
        return f"({len(value)})"
    return repr(value)


def _detector_lines(verdict: DetectorVerdict) -> Iterator[str]:
    plan = verdict.plan
    because = ": ".join(part for part in (plan.reason, plan.detail) if part)
    owner = f" by {plan.workflow.name}, {plan.priority}, due {iso_utc(verdict.due_at)}" if plan.workflow else ""
    yield f"  detector {plan.detector} {verdict.version}: {plan.verdict}{owner}{f' ({because})' if because else ''}"
    for item in verdict.series:
        mark = "->" if item.selected else "  "
        number = "-" if item.series.series_number is None else item.series.series_number
        name = f"{item.series.modality} {item.series.description}".rstrip()
        yield f"    {mark} series {number} {name}, {len(item.series.instances)} images: {item.why}"
    for condition, then in verdict.consequences:
        effects = [f"raise to {then.raise_to}" if then.raise_to else "", f"notify {then.notify}" if then.notify else ""]
        yield f"    if {condition}: {', '.join(e for e in effects if e) or 'nothing'}"


# --- cases -----------------------------------------------------------------------------------------------------------


def _cases(rules: Rules, folder: Path, *, as_json: bool) -> int:
    files = sorted(folder.glob("*.yaml"))
    cases = [case for file in files for case in load_cases(file)]
    if not cases:
        raise InvalidInput(f"no cases in {folder.parent.name}/{folder.name}; give --dicom FOLDER for a dry run")
    outcomes, untested = run_cases(cases, rules.workflows)
    failed = [outcome for outcome in outcomes if outcome.faults]
    if as_json:
        body = {
            "cases": len(cases),
            "failed": [{"name": o.case.name, "faults": list(o.faults)} for o in failed],
            "untested": [{"workflow": u.workflow, "expression": u.expression, "never": u.missing} for u in untested],
        }
        print(json.dumps(body))
    else:
        for outcome in failed:
            print(f"FAILED {outcome.case.name}: {'; '.join(outcome.faults)}")
        for part in untested:
            print(f"never {part.missing} in {part.workflow}: {part.expression}")
        print(f"{len(cases)} cases, {len(failed)} failed, {len(untested)} parts of rules not seen both true and false")
    return 1 if failed else 0
