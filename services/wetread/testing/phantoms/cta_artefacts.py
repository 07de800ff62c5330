"""What goes wrong in the scan of a head CTA phantom: motion, metal, rings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.testing.phantoms.cta_parameters import CtaSpec
from wetread.testing.phantoms.cta_stamp import Grid

METAL_HU = 3000.0


def spoil(hu: NDArray[np.float32], spec: CtaSpec, grid: Grid) -> NDArray[np.float32]:
    """Return the image with the artefacts of *spec*; untouched when there are none."""
    rng = np.random.default_rng([spec.seed, 95])
    if spec.motion_mm > 0:
        hu = moved(hu, spec, rng)
    if spec.streak_hu > 0:
        _metal(hu, spec, grid, rng)
    if spec.ring_hu > 0:
        hu += _rings(hu.shape, spec, rng)
    return hu


def moved(hu: NDArray[np.float32], spec: CtaSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    """Shift the planes after one or two moments of the scan within themselves: the head jerks aside."""
    out = hu.copy()
    for _ in range(int(rng.integers(1, 3))):
        start = int(rng.uniform(0.25, 0.75) * len(hu))
        heading = rng.uniform(0, 2 * np.pi)
        step = np.array([np.sin(heading), np.cos(heading)]) * spec.motion_mm / spec.pixel_mm
        for plane in range(start, len(hu)):
            out[plane] = ndimage.shift(out[plane], step, order=1, mode="nearest")
    return out


def _metal(hu: NDArray[np.float32], spec: CtaSpec, grid: Grid, rng: np.random.Generator) -> None:
    """A clip or coil of 2 to 4 mm near the circle of Willis, and its rays within the planes it lies in."""
    place = np.array([rng.uniform(-20, 20), rng.uniform(-25, 15), rng.uniform(-12, 10)])
    radius = float(rng.uniform(1.0, 2.0))
    found = grid.near(place, radius + grid.z[1] - grid.z[0])
    if found is None:
        return
    (planes, _, _), _ = found
    grid.ball(hu, place, radius, METAL_HU)
    dy, dx = (grid.y - place[1])[:, None], (grid.x - grid.shift - place[0])[None, :]
    angle, far = np.arctan2(dy, dx), np.hypot(dy, dx)
    rays = sum(np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 5, 9)) / 3.0
    hu[planes] += (spec.streak_hu * rays / (1.0 + far / 8.0)).astype(np.float32)


def _rings(shape: tuple[int, ...], spec: CtaSpec, rng: np.random.Generator) -> NDArray[np.float32]:
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in shape[1:])
    far = np.hypot(rows[:, None], columns[None, :])
    rings = sum(np.exp(-0.5 * ((far - rng.uniform(10, 80)) / 0.8) ** 2) * rng.choice([-1, 1]) for _ in range(4))
    return np.asarray(np.broadcast_to(spec.ring_hu * rings, shape), dtype=np.float32)
