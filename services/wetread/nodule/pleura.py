"""The pleura under a nodule that sits on it: a quadric through the wall around, continued beneath.

The closed lungs cut such a nodule along the ball of the closing, up to some millimetres short of the pleura. Here the
wall beside the nodule is fitted in the plane that lies nearest to it, and what the nodule covers is added back, as far
as the fit can be trusted (after the local pleural surface of Kuhnigk et al., IEEE Trans Med Imaging 2006).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.nodule.lungs import CLOSING_MM

BESIDE_MM: Final = 1.6
"""The wall counts as beside the nodule from this distance on."""
WALL_MM: Final = 7.0
"""Ring of wall around the nodule that the quadric is fitted to."""
ROUGH_MM: Final = 1.0
"""Standard deviation of the wall about the quadric above which nothing is added: a recess, an edge, a vessel."""
SPARE_MM: Final = 1.5
"""What the coarse grid of the lungs may have cut beyond the closing itself."""
LEAST_POINTS: Final = 60
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def continued(inside: Mask, mask: Mask, step: float) -> Mask:
    """*inside* (the closed lungs) with what *mask*, a nodule cut by them, hides of the lung; the same when none is.

    All [z, y, x] in steps of *step* mm.
    """
    box = box_of(mask, WALL_MM / step)
    found = _continued(inside[box], mask[box], step)
    if found is None:
        return inside
    out = inside.copy()
    out[box] = found
    return out


def box_of(mask: Mask, margin: float) -> tuple[slice, ...]:
    """The part of the grid that holds *mask* and *margin* voxels around it."""
    [found] = ndimage.find_objects(mask.astype(np.uint8))
    reach = int(np.ceil(margin)) + 1
    return tuple(slice(max(0, s.start - reach), s.stop + reach) for s in found)


def _continued(inside: Mask, mask: Mask, step: float) -> Mask | None:
    away = ndimage.distance_transform_edt(~mask, sampling=step)
    outside = ~inside
    foot = np.argwhere(outside & (away <= 1.5 * step)) * step
    if len(foot) * step**2 < 4.0:
        return None
    wall = np.argwhere(inside & ndimage.binary_dilation(outside) & (away > BESIDE_MM) & (away < WALL_MM))
    if len(wall) < LEAST_POINTS:
        return None
    points = wall * step
    origin = points.mean(axis=0)
    # rows: two directions along the wall, then across it
    along = np.linalg.svd(points - origin, full_matrices=False)[2]
    if (np.argwhere(mask).mean(axis=0) * step - origin) @ along[2] < 0:
        along[2] *= -1
    fitted = _quadric((points - origin) @ along.T)
    if fitted is None:
        return None
    deepest = _sagitta(float(np.linalg.norm(np.std(foot, axis=0))) * np.sqrt(2.0)) + SPARE_MM
    depth = ndimage.distance_transform_edt(outside, sampling=step)
    hidden = np.argwhere(outside & (depth <= deepest) & (away <= deepest + step))
    local = (hidden * step - origin) @ along.T
    # the wall's voxels are the last ones inside: the pleura lies half a step further out
    within = local[:, 2] > _terms(local) @ fitted - 0.5 * step
    out = inside.copy()
    out[tuple(hidden[within].T)] = True
    return out


def _sagitta(half_mm: float) -> float:
    """How far the closing's ball reaches into a gap of twice *half_mm* in the wall."""
    half = min(half_mm, CLOSING_MM)
    return float(CLOSING_MM - np.sqrt(CLOSING_MM**2 - half**2))


def _terms(local: Floats) -> Floats:
    u, v = local[:, 0], local[:, 1]
    return np.column_stack([np.ones_like(u), u, v, u * u, u * v, v * v])


def _quadric(local: Floats) -> Floats | None:
    """Height over the plane by least squares without the worst tenth; None where the wall is no smooth surface."""
    terms, height = _terms(local), local[:, 2]
    found = np.linalg.lstsq(terms, height, rcond=None)[0]
    rest = np.abs(terms @ found - height)
    kept = rest <= np.percentile(rest, 90)
    found = np.linalg.lstsq(terms[kept], height[kept], rcond=None)[0]
    spread = float(np.std(terms[kept] @ found - height[kept]))
    return np.asarray(found, dtype=np.float64) if spread <= ROUGH_MM else None
