"""The nodules of a scan against earlier results of the same detector: values only, no image is read again.

Places are compared from the middle of the lungs, since two scans share neither origin nor table height. Lungs that
are imaged to different heights have their middles in different places, so such results are not compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from wetread.core.codes import concept
from wetread.core.detector import Change, Measure
from wetread.core.priors import PriorFinding, PriorResult
from wetread.nodule.growth import Followed, Sized, follow, least_change
from wetread.nodule.reading import Reading

AXES: Final = ("x", "y", "z")
HEIGHT_SHARE: Final = 0.2
"""Lungs whose heights differ by a larger share were not imaged alike. Breathing takes less."""
NOT_COMPARABLE: Final = "prior_not_comparable"
"""Flag: an earlier result shows lungs of another height, or does not say."""
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Lungs:
    """Where the lungs of a scan lie: their middle in LPS mm, and their height in mm as far as imaged."""

    middle_mm: Point
    height_mm: float

    def place(self, centre_mm: Point) -> Point:
        """Return a place as seen from the middle of the lungs."""
        x, y, z = (round(a - b, 1) for a, b in zip(centre_mm, self.middle_mm, strict=True))
        return x, y, z


@dataclass(frozen=True, slots=True)
class Comparison:
    """What became of the nodules of a scan, by their order, and of those that are no more."""

    changes: Mapping[int, Change] = field(default_factory=dict)
    measures: Mapping[int, tuple[Measure, ...]] = field(default_factory=dict)
    gone: tuple[tuple[PriorResult, Sized], ...] = ()
    """Nodules of the newest comparable result that are not found any more."""
    compared: tuple[PriorResult, ...] = ()
    """The results that could be compared, newest first."""
    flags: tuple[str, ...] = ()


def lungs_of(reading: Reading) -> Lungs:
    """Return where the lungs lie: centre of their voxels, height of the planes that hold any."""
    closed, grid = reading.closed, reading.grid
    middle = []
    for axis in range(3):
        counts = closed.sum(axis=tuple(k for k in range(3) if k != axis), dtype=np.float64)
        middle.append(float(counts @ np.arange(len(counts)) / counts.sum()))
    x, y, z = reading.frame.to_lps(grid.place(np.array(middle)))
    planes = np.flatnonzero(closed.any(axis=(1, 2)))
    return Lungs((float(x), float(y), float(z)), round(float(np.ptp(planes) + 1) * grid.step, 1))


def compare(nodules: Sequence[Sized], lungs: Lungs, priors: Sequence[PriorResult], most: int) -> Comparison:
    """Say of each nodule what became of it since the newest of *priors* that shows it.

    *nodules* lie as ``Lungs.place`` says. New is what no comparable result shows. *most*: findings that a result can
    hold; one that is full does not tell what is new.
    """
    compared = [prior for prior in priors if _alike(prior, lungs)]
    flags = (NOT_COMPARABLE,) if len(compared) < len(priors) else ()
    changes: dict[int, Change] = {}
    measures: dict[int, tuple[Measure, ...]] = {}
    gone: tuple[tuple[PriorResult, Sized], ...] = ()
    for prior in compared:
        known = _nodules(prior)
        then = [size for _, size in known]
        followed = follow(nodules, then, prior.days)
        for one in followed:
            if one.now is not None and one.then is not None and one.now not in changes and one.course != "gone":
                changes[one.now] = Change(one.course, prior, known[one.then][0])
                measures[one.now] = _measures(one, nodules[one.now], then[one.then], prior)
        if prior is compared[0]:
            gone = tuple((prior, then[f.then]) for f in followed if f.now is None and f.then is not None)
    if compared and all(len(prior.findings) < most for prior in compared):
        changes |= {k: Change("new", compared[0]) for k in range(len(nodules)) if k not in changes}
    return Comparison(changes, measures, gone, tuple(compared), flags)


def _measures(followed: Followed, now: Sized, then: Sized, prior: PriorResult) -> tuple[Measure, ...]:
    limit = least_change(now, then)
    method = (
        f"against the result of {prior.study_date.isoformat()}; error of both volumes (95 %): "
        f"{_percent(math.exp(-limit)):.0f} % to +{_percent(math.exp(limit)):.0f} %"
    )
    change = Measure("volume_change", round(_percent(now.volume_mm3 / then.volume_mm3), 1), "%", method)
    if followed.course != "grown" or followed.doubling_days is None:
        return (change,)
    return change, Measure("doubling_time", round(followed.doubling_days, 1), "d", f"{prior.days:g} days apart")


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)


def _alike(prior: PriorResult, lungs: Lungs) -> bool:
    heights = [m.value for f in prior.findings if (m := f.measurement("lungs_height")) is not None]
    if not heights:
        return False
    return abs(heights[0] - lungs.height_mm) <= HEIGHT_SHARE * max(heights[0], lungs.height_mm)


def _nodules(prior: PriorResult) -> list[tuple[PriorFinding, Sized]]:
    """Return the nodules of a result with all that a comparison needs."""
    out = []
    for finding in prior.findings:
        volume = finding.measurement("volume")
        place = [m.value for axis in AXES if (m := finding.measurement(f"from_lungs_{axis}")) is not None]
        if finding.code != concept("nodule").code or finding.state != "positive" or len(place) < len(AXES):
            continue
        if volume is None or volume.uncertainty is None or not volume.value > 0:
            continue
        x, y, z = place
        out.append((finding, Sized((x, y, z), volume.value, volume.uncertainty / volume.value)))
    return out
