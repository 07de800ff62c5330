"""One nodule measured: region growing, cut from vessels and pleura, then volume, axial diameters and density.

The border lies half-way between the nodule's own level and the lung around it, read on a finer grid where the nodule
is small; volume counts the border's voxels by share. What is too large for a nodule and no ball is left out.
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
from wetread.nodule.border import ball_at, ball_radius, compactness, outlined, soft_volume
from wetread.nodule.frame import Grid
from wetread.nodule.pleura import box_of

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
LARGEST_MM: Final = 20.0
"""No nodule is sought beyond this radius."""
SMALL_MM: Final = 2.6
"""Below this radius a nodule has no voxel free of partial volume."""
TISSUE_HU: Final = 40.0
"""What a solid nodule consists of, where it is too small to be read off."""
SOFT_EDGE: Final = 1.4
"""Blur of the softest edge of a small solid nodule, relative to that of the scan."""
MASS_MM: Final = 30.0
"""Beyond this mean diameter it is a mass and no nodule (Fleischner Society glossary)."""
COMPACT_MASS: Final = 0.45
"""Least compactness of a mass: below, it is wall, heart or consolidation that the closing let in."""
_PASSES: Final = 3
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
    compactness: float
    """Share that it fills of the ball that holds it: about 0.6 for a nodule, 0.2 for a piece of a vessel."""

    @property
    def diameter_mm(self) -> float:
        """Mean of the two axial diameters."""
        return (self.long_axis_mm + self.short_axis_mm) / 2

    @property
    def is_mass(self) -> bool:
        """Whether it is too large for a nodule and for a nodule's size category.

        Ground glass is not: the table of categories has a row for it from 30 mm on.
        """
        return self.solidity != "ground_glass" and self.diameter_mm > MASS_MM


def measure(
    grid: Grid, closed: Mask, index: Points, radius_mm: float, level_hu: float, blur_mm: float = 0.85
) -> Nodule | None:
    """Measure the nodule at voxel *index* of the 1 mm grid; None when nothing stands out from the lung there.

    None too for what is larger than a nodule and no ball. *blur_mm*: standard deviation of the scan's point spread,
    which lowers what is small.
    """
    found = None
    for _ in range(_PASSES):
        now = _once(grid, closed, index, radius_mm, level_hu, blur_mm)
        if now is None:
            break
        found = now
        radius = ball_radius(found.volume_mm3)
        if radius < 1.25 * radius_mm:
            break
        index, radius_mm = (found.centre - grid.start) / grid.step, min(radius, LARGEST_MM)
    if found is None:
        return None
    return found if found.diameter_mm <= MASS_MM or found.compactness >= COMPACT_MASS else None


def _once(grid: Grid, closed: Mask, index: Points, radius_mm: float, level_hu: float, blur_mm: float) -> Nodule | None:
    part, inside, start, step, seed = _surroundings(grid, closed, index, radius_mm)
    near = ball_at(part.shape, seed, max(1.5, 0.5 * radius_mm / step)) & inside
    core_hu = float(np.percentile(part[near], 80)) if near.any() else level_hu
    around = ball_at(part.shape, seed, 2.2 * radius_mm / step + 2) & inside & (part < 0.5 * (core_hu + level_hu))
    lung_hu = float(np.median(part[around])) if int(around.sum()) > 20 else level_hu
    lung_hu = min(lung_hu, level_hu + VEILED_HU)
    if core_hu - lung_hu < LEAST_CONTRAST_HU:
        return None
    outline = outlined(part, inside, seed, radius_mm, (lung_hu, core_hu, level_hu), step)
    if outline is None:
        return None
    mask = outline.mask
    lung_hu, edge_hu = outline.levels_hu
    solidity, solid = _solidity(part, mask, step, lung_hu, blur_mm)
    if solidity == "solid" and ball_radius(float(mask.sum())) * step < SMALL_MM:
        edge_hu = max(edge_hu, TISSUE_HU)
    volume = soft_volume(part, outline, (lung_hu, edge_hu), step)
    where = np.argwhere(mask)
    long_mm, short_mm = axial_diameters(mask, step)
    whole = (long_mm + short_mm) / 2
    solid_mm = float(np.mean(axial_diameters(solid, step))) if solidity == "part_solid" else 0.0
    return Nodule(
        mask=mask,
        start=start,
        step=step,
        centre=start + step * where.mean(axis=0),
        volume_mm3=volume,
        long_axis_mm=long_mm,
        short_axis_mm=short_mm,
        mean_hu=float(part[mask].mean()),
        solidity=solidity,
        solid_diameter_mm=whole if solidity == "solid" else solid_mm,
        compactness=compactness(mask),
    )


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
    box = box_of(mask, 1)
    depth = np.zeros(mask.shape)
    depth[box] = ndimage.distance_transform_edt(mask[box], sampling=step)
    radius = ball_radius(float(mask.sum())) * step
    if radius < SMALL_MM:
        top = float(np.percentile(part[mask], 97))
        corrected = lung_hu + (top - lung_hu) / max(recovery(radius, SOFT_EDGE * blur_mm), 0.3)
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
