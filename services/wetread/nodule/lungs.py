"""Where the lungs are, closed over what grows from their surface: on a 2 mm grid, by density and shape.

Air inside the body, without trachea and main bronchi (they part from the lungs when eroded), then closed by a ball so
that a nodule at the pleura lies inside. What is no chest is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.core.errors import NotApplicable
from wetread.nodule.frame import Grid

AIR_HU: Final = -420.0
"""Between aerated lung and soft tissue."""
CORE_MM: Final = 5.0
"""The lungs are what stays connected after erosion by this; a trachea falls off."""
REGAIN_MM: Final = 9.0
THINNER_HU: Final = 70.0
"""What is thinner than lung tissue by this is air alone."""
SMALLEST_PART_MM3: Final = 300.0
CLOSING_MM: Final = 20.0
"""Ball of the closing: a nodule on the pleura of up to twice this is held inside."""
LEAST_ML: Final = 60.0
LUNG_HU: Final = (-985.0, -550.0)
"""Plausible median of lung tissue; bowel gas is lower, fat higher."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lungs:
    """Masks [z, y, x] on the coarse grid. ``closed`` holds what lies on the surface; ``level_hu``: median of tissue."""

    air: Mask
    closed: Mask
    level_hu: float
    midline_mm: float
    """Position of the middle between the lungs along x."""


def find_lungs(grid: Grid) -> Lungs:
    """Find the lungs. Raises NotApplicable (body_part) when there are none."""
    body = _body(grid.values)
    air = (grid.values < AIR_HU) & body
    box = _box(air, 3)
    if box is None:
        raise NotApplicable("body_part", "no air inside the body")
    part, values = air[box], grid.values[box]
    kept = _without_airways(part, values, grid.step)
    litres = float(kept.sum()) * grid.step**3 / 1e6
    level = float(np.median(values[kept])) if kept.any() else 0.0
    if litres * 1000 < LEAST_ML or not LUNG_HU[0] <= level <= LUNG_HU[1]:
        raise NotApplicable("body_part", f"no lungs in the image ({litres:.2f} L of air at {level:.0f} HU)")
    closed = _closed(kept, grid.step)
    full_air, full_closed = np.zeros_like(air), np.zeros_like(air)
    full_air[box], full_closed[box] = kept, closed
    across = np.flatnonzero(kept.any(axis=(0, 1))) + box[2].start
    middle = float(grid.start[2] + grid.step * (across[0] + across[-1]) / 2)
    return Lungs(full_air, full_closed, level, middle)


def _body(values: FloatArray) -> Mask:
    """The largest piece of tissue with its holes filled plane by plane."""
    tissue = ndimage.binary_opening(values > AIR_HU)
    parts, count = ndimage.label(tissue)
    if not count:
        raise NotApplicable("body_part", "no tissue in the image")
    body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = ndimage.generate_binary_structure(2, 1)
    return np.asarray(ndimage.binary_fill_holes(body, flat), dtype=np.bool_)


def _box(mask: Mask, margin: int) -> tuple[slice, slice, slice] | None:
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found or found[0] is None:
        return None
    a, b, c = (slice(max(0, s.start - margin), min(n, s.stop + margin))
               for s, n in zip(found[0], mask.shape, strict=True))  # fmt: skip
    return a, b, c


def _without_airways(air: Mask, values: FloatArray, step: float) -> Mask:
    """Keep the wide parts that are large, or as dense as the largest: no trachea, stomach or gullet.

    Vessels cut the inside of a lung into several wide parts; air alone is thinner than lung tissue.
    """
    core = ndimage.distance_transform_edt(air, sampling=step) > CORE_MM
    parts, count = ndimage.label(core)
    if not count:
        return np.zeros_like(air)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    level = ndimage.mean(values, parts, np.arange(count + 1))
    like_lung = (level > level[sizes.argmax()] - THINNER_HU) & (sizes * step**3 > SMALLEST_PART_MM3)
    lungs = np.isin(parts, np.flatnonzero((sizes > 0.15 * sizes.max()) | (like_lung & (sizes > 0))))
    near = ndimage.distance_transform_edt(~lungs, sampling=step) <= REGAIN_MM
    return np.asarray(air & near, dtype=np.bool_)


def _closed(mask: Mask, step: float) -> Mask:
    """Close each lung on its own by a ball and fill its holes."""
    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    out = mask.copy()
    pad = int(np.ceil(CLOSING_MM / step)) + 1
    for number in np.flatnonzero(sizes > 0.1 * sizes[1:].max()):
        if number == 0:
            continue
        box = _box(parts == number, 1)
        assert box is not None
        own = np.pad(parts[box] == number, pad)
        wide = ndimage.distance_transform_edt(~own, sampling=step) <= CLOSING_MM
        back = ndimage.distance_transform_edt(wide, sampling=step) > CLOSING_MM
        inner = slice(pad, -pad)
        out[box] |= ndimage.binary_fill_holes(back[inner, inner, inner])
    return np.asarray(out, dtype=np.bool_)
