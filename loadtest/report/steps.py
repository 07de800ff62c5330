"""The highest rate of studies at which the detector's turnaround keeps a goal: measured in steps, and predicted.

Every step sends the mix of the stress hour at a higher rate to a fresh server, open loop: studies come when they come,
whether the server keeps up or not. The prediction replays the same arrivals through one queue whose running time comes
from the unit costs alone; it is made before the steps are.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

from stress_hour import images, mix
from stress_hour.running import READY_SECONDS, Terms, drive
from stress_hour.summary import Summary, percentile, summarize
from unit_costs import Measured

from wetread.commands.capacity_model import Load, StudyKind, load_of, slowed, stretched
from wetread.commands.local_server import local_server

PER_HOUR: Final = sum(shape.per_hour for shape in mix.PUBLISHED)
READS: Final = 1.0
"""Every study is fetched once, to be compared."""
_TOP: Final = 1000.0
LOWEST: Final = 0.25
"""No step is slower than this, times the published rate."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a step is. *minutes* of arrivals; *goal*: seconds from the last byte to the detector's result, 95 %."""

    minutes: float
    goal: float
    slices: int
    seed: int
    associations: int = 4

    def arrivals(self, scale: float) -> list[mix.Transaction]:
        """Return the studies of a step at *scale* times the published rate."""
        return mix.schedule(minutes=self.minutes, scale=scale, seed=self.seed, slices={"CT": self.slices})

    def kinds(self, measured: Measured, scale: float) -> list[StudyKind]:
        """Return what arrives in a step as the calculator knows it."""
        numbers = Counter(one.kind for one in self.arrivals(scale))
        cut = self.slices / 324
        shapes = {"RF": (1, 1.05), "US": (7, 17.0), "CT head": (self.slices, 170.4 * cut),
                  "CT body": (self.slices, 170.2 * cut), "MR": (5, 1.03)}  # fmt: skip
        return [
            StudyKind(kind, number, *shapes[kind], reader_of(kind, measured))
            for kind, number in sorted(numbers.items())
        ]

    def load(self, measured: Measured, scale: float) -> Load:
        """Return what one study of a step costs by the unit costs."""
        return load_of(measured.costs, self.kinds(measured, scale), reads=READS)


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, studies an hour: ``scale`` times the published one. ``p95``: of head CTs, seconds; ``predicted``: the
    same from unit costs.
    """

    scale: float
    p95: float
    predicted: float
    summary: Summary

    @property
    def rate(self) -> float:
        """Studies an hour."""
        return self.scale * PER_HOUR

    def kept(self, goal: float) -> bool:
        """Whether the goal was kept and nothing was lost, silent or turned away."""
        return self.summary.passed and self.p95 <= goal


def measure(
    protocol: Protocol,
    measured: Measured,
    made: images.Images,
    folder: Path,
    *,
    start: float,
    factor: float,
    say: Callable[[str], None],
) -> list[Step]:
    """Raise the rate from *start* times the published one by *factor* until the goal is missed; by rate.

    A start that misses it already is followed by lower rates until one keeps it.
    """
    steps: list[Step] = []
    scale: float | None = start
    while scale is not None:
        transactions = protocol.arrivals(scale)
        with (
            tempfile.TemporaryDirectory(prefix="wetread-report-", dir=folder) as scratch,
            local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
        ):
            terms = Terms(associations=protocol.associations, announce=True, delete=True)
            summary = summarize(drive(server, Path(scratch), transactions, made, terms))
        heads = summary.delayed.get("CT head", [])
        step = Step(scale, percentile(heads, 0.95), predicted95(protocol, measured, scale), summary)
        say(f"{step.rate:.0f} studies/h: head CTs p95 {step.p95:.1f} s, predicted {step.predicted:.1f} s")
        steps.append(step)
        scale = following(steps, protocol.goal, factor)
    return sorted(steps, key=lambda step: step.scale)


def following(steps: Sequence[Step], goal: float, factor: float) -> float | None:
    """Return the next rate, times the published one; None when the goal lies between two steps, or below all rates."""
    kept = [step.scale for step in steps if step.kept(goal)]
    missed = [step.scale for step in steps if not step.kept(goal)]
    if kept and missed:
        return None
    if kept:
        return max(kept) * factor
    lower = min(missed) / factor
    return lower if lower >= LOWEST else None


def highest(steps: Sequence[Step], goal: float) -> float:
    """Return the rate at which the goal is reached: between the last step that kept it and the first that did not.

    *steps* are sorted by rate. Straight between the logarithms of rate and time; 0 when no step kept the goal.
    """
    kept = [number for number, step in enumerate(steps) if step.kept(goal)]
    if not kept:
        return 0.0
    low, high = steps[kept[-1]], steps[min(kept[-1] + 1, len(steps) - 1)]
    if high is low or not high.summary.passed or high.p95 <= low.p95:
        return low.rate
    share = math.log(goal / low.p95) / math.log(high.p95 / low.p95)
    return float(low.rate * (high.rate / low.rate) ** min(1.0, max(0.0, share)))


def predicted95(protocol: Protocol, measured: Measured, scale: float) -> float:
    """Return the 95th percentile of the head CTs' turnaround at *scale*, from unit costs alone.

    Two queues, one after the other: detector runs, then their reports. Runs yield to gateway, orchestration and sender
    and are slowed by what those take of the cores that an idle server leaves; reports share the one interpreter of the
    orchestration and yield to gateway and sender. Head CTs are urgent and go before others that wait, but end no run.
    """
    arrivals = protocol.arrivals(scale)
    if not any(one.kind == "CT head" for one in arrivals):
        return 0.0
    load = protocol.load(measured, scale)
    sender = measured.sender.of(load.instances, load.megabytes)
    gateway = measured.gateway(load)
    rate = len(arrivals) / (protocol.minutes * 60)
    cores = (os.cpu_count() or 1) - sum(measured.idle.values())
    detectors = measured.costs.detectors
    walls = {
        name: stretched(costs, rate * (gateway + load.orchestration + sender), cores)
        for name, costs in detectors.items()
    }
    free = 1 - rate * measured.costs.orchestration.per_study
    writing = slowed(1.0, rate * (gateway + sender), cores) / free if free > 0 else math.inf
    if not math.isfinite(max(*walls.values(), writing)):
        return math.inf
    runs = [
        Run(one.at, one.kind != "CT head", walls[reader], detectors[reader].report * writing)
        for one in arrivals
        if (reader := reader_of(one.kind, measured))
    ]
    return percentile(replayed(runs), 0.95)


def reader_of(kind: str, measured: Measured) -> str:
    """Return the detector whose process reads studies of *kind*; empty when none does."""
    name = mix.READ_BY.get(kind, "")
    return name if name in measured.costs.detectors else ""


@dataclass(frozen=True, slots=True)
class Run:
    """``at``: when the study was there. ``yields``: to waiting ones that do not. Seconds of the run and its report."""

    at: float
    yields: bool
    wall: float
    report: float = 0.0


def replayed(runs: Sequence[Run]) -> list[float]:
    """Return the seconds to the stored report of the runs that do not yield, in the order of their ends.

    *runs* are sorted by time. One server of runs: among equals the first come is the first served; then one of reports,
    in the order of the runs' ends.
    """
    free, written = 0.0, 0.0
    found: list[float] = []
    waiting: list[tuple[bool, float, int]] = []
    coming = deque(range(len(runs)))
    while coming or waiting:
        if not waiting:
            free = max(free, runs[coming[0]].at)
        while coming and runs[coming[0]].at <= free:
            number = coming.popleft()
            heappush(waiting, (runs[number].yields, runs[number].at, number))
        run = runs[heappop(waiting)[-1]]
        free += run.wall
        written = max(written, free) + run.report
        if not run.yields:
            found.append(written - run.at)
    return found


def predicted_highest(protocol: Protocol, measured: Measured) -> float:
    """Return the rate, studies an hour, at which the replayed queue reaches the goal."""
    return _bisect(lambda scale: predicted95(protocol, measured, scale) <= protocol.goal) * PER_HOUR


def _bisect(kept: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    while kept(high) and high < _TOP:
        low, high = high, high * 2
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) else (low, middle)
    return low
