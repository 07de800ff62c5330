"""The CT as the chain sees it: HU on a regular stack, and the working grid cut out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Number = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class CtImage:
    """HU [plane, row, column]; planes lie one ``step_mm[0]`` apart along the normal.

    ``axes`` (3, 3): unit vectors (LPS) along increasing plane, row and column index; ``origin_mm`` the LPS centre of
    voxel (0, 0, 0).
    """

    hu: Image
    origin_mm: FloatArray
    axes: FloatArray
    step_mm: FloatArray

    def index_of(self, points_mm: FloatArray) -> FloatArray:
        """Fractional (plane, row, column) of LPS points (..., 3)."""
        return np.asarray(((points_mm - self.origin_mm) @ self.axes.T) / self.step_mm, dtype=np.float64)

    def points_of(self, index: Number) -> FloatArray:
        """LPS mm of (plane, row, column) indices (..., 3)."""
        return np.asarray(self.origin_mm + (index * self.step_mm) @ self.axes, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Blood:
    """Contrast in the aorta: median and sd of HU."""

    hu: float
    sd: float
