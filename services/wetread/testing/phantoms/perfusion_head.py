"""Anatomy of a perfusion phantom: tissue, vessels and the stroke on the planes of the scan, as label maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.testing.phantoms.perfusion_parameters import PerfusionSpec

AIR, SCALP, SKULL, FLUID, GREY, WHITE = range(6)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Head:
    """[plane, row, column] maps. ``scale``: smooth factor of flow and volume; ``delay``: share of the largest delay.

    ``lesion``: 0 outside, 1 penumbra, 2 core. ``arteries`` and ``veins``: filled fraction of each voxel, [vessel, ...].
    """

    tissue: NDArray[np.uint8]
    scale: Floats
    delay: Floats
    lesion: NDArray[np.uint8]
    arteries: tuple[Floats, ...]
    artery_delay_s: tuple[float, ...]
    vein: Floats
    x_mm: Floats
    y_mm: Floats
    z_mm: Floats


def build_head(spec: PerfusionSpec) -> Head:
    """Build the maps; x grows to the patient's left, y to the back, z to the head."""
    rng = np.random.default_rng([spec.seed, 84])
    axis = (np.arange(spec.matrix) - (spec.matrix - 1) / 2) * spec.field_mm / spec.matrix
    z = np.asarray(np.arange(spec.planes) * spec.step_mm, dtype=np.float64)
    turn = np.deg2rad(spec.turn_deg)
    column, row = np.meshgrid(axis - spec.shift_mm[0], axis - spec.shift_mm[1])
    x = column * np.cos(turn) + row * np.sin(turn)
    y = -column * np.sin(turn) + row * np.cos(turn)
    shape = (spec.planes, spec.matrix, spec.matrix)
    tissue = np.zeros(shape, np.uint8)
    lesion = np.zeros(shape, np.uint8)
    arteries = [np.zeros(shape) for _ in range(4)]
    vein = np.zeros(shape)
    folds = rng.uniform(0, 2 * np.pi, 3)
    angle = np.arctan2(y, np.abs(x))
    for plane in range(spec.planes):
        share = plane / max(spec.planes - 1, 1)
        shrink = 1.0 - 0.12 * share**2
        radius = np.hypot(x / (spec.half_width_mm * shrink), y / (spec.half_length_mm * shrink))
        depth = (1.0 - radius) * spec.half_width_mm * shrink
        tissue[plane] = _tissue(depth, angle, x, y, share, folds)
        _add_vessels(spec, share, shrink, x, y, [a[plane] for a in arteries], vein[plane])
        if spec.side is not None:
            lesion[plane] = _lesion(spec, share, depth, angle, x)
    lesion[(tissue != GREY) & (tissue != WHITE)] = 0
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), (1, spec.matrix / 8, spec.matrix / 8))
    scale = 1.0 + spec.asymmetry * smooth / max(float(smooth.std()), 1e-9)
    late = ndimage.gaussian_filter(rng.normal(size=shape), (1, spec.matrix / 6, spec.matrix / 6))
    late = (late - late.min()) / max(float(np.ptp(late)), 1e-9)
    behind = spec.lesion_delay_s if spec.side else 0.0
    near, far = (2, 1) if spec.side == "right" else (1, 2)
    delays = [0.0, 0.0, 0.0, 0.5]
    delays[near] = behind * 0.6
    delays[far] = 0.2
    return Head(tissue, np.clip(scale, 0.5, 1.5), late, lesion, tuple(arteries), tuple(delays), vein, x, y, z)


def _tissue(depth: Floats, angle: Floats, x: Floats, y: Floats, share: float, folds: Floats) -> NDArray[np.uint8]:
    tissue = np.full(depth.shape, AIR, np.uint8)
    tissue[depth > -11.0] = SCALP
    tissue[depth > -7.0] = SKULL
    tissue[depth > 0.0] = FLUID
    cortex = 9.0 + 3.5 * np.sin(9 * angle + folds[0]) + 2.0 * np.sin(17 * angle + folds[1] + 3 * share)
    tissue[depth > 2.0] = GREY
    tissue[depth > 2.0 + cortex] = WHITE
    ganglia = np.hypot((np.abs(x) - 22.0) / 9.0, (y + 2.0) / 16.0) < 1.0
    tissue[ganglia & (share < 0.7)] = GREY
    width = 7.0 * (1.0 - 0.6 * abs(share - 0.45))
    ventricle = np.hypot((np.abs(x) - 8.0) / width, (y - 4.0) / 24.0) < 1.0
    tissue[ventricle & (share > 0.15) & (share < 0.9)] = FLUID
    return tissue


def _lesion(spec: PerfusionSpec, share: float, depth: Floats, angle: Floats, x: Floats) -> NDArray[np.uint8]:
    """A wedge of the middle cerebral artery's territory, and the core within it."""
    sign = 1.0 if spec.side == "left" else -1.0
    taper = np.clip(1.2 - 1.1 * abs(share - 0.45), 0.0, 1.0)
    reach = np.deg2rad(spec.half_angle_deg) * taper
    out = np.zeros(depth.shape, np.uint8)
    beside = (sign * x > 14.0) & (depth > 0.0)
    out[beside & (np.abs(angle + 0.05) < reach)] = 1
    if spec.core_share > 0:
        inner = (sign * x > 14.0 + 22.0 * (1.0 - spec.core_share)) & (depth > 4.0)
        out[inner & (np.abs(angle + 0.05) < reach * spec.core_share)] = 2
    return out


def _add_vessels(
    spec: PerfusionSpec, share: float, shrink: float, x: Floats, y: Floats, arteries: list[Floats], vein: Floats
) -> None:
    """Anterior pair, middle cerebral left and right, basilar or posterior; the sagittal sinus behind."""
    pixel, radius = spec.field_mm / spec.matrix, spec.artery_radius_mm
    side = spec.half_width_mm * shrink
    places = [
        (0.0, -0.62 * spec.half_length_mm * shrink),
        (side * (0.45 + 0.35 * share), -6.0),
        (-side * (0.45 + 0.35 * share), -6.0),
        (0.0, 30.0 + 20.0 * share),
    ]
    for filled, (at_x, at_y) in zip(arteries, places, strict=True):
        filled[...] = _disc(x, y, at_x, at_y, radius, pixel)
    vein[...] = _disc(x, y, 0.0, spec.half_length_mm * shrink - 4.5, 4.0, pixel)


def _disc(x: Floats, y: Floats, at_x: float, at_y: float, radius: float, pixel: float) -> Floats:
    """Filled fraction of each pixel, by 5 x 5 points."""
    filled = np.zeros(x.shape)
    near = np.hypot(x - at_x, y - at_y) < radius + 2 * pixel
    if not near.any():
        return filled
    offsets = (np.arange(5) - 2) / 5 * pixel
    inside = [np.hypot(x[near] + a - at_x, y[near] + b - at_y) < radius for a in offsets for b in offsets]
    filled[near] = np.mean(inside, axis=0)
    return filled
