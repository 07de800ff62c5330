"""Where on the screen the ultrasound picture lies, and its frames on the grid of the network.

What changes from frame to frame is picture; text, bars and marks stand still. The grid is the smallest square about
the picture, averaged over areas, so that nothing is lost to a coarse step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import Cine, FloatArray
from wetread.core.errors import NotProcessable

SIDE: Final = 128
"""Rows and columns of the network's grid."""
SAMPLES: Final = 24
"""Frames that are looked at for change."""
MOVES: Final = 1.5
"""Standard deviation over time, grey levels of 255, from which a pixel is alive."""
STILL: Final = 0.5
WRITTEN: Final = 30.0
"""A pixel that stands still and is brighter than this is writing."""
LEAST_SHARE: Final = 0.06
"""Least share of the screen that a picture takes."""
FULLEST: Final = 0.9
"""Largest share of its own box that a picture takes: a fan leaves corners, a linear probe's picture does not."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Square:
    """The square of the screen that the grid shows; it may reach beyond the screen.

    The centre of grid cell (i, j) lies at row ``top + (i + 0.5) * step - 0.5`` and the like.
    """

    top: float
    left: float
    step: float
    """Pixels per cell."""

    def to_screen(self, cells: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return cells [..., (row, column)] as pixels."""
        return np.asarray((cells + 0.5) * self.step - 0.5 + np.array([self.top, self.left]))


@dataclass(frozen=True, slots=True)
class Sector:
    """The picture on the screen."""

    inside: Mask
    box: tuple[int, int, int, int]
    """First row, first column, last row, last column."""
    square: Square


def find_sector(cine: Cine) -> Sector:
    """Find the picture.

    Raises NotProcessable: no_picture (nothing of its size is alive), no_fan (a full rectangle: a linear probe, or a
    part that was enlarged).
    """
    count = len(cine.voxels)
    some = cine.voxels[np.unique(np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(int))]
    spread = some.std(axis=0)
    alive = (spread > MOVES) & ~cine.coloured
    written = ndimage.binary_dilation((spread < STILL) & (some.mean(axis=0) > WRITTEN))
    alive &= ~written
    reach = max(1, round(min(alive.shape) / 80))
    opened = ndimage.binary_opening(alive, np.ones((3, 3), dtype=bool))
    joined = ndimage.binary_closing(opened, np.ones((2 * reach + 1, 2 * reach + 1), dtype=bool))
    labels, found = ndimage.label(joined)
    if not found:
        raise NotProcessable("no_picture", "nothing on the screen changes from frame to frame")
    sizes = np.bincount(labels.ravel())[1:]
    inside = np.asarray(ndimage.binary_fill_holes(labels == 1 + int(sizes.argmax())), dtype=bool)
    if inside.mean() < LEAST_SHARE:
        raise NotProcessable("no_picture", "too little of the screen changes from frame to frame")
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1]))
    if inside[box[0] : box[2] + 1, box[1] : box[3] + 1].mean() > FULLEST:
        raise NotProcessable("no_fan", "the picture is a full rectangle, not the fan of a cardiac probe")
    return Sector(inside, box, square_about(box))


def square_about(box: tuple[int, int, int, int]) -> Square:
    """Return the smallest square about a box, on its middle."""
    top, left, bottom, right = box
    side = max(bottom - top, right - left) + 1
    return Square((top + bottom + 1 - side) / 2, (left + right + 1 - side) / 2, side / SIDE)


def to_grid(frames: FloatArray, square: Square) -> FloatArray:
    """Return *frames* [frame, row, column] on the grid, [frame, SIDE, SIDE], averaged over cells; black outside."""
    down = _shares(square.top, square.step, frames.shape[1])
    across = _shares(square.left, square.step, frames.shape[2])
    return np.asarray(down @ frames @ across.T, dtype=np.float32)


def _shares(first: float, step: float, count: int) -> FloatArray:
    """Return which share of each cell every pixel of an axis is, [SIDE, count]; pixels outside count as black."""
    edges = first + step * np.arange(SIDE + 1)
    low = np.maximum(edges[:-1, None], np.arange(count)[None])
    high = np.minimum(edges[1:, None], np.arange(1, count + 1)[None])
    return np.asarray(np.clip(high - low, 0, None) / step, dtype=np.float32)


def tensor_of(grid: FloatArray) -> FloatArray:
    """Return grey levels [frame, SIDE, SIDE] as the network's input [frame, 1, SIDE, SIDE], 0 to 1.

    One stretch for the whole clip: gain differs between clips, and must not follow the beat.
    """
    bright = grid[grid > 0]
    top = float(np.percentile(bright, 99.0)) if bright.size else 1.0
    return np.ascontiguousarray(np.clip(grid / np.float32(max(top, 1.0)), 0, 1)[:, None], dtype=np.float32)
