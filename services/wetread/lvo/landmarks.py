"""Where the circle of Willis lies on the head grid, how wide the brain is there, and which vessel lies where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.lvo.vessels import Vessels

ADULT_MM: Final = 66.0
"""Half width of the brain that the distances below are for; others are in proportion."""
VERTEX_MM: Final = 45
"""The circle of Willis lies at least this far below the top of the brain."""
SEGMENT_LIMITS_MM: Final = (15.5, 33.0)
"""Distance from the midline at which M1 begins and ends."""
BESIDE_MM: Final = (18.5, 34.0)
"""Distance from the midline between which M1 is looked for."""
CLEAR_MM: Final = 3
"""Further distance from bone, whose edges look like vessels that lie across."""
M1_ABOVE_MM: Final = 2
M1_BEFORE_MM: Final = 8.0
"""M1 lies this far above and in front of the middle of the circle of Willis."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Site = Literal["ICA", "M1", "M2"]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Plane and row of the circle of Willis on the grid, and the head's size as a share of an adult's."""

    plane: int
    row: int
    scale: float

    def segment(self, point: npt.NDArray[np.intp]) -> Site:
        """Return the segment that a point [(z, y, mm from the midline)] belongs to."""
        out = float(point[2]) / self.scale
        return "ICA" if out < SEGMENT_LIMITS_MM[0] else "M1" if out < SEGMENT_LIMITS_MM[1] else "M2"

    def at_carotid_end(self, points: npt.NDArray[np.intp]) -> Mask:
        """Return which of points [n, (z, y, mm from the midline)] lie about the end of the carotid."""
        out = points[:, 2] / self.scale
        return np.asarray((np.abs(out - 12.0) < 6.0) & (np.abs(points[:, 0] - self.plane) < 8))


def find_landmarks(vessels: Vessels) -> Landmarks:
    """Find the level at which both M1 run, and their row: they lie across, so one plane shows vessel in many columns.

    One open M1 is enough. What stands upright (carotids, basilar) shows in few columns of a plane; what lies beside
    bone, in front, behind and on top (sinuses) is left out.
    """
    inside = vessels.inside
    rows = np.flatnonzero(np.any(inside, axis=(0, 2)))
    low, high = int(rows[0]), int(rows[-1])
    fifth = (high - low) // 5
    wide = inside.shape[2]
    columns = np.flatnonzero(np.any(inside, axis=(0, 1)))
    scale = float(np.clip((columns[-1] - columns[0] + 5) / 2 / ADULT_MM, 0.75, 1.3))
    out = (np.arange(wide) - (wide - 1) / 2) / scale
    beside = np.flatnonzero((np.abs(out) > BESIDE_MM[0]) & (np.abs(out) < BESIDE_MM[1]))
    part = (slice(None), slice(low + fifth, high - fifth), beside)
    clear = ndimage.binary_erosion(inside[part], iterations=CLEAR_MM, border_value=1)
    band = vessels.weight[part] * clear
    filled = ndimage.maximum_filter1d(band, 5, axis=0).max(axis=1)
    per_plane = ndimage.gaussian_filter1d(filled.sum(axis=1), 2.0)
    top = int(np.flatnonzero(np.any(inside, axis=(1, 2)))[-1])
    per_plane[max(0, top - VERTEX_MM) :] = 0.0
    level = int(per_plane.argmax())
    slab = band[max(0, level - 5) : level + 6].max(axis=0).sum(axis=1)
    row = low + fifth + int(ndimage.gaussian_filter1d(slab, 3.0).argmax())
    return Landmarks(level - M1_ABOVE_MM, row + round(M1_BEFORE_MM * scale), scale)


def territories(marks: Landmarks, shape: tuple[int, ...]) -> tuple[Mask, Mask]:
    """Return the territories of carotid end with M1, and of the branches beyond; x counts from the midline."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    up, back, out = z - marks.plane, (y - marks.row) / marks.scale, x / marks.scale
    proximal = (out > 6) & (out <= 34) & (abs(back + 4) < 20) & (up > -10) & (up < 14)
    distal = (out > 30) & (out < 75) & (back > -48) & (back < 45) & (up > -8) & (up < 58) & ~proximal
    return proximal, distal


def source(marks: Landmarks, shape: tuple[int, ...]) -> Mask:
    """Return where a side's vessels come from: about the end of its carotid; x counts from the midline."""
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    out, back = x / marks.scale, (y - marks.row) / marks.scale
    return np.asarray((abs(out - 11) < 6) & (abs(back + 6) < 9) & (abs(z - marks.plane) < 8), dtype=np.bool_)
