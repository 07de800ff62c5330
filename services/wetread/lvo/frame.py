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
from wetread.core.errors import NotApplicable, NotProcessable

STEP_MM: Final = 1.0
REACH_MM: Final = (84.0, 110.0)
"""Half width and half length of the grid."""
BONE_HU: Final = 300.0
AIR_HU: Final = -300.0
LARGEST_TURN_DEG: Final = 25.0
SECTION_CM2: Final = (90.0, 400.0)

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
    """Find the plane of symmetry and resample. Raises NotApplicable("body_part"), NotProcessable("mixed_orientation").

    For every row of every plane the middle between the head's left and right border is taken; the plane through
    those points is the plane of symmetry.
    """
    if abs(float(volume.row_direction[0])) < 0.8 or abs(float(volume.column_direction[1])) < 0.8:
        raise NotProcessable("mixed_orientation", "the rows of the images do not run from side to side")
    normal, point = _symmetry(volume)
    up = np.array([0.0, 0.0, 1.0])
    back = np.cross(up, normal)
    back /= np.linalg.norm(back)
    rotation = np.stack([normal, back, np.cross(normal, back)])
    corners = _corners(volume) @ rotation.T - rotation @ point
    heights = np.arange(np.ceil(corners[:, 2].min()), corners[:, 2].max(), STEP_MM)
    hu = _resampled(volume, rotation, point, heights)
    return HeadFrame(hu, rotation, point, heights)


def back_to_planes(frame: HeadFrame, labels: LabelArray, volume: Volume) -> LabelArray:
    """Return labels of the head grid on the planes of the source, each voxel by its nearest."""
    out = np.zeros(volume.voxels.shape, dtype=np.uint8)
    rows, columns = np.meshgrid(*(np.arange(n) for n in volume.voxels.shape[1:]), indexing="ij")
    base = (
        rows[..., None] * volume.pixel_spacing[0] * volume.column_direction
        + columns[..., None] * volume.pixel_spacing[1] * volume.row_direction
    ) @ frame.rotation.T
    middle = (np.asarray(frame.hu.shape) - 1) / 2
    for plane, origin in enumerate(volume.origins):
        head = base + frame.rotation @ (origin - frame.origin)
        at = np.stack(
            [
                (head[..., 2] - frame.z_mm[0]) / STEP_MM,
                head[..., 1] / STEP_MM + middle[1],
                head[..., 0] / STEP_MM + middle[2],
            ]
        )
        nearest = np.rint(at).astype(np.intp)
        inside = np.all((nearest >= 0) & (nearest < np.asarray(labels.shape)[:, None, None]), axis=0)
        out[plane][inside] = labels[tuple(axis[inside] for axis in nearest)]
    return out


def _symmetry(volume: Volume) -> tuple[Floats, Floats]:
    """Return normal (towards the patient's left) and a point of the plane of symmetry, LPS."""
    step = max(1, int(2.0 / volume.pixel_spacing[0])), max(1, int(1.0 / volume.pixel_spacing[1]))
    planes = range(0, len(volume.voxels), max(1, round(3.0 / _thickness(volume))))
    points = []
    areas = []
    for plane in planes:
        head = _section(volume.voxels[plane, :: step[0], :: step[1]])
        areas.append(float(head.sum()) * step[0] * step[1] * float(np.prod(volume.pixel_spacing)) / 100.0)
        filled = np.flatnonzero(head.sum(axis=1) * step[1] * volume.pixel_spacing[1] > 60.0)
        for row in filled:
            columns = np.flatnonzero(head[row])
            middle = (columns[0] + columns[-1]) / 2 * step[1]
            points.append(
                volume.origins[plane]
                + row * step[0] * volume.pixel_spacing[0] * volume.column_direction
                + middle * volume.pixel_spacing[1] * volume.row_direction
            )
    area = float(np.median(areas))
    if len(points) < 50 or not SECTION_CM2[0] <= area <= SECTION_CM2[1]:
        raise NotApplicable("body_part", f"a section of {area:.0f} cm2 is no head")
    at = np.asarray(points)
    design = np.stack([np.ones(len(at)), at[:, 1], at[:, 2]], axis=1)
    weight = np.ones(len(at))
    for _ in range(3):  # nose, ears and head rest pull single rows aside
        fit = np.linalg.lstsq(design * weight[:, None], at[:, 0] * weight, rcond=None)[0]
        error = np.abs(at[:, 0] - design @ fit)
        weight = 1.0 / (1.0 + (error / 2.0) ** 2)
    normal = np.array([1.0, -fit[1], -fit[2]])
    normal /= np.linalg.norm(normal)
    if np.degrees(np.arccos(normal[0])) > LARGEST_TURN_DEG:
        raise NotProcessable("mixed_orientation", "the head is turned too far to compare its sides")
    centre = at.mean(axis=0)
    return normal, np.array([fit @ np.array([1.0, centre[1], centre[2]]), centre[1], centre[2]])


def _section(image: FloatArray) -> npt.NDArray[np.bool_]:
    """Return the largest part that is no air: the head without its rest."""
    labels, count = ndimage.label(ndimage.binary_opening(image > AIR_HU, iterations=2))
    if count == 0:
        return np.zeros(image.shape, dtype=bool)
    return np.asarray(labels == 1 + int(np.bincount(labels.ravel())[1:].argmax()))


def _thickness(volume: Volume) -> float:
    return float(np.median(np.abs(np.diff(volume.positions_mm)))) if len(volume.origins) > 1 else 1.0


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
    normal = volume.normal
    positions = volume.positions_mm
    shift = np.polyfit(positions, volume.origins @ np.stack([volume.row_direction, volume.column_direction]).T, 1)
    out = np.full((len(heights), long, wide), -1000.0, dtype=np.float32)
    grid = x[None, :, None] * rotation[0] + y[:, None, None] * rotation[1] + point
    for index, height in enumerate(heights):
        lps = grid + height * rotation[2]
        along = lps @ normal
        plane = np.interp(along, positions, np.arange(len(positions)), left=-1.0, right=-1.0)
        start = along[..., None] * shift[0] + shift[1]
        column = (lps @ volume.row_direction - start[..., 0]) / volume.pixel_spacing[1]
        row = (lps @ volume.column_direction - start[..., 1]) / volume.pixel_spacing[0]
        sampled = ndimage.map_coordinates(
            volume.voxels, [plane, row, column], order=1, mode="constant", cval=-1000.0, output=np.float32
        )
        sampled[plane < 0] = -1000.0
        out[index] = sampled
    return out
