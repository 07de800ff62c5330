"""Growth against a prior scan: which nodule is which, volume doubling time, and whether it grew.

Doubling time is dt ln 2 / ln(V2 / V1) (Schwartz, Cancer 1961). Growth of the mean diameter counts from 1.5 mm
(Lung-RADS v2022), of the volume from 25 % (British Thoracic Society 2015): below, two scans of the same nodule differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from wetread.core.errors import ComputationFailed

GROWTH_MM: Final = 1.5
GROWTH_SHARE: Final = 0.25
PAIR_MM: Final = 20.0
"""Farthest that the same nodule lies apart in two scans after their common shift is taken off."""
Course = Literal["new", "grown", "stable", "shrunk", "gone"]
Point = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Sized:
    """A nodule of one scan: centre in LPS mm, volume in mm3, mean diameter in mm."""

    centre_mm: Point
    volume_mm3: float
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class Followed:
    """A nodule over two scans, by index into either list; ``doubling_days`` is negative when it shrank."""

    now: int | None
    then: int | None
    course: Course
    doubling_days: float | None = None


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


def _course(then: Sized, now: Sized, days: float) -> tuple[Course, float]:
    doubling = doubling_time_days(then.volume_mm3, now.volume_mm3, days)
    wider, share = now.diameter_mm - then.diameter_mm, now.volume_mm3 / then.volume_mm3 - 1
    if wider > GROWTH_MM or share >= GROWTH_SHARE:
        return "grown", doubling
    if wider < -GROWTH_MM or share <= -GROWTH_SHARE:
        return "shrunk", doubling
    return "stable", doubling


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
