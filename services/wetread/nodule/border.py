"""Where a nodule ends: ground glass told from a soft edge, the border counted by halves, and whether it is a nodule.

Arrays [z, y, x] in steps of *step* mm; levels in HU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from wetread.core.detector import FloatArray
from wetread.nodule.pleura import box_of, continued

HAZE_HU: Final = 50.0
"""Least that ground glass stands above what a soft edge leaves 2 mm outside the core."""
SOFTEST: Final = 0.27
"""Largest share of the core's contrast that an edge leaves 1 mm outside: a standard deviation of 1.6 mm."""
SMOOTH_MM: Final = 0.7
BORDER_MM: Final = 1.5
"""Voxels as near to the border as this hold some of both sides."""
LEAST_VOXELS: Final = 20
DENSER_HU: Final = 40.0
"""The lung under ground glass is taken to lie at most this above that of the whole: ground glass may fill the view."""
BRANCHED: Final = 0.3
"""Ground glass of a smaller compactness has run on along vessels."""
_CLIMBS: Final = 6
_OPENING: Final = 0.45
Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outline:
    """A nodule's voxels and what they were told by.

    grown: everything above the border's level, of which ``mask`` is the nodule. inside: the lungs, with what the nodule
    hid of them. levels_hu: of the lung and of the nodule's outermost tissue.
    """

    mask: Mask
    grown: Mask
    inside: Mask
    levels_hu: tuple[float, float]


def outlined(
    part: FloatArray, inside: Mask, seed: Points, radius_mm: float, levels_hu: tuple[float, float, float], step: float
) -> Outline | None:
    """Outline of the nodule of about *radius_mm* at *seed*, cut from vessels and pleura; None when there is nothing.

    *levels_hu*: of the lung around, of the core, and of the lungs as a whole.
    """
    lung_hu, core_hu, whole_hu = levels_hu
    border_hu = 0.5 * (core_hu + lung_hu)
    grown = inside & (part > border_hu)
    mask = _cut(grown, seed, radius_mm / step)
    if mask is None:
        return None
    wider = continued(inside, mask, step)
    if wider is not inside:
        inside, grown = wider, wider & (part > border_hu)
        again = _cut(grown, seed, radius_mm / step)
        mask = mask if again is None else again
    under_hu = min(lung_hu, whole_hu + DENSER_HU)
    haze_hu = _haze_level(part, inside, mask, (under_hu, core_hu), step)
    if haze_hu is not None:
        veiled = inside & (part > 0.5 * (haze_hu + under_hu))
        veil = _cut(veiled, np.argwhere(mask).mean(axis=0), ball_radius(float(mask.sum())))
        if veil is not None and compactness(veil) >= BRANCHED:
            return Outline(veil | mask, veiled, inside, (under_hu, haze_hu))
    return Outline(mask, grown, inside, (lung_hu, core_hu))


def ball_radius(volume: float) -> float:
    """Radius of the ball of a volume."""
    return float((0.75 * volume / np.pi) ** (1 / 3))


def ball_at(shape: tuple[int, ...], centre: Points, radius: float) -> Mask:
    """Voxels within *radius* voxels of *centre*."""
    axes = [(np.arange(n) - c) ** 2 for n, c in zip(shape, centre, strict=True)]
    return np.asarray(axes[0][:, None, None] + axes[1][None, :, None] + axes[2][None, None, :] <= radius**2)


def _cut(grown: Mask, seed: Points, radius: float) -> Mask | None:
    """The part of *grown* that belongs to the ball at *seed*: opened to lose vessels, then regrown by as much."""
    depth = ndimage.distance_transform_edt(grown).astype(np.float32)
    near = ball_at(grown.shape, seed, max(2.0, 0.7 * radius))
    local = np.where(near, depth, 0)
    if local.max() <= 0:
        return None
    peak = _summit(depth, local)
    opening = _OPENING * float(depth[peak])
    parts, _ = ndimage.label(depth > opening)
    kept = parts == parts[peak]
    # a ball about the peak bounds what flows on into a wide vessel or the wall
    kept &= ball_at(grown.shape, np.array(peak, dtype=np.float64), 2.2 * float(depth[peak]) + 2)
    box = box_of(kept, opening + 0.5)
    out = np.zeros_like(grown)
    out[box] = grown[box] & (ndimage.distance_transform_edt(~kept[box]) <= opening + 0.5)
    return out


def _summit(depth: FloatArray, local: FloatArray) -> tuple[int, ...]:
    """The deepest point that is reached from the deepest of *local* by steps no longer than its own depth."""
    peak = np.unravel_index(int(local.argmax()), local.shape)
    for _ in range(_CLIMBS):
        reach = ball_at(depth.shape, np.array(peak, dtype=np.float64), float(depth[peak]))
        further = np.where(reach, depth, 0)
        best = np.unravel_index(int(further.argmax()), further.shape)
        if best == peak:
            break
        peak = best
    return tuple(int(v) for v in peak)


def _haze_level(
    part: FloatArray, inside: Mask, mask: Mask, levels_hu: tuple[float, float], step: float
) -> float | None:
    """Level of the ground glass around a core; None where the density falls off as at an edge that is merely soft.

    A Gaussian edge is known from its level 1 mm outside; what stands above it at 2 mm is a plateau. *levels_hu*: of the
    lung and of the core.
    """
    lung_hu, core_hu = levels_hu
    box = box_of(mask, 3.0 / step)
    part, inside = part[box], inside[box]
    away = ndimage.distance_transform_edt(~mask[box], sampling=step)
    smooth = ndimage.gaussian_filter(part, SMOOTH_MM / step)
    levels = []
    for reach in (1.0, 2.0):
        shell = inside & (np.abs(away - reach) <= 0.5)
        if int(shell.sum()) < LEAST_VOXELS:
            return None
        # the core may lie off the middle: a third of its surroundings is enough
        levels.append(float(np.percentile(smooth[shell], 66)))
    share = min(max((levels[0] - lung_hu) / (core_hu - lung_hu), 0.01), SOFTEST)
    edge_hu = (core_hu - lung_hu) * float(special.ndtr(2.0 * special.ndtri(share)))
    return levels[1] if levels[1] - lung_hu - edge_hu > HAZE_HU else None


def compactness(mask: Mask) -> float:
    """Volume of a mask relative to the ball about its centre that holds 98 % of it: 1 for a ball, 0.1 for branches."""
    where = np.argwhere(mask).astype(np.float64)
    reach = float(np.percentile(np.linalg.norm(where - where.mean(axis=0), axis=1), 98)) + 0.5
    return min(1.0, len(where) / (4 / 3 * math.pi * reach**3))


def soft_volume(part: FloatArray, outline: Outline, levels_hu: tuple[float, float], step: float) -> float:
    """Volume in mm3 with the border's voxels counted by the share of them that the nodule fills.

    *levels_hu*: of the lung and of the nodule's outermost tissue; other structures beside it count for nothing. After
    the partial-volume analysis of Kuhnigk et al., IEEE Trans Med Imaging 2006.
    """
    lung_hu, level_hu = levels_hu
    box = box_of(outline.mask, BORDER_MM / step)
    part, mask = part[box], outline.mask[box]
    counted = outline.inside[box] & (ndimage.distance_transform_edt(~mask, sampling=step) <= BORDER_MM)
    counted &= ~outline.grown[box] | mask
    deep = ndimage.distance_transform_edt(mask, sampling=step) > BORDER_MM
    share = np.clip((part - lung_hu) / (level_hu - lung_hu), 0, 1)
    share[deep] = 1
    return float(share[counted].sum(dtype=np.float64)) * step**3
