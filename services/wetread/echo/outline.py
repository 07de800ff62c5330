"""The outline of the ventricle on the screen: as a mask of the source frames and as the points of its line."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.echo.sector import SIDE, Square

RAYS: Final = 90
"""Points of an outline."""


def on_screen(probability: FloatArray, square: Square, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the region [row, column] of one frame's certainty on the grid, on a screen of *shape*."""
    rows = (np.arange(shape[0]) + 0.5 - square.top) / square.step - 0.5
    columns = (np.arange(shape[1]) + 0.5 - square.left) / square.step - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    return np.asarray(ndimage.map_coordinates(probability, places, order=1, mode="constant") > 0.5)


def line_of(region: npt.NDArray[np.bool_]) -> list[list[float]]:
    """Return the outline of a region as points (column, row) in pixels, by rays from its middle; empty without one."""
    if not region.any():
        return []
    rows, columns = np.nonzero(region)
    middle = np.array([rows.mean(), columns.mean()])
    reach = float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1))
    steps = np.arange(0.0, reach, 0.25)
    points: list[list[float]] = []
    for angle in np.linspace(0, 2 * np.pi, RAYS, endpoint=False):
        ray = middle[:, None] + np.array([np.sin(angle), np.cos(angle)])[:, None] * steps[None]
        inside = ndimage.map_coordinates(region.astype(np.float32), ray, order=1, mode="constant") >= 0.5
        last = ray[:, np.flatnonzero(inside)[-1]] if inside.any() else middle
        points.append([round(float(last[1]), 1), round(float(last[0]), 1)])
    return points


def grid_document(square: Square) -> dict[str, Any]:
    """Return where the grid of the network lies on the screen."""
    return {"side": SIDE, "top": square.top, "left": square.left, "step": square.step}
