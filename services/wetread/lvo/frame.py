"""The head frame: a 1 mm grid whose middle plane is the head's plane of symmetry, so that left lies opposite right.

Head axes: x to the patient's left, y to the back, z up; the origin is in the plane of symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray, LabelArray, Volume
from wetread.core.errors import NotProcessable
from wetread.lvo.scan import Places, reduced, upper, upright
from wetread.lvo.symmetry import symmetry_plane

STEP_MM: Final = 1.0
REACH_MM: Final = (84.0, 110.0)
"""Half width and half length of the grid."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeadFrame:
    """HU [z, y, x] on the head grid, and the way back: ``rotation`` (LPS to head axes) and ``origin`` (LPS mm)."""

    hu: FloatArray
    rotation: Floats
    origin: Floats
    z_mm: Floats
    """Heights of the planes along the head's z axis."""

    def to_lps(self, points: Floats) -> Floats:
        """Return [n, (z, y, x)] grid indices as LPS mm."""
        head = np.stack(
            [
                (points[:, 2] - (self.hu.shape[2] - 1) / 2) * STEP_MM,
                (points[:, 1] - (self.hu.shape[1] - 1) / 2) * STEP_MM,
                self.z_mm[0] + points[:, 0] * STEP_MM,
            ],
            axis=1,
        )
        return np.asarray(head @ self.rotation + self.origin, dtype=np.float64)


def head_frame(volume: Volume) -> HeadFrame:
    """Find the plane of symmetry and resample.

    Raises NotApplicable("body_part"), NotProcessable: mixed_orientation, missing_slices, motion, no_symmetry.
    """
    if abs(float(volume.row_direction[0])) < 0.8 or abs(float(volume.column_direction[1])) < 0.8:
        raise NotProcessable("mixed_orientation", "the rows of the images do not run from side to side")
    if len(volume.voxels) < 2:
        raise NotProcessable("missing_slices", "a single plane")
    small = upper(reduced(upright(volume), STEP_MM))
    plane = symmetry_plane(small)
    rotation, point = plane.rotation, plane.point
    corners = _corners(small) @ rotation.T - rotation @ point
    heights = np.arange(np.ceil(corners[:, 2].min()), corners[:, 2].max(), STEP_MM)
    return HeadFrame(_resampled(small, rotation, point, heights), rotation, point, heights)


def back_to_planes(frame: HeadFrame, labels: LabelArray, volume: Volume) -> LabelArray:
    """Return labels of the head grid on the planes of the source, each voxel by its nearest."""
    out = np.zeros(volume.voxels.shape, dtype=np.uint8)
    marked = np.argwhere(labels)
    if not len(marked):
        return out
    # Head axes are the grid's axes backwards: indices are an affine function of row, column and plane.
    axes = frame.rotation[::-1] / STEP_MM
    middle = (np.asarray(frame.hu.shape) - 1) / 2
    start = np.array([-frame.z_mm[0] / STEP_MM, middle[1], middle[2]])
    down, across = axes @ volume.column_direction, axes @ volume.row_direction
    rows, columns = (np.arange(n, dtype=np.float32) for n in volume.voxels.shape[1:])
    base = [
        np.float32(d * volume.pixel_spacing[0]) * rows[:, None] + np.float32(a * volume.pixel_spacing[1]) * columns
        for d, a in zip(down, across, strict=True)
    ]
    low, high = marked.min(axis=0), marked.max(axis=0)
    for plane, origin in enumerate(volume.origins):
        offset = axes @ (origin - frame.origin) + start
        nearest = [np.rint(axis + np.float32(move)).astype(np.int16) for axis, move in zip(base, offset, strict=True)]
        inside = np.ones(base[0].shape, dtype=bool)
        for axis, least, most in zip(nearest, low, high, strict=True):
            inside &= (axis >= least) & (axis <= most)
        out[plane][inside] = labels[tuple(axis[inside] for axis in nearest)]
    return out


def _corners(volume: Volume) -> Floats:
    rows, columns = volume.voxels.shape[1:]
    middle = (
        rows / 2 * volume.pixel_spacing[0] * volume.column_direction
        + columns / 2 * volume.pixel_spacing[1] * volume.row_direction
    )
    return np.asarray(volume.origins[[0, -1]] + middle, dtype=np.float64)


def _resampled(volume: Volume, rotation: Floats, point: Floats, heights: Floats) -> FloatArray:
    """Sample the head grid linearly; what lies outside is air. Positions are those of the planes, however irregular."""
    wide, long = (int(2 * reach / STEP_MM) + 1 for reach in REACH_MM)
    x = (np.arange(wide) - (wide - 1) / 2) * STEP_MM
    y = (np.arange(long) - (long - 1) / 2) * STEP_MM
    places = Places.of(volume)
    out = np.full((len(heights), long, wide), -1000.0, dtype=np.float32)
    grid = (x[None, :, None] * rotation[0] + y[:, None, None] * rotation[1] + point) @ places.axes.T
    for index, height in enumerate(heights):
        indices = places.indices(grid + places.axes @ (height * rotation[2]))
        sampled = ndimage.map_coordinates(
            volume.voxels, indices, order=1, mode="constant", cval=-1000.0, output=np.float32
        )
        sampled[indices[0] < 0] = -1000.0
        out[index] = sampled
    return out
