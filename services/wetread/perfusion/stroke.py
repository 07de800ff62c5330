"""Core, hypoperfused tissue and mismatch from flow and Tmax, by the thresholds of the late-window trials.

Tmax > 6 s and mismatch (more than 15 mL, ratio above 1.8) as in DEFUSE 3; core where flow is below 30 % of healthy
tissue. Healthy means: near this place or its mirror image, where blood comes in time, so that white matter is
compared with white matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

LATE_S: Final = 6.0
IN_TIME_S: Final = 4.0
CORE_FLOW: Final = 0.30
LEAST_ML: Final = 1.0
"""Smaller islands are noise."""
CORE_WIDTH_MM: Final = 6.0
"""Relative flow is judged after a filter of this full width at half maximum: low flow is mostly noise."""
NEIGHBOURHOOD_MM: Final = 9.0
SIDE_SHARE: Final = 0.8

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Side = Literal["", "left", "right", "bilateral"]


@dataclass(frozen=True, slots=True)
class Stroke:
    """[plane, row, column] masks (the core lies within the hypoperfused tissue) and their volumes in mL."""

    hypoperfused: Mask
    core: Mask
    hypoperfused_ml: float
    core_ml: float

    @property
    def mismatch_ml(self) -> float:
        """Hypoperfused tissue that is not core."""
        return self.hypoperfused_ml - self.core_ml

    @property
    def ratio(self) -> float | None:
        """Hypoperfused volume over core volume; None without a core."""
        return self.hypoperfused_ml / self.core_ml if self.core_ml > 0 else None


def find_stroke(
    cbf: Floats, tmax_s: Floats, tissue: Mask, midline: float, pixel_mm: tuple[float, float], voxel_ml: Floats
) -> Stroke:
    """Find both regions. *midline* is the column about which the head is mirrored; *voxel_ml* is per plane."""
    late = _median(tmax_s, tissue, 3) > LATE_S
    in_time = tissue & (tmax_s <= IN_TIME_S)
    healthy = _healthy_flow(cbf, in_time, midline, pixel_mm)
    low = tissue & (_mean(cbf / np.maximum(healthy, 1e-6), tissue, pixel_mm) < CORE_FLOW)
    late = _islands(_opened(late & tissue), voxel_ml)
    # Tissue without flow has no time of arrival: what is low and joins late tissue belongs to it.
    low = _opened(low)
    joined = _touching(low, late) | late
    hypoperfused = _closed(joined) & tissue
    core = _islands(low & hypoperfused, voxel_ml)
    return Stroke(hypoperfused, core, _volume(hypoperfused, voxel_ml), _volume(core, voxel_ml))


def side_of(region: Mask, columns_to_left: Floats) -> Side:
    """Return left, right or bilateral for a region; *columns_to_left* is mm from the midline to the left.

    Empty for an empty region.
    """
    if not region.any():
        return ""
    left = float((region & (columns_to_left > 0)).sum()) / float(region.sum())
    return "left" if left >= SIDE_SHARE else "right" if left <= 1 - SIDE_SHARE else "bilateral"


def mirrored(values: npt.NDArray[Any], midline: float) -> npt.NDArray[Any]:
    """Return *values* [..., column] mirrored about the column *midline*; 0 where the mirror image lies outside."""
    columns = values.shape[-1]
    source = np.round(2 * midline - np.arange(columns)).astype(int)
    valid = (source >= 0) & (source < columns)
    out = np.zeros_like(values)
    out[..., valid] = values[..., source[valid]]
    return out


def _healthy_flow(cbf: Floats, in_time: Mask, midline: float, pixel_mm: tuple[float, float]) -> Floats:
    weight = in_time.astype(np.float64)
    flow = np.where(in_time, np.nan_to_num(cbf), 0.0)
    weight = weight + mirrored(weight, midline)
    flow = flow + mirrored(flow, midline)
    sigma = (0.7, NEIGHBOURHOOD_MM / 2 / pixel_mm[0], NEIGHBOURHOOD_MM / 2 / pixel_mm[1])
    near = ndimage.gaussian_filter(weight, sigma)
    overall = float(cbf[in_time].mean()) if in_time.any() else 0.0
    local = ndimage.gaussian_filter(flow, sigma) / np.maximum(near, 1e-9)
    return np.asarray(np.where(near > 0.05, local, overall), dtype=np.float64)


def _median(values: Floats, mask: Mask, size: int) -> Floats:
    """Median of size x size pixels, which keeps edges; what lies outside the mask counts as the nearest inside."""
    filled = np.array(values)
    for plane, section in enumerate(mask):
        if section.any():
            rows, columns = ndimage.distance_transform_edt(~section, return_distances=False, return_indices=True)
            filled[plane] = values[plane][rows, columns]
    return np.asarray(ndimage.median_filter(filled, (1, size, size)), dtype=np.float64)


def _mean(values: Floats, mask: Mask, pixel_mm: tuple[float, float]) -> Floats:
    sigma = (0.0, *(CORE_WIDTH_MM / 2.3548 / size for size in pixel_mm))
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    return np.asarray(ndimage.gaussian_filter(np.where(mask, values, 0.0), sigma) / np.maximum(weight, 1e-9))


def _flat() -> Mask:
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1, 1, :] = flat[1, :, 1] = True
    return flat


def _opened(mask: Mask) -> Mask:
    return np.asarray(ndimage.binary_opening(mask, _flat()), dtype=np.bool_)


def _closed(mask: Mask) -> Mask:
    closed = ndimage.binary_closing(np.pad(mask, ((0, 0), (2, 2), (2, 2))), _flat(), iterations=2)[:, 2:-2, 2:-2]
    return np.stack([ndimage.binary_fill_holes(plane) for plane in closed | mask])


def _islands(mask: Mask, voxel_ml: Floats) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    volumes = np.zeros(count + 1)
    for plane, each in enumerate(voxel_ml):
        volumes += np.bincount(labels[plane].ravel(), minlength=count + 1) * each
    volumes[0] = 0.0
    return np.asarray((volumes >= LEAST_ML)[labels], dtype=np.bool_)


def _touching(low: Mask, late: Mask) -> Mask:
    labels, count = ndimage.label(low)
    met = np.zeros(count + 1, dtype=bool)
    met[np.unique(labels[ndimage.binary_dilation(late)])] = True
    met[0] = False
    return np.asarray(met[labels], dtype=np.bool_)


def _volume(mask: Mask, voxel_ml: Floats) -> float:
    return float((mask.sum(axis=(1, 2)) * voxel_ml).sum())
