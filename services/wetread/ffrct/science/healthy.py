"""Estimates the radius that the lumen had before disease: robust, never growing towards the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.ndimage import percentile_filter
from scipy.optimize import isotonic_regression, minimize_scalar

from .branches import BranchTree
from .lesions import LesionRule, find_narrowings
from .tree import FloatArray

GRID_STEP_M: Final = 0.5e-3
MAX_GRID: Final = 200
MAX_PAIRS_GRID: Final = 60
SHORTEST_FIT_M: Final = 2e-3
QUANTILE_WINDOW_M: Final = 5e-3
UPPER_QUANTILE: Final = 75
JUNCTION_EXPONENTS: Final = (2.3, 3.0)
LARGEST_JUNCTION_LIFT: Final = 1.1
BLEND_DIAMETERS: Final = 5.0


def healthy_radii(tree: BranchTree, rule: LesionRule) -> tuple[FloatArray, ...]:
    """Healthy radius (n,) in metres for every branch.

    What the caller gave is kept. Otherwise: a Theil-Sen line finds the narrowings, which are bridged;
    a moving upper quantile follows the outer wall; isotonic regression makes it non-increasing. Then
    junctions are made consistent with one exponent in [2.3, 3.0] common to the tree: a parent end or a
    daughter start that is too small for it is lifted, as disease only ever takes lumen away.
    """
    fits = []
    for branch in tree.branches:
        given = np.isfinite(branch.healthy_given_m)
        fitted = branch.healthy_given_m
        if not given.all():
            fitted = np.where(given, fitted, fit_healthy(branch.s_m, branch.radius_m, rule))
        fits.append(fitted)
    free = [not bool(np.any(np.isfinite(branch.healthy_given_m))) for branch in tree.branches]
    return tuple(_match_junctions(tree, fits, free))


def fit_healthy(s: FloatArray, radius: FloatArray, rule: LesionRule) -> FloatArray:
    """Fit one branch: ``s`` and ``radius`` (n,) in metres, returns (n,), non-increasing."""
    length = float(s[-1] - s[0])
    if length < SHORTEST_FIT_M:
        return np.maximum.accumulate(radius[::-1])[::-1]
    count = int(np.clip(np.ceil(length / GRID_STEP_M) + 1, 8, MAX_GRID))
    grid = np.linspace(s[0], s[-1], count)
    lumen = np.interp(grid, s, radius)
    line = _upper_line(grid, lumen)
    bridged = lumen.copy()
    for narrowing in find_narrowings(grid, lumen, line, rule):
        inside = (grid >= narrowing.s_start_m) & (grid <= narrowing.s_end_m)
        bridged[inside] = line[inside]
    window = max(1, round(QUANTILE_WINDOW_M / (grid[1] - grid[0])))
    upper = percentile_filter(bridged - line, UPPER_QUANTILE, size=window, mode="nearest")
    fitted = isotonic_regression(line + upper, increasing=False).x
    return np.interp(s, grid, fitted)


def _upper_line(grid: FloatArray, lumen: FloatArray) -> FloatArray:
    """Theil-Sen slope (never rising) through the upper quartile of the residuals."""
    thin = np.linspace(0, len(grid) - 1, min(len(grid), MAX_PAIRS_GRID)).round().astype(np.int64)
    first, second = np.triu_indices(len(thin), k=1)
    rise = lumen[thin][second] - lumen[thin][first]
    slope = min(0.0, float(np.median(rise / (grid[thin][second] - grid[thin][first]))))
    offset = float(np.percentile(lumen - slope * grid, UPPER_QUANTILE))
    floor = 0.1 * float(lumen.max())
    return np.maximum(slope * grid + offset, floor)


def _match_junctions(tree: BranchTree, fits: Sequence[FloatArray], free: Sequence[bool]) -> list[FloatArray]:
    """Lift what is too small at each junction for the common exponent; given radii stay."""
    lifted = list(fits)
    daughters: dict[int, list[int]] = {}
    for child, branch in enumerate(tree.branches):
        if branch.parent >= 0:
            daughters.setdefault(branch.parent, []).append(child)
    if not daughters:
        return lifted
    ends = {parent: float(fits[parent][-1]) for parent in daughters}
    starts = {parent: np.array([fits[c][0] for c in own]) for parent, own in daughters.items()}

    def misfit(exponent: float) -> float:
        return float(sum(np.log(_joint(starts[p], exponent) / ends[p]) ** 2 for p in daughters))

    exponent = float(minimize_scalar(misfit, bounds=JUNCTION_EXPONENTS, method="bounded").x)
    for parent, own in daughters.items():
        ratio = _joint(starts[parent], exponent) / ends[parent]
        if ratio > 1.0 and free[parent]:
            s = tree.branches[parent].s_m
            lifted[parent] = _lift(s[-1] - s, lifted[parent], ratio)
        for child in own:
            if ratio < 1.0 and free[child]:
                s = tree.branches[child].s_m
                lifted[child] = _lift(s - s[0], lifted[child], 1.0 / ratio)
    return [np.maximum.accumulate(fit[::-1])[::-1] if free[i] else fit for i, fit in enumerate(lifted)]


def _joint(starts: FloatArray, exponent: float) -> float:
    """Radius of the parent that the daughters imply."""
    return float(np.sum(starts**exponent) ** (1.0 / exponent))


def _lift(distance: FloatArray, radius: FloatArray, ratio: float) -> FloatArray:
    """Scale by ``ratio`` at distance 0, fading out over five diameters or half the branch."""
    at_junction = float(radius[int(np.argmin(distance))])
    reach = min(2.0 * BLEND_DIAMETERS * at_junction, 0.5 * float(distance.max()))
    if reach <= 0.0:
        return radius
    fade = np.clip(1.0 - distance / reach, 0.0, 1.0)
    return radius * (1.0 + (min(ratio, LARGEST_JUNCTION_LIFT) - 1.0) * fade)
