"""From images to tracer: when the bolus comes, the baseline before it, and the curve of every voxel.

CT: Hounsfield units above the baseline, proportional to iodine. MR (T2*-weighted): -ln(S/S0), proportional to
gadolinium; the echo time is a factor that deconvolution cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import FloatArray
from wetread.core.errors import NotProcessable

Floats = npt.NDArray[np.float64]

FAST_VOXELS: Final = 60
"""The arrival is read from this many voxels that change most."""
LEAST_PEAK: Final = {"CT": 40.0, "MR": 0.4}
"""A vein that changes less (HU, or -ln of the signal) carries no bolus worth reading."""
BASELINE_POINTS: Final = 2
BEGUN_VOXELS: Final = 20
BEGUN_SHARE: Final = 0.35
"""That many voxels this share of the rise above their lowest level have tracer in the first images."""


@dataclass(frozen=True, slots=True)
class Bolus:
    """``curves``: tracer [time, plane, row, column]. ``baseline``: images before it. ``arrival``: first index of it."""

    curves: FloatArray
    baseline: FloatArray
    arrival: int


def tracer_curves(images: FloatArray, inside: npt.NDArray[np.bool_], modality: str) -> Bolus:
    """Turn registered images into tracer curves. Raises NotProcessable: no_bolus, truncated_bolus."""
    arrival = _arrival(images, inside, modality)
    if arrival < BASELINE_POINTS:
        raise NotProcessable("truncated_bolus", "the bolus is there when the scan starts")
    baseline = np.asarray(images[:arrival].mean(axis=0), dtype=np.float32)
    if modality == "CT":
        return Bolus(images - baseline[None], baseline, arrival)
    floor = np.maximum(baseline, 1.0)
    ratio = np.maximum(images, 1.0) / floor[None]
    return Bolus(np.asarray(-np.log(ratio), dtype=np.float32), baseline, arrival)


def _arrival(images: FloatArray, inside: npt.NDArray[np.bool_], modality: str) -> int:
    """Return the index of the last image before the fastest vessels brighten (darken on MR)."""
    flat = images[:, inside]
    if flat.shape[1] == 0:
        raise NotProcessable("no_bolus", "there is nothing inside the head to look at")
    if modality != "CT":
        flat = -np.log(np.maximum(flat, 1.0))
    smooth = np.asarray(flat, dtype=np.float64)
    smooth[1:-1] = (flat[:-2] + 2 * flat[1:-1] + flat[2:]) / 4
    rise = smooth.max(axis=0) - np.percentile(smooth, 10, axis=0)
    fast = np.argsort(rise)[-FAST_VOXELS:]
    curve = smooth[:, fast].mean(axis=1)
    top, lowest = int(curve.argmax()), float(np.percentile(curve, 5))
    if curve[top] - lowest < LEAST_PEAK[modality]:
        raise NotProcessable("no_bolus", "no vessel changes as a bolus would change it")
    low = float(curve[:BASELINE_POINTS].mean())
    begun = np.sort(smooth[:BASELINE_POINTS].mean(axis=0) - np.percentile(smooth, 10, axis=0))[-BEGUN_VOXELS:]
    if float(begun.mean()) > BEGUN_SHARE * (curve[top] - lowest):
        raise NotProcessable("truncated_bolus", "the bolus is there when the scan starts")
    rising = np.flatnonzero(curve[: top + 1] < low + 0.08 * (curve[top] - low))
    return int(rising[-1]) if len(rising) else 0
