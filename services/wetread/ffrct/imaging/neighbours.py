"""Where the cross-sections of one artery run into another one: beside forks, origins and touching vessels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .image import FloatArray
from .sections import LARGEST_MM, RAYS, Sections, positions

MARGIN_MM: Final = 0.3
"""Blur over the wall of the other artery."""
STEADY_SAMPLES: Final = 13
"""Radius of the other artery by a median over 3 mm: beside a fork its own section is too wide."""


@dataclass(frozen=True, slots=True)
class Course:
    """An artery while it is being measured: ``points`` (n, 3) LPS mm, half-maximum ``radius`` (n,), parent or -1."""

    points: FloatArray
    radius: FloatArray
    parent: int


def clearance(courses: Sequence[Course], number: int, sections: Sections) -> FloatArray:
    """How far (mm) every ray (n, rays) of *sections*, across ``courses[number]``, goes before it meets another artery.

    Infinite where none is met. An artery that leaves this one counts from where it is out of this one's lumen: its
    origin is here.
    """
    own = courses[number]
    width = ndimage.median_filter(own.radius, STEADY_SAMPLES, mode="nearest")
    out = np.full((len(own.points), RAYS), np.inf)
    for other, course in enumerate(courses):
        if other == number:
            continue
        points, radius = course.points, ndimage.median_filter(course.radius, STEADY_SAMPLES, mode="nearest")
        if course.parent == number:
            away, nearest = (np.atleast_1d(v) for v in cKDTree(own.points).query(points))
            outside = away > width[nearest]
            points, radius = points[outside], radius[outside]
        if len(points) == 0:
            continue
        lookup = cKDTree(points)
        reach = LARGEST_MM + float(radius.max()) + MARGIN_MM
        distance, _ = (np.atleast_1d(v) for v in lookup.query(own.points, distance_upper_bound=reach))
        near = np.flatnonzero(np.isfinite(distance))
        if len(near) == 0:
            continue
        at = positions(own.points, sections)[near]
        gap, index = lookup.query(at.reshape(-1, 3), distance_upper_bound=float(radius.max()) + MARGIN_MM)
        wall = np.append(radius, 0.0)[index] + MARGIN_MM
        met = (gap <= wall).reshape(at.shape[:3])
        first = np.where(met.any(axis=2), sections.rho[np.argmax(met, axis=2)], np.inf)
        out[near] = np.minimum(out[near], first)
    return out
