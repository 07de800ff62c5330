"""Finds narrowings of the lumen against its healthy radius (diameter-based, as on a CT report)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from .tree import BoolArray, FloatArray

ECCENTRIC_ASPECT: Final = 1.5
SERIAL_DIAMETERS: Final = 6.0
SERIAL_PER_REYNOLDS: Final = 0.06


@dataclass(frozen=True)
class LesionRule:
    """When a narrowing counts: onset and end as fraction of the healthy radius, shortest length."""

    onset_ratio: float
    end_ratio: float
    min_length_m: float


@dataclass(frozen=True)
class Lesion:
    """One narrowing of a branch; positions along the branch, radii at the throat and at the end."""

    branch: int
    s_start_m: float
    s_throat_m: float
    s_end_m: float
    radius_throat_m: float
    healthy_throat_m: float
    radius_end_m: float
    aspect_ratio: float
    calcified: bool

    @property
    def diameter_stenosis(self) -> float:
        """1 - sqrt(A_s / A0)."""
        return 1.0 - self.radius_throat_m / self.healthy_throat_m

    @property
    def area_ratio(self) -> float:
        """A_s / A0."""
        return (self.radius_throat_m / self.healthy_throat_m) ** 2

    @property
    def length_m(self) -> float:
        """Length from start to end."""
        return self.s_end_m - self.s_start_m


@dataclass(frozen=True)
class Narrowing:
    """Span of a narrowing along ``s`` and the index of its tightest sample against the healthy radius."""

    s_start_m: float
    s_end_m: float
    throat: int


def find_narrowings(s: FloatArray, radius: FloatArray, healthy: FloatArray, rule: LesionRule) -> tuple[Narrowing, ...]:
    """Find where ``radius / healthy`` stays below the onset for the shortest length or longer.

    Arrays (n,). Crossings are interpolated between samples, so the answer hardly depends on the
    sampling. Each span is widened on both sides to where the end ratio is reached again; spans that
    then touch are one narrowing.
    """
    ratio = radius / healthy
    spans: list[list[float]] = []
    below = np.concatenate([[False], ratio < rule.onset_ratio, [False]])
    edges = np.flatnonzero(np.diff(below.astype(np.int8)))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        low = _crossing(s, ratio, int(first), -1, rule.onset_ratio)
        high = _crossing(s, ratio, int(stop) - 1, 1, rule.onset_ratio)
        if high - low < rule.min_length_m:
            continue
        left, right = int(first), int(stop) - 1
        while left > 0 and ratio[left] < rule.end_ratio:
            left -= 1
        while right < len(s) - 1 and ratio[right] < rule.end_ratio:
            right += 1
        start = _between(s, ratio, left, left + 1, rule.end_ratio)
        end = _between(s, ratio, right, right - 1, rule.end_ratio)
        if spans and start <= spans[-1][1]:
            spans[-1][1] = max(end, spans[-1][1])
        else:
            spans.append([start, end])
    return tuple(Narrowing(low, high, _throat(s, ratio, low, high)) for low, high in spans)


def _throat(s: FloatArray, ratio: FloatArray, low: float, high: float) -> int:
    inside = np.flatnonzero((s >= low) & (s <= high))
    return int(inside[np.argmin(ratio[inside])])


def _crossing(s: FloatArray, ratio: FloatArray, at: int, step: int, level: float) -> float:
    """Where the ratio leaves ``level`` going outward from sample ``at``."""
    outside = at + step
    if not 0 <= outside < len(s):
        return float(s[at])
    return _between(s, ratio, outside, at, level)


def _between(s: FloatArray, ratio: FloatArray, outside: int, inside: int, level: float) -> float:
    """Linear crossing of ``level`` between a sample at or above it and one below it."""
    if ratio[outside] < level:
        return float(s[outside])
    rise = ratio[outside] - ratio[inside]
    share = (level - ratio[inside]) / rise if rise > 0.0 else 1.0
    return float(s[inside] + share * (s[outside] - s[inside]))


def describe_lesion(
    branch: int,
    narrowing: Narrowing,
    s: FloatArray,
    radius: FloatArray,
    healthy: FloatArray,
    aspect_ratio: FloatArray,
    calcium: BoolArray,
) -> Lesion:
    """Measure one narrowing of a branch; arrays (n,) along the branch."""
    throat = narrowing.throat
    inside = (s >= narrowing.s_start_m) & (s <= narrowing.s_end_m)
    return Lesion(
        branch=branch,
        s_start_m=narrowing.s_start_m,
        s_throat_m=float(s[throat]),
        s_end_m=narrowing.s_end_m,
        radius_throat_m=float(radius[throat]),
        healthy_throat_m=float(healthy[throat]),
        radius_end_m=float(np.interp(narrowing.s_end_m, s, radius)),
        aspect_ratio=float(np.max(np.maximum(aspect_ratio, 1.0 / aspect_ratio)[inside])),
        calcified=bool(np.any(calcium[inside])),
    )


def throat_reynolds(lesion: Lesion, flow: float | FloatArray, density: float, viscosity: float) -> FloatArray:
    """Rho U D / mu at the throat; ``flow`` in m3/s broadcasts."""
    return np.asarray(2.0 * density * flow / (np.pi * viscosity * lesion.radius_throat_m), dtype=np.float64)


def is_serial(lesions: tuple[Lesion, ...], position: int, reynolds: float) -> bool:
    """Tell whether the next throat lies within max(6 D, 0.06 Re_t D) behind this lesion's end."""
    if position + 1 >= len(lesions):
        return False
    this, following = lesions[position], lesions[position + 1]
    reach = max(SERIAL_DIAMETERS, SERIAL_PER_REYNOLDS * reynolds) * 2.0 * this.healthy_throat_m
    return following.s_throat_m - this.s_end_m < reach
