"""The table of goals: ratios within each round, their median and range, and whether the goal is met."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

Record = dict[str, Any]
Value = Callable[[Record], float]

OURS: Final = "wetread"


@dataclass(frozen=True, slots=True)
class Goal:
    """``best``: "low" when ours / theirs is to be small, "high" when it is to be large."""

    name: str
    part: str
    value: Value
    must: float
    stretch: float
    best: str = "low"
    only: Callable[[Record], bool] = lambda _record: True
    against: tuple[str, ...] = ("default", "tuned")


def _field(name: str) -> Value:
    return lambda record: float(record[name])


def _medium(medium: str, cell: str | None = None) -> Callable[[Record], bool]:
    return lambda record: record["medium"] == medium and cell in (None, record["cell"])


def _cell(cell: str) -> Callable[[Record], bool]:
    return lambda record: record["cell"] == cell


def goals(size: int) -> list[Goal]:
    """Return the goals; *size* is the larger index."""
    at = f"at {size}"
    cpu, rate, p50, speed = _field("cpu_ms"), _field("rate"), _field("p50_ms"), _field("mb_per_s")
    high = "high"
    return [
        Goal("STOW server CPU per instance, tmpfs, geomean of 9", "stow", cpu, 0.50, 0.35, only=_medium("tmpfs")),
        Goal("STOW instances/s, tmpfs, geomean of 9", "stow", rate, 2, 3, high, _medium("tmpfs")),
        Goal("STOW instances/s, disk, batch 1 c16", "stow", rate, 1.5, 3, high, _medium("disk", "1x16")),
        Goal("STOW instances/s, disk, batch 1 c1", "stow", rate, 1, 1.2, high, _medium("disk", "1x1")),
        Goal("peak RSS after the cells, 100x16 last", "memory", _field("bytes"), 0.5, 0.25),
        Goal("small-instance fill, instances/s", "fill", rate, 3, 5, high),
        Goal(f"QIDO PatientID p50, {at}", "qido PatientID", p50, 1 / 3, 1 / 8, only=_cell(at)),
        Goal(f"QIDO PatientID CPU, {at}", "qido PatientID", cpu, 1 / 3, 1 / 8, only=_cell(at)),
        Goal(f"QIDO list p50, {at}", "qido list", p50, 1 / 3, 1 / 8, only=_cell(at)),
        Goal(f"QIDO list CPU, {at}", "qido list", cpu, 1 / 3, 1 / 8, only=_cell(at)),
        Goal(
            f"QIDO a series' instances CPU, {at}", "qido instances", cpu, 1 / 20, 1 / 50, "low", _cell(at), ("default",)
        ),
        Goal(
            f"QIDO a series' instances CPU, {at}", "qido instances", cpu, 1 / 10, 1 / 50, "low", _cell(at), ("tuned",)
        ),
        Goal("series metadata 100, p50", "series metadata", p50, 1 / 3, 1 / 8, only=_cell("100")),
        Goal("series metadata 1000, p50", "series metadata", p50, 1 / 3, 1 / 8, only=_cell("1000")),
        Goal("instance metadata CPU", "instance metadata", cpu, 0.1, 0.05),
        Goal("frames/1 c4 CPU", "frames", cpu, 0.5, 0.3),
        Goal("series retrieve MB/s c1", "series retrieve", speed, 2, 4, high),
        Goal("rendered JPEG per second", "rendered", rate, 1, 1.5, high),
    ]


def own_goals(size: int, small: int) -> list[tuple[str, float, Callable[[Sequence[Record]], list[float]]]]:
    """Return the goals of ours against ourselves: name, must, ratios per round."""

    def growth(records: Sequence[Record]) -> list[float]:
        ours = [r for r in records if r["server"] == OURS and r["part"] == "qido PatientID"]
        before = {r["round"]: r["p50_ms"] for r in ours if r["cell"] == f"at {small}"}
        return [r["p50_ms"] / before[r["round"]] for r in ours if r["cell"] == f"at {size}" and size != small]

    def first(records: Sequence[Record]) -> list[float]:
        ours = [r for r in records if r["server"] == OURS and r["part"] == "first metadata"]
        return [r["first_ms"] / r["p50_ms"] for r in ours]

    return [
        (f"keyed query p50, {small} -> {size} instances, own ratio", 1.5, growth),
        ("first metadata after the STOW answer / warm, own ratio", 1.5, first),
    ]


def ratios(records: Iterable[Record], goal: Goal, peer: str) -> list[float]:
    """Return ours / theirs per round, the geometric mean over cells."""
    values: dict[tuple[int, str, str], float] = {}
    for record in records:
        if record["part"] == goal.part and goal.only(record):
            values[record["round"], record.get("cell", ""), record["server"]] = goal.value(record)
    by_round: dict[int, list[float]] = {}
    for (number, cell, server), value in values.items():
        theirs = values.get((number, cell, peer))
        if server == OURS and theirs:
            by_round.setdefault(number, []).append(max(value, 1e-9) / theirs)
    return [math.exp(statistics.fmean(map(math.log, found))) for found in by_round.values()]


def table(records: Sequence[Record], size: int, small: int) -> list[str]:
    """Return the Markdown lines of the goals."""
    lines = ["| goal (ours / Orthanc) | against | median ratio | range | must | stretch | |", "|-|-|-|-|-|-|-|"]
    for goal in goals(size):
        sign = "<=" if goal.best == "low" else ">="
        for peer in goal.against:
            found = ratios(records, goal, peer)
            if not found:
                continue
            median = statistics.median(found)
            met, far = (_met(median, bar, goal.best) for bar in (goal.must, goal.stretch))
            verdict = "stretch" if far else "met" if met else "**missed**"
            lines.append(
                f"| {goal.name} | {peer} | {median:.3g} | {min(found):.3g} - {max(found):.3g} "
                f"| {sign} {goal.must:.3g} | {sign} {goal.stretch:.3g} | {verdict} |"
            )
    for name, must, values in own_goals(size, small):
        found = values(records)
        if found:
            median = statistics.median(found)
            verdict = "met" if median <= must else "**missed**"
            lines.append(
                f"| {name} | - | {median:.3g} | {min(found):.3g} - {max(found):.3g} | <= {must:.3g} | - | {verdict} |"
            )
    return lines


def _met(value: float, bar: float, best: str) -> bool:
    return value <= bar if best == "low" else value >= bar


def cells(records: Sequence[Record]) -> list[str]:
    """Return the Markdown lines of all cells: medians over rounds."""
    lines = [
        "| part | cell | server | n | rate /s | MB/s | CPU ms | p50 ms | p95 ms | client CPU ms | bad |",
        "|-|-|-|-|-|-|-|-|-|-|-|",
    ]
    grouped: dict[tuple[str, str, str], list[Record]] = {}
    for record in records:
        if "cpu_ms" in record:
            cell = f"{record.get('medium', '')} {record['cell']}".strip()
            grouped.setdefault((record["part"], cell, record["server"]), []).append(record)
    for (part, cell, server), found in grouped.items():

        def middle(name: str, found: list[Record] = found) -> float:
            return statistics.median(record[name] for record in found)

        lines.append(
            f"| {part} | {cell} | {server} | {found[0]['count']} | {middle('rate'):.0f} | {middle('mb_per_s'):.0f} "
            f"| {middle('cpu_ms'):.2f} | {middle('p50_ms'):.2f} | {middle('p95_ms'):.2f} | {middle('client_ms'):.2f} "
            f"| {sum(record['bad'] for record in found)} |"
        )
    peaks: dict[str, list[float]] = {}
    for record in records:
        if record["part"] == "memory":
            peaks.setdefault(record["server"], []).append(record["bytes"] / 2**20)
    lines += [
        f"| memory | peak MiB | {name} | | | | {statistics.median(found):.0f} | | | | |"
        for name, found in peaks.items()
    ]
    return lines
