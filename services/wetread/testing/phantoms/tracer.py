"""Tracer kinetics in closed form: what arteries, veins and tissue show of a contrast bolus over time.

Tissue is the arterial curve convolved with the residue function, scaled by blood flow (Meier and Zierler 1954); an
intravascular tracer with the haematocrits and density named here. All curves on a fine regular time grid.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Curve = NDArray[np.float64]
Residue = Literal["exponential", "gamma", "box"]
RESIDUES: Final[tuple[Residue, ...]] = ("exponential", "gamma", "box")

DENSITY_G_PER_ML: Final = 1.04
"""Density of brain tissue."""
HAEMATOCRIT_FACTOR: Final = (1 - 0.45) / (1 - 0.25)
"""(1 - haematocrit of large vessels) / (1 - haematocrit of capillaries): tracer is in plasma only."""
STEP_S: Final = 0.1


def time_grid(duration_s: float) -> Curve:
    """Return the fine time grid from 0 to *duration_s*."""
    return np.asarray(np.arange(round(duration_s / STEP_S) + 1) * STEP_S, dtype=np.float64)


def bolus(time_s: Curve, *, arrival_s: float, alpha: float, beta_s: float, peak: float, recirculation: float) -> Curve:
    """Arterial enhancement: a gamma variate of height *peak*, and a lower and wider one when the blood comes again.

    ``recirculation``: area of the second pass as a share of the first.
    """
    first = _gamma_variate(time_s - arrival_s, alpha, beta_s)
    second = _gamma_variate(time_s - arrival_s - 2.2 * alpha * beta_s, alpha, 2.2 * beta_s)
    second *= recirculation * first.sum() / max(second.sum(), 1e-12)
    return np.asarray((first + second) * peak / first.max(), dtype=np.float64)


def residue(time_s: Curve, kind: Residue, mtt_s: float, *, shape: float = 3.0) -> Curve:
    """Fraction of tracer still in the tissue; 1 at time 0, area = *mtt_s*.

    ``gamma``: transit times of a gamma distribution with that *shape* (1 would be the exponential).
    """
    if kind == "exponential":
        return np.asarray(np.exp(-time_s / mtt_s), dtype=np.float64)
    if kind == "box":
        return np.asarray(np.clip((mtt_s - time_s) / STEP_S + 0.5, 0.0, 1.0), dtype=np.float64)
    return np.asarray(special.gammaincc(shape, time_s * shape / mtt_s), dtype=np.float64)


def dispersed(curve: Curve, theta_s: float) -> Curve:
    """Return *curve* after a stretch of vessel that smears it by an exponential of mean *theta_s*."""
    if theta_s <= 0.0:
        return curve
    time_s = np.arange(len(curve)) * STEP_S
    kernel = np.exp(-time_s / theta_s)
    return _convolved(curve, kernel / kernel.sum())


def delayed(curve: Curve, delay_s: float) -> Curve:
    """Return *curve* later by *delay_s* (earlier when negative); what lies before its start is its first value."""
    time_s = np.arange(len(curve)) * STEP_S
    return np.asarray(np.interp(time_s - delay_s, time_s, curve), dtype=np.float64)


def tissue(arterial: Curve, response: Curve, cbf: float) -> Curve:
    """Enhancement of tissue with flow *cbf* (mL/100 g/min) for a residue function on the same grid."""
    rate = cbf / 6000.0 * DENSITY_G_PER_ML / HAEMATOCRIT_FACTOR
    trapezoid = response.copy()
    trapezoid[0] *= 0.5
    return rate * STEP_S * _convolved(arterial, trapezoid)


def _gamma_variate(time_s: Curve, alpha: float, beta_s: float) -> Curve:
    late = np.maximum(time_s, 0.0)
    return np.asarray(late**alpha * np.exp(-late / beta_s), dtype=np.float64)


def _convolved(one: Curve, other: Curve) -> Curve:
    size = len(one)
    spectrum = np.fft.rfft(one, 2 * size) * np.fft.rfft(other, 2 * size)
    return np.asarray(np.fft.irfft(spectrum, 2 * size)[:size], dtype=np.float64)
