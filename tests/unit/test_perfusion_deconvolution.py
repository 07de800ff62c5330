"""Deconvolution against closed forms: flow, volume and delay of exponential residues, whenever the blood arrives."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.perfusion.deconvolution import OSCILLATION, continued, deconvolve, oscillation, peak_times, truncated_table
from wetread.perfusion.measures import measure
from wetread.testing.phantoms import tracer

GRID = tracer.time_grid(62.0)
TIMES = np.arange(0.0, 60.0, 1.0)
ARTERY = tracer.bolus(GRID, arrival_s=8.0, alpha=3.0, beta_s=1.5, peak=320.0, recirculation=0.25)
SAMPLED = np.interp(TIMES, GRID, ARTERY)
TISSUE = np.ones((1, 12, 12), dtype=bool)
FACTOR = 6000.0 * tracer.HAEMATOCRIT_FACTOR / tracer.DENSITY_G_PER_ML


def measured(cbf: float, mtt: float, delay: float, noise: float = 0.0):
    curve = tracer.tissue(ARTERY, tracer.residue(GRID, "exponential", mtt), cbf)
    sampled = np.interp(TIMES - delay, GRID, curve, left=0.0)
    curves = sampled[None] + noise * np.random.default_rng(5).standard_normal((TISSUE.size, len(TIMES)))
    curves -= curves[:, :7].mean(axis=1, keepdims=True)
    return measure(deconvolve(curves, SAMPLED, 1.0), SAMPLED, 1.0, TISSUE, (1.8, 1.8))


@pytest.mark.parametrize(("cbf", "mtt"), [(60.0, 4.0), (25.0, 5.0), (25.0, 9.0)])
@pytest.mark.parametrize("delay", [-2.0, 0.0, 3.5, 9.0])
def test_flow_volume_and_delay_of_an_exponential_residue(cbf, mtt, delay) -> None:
    found = measured(cbf, mtt, delay)
    assert float(found.flow.mean()) * FACTOR == pytest.approx(cbf, rel=0.10)
    assert float(found.volume.mean()) * FACTOR / 60.0 == pytest.approx(cbf * mtt / 60.0, rel=0.10)
    assert float(np.median(found.tmax_s)) == pytest.approx(delay, abs=0.6)


def test_noise_of_practice_does_not_move_the_mean() -> None:
    clean, noisy = measured(60.0, 4.0, 2.0), measured(60.0, 4.0, 2.0, noise=1.0)
    assert float(noisy.flow.mean()) == pytest.approx(float(clean.flow.mean()), rel=0.10)
    assert float(noisy.volume.mean()) == pytest.approx(float(clean.volume.mean()), rel=0.10)


def test_noise_costs_bandwidth() -> None:
    rng = np.random.default_rng(6)
    curve = np.interp(TIMES, GRID, tracer.tissue(ARTERY, tracer.residue(GRID, "exponential", 4.0), 60.0))
    quiet = deconvolve(curve[None] + 0.1 * rng.standard_normal((50, 60)), SAMPLED, 1.0)
    loud = deconvolve(curve[None] + 2.0 * rng.standard_normal((50, 60)), SAMPLED, 1.0)
    assert loud.level.mean() > quiet.level.mean()
    assert (oscillation(quiet.functions.astype(float)) < OSCILLATION).all()


def test_truncation_takes_more_from_short_transits() -> None:
    heights, delays = truncated_table(SAMPLED, 1.0, 0.2)
    share = heights * np.geomspace(1.0, 40.0, 40)
    assert share[0] < share[15] < 1.05
    assert (delays > -0.1).all()


def test_oscillation_of_a_line_is_nothing_and_of_a_saw_is_much() -> None:
    line, saw = np.linspace(0, 1, 100)[None], np.tile([0.0, 1.0], 50)[None]
    assert oscillation(line)[0] == pytest.approx(0.0, abs=1e-12)
    assert oscillation(saw)[0] == pytest.approx(2 * 98 / 100)
    assert oscillation(-line - 1)[0] == np.inf


def test_times_before_the_artery_are_negative_and_fractions_are_found() -> None:
    size, at = 100, 97.3
    circle = np.exp(-0.5 * (((np.arange(size) - at + 50) % size - 50) / 4.0) ** 2)[None]
    assert peak_times(circle, 0.5)[0] == pytest.approx((at - size) * 0.5, abs=0.02)


def test_curves_are_continued_to_zero() -> None:
    out = continued(np.full((1, 30), 4.0), 1.0, 60)
    assert out[0, 30] < 4.0
    assert (np.diff(out[0, 29:50]) <= 0).all()
    assert (out[0, 50:] == 0).all()
