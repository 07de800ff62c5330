"""Case-level metrics: ROC area with intervals, proportions, predictive values, calibration. Arrays in, numbers out.

Scores are any real numbers, higher meaning more suspicious; ``truth`` is boolean, one entry per case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

BOOTSTRAPS: Final = 2000
CALIBRATION_BINS: Final = 10
_Z95: Final = 1.959964
Scores = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


def auc(scores: Scores, truth: Truth) -> float:
    """Area under the ROC curve: chance that a positive scores higher, ties count half; NaN without both classes."""
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    if positive.size == 0 or negative.size == 0:
        return float("nan")
    below = np.searchsorted(negative, positive, "left")
    upto = np.searchsorted(negative, positive, "right")
    return float((below + upto).sum() / 2 / positive.size / negative.size)


def auc_interval(scores: Scores, truth: Truth, seed: int = 1) -> tuple[float, float]:
    """95 % percentile interval of the AUC over 2,000 bootstraps of cases, stratified by truth."""
    rng = np.random.default_rng(seed)
    positive, negative = scores[truth], scores[~truth]
    if positive.size == 0 or negative.size == 0:
        return float("nan"), float("nan")
    values = []
    for _ in range(BOOTSTRAPS):
        drawn = np.concatenate([rng.choice(positive, positive.size), rng.choice(negative, negative.size)])
        values.append(auc(drawn, np.arange(drawn.size) < positive.size))
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def delong_variance(scores: Scores, truth: Truth) -> float:
    """Variance of the AUC by DeLong et al. (Biometrics 1988;44:837): the cross-check of the bootstrap."""
    positive, negative = scores[truth], scores[~truth]
    if positive.size < 2 or negative.size < 2:
        return float("nan")
    wins = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    return float(wins.mean(axis=1).var(ddof=1) / positive.size + wins.mean(axis=0).var(ddof=1) / negative.size)


def roc_curve(scores: Scores, truth: Truth) -> tuple[Scores, Scores]:
    """False-positive and true-positive rates at every distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], truth[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1) if ranked.size else np.empty(0, dtype=np.intp)
    true_positives, false_positives = np.cumsum(hits)[last], np.cumsum(~hits)[last]
    rate = (
        np.concatenate([[0.0], false_positives / max(1, int((~truth).sum()))]),
        np.concatenate([[0.0], true_positives / max(1, int(truth.sum()))]),
    )
    return rate[0], rate[1]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson 95 % interval of a proportion; NaN of nothing."""
    if count == 0:
        return float("nan"), float("nan")
    share = hits / count
    middle = share + _Z95 * _Z95 / (2 * count)
    half = _Z95 * np.sqrt(share * (1 - share) / count + _Z95 * _Z95 / (4 * count * count))
    scale = 1 + _Z95 * _Z95 / count
    return float((middle - half) / scale), float((middle + half) / scale)


def rounded(value: float) -> float | None:
    """Four digits, as cards print them; None for NaN (JSON has none)."""
    return None if np.isnan(value) else round(float(value), 4)


def proportion(hits: int, count: int) -> dict[str, Any]:
    """A proportion with its Wilson interval and n, as a card prints it."""
    low, high = wilson(hits, count)
    value = hits / count if count else float("nan")
    return {"value": rounded(value), "ci95": [rounded(low), rounded(high)], "n": count}


def auc_entry(scores: Scores, truth: Truth) -> dict[str, Any]:
    """The AUC with its bootstrap interval, as a card prints it."""
    low, high = auc_interval(scores, truth)
    return {"value": rounded(auc(scores, truth)), "ci95": [rounded(low), rounded(high)]}


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """Positive and negative predictive value at a stated prevalence (Bayes); never from the phantoms' own mixture."""
    flagged = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
    passed = (1 - sensitivity) * prevalence + specificity * (1 - prevalence)
    return (
        sensitivity * prevalence / flagged if flagged > 0 else float("nan"),
        specificity * (1 - prevalence) / passed if passed > 0 else float("nan"),
    )


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Cases of neighbouring scores: how many, their mean score, and the share of positives among them."""

    count: int
    mean_score: float
    share_positive: float


def reliability(scores: Scores, truth: Truth) -> tuple[ReliabilityBin, ...]:
    """Bins of equal mass by rising score, at most ten and none empty."""
    if scores.size == 0:
        return ()
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(CALIBRATION_BINS, scores.size))
    return tuple(ReliabilityBin(len(p), float(scores[p].mean()), float(truth[p].mean())) for p in parts)


def brier(scores: Scores, truth: Truth) -> float:
    """Mean squared distance of score and truth."""
    return float(((scores - truth) ** 2).mean())


def expected_calibration_error(scores: Scores, truth: Truth) -> float:
    """Mean distance of score and share of positives over the bins of ``reliability``, weighted by their mass."""
    bins = reliability(scores, truth)
    return sum(abs(b.mean_score - b.share_positive) * b.count for b in bins) / scores.size


def calibration(scores: Scores, truth: Truth) -> dict[str, Any]:
    """Brier score and calibration error of scores in 0..1, as a card prints them."""
    if scores.size == 0:
        return {"n": 0}
    return {
        "n": int(scores.size),
        "brier": rounded(brier(scores, truth)),
        "ece": rounded(expected_calibration_error(scores, truth)),
    }


def at_threshold(scores: Scores, truth: Truth, threshold: float) -> Mapping[str, Any]:
    """Sensitivity and specificity when scores from *threshold* on are flagged, as a card prints them."""
    flagged = scores >= threshold
    return {
        "sensitivity": proportion(int((flagged & truth).sum()), int(truth.sum())),
        "specificity": proportion(int((~flagged & ~truth).sum()), int((~truth).sum())),
    }


def threshold_at_specificity(negatives: Scores, specificity: float) -> float:
    """The lowest threshold that leaves at least *specificity* of the negatives unflagged."""
    ranked = np.sort(negatives)
    index = int(np.ceil(specificity * len(ranked) - 1e-9)) - 1
    return round(float(ranked[index]) + 1e-5, 5)


def threshold_at_sensitivity(positives: Scores, sensitivity: float) -> float:
    """The highest threshold that still flags at least *sensitivity* of the positives."""
    ranked = np.sort(positives)
    index = int(np.floor((1 - sensitivity) * len(ranked) + 1e-9))
    return round(float(ranked[index]) - 1e-5, 5)
