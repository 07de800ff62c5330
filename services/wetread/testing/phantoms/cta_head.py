"""Head CT angiogram phantoms: skull, brain and arteries with a known occlusion, or none.

NumPy and SciPy only. Vessels are tubes with partial volume; noise is that of a soft kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.core.detector import FrameRef, Volume
from wetread.testing.phantoms.cta_parameters import CtaSpec, draw_cta
from wetread.testing.phantoms.cta_vessels import Branch, VesselTree, build_vessels

BRAIN_HU: Final = 38.0
SKULL_HU: Final = 1000.0
SCALP_HU: Final = 45.0
FLUID_HU: Final = 8.0
CALCIUM_HU: Final = 800.0
MARGIN_MM: Final = 16.0

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CtaPhantom:
    """A finished phantom: HU [plane, row, column], where planes, rows and columns lie (mm, LPS), and the truth."""

    spec: CtaSpec
    hu: NDArray[np.float32]
    z_mm: Floats
    y_mm: Floats
    x_mm: Floats
    tree: VesselTree
    stop_lps_mm: tuple[float, float, float] | None
    """Where the occlusion begins."""

    def to_volume(self) -> Volume:
        """Return the phantom as a detector gets it, without a detour over DICOM."""
        spec, planes = self.spec, len(self.z_mm)
        corner = np.array([self.x_mm[0], self.y_mm[0]])
        return Volume(
            voxels=self.hu,
            origins=np.concatenate([np.tile(corner, (planes, 1)), self.z_mm[:, None]], axis=1),
            row_direction=np.array([1.0, 0.0, 0.0]),
            column_direction=np.array([0.0, 1.0, 0.0]),
            pixel_spacing=(spec.voxel_mm[1], spec.voxel_mm[1]),
            weights_mm=np.full(planes, spec.voxel_mm[0]),
            frames=tuple(FrameRef(f"2.25.{spec.seed + 1}{plane + 1:05d}") for plane in range(planes)),
        )


def cta_phantom(seed: int, *, split: str = "s0", **overrides: Any) -> CtaPhantom:
    """Make one phantom of a split. Raises PhantomSpecError and PhantomSeedError."""
    return render_cta(draw_cta(seed, split=split, **overrides))


def render_cta(spec: CtaSpec) -> CtaPhantom:
    """Render *spec*: the same spec gives the same image."""
    reach_x, reach_y = spec.half_width_mm + MARGIN_MM, spec.half_length_mm + MARGIN_MM
    z = np.arange(-spec.below_mm, spec.height_mm + 14.0, spec.voxel_mm[0])
    y = np.arange(-reach_y, reach_y, spec.voxel_mm[1])
    x = np.arange(-reach_x, reach_x, spec.voxel_mm[1]) + spec.shift_mm
    to_head = _rotation(spec)
    hu = _tissue(spec, z, y, x, to_head)
    tree = build_vessels(spec)
    lumen = np.zeros(hu.shape, dtype=np.float32)
    for branch in tree.branches:
        _stamp(lumen, branch, (z, y, x), to_head, spec)
    hu = hu + lumen * np.float32(spec.lumen_hu - BRAIN_HU)
    if spec.calcium:
        _calcify(hu, tree, (z, y, x), to_head, spec)
    sigma = (spec.blur_mm / spec.voxel_mm[0], *(2 * [spec.blur_mm / spec.voxel_mm[1]]))
    hu = ndimage.gaussian_filter(hu, sigma, truncate=3.0)
    rng = np.random.default_rng([spec.seed, 93])
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0, 0.5, 0.5), truncate=2.0)
    hu += noise * np.float32(spec.noise_hu / max(float(noise.std()), 1e-9))
    stop = None
    if tree.stop is not None:
        px, py, pz = (float(v) for v in to_head.T @ tree.stop + np.array([spec.shift_mm, 0.0, 0.0]))
        stop = (px, py, pz)
    return CtaPhantom(spec, hu.astype(np.float32), z, y, x, tree, stop)


def _rotation(spec: CtaSpec) -> Floats:
    """Return the matrix from scanner to head axes: a turn about z, then a roll about y."""
    turn, roll = np.deg2rad(spec.turn_deg), np.deg2rad(spec.roll_deg)
    about_z = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return np.asarray(about_y @ about_z, dtype=np.float64)


def _tissue(spec: CtaSpec, z: Floats, y: Floats, x: Floats, to_head: Floats) -> NDArray[np.float32]:
    zz, yy, xx = np.meshgrid(z, y, x - spec.shift_mm, indexing="ij", sparse=True)
    hx = to_head[0, 0] * xx + to_head[0, 1] * yy + to_head[0, 2] * zz
    hy = to_head[1, 0] * xx + to_head[1, 1] * yy + to_head[1, 2] * zz
    hz = to_head[2, 0] * xx + to_head[2, 1] * yy + to_head[2, 2] * zz
    rise = np.maximum(hz - 10.0, 0.0) / (spec.height_mm - 10.0)
    low = np.maximum(-hz - 6.0, 0.0) / 90.0
    radius = np.sqrt((hx / spec.half_width_mm) ** 2 + (hy / spec.half_length_mm) ** 2 + rise**2 + low**2)
    depth = ((1.0 - radius) * spec.half_width_mm).astype(np.float32)
    hu = np.full(depth.shape, -1000.0, np.float32)
    hu[depth > -12.0] = SCALP_HU
    hu[depth > -7.0] = SKULL_HU
    hu[depth > 0.0] = FLUID_HU
    hu[depth > 2.5] = BRAIN_HU
    # Skull base: the floor under the frontal lobes, sella and petrous bones beside the brain stem.
    floor = (hz < -14.0 - 0.12 * np.minimum(hy, 0)) & (hy < 2.0) & (depth > -7.0)
    petrous = (hz < -10.0) & (np.abs(np.abs(hx) - 36.0 - 0.35 * hy) < 8.0) & (hy > 0) & (hy < 40) & (depth > -7.0)
    hu[np.broadcast_to(floor | petrous, hu.shape)] = 700.0
    fissure = (np.abs(np.abs(hx) - 36.0 - 0.15 * hz) < 3.0) & (np.abs(hy + 6) < 16) & (hz > -4) & (hz < 26)
    hu[np.broadcast_to(fissure, hu.shape) & (hu == BRAIN_HU)] = FLUID_HU
    return hu


def _stamp(
    lumen: NDArray[np.float32], branch: Branch, axes: tuple[Floats, Floats, Floats], to_head: Floats, spec: CtaSpec
) -> None:
    """Put balls along the branch; a voxel is filled by how deep its centre lies within the wall."""
    z, y, x = axes
    edge = float(np.mean(spec.voxel_mm))
    places = branch.points @ to_head + np.array([spec.shift_mm, 0.0, 0.0])
    for (px, py, pz), radius, filling in zip(places, branch.radius, branch.filling, strict=True):
        if filling <= 0.0:
            continue
        box, near = [], []
        for axis, centre in ((z, pz), (y, py), (x, px)):
            low = int(np.searchsorted(axis, centre - radius - edge))
            high = int(np.searchsorted(axis, centre + radius + edge))
            box.append(slice(low, high))
            near.append((axis[low:high] - centre) ** 2)
        if any(s.start >= s.stop for s in box):
            continue
        distance = np.sqrt(near[0][:, None, None] + near[1][None, :, None] + near[2][None, None, :])
        share = np.clip((radius - distance) / edge + 0.5, 0.0, 1.0).astype(np.float32) * np.float32(filling)
        region = lumen[tuple(box)]
        np.maximum(region, share, out=region)


def _calcify(
    hu: NDArray[np.float32],
    tree: VesselTree,
    axes: tuple[Floats, Floats, Floats],
    to_head: Floats,
    spec: CtaSpec,
) -> None:
    rng = np.random.default_rng([spec.seed, 94])
    z, y, x = axes
    for branch in tree.branches:
        if not branch.name.startswith("ICA"):
            continue
        for _ in range(int(rng.integers(1, 4))):
            index = int(rng.integers(len(branch.points) // 3, len(branch.points)))
            place = branch.points[index] + rng.normal(0, 1.0, 3)
            px, py, pz = place @ to_head + np.array([spec.shift_mm, 0.0, 0.0])
            distance = np.sqrt(
                (z[:, None, None] - pz) ** 2 + (y[None, :, None] - py) ** 2 + (x[None, None, :] - px) ** 2
            )
            hu[distance < rng.uniform(1.0, 2.0)] = CALCIUM_HU
