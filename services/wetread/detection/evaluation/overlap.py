"""Segmentation and measurement metrics: Dice, HD95, volume error, Bland-Altman. Masks are [plane, row, column]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.detection.evaluation.classification import rounded

Mask = npt.NDArray[np.bool_]


def dice(found: Mask, truth: Mask) -> float:
    """Dice overlap; NaN when both are empty: nothing against nothing is counted apart, never as 1."""
    both = int(found.sum()) + int(truth.sum())
    return float("nan") if both == 0 else 2.0 * int((found & truth).sum()) / both


def surface_distances_mm(found: Mask, truth: Mask, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Distances from each surface voxel of one mask to the other's surface, both ways; empty when a mask is."""
    if not found.any() or not truth.any():
        return np.empty(0)
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (found, truth)]
    parts = []
    for own, other in (surfaces, surfaces[::-1]):
        parts.append(ndimage.distance_transform_edt(~other, sampling=spacing_mm)[own])
    return np.concatenate(parts)


def hd95_mm(found: Mask, truth: Mask, spacing_mm: Sequence[float]) -> float:
    """95th percentile of the symmetric surface distances; NaN when a mask is empty."""
    distances = surface_distances_mm(found, truth, spacing_mm)
    return float(np.percentile(distances, 95)) if distances.size else float("nan")


def agreement(measured: Sequence[float], true: Sequence[float]) -> dict[str, Any]:
    """Bias, mean absolute error, relative error and 95 % limits of agreement (Bland and Altman, Lancet 1986)."""
    got, want = np.asarray(measured, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if got.size == 0:
        return {"n": 0}
    error = got - want
    spread = 1.96 * float(error.std(ddof=1)) if got.size > 1 else float("nan")
    relative = np.abs(error[want != 0] / want[want != 0])
    return {
        "n": int(got.size),
        "bias": rounded(float(error.mean())),
        "mae": rounded(float(np.abs(error).mean())),
        "median_abs_error_percent": rounded(float(np.median(relative) * 100)) if relative.size else None,
        "limits_of_agreement": [rounded(float(error.mean()) - spread), rounded(float(error.mean()) + spread)],
    }


def mean_interval(values: Sequence[float], seed: int = 1, bootstraps: int = 2000) -> dict[str, Any]:
    """Mean of per-case values with a 95 % percentile interval over bootstraps of cases; NaN values are left out."""
    kept = np.asarray([v for v in values if not np.isnan(v)], dtype=np.float64)
    if kept.size == 0:
        return {"value": None, "ci95": [None, None], "n": 0}
    drawn = np.random.default_rng(seed).integers(0, kept.size, (bootstraps, kept.size))
    low, high = np.percentile(kept[drawn].mean(axis=1), [2.5, 97.5])
    interval = [rounded(float(low)), rounded(float(high))]
    return {"value": rounded(float(kept.mean())), "ci95": interval, "n": int(kept.size)}
