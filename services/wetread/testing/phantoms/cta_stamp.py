"""The grid of a head CTA phantom, with gantry tilt, and how vessels are put onto it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wetread.testing.phantoms.cta_vessels import Branch

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Planes at ``z`` on the table, rows at ``y`` within the leaning plane, columns at ``x``; mm, LPS.

    ``tilt``: angle of the gantry in radians. ``shift``: where the head's axis crosses x.
    """

    z: Floats
    y: Floats
    x: Floats
    tilt: float
    shift: float

    def places(self, plane: int, row: int, column: int) -> Floats:
        """Return the centre of a voxel, LPS mm."""
        y = self.y[row]
        return np.array([self.x[column], y * np.cos(self.tilt), self.z[plane] - y * np.sin(self.tilt)])

    def head_axes(self, to_head: Floats) -> tuple[Singles, Singles, Singles]:
        """Return every voxel's coordinates along the head's own axes, each [plane, row, column]."""
        xx = (self.x - self.shift)[None, None, :]
        yy = (self.y * np.cos(self.tilt))[None, :, None]
        zz = self.z[:, None, None] - (self.y * np.sin(self.tilt))[None, :, None]
        x, y, z = ((row[0] * xx + row[1] * yy + row[2] * zz).astype(np.float32) for row in to_head)
        return x, y, z

    def near(self, place: Floats, reach: float) -> tuple[tuple[slice, slice, slice], Singles] | None:
        """Return the voxels within *reach* of *place* (LPS mm without the shift), and their distance from it."""
        px, py, pz = (float(v) for v in place)
        rows = _slice(self.y * np.cos(self.tilt), py, reach)
        columns = _slice(self.x - self.shift, px, reach)
        lean = self.y[rows] * np.sin(self.tilt)
        if not len(lean):
            return None
        planes = slice(
            int(np.searchsorted(self.z, pz - reach + lean.min())), int(np.searchsorted(self.z, pz + reach + lean.max()))
        )
        if planes.start >= planes.stop or columns.start >= columns.stop:
            return None
        dz = self.z[planes][:, None, None] - lean[None, :, None] - pz
        dy = (self.y[rows] * np.cos(self.tilt) - py)[None, :, None]
        dx = (self.x[columns] - self.shift - px)[None, None, :]
        return (planes, rows, columns), np.sqrt(dz * dz + dy * dy + dx * dx).astype(np.float32)

    def ball(self, hu: Singles, place: Floats, radius: float, value: float) -> None:
        """Fill a ball about *place* with *value*, in place."""
        found = self.near(place, radius)
        if found is not None:
            box, distance = found
            hu[box][distance < radius] = value


def stamp(branches: Iterable[Branch], grid: Grid, to_head: Floats, *, soft_mm: float = 0.0) -> tuple[Singles, Singles]:
    """Put balls along the branches: how much of each voxel vessels cover, and the same times their enhancement.

    A voxel is covered by how deep its centre lies within the wall: linearly over one voxel, or along a logistic of
    width *soft_mm*.
    """
    shape = (len(grid.z), len(grid.y), len(grid.x))
    cover, enhanced = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    edge = float(np.cbrt((grid.z[1] - grid.z[0]) * (grid.y[1] - grid.y[0]) * (grid.x[1] - grid.x[0])))
    for branch in branches:
        for place, radius, filling in zip(branch.points @ to_head, branch.radius, branch.filling, strict=True):
            found = grid.near(place, radius + edge)
            if found is None:
                continue
            box, distance = found
            if soft_mm:
                share = 1.0 / (1.0 + np.exp(np.clip((distance - radius) / soft_mm, -30, 30)))
            else:
                share = np.clip((radius - distance) / edge + 0.5, 0.0, 1.0)
            for whole, part in ((cover, share), (enhanced, share * np.float32(filling))):
                region = whole[box]
                np.maximum(region, part, out=region)
    return cover, enhanced


def _slice(axis: Floats, centre: float, reach: float) -> slice:
    return slice(int(np.searchsorted(axis, centre - reach)), int(np.searchsorted(axis, centre + reach)))
