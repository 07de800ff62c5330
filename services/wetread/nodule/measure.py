"""One nodule measured: region growing, cut from vessels and pleura, then volume, axial diameters and density.

The border lies half-way between the nodule's own level and the lung around it, read on a finer grid where the nodule
is small. Vessels are cut off by an opening that grows with the nodule; the closed lungs are the border at the pleura.
Diameters are the longest in an axial plane and the longest at right angles to it (Fleischner Society, Radiology 2017).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.nodule.frame import Grid

Solidity = Literal["solid", "part_solid", "ground_glass"]
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
FINE_BELOW_MM: Final = 4.5
"""Nodules of a smaller radius are measured on a grid of half the step."""
SOLID_HU: Final = -350.0
"""Between ground glass and solid tissue."""
SOLID_SHARE: Final = (0.08, 0.65)
"""Share of solid voxels: ground glass below the first, solid above the second."""
LEAST_CONTRAST_HU: Final = 60.0
VEILED_HU: Final = 80.0
"""The lung around a nodule is taken to lie at most this above that of the whole."""
HALO_HU: Final = 120.0
SMOOTH_MM: Final = 0.7
LARGEST_MM: Final = 20.0
"""No nodule is sought beyond this radius."""
SMALL_MM: Final = 2.6
"""Below this radius a nodule has no voxel free of partial volume."""
_PASSES: Final = 3
_CLIMBS: Final = 6
_OPENING: Final = 0.45
_ANGLES: Final = 36


@dataclass(frozen=True, slots=True)
class Nodule:
    """A measured nodule. ``mask`` [z, y, x] lies on a grid from ``start`` in steps of ``step`` mm along the axes."""

    mask: Mask
    start: Points
    step: float
    centre: Points
    """(z, y, x) mm along the frame's axes."""
    volume_mm3: float
    long_axis_mm: float
    short_axis_mm: float
    mean_hu: float
    solidity: Solidity
    solid_diameter_mm: float
    """Mean axial diameter of the solid part; 0 for ground glass."""

    @property
    def diameter_mm(self) -> float:
        """Mean of the two axial diameters."""
        return (self.long_axis_mm + self.short_axis_mm) / 2


def measure(
    grid: Grid, closed: Mask, index: Points, radius_mm: float, level_hu: float, blur_mm: float = 0.85
) -> Nodule | None:
    """Measure the nodule at voxel *index* of the 1 mm grid; None when nothing stands out from the lung there.

    *blur_mm*: standard deviation of the scan's point spread, which lowers what is small.
    """
    found = None
    for _ in range(_PASSES):
        now = _once(grid, closed, index, radius_mm, level_hu, blur_mm)
        if now is None:
            return found
        found = now
        radius = float((0.75 * found.volume_mm3 / np.pi) ** (1 / 3))
        if radius < 1.25 * radius_mm:
            break
        index, radius_mm = (found.centre - grid.start) / grid.step, min(radius, LARGEST_MM)
    return found


def _once(grid: Grid, closed: Mask, index: Points, radius_mm: float, level_hu: float, blur_mm: float) -> Nodule | None:
    part, inside, start, step, seed = _surroundings(grid, closed, index, radius_mm)
    near = _ball_at(part.shape, seed, max(1.5, 0.5 * radius_mm / step)) & inside
    core_hu = float(np.percentile(part[near], 80)) if near.any() else level_hu
    around = _ball_at(part.shape, seed, 2.2 * radius_mm / step + 2) & inside & (part < 0.5 * (core_hu + level_hu))
    lung_hu = float(np.median(part[around])) if int(around.sum()) > 20 else level_hu
    lung_hu = min(lung_hu, level_hu + VEILED_HU)
    if core_hu - lung_hu < LEAST_CONTRAST_HU:
        return None
    mask = _cut(inside & (part > 0.5 * (core_hu + lung_hu)), seed, radius_mm / step)
    if mask is None:
        return None
    mask = _with_halo(part, inside, mask, (lung_hu, core_hu), step, blur_mm)
    where = np.argwhere(mask)
    long_mm, short_mm = axial_diameters(mask, step)
    solidity, solid = _solidity(part, mask, step, lung_hu, blur_mm)
    whole = (long_mm + short_mm) / 2
    solid_mm = float(np.mean(axial_diameters(solid, step))) if solidity == "part_solid" else 0.0
    return Nodule(
        mask=mask,
        start=start,
        step=step,
        centre=start + step * where.mean(axis=0),
        volume_mm3=float(len(where)) * step**3,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_hu=float(part[mask].mean()),
        solidity=solidity,
        solid_diameter_mm=whole if solidity == "solid" else solid_mm,
    )


def _with_halo(
    part: FloatArray, inside: Mask, mask: Mask, levels_hu: tuple[float, float], step: float, blur_mm: float
) -> Mask:
    """Add ground glass around a solid core: a shell that lies above what blur makes of the core belongs to the nodule.

    *levels_hu*: of the lung and of the core.
    """
    lung_hu, core_hu = levels_hu
    away = ndimage.distance_transform_edt(~mask, sampling=step)
    shell = inside & (away > 0.8) & (away < 1.8)
    if int(shell.sum()) < 20:
        return mask
    # the core may lie off the middle: a third of its surroundings is enough
    halo_hu = float(np.percentile(ndimage.gaussian_filter(part, SMOOTH_MM / step)[shell], 66))
    blur = math.hypot(blur_mm, SMOOTH_MM)
    halo_hu -= 0.5 * math.erfc(1.0 / (math.sqrt(2) * blur)) * (core_hu - lung_hu)
    if halo_hu - lung_hu < HALO_HU or core_hu - halo_hu < HALO_HU:
        return mask
    seed = np.argwhere(mask).mean(axis=0)
    radius = float((0.75 * mask.sum() / np.pi) ** (1 / 3))
    wider = _cut(inside & (part > 0.5 * (halo_hu + lung_hu)), seed, radius)
    return mask if wider is None else wider | mask


