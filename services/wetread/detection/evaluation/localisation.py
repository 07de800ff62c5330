"""FROC of marks against lesions: one credit per lesion, repeated hits neither credit nor false positive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.detection.evaluation.classification import rounded

FALSE_POSITIVES_PER_CASE: Final = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where sensitivity is read off; their mean is the score of the nodule challenges."""
LEAST_RADIUS_MM: Final = 3.0
BOOTSTRAPS: Final = 2000
Point = tuple[float, float, float]
Curve = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Lesion:
    """A true lesion: centre in LPS mm and radius in mm."""

    centre_mm: Point
    radius_mm: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A detector's mark: centre in LPS mm and score."""

    centre_mm: Point
    score: float


@dataclass(frozen=True, slots=True)
class CaseMarks:
    """One case for FROC: best score on each lesion (-inf: missed), and the scores of its false positives."""

    lesion_scores: tuple[float, ...]
    false_scores: tuple[float, ...]


def match(lesions: Sequence[Lesion], marks: Sequence[Mark]) -> CaseMarks:
    """Credit marks to lesions: a hit lies within the lesion's radius, at least 3 mm, of its centre."""
    best = [-np.inf] * len(lesions)
    false: list[float] = []
    for mark in marks:
        distances = [float(np.linalg.norm(np.subtract(mark.centre_mm, lesion.centre_mm))) for lesion in lesions]
        reached = [k for k, d in enumerate(distances) if d <= max(lesions[k].radius_mm, LEAST_RADIUS_MM)]
        if reached:
            nearest = min(reached, key=lambda k: distances[k])
            best[nearest] = max(best[nearest], mark.score)
        else:
            false.append(mark.score)
    return CaseMarks(tuple(best), tuple(false))


def froc_curve(cases: Sequence[CaseMarks]) -> Curve:
    """False positives per case and lesion sensitivity at every distinct mark score, most suspicious first."""
    lesions = np.array([s for case in cases for s in case.lesion_scores], dtype=np.float64)
    false = np.array([s for case in cases for s in case.false_scores], dtype=np.float64)
    thresholds = np.unique(np.concatenate([lesions[np.isfinite(lesions)], false]))[::-1]
    rates = (false.size - np.searchsorted(np.sort(false), thresholds, "left")) / max(1, len(cases))
    found = (lesions.size - np.searchsorted(np.sort(lesions), thresholds, "left")) / max(1, lesions.size)
    return np.concatenate([[0.0], rates]), np.concatenate([[0.0], found])


def sensitivities(curve: Curve) -> tuple[float, ...]:
    """Sensitivity at each rate of ``FALSE_POSITIVES_PER_CASE``: the best that no more false positives buy."""
    rates, found = curve
    return tuple(float(found[rates <= rate + 1e-12].max()) for rate in FALSE_POSITIVES_PER_CASE)


def froc_entry(cases: Sequence[CaseMarks], seed: int = 1) -> dict[str, Any]:
    """FROC sensitivities and their mean with a 95 % percentile interval over bootstraps of cases."""
    lesions = sum(len(case.lesion_scores) for case in cases)
    if lesions == 0:
        return {"n": len(cases), "lesions": 0}
    points = sensitivities(froc_curve(cases))
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(BOOTSTRAPS if len(cases) <= 200 else BOOTSTRAPS // 4):
        drawn = [cases[k] for k in rng.integers(0, len(cases), len(cases))]
        if any(case.lesion_scores for case in drawn):
            means.append(float(np.mean(sensitivities(froc_curve(drawn)))))
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": len(cases),
        "lesions": lesions,
        "at": {f"{rate:g}": rounded(s) for rate, s in zip(FALSE_POSITIVES_PER_CASE, points, strict=True)},
        "mean": {"value": rounded(float(np.mean(points))), "ci95": [rounded(float(low)), rounded(float(high))]},
    }
