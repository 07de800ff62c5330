"""The head frame: a 1 mm grid whose middle plane is the head's plane of symmetry, so that left lies opposite right.

Head axes: x to the patient's left, y to the back, z up; the origin is in the plane of symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray, LabelArray, Volume
from wetread.core.errors import NotApplicable, NotProcessable

STEP_MM: Final = 1.0
REACH_MM: Final = (84.0, 110.0)
"""Half width and half length of the grid."""
HEAD_MM: Final = 160.0
"""What is looked at, down from the top of the head: a scan may go on into the neck."""
AIR_HU: Final = -300.0
LARGEST_TURN_DEG: Final = 25.0
SECTION_CM2: Final = (90.0, 400.0)
TOP_CM2: Final = 20.0
JERK_MM: Final = 2.6
"""The head's middle moves no further than this from one looked-at plane to the next, or the patient moved."""
LOOK_MM: Final = 3.0

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


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

    For every row of every plane the middle between the head's left and right border is taken; the plane through
    those points is the plane of symmetry. Raises NotApplicable("body_part"), NotProcessable: mixed_orientation,
    missing_slices, motion.
    """
    if abs(float(volume.row_direction[0])) < 0.8 or abs(float(volume.column_direction[1])) < 0.8:
        raise NotProcessable("mixed_orientation", "the rows of the images do not run from side to side")
    if len(volume.voxels) < 2:
        raise NotProcessable("missing_slices", "a single plane")
    small = _upper(_reduced(_upright(volume)))
    normal, point = _symmetry(small)
    back = np.cross(np.array([0.0, 0.0, 1.0]), normal)
    back /= np.linalg.norm(back)
    rotation = np.stack([normal, back, np.cross(normal, back)])
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


def _upright(volume: Volume) -> Volume:
    """Let columns run to the left, rows to the back and planes upwards: how they are kept must not matter."""
    across, down = (-1 if volume.row_direction[0] < 0 else 1), (-1 if volume.column_direction[1] < 0 else 1)
    if across == down == 1:
        return volume
    rows, columns = volume.voxels.shape[1:]
    origins = volume.origins
    if across < 0:
        origins = origins + (columns - 1) * volume.pixel_spacing[1] * volume.row_direction
    if down < 0:
        origins = origins + (rows - 1) * volume.pixel_spacing[0] * volume.column_direction
    planes = across * down  # the normal turns with one of them
    return replace(
        volume,
        voxels=volume.voxels[::planes, ::down, ::across],
        origins=origins[::planes],
        row_direction=across * volume.row_direction,
        column_direction=down * volume.column_direction,
        weights_mm=volume.weights_mm[::planes],
        frames=volume.frames[::planes],
    )


def _reduced(volume: Volume) -> Volume:
    """Average pixels and neighbouring planes that lie closer than the grid: less noise, and less to sample."""
    rows, columns = (max(1, int(1.05 * STEP_MM / size)) for size in volume.pixel_spacing)
    group = max(1, int(1.05 * STEP_MM / max(_thickness(volume), 1e-3)))
    if rows == columns == group == 1:
        return volume
    planes = [slice(k, k + group) for k in range(0, len(volume.voxels), group)]
    tall, wide = (size // block for size, block in zip(volume.voxels.shape[1:], (rows, columns), strict=True))
    voxels = np.empty((len(planes), tall, wide), dtype=np.float32)
    for index, chosen in enumerate(planes):
        image = volume.voxels[chosen].mean(axis=0)[: tall * rows, : wide * columns]
        voxels[index] = image.reshape(tall, rows, wide, columns).mean(axis=(1, 3))
    shift = (rows - 1) / 2 * volume.pixel_spacing[0] * volume.column_direction + (
        columns - 1
    ) / 2 * volume.pixel_spacing[1] * volume.row_direction
    return replace(
        volume,
        voxels=voxels,
        origins=np.stack([volume.origins[chosen].mean(axis=0) for chosen in planes]) + shift,
        pixel_spacing=(volume.pixel_spacing[0] * rows, volume.pixel_spacing[1] * columns),
        weights_mm=np.array([volume.weights_mm[chosen].sum() for chosen in planes]),
        frames=tuple(volume.frames[chosen.start] for chosen in planes),
    )


def _upper(volume: Volume) -> Volume:
    """Keep what lies within reach of the top of the head, however far down the scan goes."""
    step = max(1, int(2.0 / volume.pixel_spacing[0])), max(1, int(2.0 / volume.pixel_spacing[1]))
    cm2 = step[0] * step[1] * float(np.prod(volume.pixel_spacing)) / 100.0
    body = (volume.voxels[:, :: step[0], :: step[1]] > AIR_HU).sum(axis=(1, 2)) * cm2
    filled = np.flatnonzero(body > TOP_CM2)
    if len(filled) < 2:
        raise NotApplicable("body_part", "there is nothing on the images")
    heights = volume.origins @ np.array([0.0, 0.0, 1.0])
    kept = np.flatnonzero(heights >= heights[filled].max() - HEAD_MM)
    part = slice(int(kept[0]), int(kept[-1]) + 1)
    return replace(
        volume,
        voxels=volume.voxels[part],
        origins=volume.origins[part],
        weights_mm=volume.weights_mm[part],
        frames=volume.frames[part],
    )


def _symmetry(volume: Volume) -> tuple[Floats, Floats]:
    """Return normal (towards the patient's left) and a point of the plane of symmetry, LPS."""
    step = max(1, int(2.0 / volume.pixel_spacing[0])), max(1, int(1.0 / volume.pixel_spacing[1]))
    points, areas, of_plane = [], [], []
    for plane in range(0, len(volume.voxels), max(1, round(LOOK_MM / _thickness(volume)))):
        head = _section(volume.voxels[plane, :: step[0], :: step[1]])
        areas.append(float(head.sum()) * step[0] * step[1] * float(np.prod(volume.pixel_spacing)) / 100.0)
        for row in np.flatnonzero(head.sum(axis=1) * step[1] * volume.pixel_spacing[1] > 60.0):
            columns = np.flatnonzero(head[row])
            middle = (columns[0] + columns[-1]) / 2 * step[1]
            points.append(
                volume.origins[plane]
                + row * step[0] * volume.pixel_spacing[0] * volume.column_direction
                + middle * volume.pixel_spacing[1] * volume.row_direction
            )
            of_plane.append(plane)
    area = float(np.median(areas))
    if len(points) < 50 or not SECTION_CM2[0] <= area <= SECTION_CM2[1]:
        raise NotApplicable("body_part", f"a section of {area:.0f} cm2 is no head")
    at = np.asarray(points)
    design = np.stack([np.ones(len(at)), at[:, 1], at[:, 2]], axis=1)
    weight = np.ones(len(at))
    for _ in range(3):  # nose, ears and head rest pull single rows aside
        fit = np.linalg.lstsq(design * weight[:, None], at[:, 0] * weight, rcond=None)[0]
        weight = 1.0 / (1.0 + (np.abs(at[:, 0] - design @ fit) / 2.0) ** 2)
    _refuse_jerks(at[:, 0] - design @ fit, np.asarray(of_plane))
    normal = np.array([1.0, -fit[1], -fit[2]])
    normal /= np.linalg.norm(normal)
    if np.degrees(np.arccos(normal[0])) > LARGEST_TURN_DEG:
        raise NotProcessable("mixed_orientation", "the head is turned too far to compare its sides")
    centre = at.mean(axis=0)
    return normal, np.array([fit @ np.array([1.0, centre[1], centre[2]]), centre[1], centre[2]])


def _refuse_jerks(error: Floats, of_plane: npt.NDArray[np.intp]) -> None:
    planes, inverse, counts = np.unique(of_plane, return_inverse=True, return_counts=True)
    middles = np.array([np.median(error[inverse == k]) for k in range(len(planes))])[counts >= 10]
    if len(middles) > 1 and float(np.abs(np.diff(middles)).max()) > JERK_MM:
        raise NotProcessable("motion", "the head jerks aside between two planes")


def _section(image: FloatArray) -> Mask:
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
    positions = volume.positions_mm
    axes = np.stack([volume.normal, volume.row_direction, volume.column_direction])
    shift = np.polyfit(positions, volume.origins @ axes[1:].T, 1)
    out = np.full((len(heights), long, wide), -1000.0, dtype=np.float32)
    grid = (x[None, :, None] * rotation[0] + y[:, None, None] * rotation[1] + point) @ axes.T
    count = np.arange(len(positions), dtype=np.float64)
    for index, height in enumerate(heights):
        at = grid + axes @ (height * rotation[2])
        plane = np.interp(at[..., 0], positions, count, left=-1.0, right=-1.0)
        column = (at[..., 1] - at[..., 0] * shift[0, 0] - shift[1, 0]) / volume.pixel_spacing[1]
        row = (at[..., 2] - at[..., 0] * shift[0, 1] - shift[1, 1]) / volume.pixel_spacing[0]
        sampled = ndimage.map_coordinates(
            volume.voxels, [plane, row, column], order=1, mode="constant", cval=-1000.0, output=np.float32
        )
        sampled[plane < 0] = -1000.0
        out[index] = sampled
    return out
