"""Spread of the result: scaling laws, reproducibility, drivers, cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from wetread.ffrct.api_models import TreeDocument
from wetread.ffrct.documents import case_of
from wetread.ffrct.parsing import validate
from wetread.ffrct.physiology_file import shipped_physiology
from wetread.ffrct.science.engine import Options, Solution, solve
from wetread.ffrct.science.uncertainty import Draws, cut_segments, perturbed
from wetread.testing.phantoms.vessel_trees import vessel_tree

P = shipped_physiology()


def solved(document: dict[str, Any], draws: int = 500, tier: str = "analytic", seed: int = 0) -> Solution:
    case = case_of(validate(TreeDocument, document))
    case = replace(case, options=Options(tier, draws))  # type: ignore[arg-type]
    solution = solve(case, P, np.random.default_rng(seed))
    assert isinstance(solution, Solution), solution
    return solution


def diseased(seeds: range = range(200)) -> dict[str, Any]:
    """First synthetic tree with at least two open lesions."""
    return next(
        document
        for document in map(vessel_tree, seeds)
        if len([le for le in solved(document, 0).lesions if le.ffr_distal is not None]) >= 2
    )


def unmoved(solution: Solution, **changes: np.ndarray) -> Draws:
    n = len(cut_segments(solution.model, P).sd)
    plain = Draws(np.ones((1, n)), np.ones((1, n)), np.ones(1), np.ones(1), np.ones((1, len(solution.model.branches))))
    return replace(plain, **changes)


def test_no_perturbation_gives_the_nominal_coefficients() -> None:
    solution = solved(diseased(), 0)
    segments = cut_segments(solution.model, P)
    scale = np.ones(len(solution.model.branches))
    c = perturbed(solution.model, solution.bc, segments, unmoved(solution), scale, P)
    np.testing.assert_allclose(c.resistance[0], solution.model.resistance, rtol=1e-12)
    np.testing.assert_allclose(c.quadratic[0], solution.model.expansion, rtol=1e-12)
    np.testing.assert_allclose(c.outlet_resistance[0], solution.bc.outlet_resistance, rtol=1e-12)


def test_a_common_radius_factor_acts_by_its_fourth_power() -> None:
    solution = solved(diseased(), 0)
    segments = cut_segments(solution.model, P)
    draws = unmoved(solution, common=np.full((1, len(segments.sd)), 0.95))
    c = perturbed(solution.model, solution.bc, segments, draws, np.ones(len(solution.model.branches)), P)
    np.testing.assert_allclose(c.resistance[0], solution.model.resistance * 0.95**-4, rtol=1e-12)
    np.testing.assert_allclose(c.quadratic[0], solution.model.expansion * 0.95**-4, rtol=1e-12)


def test_more_demand_lowers_outlet_resistance_and_pressure_keeps_the_demand() -> None:
    solution = solved(diseased(), 0)
    segments, ones = cut_segments(solution.model, P), np.ones(len(solution.model.branches))
    flow = perturbed(solution.model, solution.bc, segments, unmoved(solution, flow=np.array([1.25])), ones, P)
    np.testing.assert_allclose(flow.outlet_resistance[0], solution.bc.outlet_resistance / 1.25)
    high = perturbed(solution.model, solution.bc, segments, unmoved(solution, pressure=np.array([1.1])), ones, P)
    demand = (high.inlet[0] - solution.bc.venous_pressure_pa) / high.outlet_resistance[0]
    before = (solution.bc.inlet_pressure_pa - solution.bc.venous_pressure_pa) / solution.bc.outlet_resistance
    np.testing.assert_allclose(demand, before, rtol=1e-12)


def test_percentiles_are_ordered_and_repeat_for_one_seed() -> None:
    document = diseased()
    first, again, other = solved(document), solved(document), solved(document, seed=1)
    assert first.spread is not None
    assert again.spread is not None
    assert other.spread is not None
    for a, b, c in zip(first.spread.percentiles, again.spread.percentiles, other.spread.percentiles, strict=True):
        np.testing.assert_array_equal(a, b)
        if np.isfinite(a).all():
            assert (a[0] <= a[1]).all()
            assert (a[1] <= a[2]).all()
            # Two seeds of 500 draws agree within sampling error.
            assert np.abs(a - c).max() < 0.04


def test_median_stays_near_the_nominal_solution_and_drivers_sum_to_one() -> None:
    solution = solved(diseased())
    assert solution.spread is not None
    for reading, spread in zip(solution.lesions, solution.spread.targets, strict=True):
        if reading.ffr_distal is None or spread is None:
            continue
        assert spread.p5 < reading.ffr_distal < spread.p95
        assert 0.0 <= spread.p_le_080 <= 1.0
        assert spread.indeterminate == (spread.p5 < 0.8 < spread.p95)
        assert sum(spread.drivers.values()) == pytest.approx(1.0)
        assert set(spread.drivers) == {"radius", "flow", "pressure", "loss"}


def test_measured_radius_error_takes_the_place_of_the_default() -> None:
    document = diseased()
    widths = []
    for sd in (0.01, 0.15):
        vessels = [v | {"radius_sd_mm": (np.array(v["radius_mm"]) * sd).tolist()} for v in document["vessels"]]
        spread = solved(document | {"vessels": vessels}).spread
        assert spread is not None
        widths.append(max(t.p95 - t.p5 for t in spread.targets if t is not None))
        shares = [t.drivers["radius"] for t in spread.targets if t is not None]
        assert (max(shares) > 0.4) == (sd > 0.1)
    assert widths[1] > 1.3 * widths[0]


def test_radius_error_budget_has_the_documented_size() -> None:
    """All radii -5 % lowers FFR by a few hundredths where FFR is 0.7 to 0.9."""
    changes = []
    for seed in range(60):
        document = vessel_tree(seed)
        nominal = solved(document, 0)
        thin = [
            v | {key: (np.array(v[key]) * 0.95).tolist() for key in ("radius_mm", "healthy_radius_mm")}
            for v in document["vessels"]
        ]
        thinner = solved(document | {"vessels": thin}, 0)
        for a, b in zip(nominal.lesions, thinner.lesions, strict=False):
            if a.ffr_distal is not None and b.ffr_distal is not None and 0.7 < a.ffr_distal < 0.9:
                changes.append(b.ffr_distal - a.ffr_distal)
    assert len(changes) > 20
    assert -0.04 < float(np.mean(changes)) < -0.015


def test_five_hundred_draws_cost_at_most_150_solves() -> None:
    document = diseased()

    def best(draws: int) -> float:
        times = []
        for _ in range(5):
            begun = time.process_time()
            solved(document, draws)
            times.append(time.process_time() - begun)
        return min(times)

    single, many = best(0), best(500)
    print(f"one solve {single * 1e3:.2f} ms, with 500 draws {many * 1e3:.1f} ms, ratio {many / single:.1f}")
    assert many <= 150 * single
