"""Subgroup table: each group's rate against the rest, with intervals and Holm's correction over all groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import erfc, sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.detection.evaluation.classification import proportion, rounded

TOO_FEW: Final = 30
_ALPHA: Final = 0.05
Hits = npt.NDArray[np.bool_]


def difference(hits_in: int, count_in: int, hits_out: int, count_out: int) -> tuple[float, tuple[float, float], float]:
    """Difference of two proportions, its 95 % interval (Agresti and Caffo, Am Stat 2000) and the z test's p value."""
    if not count_in or not count_out:
        return float("nan"), (float("nan"), float("nan")), 1.0
    one, other = hits_in / count_in, hits_out / count_out
    a, b = (hits_in + 1) / (count_in + 2), (hits_out + 1) / (count_out + 2)
    half = 1.959964 * sqrt(a * (1 - a) / (count_in + 2) + b * (1 - b) / (count_out + 2))
    pooled = (hits_in + hits_out) / (count_in + count_out)
    error = sqrt(pooled * (1 - pooled) * (1 / count_in + 1 / count_out))
    p = erfc(abs(one - other) / error / sqrt(2)) if error > 0 else 1.0
    return one - other, (a - b - half, a - b + half), p


def holm(p_values: Sequence[float], alpha: float = _ALPHA) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects (Scand J Stat 1979;6:65)."""
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    rejected = [False] * len(p_values)
    for rank, k in enumerate(order):
        if p_values[k] > alpha / (len(p_values) - rank):
            break
        rejected[k] = True
    return rejected


def table(groups: Mapping[str, Hits], flagged: Hits, truth: Hits) -> list[dict[str, Any]]:
    """Sensitivity and specificity of every group, the difference to the rest, and Holm's flag.

    *groups*: name -> which cases belong. A group or a class in it under 30 cases is printed as "too few".
    """
    right = np.where(truth, flagged, ~flagged)
    rows: list[dict[str, Any]] = []
    tests: list[tuple[dict[str, Any], float]] = []
    for name, member in groups.items():
        row: dict[str, Any] = {"group": name, "n": int(member.sum())}
        rows.append(row)
        if row["n"] < TOO_FEW:
            row["note"] = "too few"
            continue
        for metric, of in (("sensitivity", truth), ("specificity", ~truth)):
            inside, outside = member & of, ~member & of
            row[metric] = proportion(int(right[inside].sum()), int(inside.sum()))
            gap, interval, p = difference(
                int(right[inside].sum()), int(inside.sum()), int(right[outside].sum()), int(outside.sum())
            )
            entry = {"value": rounded(gap), "ci95": [rounded(v) for v in interval], "differs": False}
            row[f"{metric}_difference"] = entry
            if inside.any() and outside.any():
                tests.append((entry, p))
    for (entry, _), rejected in zip(tests, holm([p for _, p in tests]), strict=True):
        entry["differs"] = rejected
    return rows


def by_facts(facts: Sequence[Mapping[str, Any]]) -> dict[str, Hits]:
    """Groups from case facts: one per value of a word, thirds of a number, for every fact that varies."""
    groups: dict[str, Hits] = {}
    for name in sorted({key for fact in facts for key in fact}):
        values = [fact.get(name) for fact in facts]
        given = [v for v in values if v not in (None, "")]
        numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool)]
        if numbers and len(numbers) == len(given) and len(set(numbers)) > 6:
            low, high = np.quantile(numbers, [1 / 3, 2 / 3])
            column = np.array([np.nan if v in (None, "") else float(v) for v in values])
            groups[f"{name} under {low:.4g}"] = column < low
            groups[f"{name} {low:.4g} to {high:.4g}"] = (column >= low) & (column <= high)
            groups[f"{name} over {high:.4g}"] = column > high
        elif len(set(given)) > 1:
            for value in sorted(set(given), key=str):
                groups[f"{name} {value}"] = np.array([v == value for v in values])
    return groups
