"""Which loss model a lesion gets, and that a fallback is never silent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wetread.ffrct.api_models import TreeDocument
from wetread.ffrct.documents import case_of
from wetread.ffrct.emulator_file import shipped_emulator
from wetread.ffrct.parsing import validate
from wetread.ffrct.physiology_file import shipped_physiology
from wetread.ffrct.science.engine import Solution, solve

P = shipped_physiology()


def tube(depths: list[tuple[float, float, float]], flow: float = 120.0, tier: str = "auto", **vessel: Any) -> Solution:
    """Vessel of 60 mm and radius 1.5 mm with cosine lesions (centre mm, length mm, stenosis)."""
    s = np.linspace(0, 60, 601)
    radius = np.full(601, 1.5)
    for centre, length, stenosis in depths:
        radius *= 1 - stenosis / 2 * (1 + np.cos(np.pi * np.clip((s - centre) / (length / 2), -1, 1)))
    document = {
        "vessels": [
            {
                "id": "a",
                "points_mm": np.column_stack([s, 0 * s, 0 * s]).tolist(),
                "radius_mm": radius.tolist(),
                "healthy_radius_mm": [1.5] * 601,
            }
            | vessel
        ],
        "patient": {"q_hyp_ml_min": flow},
        "options": {"tier": tier, "uq_draws": 0},
    }
    case = case_of(validate(TreeDocument, document))
    solution = solve(case, P, np.random.default_rng(0), shipped_emulator().emulator)
    assert isinstance(solution, Solution), solution
    return solution


def end(solution: Solution) -> float:
    return float(solution.pressures[0].head[-1]) / float(solution.aortic_pressure_pa or np.nan)


def test_a_single_lesion_inside_the_box_is_calibrated() -> None:
    solution = tube([(25.0, 10.0, 0.5)])
    assert solution.choice.tier == ("calibrated",)
    assert solution.choice.flags == ((),)
    assert 0.0 < solution.choice.kt_sd[0] < 0.05


@pytest.mark.parametrize("stenosis", [0.35, 0.5, 0.6])
def test_tiers_agree_inside_the_box(stenosis: float) -> None:
    ends = {tier: end(tube([(25.0, 9.0, stenosis)], tier=tier)) for tier in ("analytic", "calibrated", "rnsp")}
    assert ends["calibrated"] == pytest.approx(ends["rnsp"], abs=0.005)
    assert ends["analytic"] == pytest.approx(ends["calibrated"], abs=0.02)


@pytest.mark.parametrize(
    ("lesions", "reason", "more"),
    [
        ([(30.0, 40.0, 0.5)], "outside_calibration:log_length", {}),
        ([(25.0, 10.0, 0.82)], "outside_calibration:diameter_stenosis", {}),
        ([(20.0, 8.0, 0.5), (32.0, 8.0, 0.5)], "outside_calibration:serial", {}),
        ([(25.0, 10.0, 0.5)], "outside_calibration:aspect_ratio", {"aspect_ratio": [1.8] * 601}),
    ],
)
def test_outside_the_box_the_march_takes_over_and_says_why(
    lesions: list[tuple[float, float, float]], reason: str, more: dict[str, Any]
) -> None:
    solution = tube(lesions, **more)
    assert solution.choice.tier == ("rnsp",)
    assert reason in solution.choice.flags[0]
    assert reason in solution.lesions[0].flags


def test_a_flow_that_the_emulator_never_saw_is_marched() -> None:
    solution = tube([(25.0, 10.0, 0.5)], flow=12.0)
    assert solution.choice.tier == ("rnsp",)
    assert "outside_calibration:log_throat_re" in solution.choice.flags[0]


def test_severe_marches_are_flagged_and_requested_tiers_are_kept() -> None:
    assert "rnsp_severe" in tube([(25.0, 10.0, 0.7)], tier="rnsp").choice.flags[0]
    assert tube([(25.0, 10.0, 0.5)], tier="rnsp").choice.tier == ("rnsp",)
    assert tube([(25.0, 10.0, 0.5)], tier="analytic").choice.tier == ("analytic",)
    assert tube([], tier="auto").choice.tier == ("analytic",)


def test_without_an_emulator_the_march_is_used() -> None:
    case = tube([(25.0, 10.0, 0.5)]).case
    solution = solve(case, P, np.random.default_rng(0))
    assert isinstance(solution, Solution)
    assert solution.choice.tier == ("rnsp",)


def test_a_march_that_fails_leaves_the_analytic_law_with_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    from wetread.ffrct.science import rnsp

    monkeypatch.setattr(rnsp, "ACCEPTED_UPDATE", -1.0)
    solution = tube([(25.0, 10.0, 0.5)], tier="rnsp")
    assert solution.choice.tier == ("analytic",)
    assert "rnsp_failed" in solution.lesions[0].flags
    monkeypatch.undo()
    assert end(solution) == pytest.approx(end(tube([(25.0, 10.0, 0.5)], tier="analytic")), rel=1e-12)


def test_head_is_continuous_and_falls_on_every_tier() -> None:
    for tier in ("analytic", "calibrated", "rnsp"):
        solution = tube([(20.0, 8.0, 0.6), (50.0, 6.0, 0.4)], tier=tier)
        head = solution.pressures[0].head
        assert (np.diff(head) <= 1e-9).all()
        assert np.abs(np.diff(head)).max() < 0.05 * (head[0] - head[-1])
        total = float(solution.flows.drop[0, 0])
        assert head[0] - head[-1] == pytest.approx(total, rel=1e-9)
