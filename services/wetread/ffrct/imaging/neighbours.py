"""Where the cross-sections of one artery run into another one: beside forks, origins and touching vessels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .image import FloatArray, Mask
from .sections import LARGEST_MM, RAYS, Sections, positions

MARGIN_MM: Final = 0.3
"""Blur over the wall of the other artery."""
STEADY_SAMPLES: Final = 13
"""Radius of the other artery by a median over 3 mm: beside a fork its own section is too wide."""

BEHIND_FORK: Final = slice(8, 32)
"""Samples of 0.25 mm behind a fork, 2 to 8 mm, by which the wider of two arteries is told."""


@dataclass(frozen=True, slots=True)
class Course:
    """An artery while it is being measured: ``points`` (n, 3) LPS mm, half-maximum ``radius`` (n,), parent or -1."""

    points: FloatArray
    radius: FloatArray
    parent: int


def clearance(courses: Sequence[Course], number: int, sections: Sections) -> FloatArray:
    """How far (mm) every ray (n, rays) of *sections*, across ``courses[number]``, goes before it meets another artery.

    Infinite where none is met. An artery that leaves this one counts from where it is out of this one's lumen: its
    origin is here. But where the wider one leaves, the lumen behind the fork is its own, from its first point on.
    """
    own = courses[number]
    width = _steady(own.radius)
    out = np.full((len(own.points), RAYS), np.inf)
    everywhere = np.ones(len(own.points), dtype=np.bool_)
    for other, course in enumerate(courses):
        if other == number:
            continue
        radius = _steady(course.radius)
        if course.parent != number:
            _meet(out, own, sections, course.points, radius, everywhere)
            continue
        origin = int(cKDTree(own.points).query(course.points[0])[1])
        away, nearest = (np.atleast_1d(v) for v in cKDTree(own.points).query(course.points))
        outside = away > width[nearest]
        _meet(out, own, sections, course.points[outside], radius[outside], everywhere)
        if _typical(radius) > _typical(width[origin:]):
            _meet(out, own, sections, course.points, radius, np.arange(len(own.points)) > origin)
    return out


def _steady(radius: FloatArray) -> FloatArray:
    return np.asarray(ndimage.median_filter(radius, STEADY_SAMPLES, mode="nearest"), dtype=np.float64)


def _typical(radius: FloatArray) -> float:
    """Median radius of the stretch behind a fork; zero where nothing follows."""
    stretch = radius[BEHIND_FORK] if len(radius) > BEHIND_FORK.start else radius
    return float(np.median(stretch)) if len(stretch) else 0.0


def _meet(
    out: FloatArray, own: Course, sections: Sections, points: FloatArray, radius: FloatArray, wanted: Mask
) -> None:
    """Lower *out*, for the sections *wanted*, to where their rays enter the lumen of *radius* around *points*."""
    if len(points) == 0:
        return
    lookup = cKDTree(points)
    reach = LARGEST_MM + float(radius.max()) + MARGIN_MM
    distance, _ = (np.atleast_1d(v) for v in lookup.query(own.points, distance_upper_bound=reach))
    near = np.flatnonzero(np.isfinite(distance) & wanted)
    if len(near) == 0:
        return
    at = positions(own.points, sections)[near]
    gap, index = lookup.query(at.reshape(-1, 3), distance_upper_bound=float(radius.max()) + MARGIN_MM)
    met = (gap <= np.append(radius, 0.0)[index] + MARGIN_MM).reshape(at.shape[:3])
    first = np.where(met.any(axis=2), sections.rho[np.argmax(met, axis=2)], np.inf)
    out[near] = np.minimum(out[near], first)
