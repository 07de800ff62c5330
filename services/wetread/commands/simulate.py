"""``wetread simulate``: how long studies wait for a reader, with and without AI in the reading order."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from wetread.core.errors import InvalidInput
from wetread.core.ruo import RUO_STATEMENT
from wetread.worklist.simulator import FIFO, GUARDED, STRICT, Arm, Policy, Reading, Scenario, bound_only, simulate

_GROUPS: Final = ("all", "positive", "found", "missed", "unflagged")
_LISTS: Final = ("arrival_profile", "reader_shifts", "history")


def run_simulate(given: dict[str, Any], *, file: Path | None, detector: str, policies: str, as_json: bool) -> int:
    """Print one table row per policy and group. ``given``: values of the command line, None where not given.

    ``file``: a JSON object with the fields of ``Scenario``; the command line wins. Returns the exit code.
    """
    try:
        scenario = _scenario(given, file, detector)
        arms = simulate(scenario, [_policy(name) for name in policies.split(",")])
    except InvalidInput as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    if as_json:
        room = {name: value for name, value in asdict(scenario).items() if name != "history"}
        answer = {"scenario": room, "load": scenario.load, "arms": [asdict(arm) for arm in arms], "ruo": RUO_STATEMENT}
        print(json.dumps(answer))
    else:
        _print(scenario, arms)
    return 0


def _scenario(given: dict[str, Any], file: Path | None, detector: str) -> Scenario:
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{file} cannot be read as JSON"
            raise InvalidInput(msg) from error
    if not isinstance(values, dict) or (unknown := values.keys() - Scenario.__dataclass_fields__.keys()):
        known = ", ".join(Scenario.__dataclass_fields__)
        msg = f"{file}: {', '.join(sorted(unknown)) if isinstance(values, dict) else 'no object'}; known are {known}"
        raise InvalidInput(msg)
    values |= {name: value for name, value in given.items() if value is not None}
    values |= {name: tuple(values[name]) for name in _LISTS if name in values}
    try:
        if "reading" in values:
            values["reading"] = Reading(values["reading"])
        scenario = Scenario(**values)
        if detector:
            scenario = scenario.at(*_operating_point(detector))
        scenario.check()
    except (TypeError, ValueError) as error:
        msg = f"a value has the wrong type: {error}"
        raise InvalidInput(msg) from error
    return scenario


def _operating_point(detector: str) -> tuple[float, float]:
    from wetread.bootstrap.house import installed_detectors
    from wetread.settings import Settings

    info = installed_detectors(Settings()).get(detector)
    point = info.card.operating_point() if info else None
    if point is None:
        msg = f"there is no detector {detector}, or its card names no operating point"
        raise InvalidInput(msg)
    return point.sensitivity, point.specificity


def _policy(name: str) -> Policy:
    plain = {policy.name: policy for policy in (FIFO, STRICT, GUARDED)}
    if name in plain:
        return plain[name]
    kind, _, minutes = name.partition(":")
    try:
        if kind == "bound":
            return bound_only(float(minutes))
    except ValueError:
        pass
    msg = f"{name!r} is no policy: fifo, strict, guard, or bound:MINUTES"
    raise InvalidInput(msg)


def _print(scenario: Scenario, arms: Sequence[Arm]) -> None:
    console = Console()
    console.print(
        f"{scenario.arrivals_per_hour:g} studies an hour, {scenario.readers} readers, {scenario.reading_minutes:g} min "
        f"each: load {scenario.load:.2f}. Prevalence {scenario.prevalence:g}, sensitivity {scenario.sensitivity:g}, "
        f"specificity {scenario.specificity:g}. Seed {scenario.seed}."
    )
    if scenario.load >= 1:
        console.print("[bold]More work arrives than is read:[/bold] waits grow with the length of the run.")
    table = Table(box=None)
    for name, justify in (("policy", "left"), ("group", "left"), *((name, "right") for name in _COLUMNS)):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for arm in arms:
        for group in _GROUPS:
            if (waits := arm.groups.get(group)) is not None:
                table.add_row(
                    arm.policy if group == "all" else "",
                    group,
                    f"{waits.studies:,}",
                    f"{waits.mean:.1f} ± {waits.margin:.1f}",
                    *(f"{value:.0f}" for value in (waits.p50, waits.p95, waits.longest)),
                    f"{waits.past_target:.1%}",
                )
    console.print(table)
    console.print("Waits in minutes; ± is the 95 % interval of the mean. Missed: positives that the AI did not flag.")
    console.print(f"[dim]{RUO_STATEMENT}[/dim]")


_COLUMNS: Final = ("studies", "mean", "p50", "p95", "longest", "past target")
