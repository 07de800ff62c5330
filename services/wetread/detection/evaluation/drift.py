"""Drift baseline: reference histograms kept in the card, and how far a later sample is from them (PSI, KS)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

BINS: Final = 10
_LEAST_SHARE: Final = 1e-4
ALARM_PSI: Final = 0.25
"""Population stability index from which a shift is usually called large."""


def baseline(values: Sequence[float]) -> dict[str, Any]:
    """Edges (deciles of the reference, the outer ones open) and shares of a reference sample."""
    sample = np.asarray(values, dtype=np.float64)
    edges = np.unique(np.quantile(sample, np.linspace(0, 1, BINS + 1)[1:-1])) if sample.size else np.empty(0)
    return {"n": int(sample.size), "edges": [float(f"{e:.6g}") for e in edges], "shares": _shares(sample, edges)}


def psi(reference: Mapping[str, Any], values: Sequence[float]) -> float:
    """Population stability index of *values* against a ``baseline``: sum of (p - q) ln(p / q) over its bins."""
    sample = np.asarray(values, dtype=np.float64)
    found = np.maximum(_shares(sample, np.asarray(reference["edges"])), _LEAST_SHARE)
    wanted = np.maximum(np.asarray(reference["shares"], dtype=np.float64), _LEAST_SHARE)
    return float(((found - wanted) * np.log(found / wanted)).sum())


def ks(one: Sequence[float], other: Sequence[float]) -> float:
    """Kolmogorov-Smirnov distance of two samples: the largest gap of their distribution functions."""
    a, b = np.sort(np.asarray(one, dtype=np.float64)), np.sort(np.asarray(other, dtype=np.float64))
    both = np.concatenate([a, b])
    below_a = np.searchsorted(a, both, "right") / a.size
    below_b = np.searchsorted(b, both, "right") / b.size
    return float(np.abs(below_a - below_b).max())


def _shares(sample: np.ndarray, edges: np.ndarray) -> list[float]:
    counts = np.bincount(np.searchsorted(edges, sample, "right"), minlength=len(edges) + 1)
    return [round(float(c) / max(1, sample.size), 6) for c in counts]
