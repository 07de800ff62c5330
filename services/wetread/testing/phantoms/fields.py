"""Smooth random fields and soft set operations on flat lists of points (mm, head frame)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import ndimage

from wetread.testing.phantoms.spec import FloatArray


class NoiseField:
    """A zero-mean, unit-variance smooth field over +-150 mm, evaluated at any points.

    length_mm is the Gaussian correlation length. Built once on a coarse lattice, read trilinearly.
    """

    def __init__(self, rng: np.random.Generator, length_mm: float) -> None:
        self.step = max(length_mm * 0.7, 2.5)
        count = int(np.ceil(300.0 / self.step)) + 2
        lattice = rng.standard_normal((count, count, count), dtype=np.float32)
        lattice = ndimage.gaussian_filter(lattice, length_mm / self.step * 0.8, mode="wrap")
        self.lattice = (lattice - lattice.mean()) / lattice.std()

    def __call__(self, x: FloatArray, y: FloatArray, z: FloatArray) -> FloatArray:
        """Evaluate at points given by three equal flat arrays (mm)."""
        scale = np.float32(1.0 / self.step)
        where = np.stack([x, y, z])
        where += np.float32(150.0)
        where *= scale
        out: FloatArray = ndimage.map_coordinates(self.lattice, where, order=1, mode="grid-wrap", output=np.float32)
        return out


def soft(distance: FloatArray, width_mm: float = 1.2) -> FloatArray:
    """Occupancy 0..1 of the region where `distance` (mm, positive inside) is positive.

    The ramp of `width_mm` stands for partial volume of a voxel that a surface cuts.
    """
    out: FloatArray = np.clip(distance * np.float32(1.0 / width_mm) + np.float32(0.5), 0.0, 1.0)
    return out


def paint(hu: FloatArray, value: FloatArray | float, alpha: FloatArray) -> None:
    """Mix `value` into `hu` in place by occupancy `alpha`."""
    hu += alpha * (np.asarray(value, dtype=np.float32) - hu)


def ellipsoid(
    point: tuple[FloatArray, FloatArray, FloatArray],
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    yaw_deg: float = 0.0,
) -> FloatArray:
    """Approximate signed distance (mm, positive inside) of an ellipsoid turned about z."""
    x, y, z = (p - np.float32(c) for p, c in zip(point, centre, strict=True))
    if yaw_deg:
        cos, sin = np.float32(np.cos(np.radians(yaw_deg))), np.float32(np.sin(np.radians(yaw_deg)))
        x, y = x * cos + y * sin, y * cos - x * sin
    radius = np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2)
    out: FloatArray = ((1.0 - radius) * np.float32(min(axes))).astype(np.float32)
    return out


def tube(
    point: tuple[FloatArray, FloatArray, FloatArray],
    nodes: list[tuple[float, float, float]],
    radii: list[float],
    margin_mm: float = 8.0,
) -> FloatArray:
    """Signed distance (mm, positive inside) of a chain of round cones through `nodes`.

    Points further than `margin_mm` from a cone's box read -1000.
    """
    best = np.full(point[0].shape, -1e3, dtype=np.float32)
    for (start, end), (r0, r1) in zip(pairwise(nodes), pairwise(radii), strict=True):
        reach = max(r0, r1) + margin_mm
        close = np.ones(best.shape, dtype=bool)
        for values, u, v in zip(point, start, end, strict=True):
            close &= np.abs(values - np.float32((u + v) / 2)) < abs(u - v) / 2 + reach
        index = np.flatnonzero(close)
        if index.size == 0:
            continue
        axis = np.asarray(end, dtype=np.float32) - np.asarray(start, dtype=np.float32)
        dx, dy, dz = (values[index] - np.float32(u) for values, u in zip(point, start, strict=True))
        along = (dx * axis[0] + dy * axis[1] + dz * axis[2]) / np.float32(axis @ axis)
        np.clip(along, 0.0, 1.0, out=along)
        distance = np.sqrt((dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dz - along * axis[2]) ** 2)
        inside = np.float32(r0) + along * np.float32(r1 - r0) - distance
        best[index] = np.maximum(best[index], inside)
    return best
