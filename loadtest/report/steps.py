"""The highest rate of studies at which the detector's turnaround keeps a goal: measured in steps, and predicted.

Every step sends the mix of the stress hour at a higher rate to a fresh server, open loop: studies come when they come,
whether the server keeps up or not. The prediction replays the same arrivals through one queue whose running time comes
from the unit costs alone; it is made before the steps are.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stress_hour import images, mix
from stress_hour.running import READY_SECONDS, Terms, drive
from stress_hour.summary import Summary, percentile, summarize
from unit_costs import Measured

from wetread.commands.capacity_model import StudyKind, load_of
from wetread.commands.local_server import local_server

PER_HOUR: Final = sum(shape.per_hour for shape in mix.PUBLISHED)
READS: Final = 1.0
"""Every study is fetched once, to be compared."""
_TOP: Final = 1000.0


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

    def kinds(self) -> list[StudyKind]:
        """Return the mix of a step as the calculator knows it."""
        share = self.slices / 324
        heads, bodies = mix.MODEL_CTS_PER_HOUR, 45 - mix.MODEL_CTS_PER_HOUR
        return [
            StudyKind("RF", 180, 1, 1.05),
            StudyKind("US", 75, 7, 17.0),
            StudyKind("CT head", heads, self.slices, 170.4 * share, "ich"),
            StudyKind("CT body", bodies, self.slices, 170.2 * share),
            StudyKind("MR", 37.5, 5, 1.03),
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, studies an hour. ``p95``: of head CTs, seconds; ``predicted``: the same from unit costs."""

    rate: float
    p95: float
    predicted: float
    summary: Summary

    def kept(self, goal: float) -> bool:
        """Whether the goal was kept and nothing was lost, silent or turned away."""
        return self.summary.passed and self.p95 <= goal


def measure(
    protocol: Protocol, measured: Measured, made: images.Images, folder: Path, *, start: float, factor: float
) -> list[Step]:
    """Raise the rate from *start* times the published one by *factor* until the goal is missed."""
    steps: list[Step] = []
    scale = start
    while not steps or steps[-1].kept(protocol.goal):
        transactions = protocol.arrivals(scale)
        with (
            tempfile.TemporaryDirectory(prefix="wetread-report-", dir=folder) as scratch,
            local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
        ):
            terms = Terms(associations=protocol.associations, announce=True, delete=True)
            summary = summarize(drive(server, Path(scratch), transactions, made, terms))
        heads = summary.delayed.get("CT head", [])
        steps.append(Step(scale * PER_HOUR, percentile(heads, 0.95), predicted95(protocol, measured, scale), summary))
        scale *= factor
    return steps


def highest(steps: Sequence[Step], goal: float) -> float:
    """Return the rate at which the goal is reached: between the last step that kept it and the first that did not.

    Straight between the logarithms of rate and time; 0 when no step kept the goal.
    """
    kept = [step for step in steps if step.kept(goal)]
    if not kept:
        return 0.0
    low, high = kept[-1], steps[-1]
    if high is low or not high.summary.passed or high.p95 <= low.p95:
        return low.rate
    share = math.log(goal / low.p95) / math.log(high.p95 / low.p95)
    return float(low.rate * (high.rate / low.rate) ** min(1.0, max(0.0, share)))


def predicted95(protocol: Protocol, measured: Measured, scale: float) -> float:
    """Return the 95th percentile of the head CTs' turnaround at *scale*, from unit costs alone.

    What gateway, orchestration and sender need at that rate is taken off the machine's cores; a run's wall time is its
    CPU time over the cores that are left, when those are fewer than it would use by itself.
    """
    load = load_of(measured.costs, protocol.kinds(), reads=READS)
    rate = scale * PER_HOUR / 3600
    sender = measured.sender.of(load.instances, load.megabytes)
    detector = measured.costs.detectors["ich"]
    left = (os.cpu_count() or 1) - rate * (load.gateway + load.orchestration + sender)
    if left <= 0:
        return math.inf
    wall = max(detector.wall, detector.cpu / left)
    arrivals = [one.at for one in protocol.arrivals(scale) if one.kind == "CT head"]
    return percentile(replayed(arrivals, wall), 0.95) if arrivals else 0.0


def replayed(arrivals: Sequence[float], wall: float) -> list[float]:
    """Return wait and run of each arrival at one server that takes *wall* seconds for each, first come first served."""
    free, found = 0.0, []
    for at in arrivals:
        free = max(free, at) + wall
        found.append(free - at)
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
