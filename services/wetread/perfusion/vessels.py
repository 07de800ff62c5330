"""Arterial input and venous output: where they are measured, and the arterial curve corrected for partial volume.

Arteries are the first of the bright curves; veins hold the largest area. A small artery is diluted by what surrounds
it, a large vein is not: both carry the same tracer, so the arterial curve is scaled to the vein's area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import FloatArray
from wetread.core.errors import NotProcessable
from wetread.perfusion.bolus import LEAST_PEAK

ARTERY_VOXELS: Final = 6
VEIN_VOXELS: Final = 6
VESSEL_SHARE: Final = 0.3
"""A vessel rises at least to this share of the highest curve."""
EARLY_S: Final = 1.5
"""Arteries reach half of their height within this time of the earliest vessel."""
RETURN_SHARE: Final = 0.6
"""The vein must have come down below this share of its height before the scan ends."""
LARGEST_SCALE: Final = 6.0

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Vessel:
    """Where a curve was measured, [voxel, (plane, row, column)] with the best one last, and the mean of them."""

    voxels: Indices
    curve: Floats
    arrival: float
    """Index (with fraction) at which the curve passes half of its height."""


@dataclass(frozen=True, slots=True)
class Vessels:
    """Artery, vein, and the arterial curve that a voxel full of blood would show."""

    artery: Vessel
    vein: Vessel
    scale: float

    @property
    def input_curve(self) -> Floats:
        """Arterial curve corrected for partial volume."""
        return np.asarray(self.artery.curve * self.scale, dtype=np.float64)


def find_vessels(curves: FloatArray, inside: npt.NDArray[np.bool_], step_s: float, modality: str) -> Vessels:
    """Choose arterial and venous voxels among *inside*. Raises NotProcessable: no_bolus, truncated_bolus."""
    places = np.argwhere(inside)
    flat = np.asarray(curves[:, inside], dtype=np.float64)
    smooth = flat.copy()
    smooth[1:-1] = (flat[:-2] + 2 * flat[1:-1] + flat[2:]) / 4
    height = smooth.max(axis=0)
    top = float(np.sort(height)[-VEIN_VOXELS:].mean())
    if top < LEAST_PEAK[modality]:
        raise NotProcessable("no_bolus", "no vessel changes as a bolus would change it")
    bright = np.flatnonzero(height > VESSEL_SHARE * top)
    half = np.array([half_rise(smooth[:, k]) for k in bright])
    area = flat[:, bright].sum(axis=0)
    vein = _vessel(bright[np.argsort(area)[-VEIN_VOXELS:]], places, smooth)
    early = half <= float(np.percentile(half, 2)) + EARLY_S / step_s
    score = height[bright] / _width(smooth[:, bright])
    artery = _vessel(bright[early][np.argsort(score[early])[-ARTERY_VOXELS:]], places, smooth)
    if float(vein.curve[-3:].mean()) > RETURN_SHARE * float(vein.curve.max()):
        raise NotProcessable("truncated_bolus", "the scan ends while the bolus passes")
    return Vessels(artery, vein, _scale(artery, vein))


def half_rise(curve: Floats) -> float:
    """Return the index, with fraction, at which *curve* first passes half of its height before its peak."""
    top = int(curve.argmax())
    level = 0.5 * float(curve[top])
    below = np.flatnonzero(curve[: top + 1] < level)
    if len(below) == 0:
        return 0.0
    at = int(below[-1])
    if at == top:
        return float(top)
    return at + (level - float(curve[at])) / max(float(curve[at + 1] - curve[at]), 1e-9)


def _width(curves: Floats) -> Floats:
    """Number of samples above half of the height, at least one."""
    return np.asarray(np.maximum((curves > 0.5 * curves.max(axis=0)).sum(axis=0), 1), dtype=np.float64)


def _vessel(chosen: Indices, places: Indices, curves: Floats) -> Vessel:
    curve = curves[:, chosen].mean(axis=1)
    return Vessel(places[chosen], curve, half_rise(curve))


def _scale(artery: Vessel, vein: Vessel) -> float:
    """Return vein area over artery area, both from their own arrival on and equally long."""
    size = len(artery.curve)
    start_a, start_v = max(0, int(artery.arrival) - 3), max(0, int(vein.arrival) - 3)
    length = size - max(start_a, start_v)
    area_a = float(artery.curve[start_a : start_a + length].sum())
    area_v = float(vein.curve[start_v : start_v + length].sum())
    return float(np.clip(area_v / max(area_a, 1e-9), 1.0, LARGEST_SCALE))
