"""``wetread capacity``: how many pods, how much database and storage N studies a day need, from measured unit costs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from wetread.commands.capacity_costs import SHIPPED, UnitCosts, load_costs
from wetread.commands.capacity_model import STRESS_HOUR, Assumptions, Plan, StudyKind, plan
from wetread.core.errors import InvalidInput

_TABLE: Final = (1e2, 1e3, 1e4, 1e5, 1e6)
_BLOCK: Final = re.compile(r"(<!-- table: capacity -->)\n.*?(<!-- end -->)", re.DOTALL)
_BUSY: Final = 1.0
"""Load average from which measured times say more about the other work of that machine."""
_ROWS: Final[tuple[tuple[str, str, str], ...]] = (
    ("studies in the peak hour", "peak_per_hour", ",.0f"),
    ("gateway pods", "gateway_pods", ",d"),
    ("gateway cores in use", "gateway_cores", ",.2f"),
    ("detector processes", "detector_processes", ",d"),
    ("worker pods", "worker_pods", ",d"),
    ("orchestration cores in use", "orchestration_cores", ",.2f"),
    ("GPU pods", "gpu_pods", ",d"),
    ("deployments (databases)", "deployments", ",d"),
    ("writers' turn, all databases", "writers_turn", ".1%"),
    ("database, GB", "database_gigabytes", ",.1f"),
    ("database, write IOPS", "database_iops", ",.0f"),
    ("network in and out, MB/s", "network_megabytes_per_second", ",.1f"),
    ("hot storage, TB", "hot_terabytes", ",.2f"),
    ("warm storage, TB", "warm_terabytes", ",.1f"),
)


def run_capacity(
    studies: str, given: dict[str, Any], *, mix: Path | None, costs: Path | None, gpu: str, as_json: bool
) -> int:
    """Print a plan per number of *studies* a day, by comma. Returns 0, or 2 for input that makes no plan.

    ``given``: assumptions of the command line, None where not given. ``gpu``: ``DETECTOR=SECONDS`` by comma. ``mix``: a
    JSON list of kinds of study.
    """
    try:
        measured = load_costs(costs or SHIPPED)
        assumptions = Assumptions(
            gpu=_gpu(gpu, measured), **{name: value for name, value in given.items() if value is not None}
        )
        kinds = STRESS_HOUR if mix is None else _mix(mix)
        plans = [plan(measured, kinds, number, assumptions) for number in _numbers(studies)]
    except InvalidInput as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    if as_json:
        answer = {
            "assumptions": asdict(assumptions),
            "mix": [asdict(kind) for kind in kinds],
            "provenance": measured.provenance.model_dump(),
            "plans": [asdict(one) for one in plans],
        }
        print(json.dumps(answer))
    else:
        _print(plans, assumptions, kinds, measured)
    return 0


def rendered_page(text: str) -> str:
    """Return the page of capacity planning with its table and the origin of its costs written anew.

    Raises InvalidInput when the page has no place for them.
    """
    measured = load_costs()
    plans = [plan(measured, STRESS_HOUR, number, Assumptions()) for number in _TABLE]
    head = ["studies a day", *(f"{one.studies_per_day:,.0f}" for one in plans)]
    rows = [[label, *(format(getattr(one, name), form) for one in plans)] for label, name, form in _ROWS]
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    table = "\n".join([*lines, "", f"Unit costs: {_origin(measured)}."])
    found, count = _BLOCK.subn(lambda match: f"{match[1]}\n{table}\n{match[2]}", text)
    if count != 1:
        msg = "the page has no place for the table"
        raise InvalidInput(msg)
    return found


def _origin(measured: UnitCosts) -> str:
    source = measured.provenance
    note = f"; {source.note}" if source.note else ""
    return f"`{source.command}`, {source.date}, {source.machine}, load average before {source.load:g}{note}"


def _print(plans: Sequence[Plan], chosen: Assumptions, kinds: Sequence[StudyKind], measured: UnitCosts) -> None:
    console = Console()
    table = Table("studies a day", box=None)
    for one in plans:
        table.add_column(f"{one.studies_per_day:,.0f}", justify="right")
    for label, name, form in _ROWS:
        table.add_row(label, *(format(getattr(one, name), form) for one in plans))
    console.print(table)
    total = sum(kind.share for kind in kinds)
    parts = ", ".join(
        f"{kind.share / total:.1%} {kind.name} ({kind.instances:g} images, {kind.megabytes:g} MB"
        f"{', ' + kind.detector if kind.detector else ''})"
        for kind in kinds
    )
    lines = [
        f"mix: {parts}",
        f"chosen: peak hour {chosen.peak_factor:g} x the mean, every image read {chosen.reads:g} x",
        f"  95 % of runs end {chosen.goal:g} s after a complete study or sooner, busy {chosen.utilisation:.0%} at peak",
        f"  {chosen.hot_days:g} days hot of {chosen.kept_days:g} kept, at least {chosen.smallest} pods each",
        f"unit costs: {_origin(measured)}",
    ]
    if measured.provenance.load > _BUSY:
        lines.append("These unit costs were measured on a busy machine: times are upper bounds. Measure your own.")
    if not chosen.gpu:
        lines.append("No GPU: nothing has been measured on one; --gpu DETECTOR=SECONDS plans with your own figure.")
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        msg = "studies per day are numbers, by comma"
        raise InvalidInput(msg) from error


def _gpu(text: str, measured: UnitCosts) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, _, seconds = part.partition("=")
        try:
            found[name] = float(seconds)
        except ValueError as error:
            msg = f"{part}: a GPU's cost is DETECTOR=SECONDS"
            raise InvalidInput(msg) from error
        if name not in measured.detectors:
            msg = f"no measured costs of {name}; there are {', '.join(sorted(measured.detectors))}"
            raise InvalidInput(msg)
    return found


def _mix(path: Path) -> tuple[StudyKind, ...]:
    adapter: TypeAdapter[list[Any]] = TypeAdapter(list[StudyKind])
    try:
        return tuple(adapter.validate_json(path.read_text(encoding="utf-8")))
    except OSError as error:
        msg = f"{path} cannot be read"
        raise InvalidInput(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InvalidInput(msg) from error