def _surroundings(
    grid: Grid, closed: Mask, index: Points, radius_mm: float
) -> tuple[FloatArray, Mask, Points, float, Points]:
    """The voxels around a candidate, on half the step when it is small: HU, lungs, start, step, seed."""
    reach = int(np.ceil(1.8 * radius_mm + 5))
    low = np.maximum(np.rint(index).astype(int) - reach, 0)
    high = np.minimum(np.rint(index).astype(int) + reach + 1, grid.values.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    part, inside, step = grid.values[box], closed[box], grid.step
    seed = index - low
    if radius_mm < FINE_BELOW_MM:
        part = _finer(part)
        inside = _finer(inside.astype(np.float32)) > 0.5
        step, seed = step / 2, seed * 2
    return part, inside, grid.place(low), step, seed


def _finer(values: FloatArray) -> FloatArray:
    """Linear interpolation to half the step: n becomes 2 n - 1."""
    for axis in range(3):
        values = np.moveaxis(values, axis, 0)
        out = np.empty((2 * len(values) - 1, *values.shape[1:]), dtype=np.float32)
        out[::2] = values
        out[1::2] = (values[1:] + values[:-1]) * np.float32(0.5)
        values = np.moveaxis(out, 0, axis)
    return values


def _ball_at(shape: tuple[int, ...], centre: Points, radius: float) -> Mask:
    axes = [(np.arange(n) - c) ** 2 for n, c in zip(shape, centre, strict=True)]
    return np.asarray(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= radius**2)


def _cut(grown: Mask, seed: Points, radius: float) -> Mask | None:
    """The part of *grown* that belongs to the ball at *seed*: opened to lose vessels, then regrown by as much."""
    depth = ndimage.distance_transform_edt(grown).astype(np.float32)
    near = _ball_at(grown.shape, seed, max(2.0, 0.7 * radius))
    local = np.where(near, depth, 0)
    if local.max() <= 0:
        return None
    peak = _summit(depth, local)
    opening = _OPENING * float(depth[peak])
    parts, _ = ndimage.label(depth > opening)
    kept = parts == parts[peak]
    # a ball about the peak bounds what flows on into a wide vessel or the wall
    kept &= _ball_at(grown.shape, np.array(peak, dtype=np.float64), 2.2 * float(depth[peak]) + 2)
    return np.asarray(grown & (ndimage.distance_transform_edt(~kept) <= opening + 0.5), dtype=np.bool_)


def _summit(depth: FloatArray, local: FloatArray) -> tuple[int, ...]:
    """The deepest point that is reached from the deepest of *local* by steps no longer than its own depth."""
    peak = np.unravel_index(int(local.argmax()), local.shape)
    for _ in range(_CLIMBS):
        reach = _ball_at(depth.shape, np.array(peak, dtype=np.float64), float(depth[peak]))
        further = np.where(reach, depth, 0)
        best = np.unravel_index(int(further.argmax()), further.shape)
        if best == peak:
            break
        peak = best
    return tuple(int(v) for v in peak)


def axial_diameters(mask: Mask, step: float) -> tuple[float, float]:
    """Longest axial diameter of *mask* [z, y, x] and the longest at right angles in that plane, mm."""
    best = (0.0, 0.0)
    areas = mask.sum(axis=(1, 2))
    # the longest diameter lies in one of the large planes
    for plane in np.flatnonzero(areas >= 0.7 * areas.max()) if areas.any() else ():
        points = np.argwhere(mask[plane]).astype(np.float64)
        angles = np.arange(_ANGLES) * np.pi / _ANGLES
        along = points @ np.stack([np.sin(angles), np.cos(angles)])
        # an edge of a voxel lies half a step beyond its centre
        width = np.ptp(along, axis=0) + 1.0
        longest = int(width.argmax())
        across = float(width[(longest + _ANGLES // 2) % _ANGLES])
        if width[longest] * step > best[0]:
            best = (float(width[longest]) * step, across * step)
    return best


def _solidity(part: FloatArray, mask: Mask, step: float, lung_hu: float, blur_mm: float) -> tuple[Solidity, Mask]:
    """Density class by the share of solid voxels within the border's partial volume, and the solid voxels.

    The density of what is small is corrected for the blur of the scan: a ball keeps ``recovery`` of its contrast.
    """
    depth = ndimage.distance_transform_edt(mask) * step
    radius = float((0.75 * mask.sum() / np.pi) ** (1 / 3)) * step
    if radius < SMALL_MM:
        top = float(np.percentile(part[mask], 97))
        corrected = lung_hu + (top - lung_hu) / max(recovery(radius, blur_mm), 0.3)
        return ("solid", mask) if corrected > SOLID_HU else ("ground_glass", np.zeros_like(mask))
    core = depth > 1.0
    solid = mask & (part > SOLID_HU)
    share = float((solid & core).sum()) / max(float(core.sum()), 1.0)
    if share > SOLID_SHARE[1]:
        return "solid", mask
    if share < SOLID_SHARE[0]:
        return "ground_glass", np.zeros_like(mask)
    parts, count = ndimage.label(solid)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return "part_solid", np.asarray(parts == int(sizes.argmax()), dtype=np.bool_)


def recovery(radius_mm: float, blur_mm: float) -> float:
    """Share of its contrast that a ball keeps at its centre under a Gaussian blur (closed form)."""
    ratio = radius_mm / blur_mm
    return math.erf(ratio / math.sqrt(2)) - math.sqrt(2 / math.pi) * ratio * math.exp(-(ratio**2) / 2)
