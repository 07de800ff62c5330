"""Growth against an earlier scan: which nodule is which, how sure a change of volume is, volume doubling time.

Doubling time is dt ln 2 / ln(V2 / V1) (Schwartz, Cancer 1961). A change counts beyond the error of both volumes, and
never below 25 % (British Thoracic Society 2015). Diameters decide nothing: the card's limits of agreement are wider
than the 1.5 mm that Lung-RADS calls growth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from wetread.core.errors import ComputationFailed

GROWTH_SHARE: Final = 0.25
PAIR_MM: Final = 20.0
"""Farthest that the same nodule lies apart in two scans after their common shift is taken off."""
Course = Literal["new", "grown", "stable", "shrunk", "gone"]
Point = tuple[float, float, float]
_SPREAD: Final = 1.96 * math.sqrt(math.pi / 2)
"""From the mean absolute error of a normal distribution to the half-width that holds 95 % of it."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A nodule of one scan: centre in mm (axes of LPS, any common origin), volume in mm3 with its error."""

    centre_mm: Point
    volume_mm3: float
    error: float
    """Relative; 95 % of such volumes keep within it."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A nodule over two scans, by index into either list; ``doubling_days`` of what grew or shrank (then negative)."""

    now: int | None
    then: int | None
    course: Course
    doubling_days: float | None = None


def error_of(volume_mm3: float, blur_mm: float, mean_error: float) -> float:
    """Relative error that 95 % of such volumes keep within.

    Two independent parts: the card's mean absolute error, taken as normal; and what the scan's own blur may do to the
    border. Half-way between ball and lung a Gaussian blur of standard deviation s moves a border of radius r by up to
    s^2 / r, so the volume by 3 (s / r)^2: small nodules and thick slices, which the card's mean does not tell apart.
    """
    radius = (3 * volume_mm3 / (4 * math.pi)) ** (1 / 3)
    return math.hypot(_SPREAD * mean_error, 3 * (blur_mm / radius) ** 2)


def least_change(now: Sized, then: Sized) -> float:
    """Logarithm of the volume ratio up to which two scans of an unchanged nodule may differ (95 %)."""
    return max(math.log1p(GROWTH_SHARE), math.hypot(now.error, then.error))


def doubling_time_days(then_mm3: float, now_mm3: float, days: float) -> float:
    """Time to double at a constant rate; infinite without change, negative when shrinking.

    Raises ComputationFailed for volumes or a time that are not positive.
    """
    if not (then_mm3 > 0 and now_mm3 > 0 and days > 0):
        raise ComputationFailed("crashed", "a doubling time needs two volumes and a time between them")
    rate = math.log(now_mm3 / then_mm3)
    return math.inf if rate == 0 else days * math.log(2) / rate


def follow(now: Sequence[Sized], then: Sequence[Sized], days: float) -> list[Followed]:
    """Pair the nodules of two scans, *days* apart, and say of each what became of it.

    The scans' common shift is taken off first: the median of nearest neighbours' differences.
    """
    pairs = _pairs(_places(now), _places(then))
    out = []
    for k, nodule in enumerate(now):
        before = pairs.get(k)
        if before is None:
            out.append(Followed(k, None, "new"))
            continue
        out.append(Followed(k, before, *_course(then[before], nodule, days)))
    seen = set(pairs.values())
    return out + [Followed(None, k, "gone") for k in range(len(then)) if k not in seen]


def _course(then: Sized, now: Sized, days: float) -> tuple[Course, float | None]:
    change = math.log(now.volume_mm3 / then.volume_mm3)
    if abs(change) <= least_change(now, then):
        return "stable", None
    return "grown" if change > 0 else "shrunk", doubling_time_days(then.volume_mm3, now.volume_mm3, days)


def _places(nodules: Sequence[Sized]) -> npt.NDArray[np.float64]:
    return np.array([n.centre_mm for n in nodules], dtype=np.float64).reshape(-1, 3)


def _pairs(now: npt.NDArray[np.float64], then: npt.NDArray[np.float64]) -> dict[int, int]:
    """Index now -> index then, nearest pairs first, each once."""
    if not len(now) or not len(then):
        return {}
    difference = now[:, None] - then[None]
    distance = np.linalg.norm(difference, axis=-1)
    shift = np.zeros(3)
    if min(len(now), len(then)) >= 3:
        shift = np.median([difference[k, distance[k].argmin()] for k in range(len(now))], axis=0)
    distance = np.linalg.norm(difference - shift, axis=-1)
    found: dict[int, int] = {}
    for flat in np.argsort(distance, axis=None, kind="stable"):
        k, j = divmod(int(flat), len(then))
        if distance[k, j] > PAIR_MM:
            break
        if k not in found and j not in found.values():
            found[k] = j
    return found
