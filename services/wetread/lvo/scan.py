"""The scan before it has a frame: rows to the back and columns to the left, no finer than wanted, cut to the head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Volume
from wetread.core.errors import NotApplicable

AIR_HU: Final = -300.0
HEAD_MM: Final = 160.0
"""What is looked at, down from the top of the head: a scan may go on into the neck."""
TOP_CM2: Final = 20.0

Floats = npt.NDArray[np.float64]


def upright(volume: Volume) -> Volume:
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


def reduced(volume: Volume, step_mm: float) -> Volume:
    """Average pixels and neighbouring planes that lie closer than *step_mm*: less noise, and less to sample."""
    rows, columns = (max(1, int(1.05 * step_mm / size)) for size in volume.pixel_spacing)
    group = max(1, int(1.05 * step_mm / max(thickness_mm(volume), 1e-3)))
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


def upper(volume: Volume) -> Volume:
    """Keep what lies within reach of the top of the head, however far down the scan goes.

    Raises NotApplicable("body_part") for an empty scan.
    """
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


def thickness_mm(volume: Volume) -> float:
    """Return the median distance of neighbouring planes."""
    return float(np.median(np.abs(np.diff(volume.positions_mm)))) if len(volume.origins) > 1 else 1.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where LPS points lie in a stack: its planes as they are, however irregular, sheared evenly."""

    axes: Floats
    """Normal, row direction and column direction."""
    positions: Floats
    shear: Floats
    """How the corners move in a plane: columns (across, down) of (mm per mm, mm)."""
    spacing: tuple[float, float]

    @classmethod
    def of(cls, volume: Volume) -> Places:
        """Read them off *volume*."""
        axes = np.stack([volume.normal, volume.row_direction, volume.column_direction])
        shear = np.polyfit(volume.positions_mm, volume.origins @ axes[1:].T, 1)
        return cls(axes, volume.positions_mm, np.asarray(shear), volume.pixel_spacing)

    def indices(self, along: Floats) -> list[Floats]:
        """Return plane, row and column of points [..., 3] given as ``points @ axes.T``; plane -1 beyond the stack."""
        count = np.arange(len(self.positions), dtype=np.float64)
        normal = along[..., 0]
        plane = np.interp(normal, self.positions, count, left=-1.0, right=-1.0)
        column = (along[..., 1] - normal * self.shear[0, 0] - self.shear[1, 0]) / self.spacing[1]
        row = (along[..., 2] - normal * self.shear[0, 1] - self.shear[1, 1]) / self.spacing[0]
        return [np.asarray(axis, dtype=np.float64) for axis in (plane, row, column)]
