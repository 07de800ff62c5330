"""Outlines of mask regions on one plane: closed polygons along pixel edges, their area and longest diameter.

Coordinates are (column, row) with the origin at the top left corner of the top left pixel, as SCOORD wants them
(PS3.3 C.18.6.1.1): pixel (row i, column j) covers [j, j+1] x [i, i+1]. So the area that a polygon encloses is exactly
the area of its pixels, and a one-pixel region has its centre at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import ConvexHull

from wetread.core.detector import LabelArray

Points = npt.NDArray[np.float64]

# Walking with the region on the right-hand side (rows grow downwards): right, down, left, up.
_STEP: Final = ((1, 0), (0, 1), (-1, 0), (0, -1))
# Pixel (column, row) offsets from the current corner: what lies ahead on the left and on the right of each heading.
_AHEAD_LEFT: Final = ((0, -1), (0, 0), (-1, 0), (-1, -1))
_AHEAD_RIGHT: Final = ((0, 0), (-1, 0), (-1, -1), (0, -1))


@dataclass(frozen=True, slots=True)
class Outline:
    """The outer border of the largest part of a region on a plane.

    ``points``: [n, 2] (column, row), closed: the last repeats the first. ``area_mm2`` is what the border encloses,
    ``diameter`` the [2, 2] end points of the longest chord between border points, ``diameter_mm`` its length.
    """

    points: Points
    area_mm2: float
    diameter: Points
    diameter_mm: float


def largest_outline(region: npt.NDArray[np.bool_], spacing: tuple[float, float]) -> Outline | None:
    """Outline the largest 4-connected part of *region* [row, column]; None when it is empty.

    ``spacing``: mm between rows, mm between columns. Of equally large parts the first in raster order is taken.
    """
    if not region.any():
        return None
    labels, count = ndimage.label(region)
    sizes = np.bincount(labels.ravel())[1:] if count else np.empty(0)
    part = labels == 1 + int(sizes.argmax())
    points = _border(np.asarray(part, dtype=np.bool_))
    scale = np.array([spacing[1], spacing[0]])
    x, y = points[:, 0], points[:, 1]
    area = 0.5 * abs(float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) * float(scale.prod())
    corners = points[:-1]
    hull = corners[np.sort(ConvexHull(corners * scale).vertices)]
    gaps = np.linalg.norm((hull[:, None] - hull[None]) * scale, axis=2)
    first, second = np.unravel_index(int(gaps.argmax()), gaps.shape)
    return Outline(points, area, hull[[first, second]], float(gaps[first, second]))


def edges(mask: LabelArray | npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of the region that touch something else: where an overlay draws its line."""
    inside = mask.astype(bool)
    return np.asarray(inside & ~ndimage.binary_erosion(inside, border_value=0), dtype=np.bool_)


def _border(part: npt.NDArray[np.bool_]) -> Points:
    """Follow the outer border of one 4-connected part along pixel edges; collinear points are left out."""
    padded = np.pad(part, 1)

    def inside(corner: tuple[int, int], offset: tuple[int, int]) -> bool:
        return bool(padded[corner[1] + offset[1] + 1, corner[0] + offset[0] + 1])

    row = int(part.any(axis=1).argmax())
    start = (int(part[row].argmax()), row)
    corner, heading = start, 0
    points = [start]
    while True:
        corner = (corner[0] + _STEP[heading][0], corner[1] + _STEP[heading][1])
        if not inside(corner, _AHEAD_RIGHT[heading]):
            turned = (heading + 1) % 4  # nothing ahead on the right: hug the region
        elif inside(corner, _AHEAD_LEFT[heading]):
            turned = (heading - 1) % 4
        else:
            turned = heading
        if corner == start and turned == 0:
            break
        if turned != heading:
            points.append(corner)
        heading = turned
    points.append(start)
    return np.array(points, dtype=np.float64)
