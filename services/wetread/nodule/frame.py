"""Patient-aligned sampling of a chest volume: planes of any order, tilt or direction become a regular grid.

Axes are (z, y, x): towards the head, the back and the patient's left, as near as the planes allow. Grid points are
whole multiples of the step in patient space, so that the same patient on a mirrored grid gives the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from wetread.core.detector import FloatArray, LabelArray, Volume
from wetread.core.errors import NotProcessable

AXIAL: Final = 0.8
"""Least cosine between the planes' normal and the body axis."""
LOWEST_HU: Final = -1024.0
HIGHEST_HU: Final = 3000.0

Floats = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """How the planes of a volume lie along its own three axes, each turned towards head, back and left.

    axes [3, 3]: unit vectors (z, y, x) in LPS. corners [plane, 3]: position of each plane's first pixel, after flips,
    along the axes. transpose: rows of the image run along y. flips: of plane rows and columns after the transpose.
    pixel_mm: between samples along y and x.
    """

    volume: Volume
    axes: Floats
    corners: Floats
    transpose: bool
    flip_y: bool
    flip_x: bool
    pixel_mm: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Pixels along y and x."""
        rows, columns = self.volume.voxels.shape[1:]
        return (columns, rows) if self.transpose else (rows, columns)

    def image(self, plane: int) -> FloatArray:
        """One plane with rows towards the back and columns towards the left."""
        picture = self.volume.voxels[plane].T if self.transpose else self.volume.voxels[plane]
        turned: FloatArray = picture[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return turned

    def to_lps(self, points: Points) -> Points:
        """Points [..., (z, y, x)] mm along the axes as LPS mm."""
        return np.asarray(points @ self.axes, dtype=np.float64)

    def extent(self) -> tuple[Points, Points]:
        """Lowest and highest position that every plane covers, mm along the axes."""
        reach = (np.array(self.size) - 1) * self.pixel_mm
        low = np.array([self.corners[:, 0].min(), self.corners[:, 1].max(), self.corners[:, 2].max()])
        high = np.array([self.corners[:, 0].max(), *(self.corners[:, 1:].min(axis=0) + reach)])
        return low, high


@dataclass(frozen=True, slots=True)
class Grid:
    """Regular samples [z, y, x]; voxel (i, j, k) lies at start + step * (i, j, k), mm along the frame's axes."""

    values: FloatArray
    start: Points
    step: float

    def place(self, index: npt.NDArray[np.integer[Any]] | Points) -> Points:
        """Indices [..., 3] as mm along the axes."""
        return np.asarray(self.start + self.step * index, dtype=np.float64)


def frame_of(volume: Volume) -> Frame:
    """Find the axes of a volume. Raises NotProcessable (mixed_orientation) for planes that are not axial."""
    normal = volume.normal
    if abs(float(normal[2])) < AXIAL or len(volume.voxels) < 2:
        raise NotProcessable("mixed_orientation", "the planes are not an axial stack")
    row, column = volume.row_direction, volume.column_direction
    transpose = abs(float(row[0])) < abs(float(column[0]))
    across, down = (column, row) if transpose else (row, column)
    row_mm, column_mm = volume.pixel_spacing
    across_mm, down_mm = (row_mm, column_mm) if transpose else (column_mm, row_mm)
    rows, columns = volume.voxels.shape[1:]
    high, wide = (columns, rows) if transpose else (rows, columns)
    flip_x, flip_y = bool(across[0] < 0), bool(down[1] < 0)
    origins = volume.origins.copy()
    if flip_x:
        origins, across = origins + across * across_mm * (wide - 1), -across
    if flip_y:
        origins, down = origins + down * down_mm * (high - 1), -down
    up = normal if normal[2] > 0 else -normal
    axes = np.stack([up, down, across])
    return Frame(volume, axes, origins @ axes.T, transpose, flip_y, flip_x, (down_mm, across_mm))


