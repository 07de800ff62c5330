"""From tile scores to a map: a grid of cells one stride wide, and its values on the pixels of a pyramid level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wetread.pathology.plan import Geometry
from wetread.pathology.slide.index import Pyramid

FloatArray = npt.NDArray[np.float32]
MAX_RESULT_PIXELS = 64 << 20


class Stitcher:
    """Adds tiles to the cells they cover, weighted by covered area. Its size is that of the grid, not of the slide."""

    def __init__(self, geometry: Geometry, classes: int) -> None:
        self._geometry = geometry
        rows, columns = geometry.rows, geometry.columns
        self._reach = -(-geometry.tile // geometry.stride)
        shape = (rows + self._reach, columns + self._reach, classes)
        self._sum = np.zeros(shape, dtype=np.float32)
        self._weight = np.zeros(shape[:2], dtype=np.float32)

    def add(self, cells: npt.NDArray[np.int32], scores: FloatArray) -> None:
        """Add tiles by grid column and row; tiles without a score (not finite) are left out."""
        known = np.isfinite(scores).all(axis=1)
        columns, rows, values = cells[known, 0], cells[known, 1], scores[known]
        for i in range(self._reach):
            for j in range(self._reach):
                share = self._covered(i) * self._covered(j)
                np.add.at(self._sum, (rows + j, columns + i), values * np.float32(share))
                np.add.at(self._weight, (rows + j, columns + i), np.float32(share))

    def grid(self) -> FloatArray:
        """Return float32[row, column, class]; NaN where no tile lies."""
        rows, columns = self._geometry.rows, self._geometry.columns
        weight = self._weight[:rows, :columns, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            out: FloatArray = np.where(weight > 0, self._sum[:rows, :columns] / weight, np.nan).astype(np.float32)
        return out

    def _covered(self, step: int) -> float:
        """Return the share of a cell *step* strides away that a tile covers along one axis."""
        stride = self._geometry.stride
        return min(max((self._geometry.tile - step * stride) / stride, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class ResultLevel:
    """The pyramid level that a map is written on."""

    number: int
    width: int
    height: int


def result_level(pyramid: Pyramid, geometry: Geometry) -> ResultLevel | None:
    """Return the coarsest existing level on which every cell has at least one pixel and the map is not too large.

    None when the slide has no such level: viewers misplace maps at resolutions that a slide does not have.
    """
    base = pyramid.levels[0]
    stride = min(geometry.stride * geometry.target_mpp / mpp for mpp in geometry.base_mpp)
    fitting = [
        number
        for number, level in enumerate(pyramid.levels)
        if base.width / level.width <= stride and level.width * level.height <= MAX_RESULT_PIXELS
    ]
    if not fitting:
        return None
    number = max(fitting)
    return ResultLevel(number, pyramid.levels[number].width, pyramid.levels[number].height)


def cells_of_pixels(geometry: Geometry, level: ResultLevel) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the grid column of each pixel column and the grid row of each pixel row, through level-0 coordinates.

    A pixel belongs to the cell that holds its centre.
    """
    found = []
    for axis, (pixels, cells) in enumerate(((level.width, geometry.columns), (level.height, geometry.rows))):
        centre = (np.arange(pixels) + 0.5) * (geometry.base_size[axis] / pixels)
        step = geometry.stride * geometry.target_mpp / geometry.base_mpp[axis]
        found.append(np.minimum(np.floor(centre / step).astype(np.int64), cells - 1))
    return found[0], found[1]