def sample(frame: Frame, step: float, low: Points | None = None, high: Points | None = None) -> Grid:
    """Read the volume on a grid of *step* mm between *low* and *high* (default: all of it)."""
    first, last = frame.extent()
    low = first if low is None else np.maximum(low, first)
    high = last if high is None else np.minimum(high, last)
    index = np.ceil(low / step - 1e-6).astype(int)
    count = np.floor(high / step + 1e-6).astype(int) - index + 1
    if (count < 2).any():
        raise NotProcessable("incomplete_coverage", "the images cover next to nothing")
    start = index * step
    heights = frame.corners[:, 0]
    wanted = np.flatnonzero((heights > start[0] - 12) & (heights < start[0] + step * count[0] + 12))
    flat = np.empty((len(wanted), int(count[1]), int(count[2])), dtype=np.float32)
    known: dict[tuple[int, float], sparse.csr_matrix] = {}

    def weights(axis: int, offset: float) -> sparse.csr_matrix:
        key = (axis, round(offset, 3))
        if key not in known:
            pixel, size = frame.pixel_mm[axis], frame.size[axis]
            known[key] = tents((start[1 + axis] - offset) / pixel, step / pixel, int(count[1 + axis]), size)
        return known[key]

    for place, plane in enumerate(wanted):
        picture = np.clip(frame.image(int(plane)), LOWEST_HU, HIGHEST_HU)
        _, top, left = frame.corners[plane]
        flat[place] = (weights(1, left) @ (weights(0, top) @ picture).T).T
    mixing = _between(heights[wanted], start[0] + step * np.arange(count[0]), step)
    values = (mixing @ flat.reshape(len(wanted), -1)).reshape(int(count[0]), int(count[1]), int(count[2]))
    return Grid(np.ascontiguousarray(values, dtype=np.float32), start, step)


def tents(start: float, step: float, count: int, size: int) -> sparse.csr_matrix:
    """[count, size] weights that read position start + i * step of *size* samples, wide enough not to alias."""
    where = start + step * np.arange(count)
    width = max(1.0, step)
    reach = int(np.ceil(width)) + 1
    index = np.rint(where).astype(int)[:, None] + np.arange(-reach, reach + 1)[None]
    weight = np.clip(1 - np.abs(index - where[:, None]) / width, 0, None)
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(count), index.shape[1])
    columns = np.clip(index, 0, size - 1).ravel()
    return sparse.csr_matrix((weight.ravel().astype(np.float32), (rows, columns)), (count, size))


def _between(heights: Floats, targets: Floats, step: float) -> sparse.csr_matrix:
    """[target, plane] weights: linear between planes, an average where they lie closer than the grid."""
    order = np.argsort(heights)
    ordered = heights[order]
    gaps = np.diff(ordered)
    after = np.clip(np.searchsorted(ordered, targets, "right"), 1, len(ordered) - 1)
    width = np.maximum(gaps[after - 1], step)[:, None]
    weight = np.clip(1 - np.abs(targets[:, None] - heights[None]) / width, 0, None)
    weight[np.arange(len(targets)), np.abs(targets[:, None] - heights[None]).argmin(axis=1)] += 1e-6
    weight /= weight.sum(axis=1, keepdims=True)
    return sparse.csr_matrix(weight.astype(np.float32))


def to_planes(
    frame: Frame, part: npt.NDArray[np.bool_], start: Points, step: float, value: int, out: LabelArray
) -> None:
    """Mark in *out* [plane, row, column] (the volume's own order) what *part* of a grid covers; at least one plane."""
    heights = frame.corners[:, 0]
    z = np.rint((heights - start[0]) / step).astype(int)
    near = np.flatnonzero((z >= 0) & (z < len(part)))
    filled = np.asarray(part.any(axis=(1, 2)))
    if not filled[z[near]].any():
        # a thin nodule between two planes shows on the nearer one
        middle = start[0] + step * float(np.flatnonzero(filled).mean())
        near = np.array([np.abs(heights - middle).argmin()])
        flattened: npt.NDArray[np.bool_] = np.asarray(part.any(axis=0))
        part, z = np.repeat(flattened[None], len(part), axis=0), np.clip(z, 0, len(part) - 1)
    for plane in near:
        slab = np.asarray(part[z[plane]])
        if not slab.any():
            continue
        picture = out[plane].T if frame.transpose else out[plane]
        picture = picture[:: -1 if frame.flip_y else 1, :: -1 if frame.flip_x else 1]
        _, top, left = frame.corners[plane]
        rows = np.rint((top + np.arange(frame.size[0]) * frame.pixel_mm[0] - start[1]) / step).astype(int)
        columns = np.rint((left + np.arange(frame.size[1]) * frame.pixel_mm[1] - start[2]) / step).astype(int)
        keep_rows = np.flatnonzero((rows >= 0) & (rows < slab.shape[0]))
        keep_columns = np.flatnonzero((columns >= 0) & (columns < slab.shape[1]))
        covered = slab[np.ix_(rows[keep_rows], columns[keep_columns])]
        target = np.ix_(keep_rows, keep_columns)
        picture[target] = np.where(covered, value, picture[target])
