"""From vessel tree to FFR: invariances, properties, boundary conditions, occlusion, flags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.ffrct.api_models import TreeDocument
from wetread.ffrct.documents import case_of
from wetread.ffrct.parsing import validate
from wetread.ffrct.physiology_file import shipped_physiology
from wetread.ffrct.science.engine import Case, Options, Solution, solve
from wetread.ffrct.science.problems import Problem
from wetread.ffrct.science.readout import gather
from wetread.testing.phantoms.vessel_trees import vessel_tree

P = shipped_physiology()
FAST = {"tier": "analytic", "uq_draws": 0}


def solved(document: dict[str, Any], **options: Any) -> Solution:
    tree = validate(TreeDocument, document | {"options": FAST | document.get("options", {}) | options})
    solution = solve(case_of(tree), P, np.random.default_rng(0))
    assert isinstance(solution, Solution), solution
    return solution


def problems(document: dict[str, Any]) -> list[str]:
    tree = validate(TreeDocument, document | {"options": FAST})
    found = solve(case_of(tree), P, np.random.default_rng(0))
    assert isinstance(found, tuple)
    assert all(isinstance(problem, Problem) for problem in found)
    return [problem.code for problem in found]


def ffr(solution: Solution, vessel: int = 0, what: str = "p") -> np.ndarray:
    values = gather(solution.model, vessel, [getattr(b, what) for b in solution.pressures])
    assert solution.aortic_pressure_pa is not None
    return values / solution.aortic_pressure_pa


def line(
    start: tuple[float, float, float], along: tuple[float, float, float], length: float, radius: np.ndarray | float,
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    count = 121 if np.ndim(radius) == 0 else len(np.atleast_1d(radius))
    s = np.linspace(0.0, length, count)
    unit = np.array(along) / np.linalg.norm(along)
    return {
        "points_mm": (np.array(start) + s[:, None] * unit).tolist(),
        "radius_mm": np.broadcast_to(radius, count).tolist(),
    } | more


def cosine(
    stenosis: float, length: float = 40.0, lesion: float = 10.0, r0: float = 1.5, count: int = 401
) -> np.ndarray:
    z = np.clip((np.linspace(0.0, length, count) - length / 2) / (lesion / 2), -1, 1)
    return r0 * (1 - 0.5 * stenosis * (1 + np.cos(np.pi * z)))


def single(stenosis: float = 0.5, **more: Any) -> dict[str, Any]:
    vessel = line((0, 0, 0), (1, 0, 0), 40.0, cosine(stenosis), id="a", healthy_radius_mm=[1.5] * 401)
    return {"vessels": [vessel], "patient": {"q_hyp_ml_min": 120.0}} | more


def forked() -> dict[str, Any]:
    """Trunk, main vessel with a side branch from its middle, and a sister."""
    return {
        "vessels": [
            line((0, 0, 0), (1, 0, 0), 12.0, 2.1, id="lm"),
            line((12, 0, 0), (1, 1, 0), 50.0, cosine(0.55, 50.0, 12.0, 1.6), id="lad", parent="lm"),
            line((12, 0, 0), (1, -1, 0), 40.0, 1.5, id="lcx", parent="lm"),
            line((12 + 40 / 2**0.5, 40 / 2**0.5, 0), (0, 0, 1), 25.0, 0.95, id="d1", parent="lad"),
        ],
        "patient": {"lv_mass_g": 70.0},
    }


def test_straight_tube_drop_is_poiseuille() -> None:
    document = {
        "vessels": [line((0, 0, 0), (0, 0, 1), 50.0, 1.5, id="a")],
        "bc": {"inlet": {"kind": "flow", "ml_min": 60.0}, "outlets": [{"vessel": "a", "r": 0.5, "pd": 10.0}]},
    }
    solution = solved(document)
    drop = 8 * 4e-3 * 0.05 / (np.pi * 1.5e-3**4) * 1e-6
    assert solution.flows.drop[0, 0] == pytest.approx(drop, rel=1e-6)
    expected = drop + (0.5 * 60.0 + 10.0) * 133.322
    assert solution.flows.inlet_pressure[0] == pytest.approx(expected, rel=1e-9)
    assert solution.aortic_pressure_pa is None


def test_lesion_drop_is_viscous_plus_expansion() -> None:
    solution = solved(single(0.5))
    lesion = solution.lesions[0].lesion
    assert lesion.diameter_stenosis == pytest.approx(0.5, abs=1e-3)
    q = solution.flows.flow[:, 0]
    area = np.pi * 1.5e-3**2
    excess = solution.flows.drop[:, 0] - solution.model.resistance[0] * q
    for row, kt in enumerate((1.0, 1.52)):
        assert excess[row] == pytest.approx(kt * 1060 / (2 * area**2) * 9.0 * q[row] ** 2, rel=1e-3)


def test_ffr_low_is_the_cautious_side_and_static_pressure_recovers() -> None:
    solution = solved(single(0.6))
    low, nominal = ffr(solution, what="p_low"), ffr(solution)
    assert (low <= nominal + 1e-12).all()
    assert low[-1] < nominal[-1] - 0.01
    throat = int(np.argmin(nominal))
    assert nominal[-1] > nominal[throat]  # a wire behind the lesion reads more than in the throat
    head = ffr(solution, what="head")
    assert (np.diff(head) <= 1e-12).all()


def test_svzerod_preset_reports_head() -> None:
    solution = solved(single(0.6), preset="svzerod")
    np.testing.assert_allclose(ffr(solution), ffr(solution, what="head"), rtol=1e-14)
    assert ffr(solution)[-1] < ffr(solved(single(0.6)), what="head")[-1]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_head_never_rises_along_any_path(seed: int) -> None:
    document = vessel_tree(seed)
    solution = solved(document)
    ids = [v["id"] for v in document["vessels"]]
    heads = [ffr(solution, i, "head") for i in range(len(ids))]
    for number, vessel in enumerate(document["vessels"]):
        closed = solution.model.branches[int(solution.model.tree.placements[number].branch[0])].closed
        if closed:
            continue
        assert (np.diff(heads[number]) <= 1e-12).all()
        assert 0 < heads[number][-1] <= heads[number][0] <= 1 + 1e-12
        if vessel["parent"]:
            assert heads[number][0] <= heads[ids.index(vessel["parent"])][-1] + 1e-12


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100_000), more=st.floats(1.01, 3.0))
def test_more_prescribed_flow_never_raises_ffr(seed: int, more: float) -> None:
    document = vessel_tree(seed)
    high = document | {"patient": {"q_hyp_ml_min": document["patient"]["q_hyp_ml_min"] * more}}
    first, second = solved(document), solved(high)
    for vessel in range(len(document["vessels"])):
        assert (ffr(second, vessel, "head") <= ffr(first, vessel, "head") + 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(low=st.floats(0.25, 0.8), gap=st.floats(0.005, 0.05))  # up to the area at which a vessel counts as closed
def test_a_tighter_lesion_never_raises_ffr_behind_it(low: float, gap: float) -> None:
    first, second = solved(single(low)), solved(single(low + gap))
    assert ffr(second)[-1] <= ffr(first)[-1] + 1e-12


def test_vessel_order_does_not_matter() -> None:
    document = forked()
    other = document | {"vessels": document["vessels"][::-1]}
    a, b = solved(document), solved(other)
    for i in range(4):
        np.testing.assert_allclose(ffr(a, i), ffr(b, 3 - i), rtol=1e-12)


def test_rigid_motion_does_not_matter() -> None:
    document = forked()
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    moved = [
        v | {"points_mm": (np.array(v["points_mm"]) @ turn.T + [30.0, -80.0, 55.0]).tolist()}
        for v in document["vessels"]
    ]
    a, b = solved(document), solved(document | {"vessels": moved})
    for i in range(4):
        np.testing.assert_allclose(ffr(a, i), ffr(b, i), rtol=1e-12)


def test_splitting_a_vessel_in_two_does_not_matter() -> None:
    document = forked()
    lcx = document["vessels"][2]
    cut = 50
    first = lcx | {"points_mm": lcx["points_mm"][: cut + 1], "radius_mm": lcx["radius_mm"][: cut + 1]}
    second = lcx | {
        "id": "x2",
        "parent": "lcx",
        "points_mm": lcx["points_mm"][cut:],
        "radius_mm": lcx["radius_mm"][cut:],
    }
    split = document | {"vessels": [*document["vessels"][:2], first, document["vessels"][3], second]}
    a, b = solved(document), solved(split)
    np.testing.assert_allclose(ffr(a, 2)[: cut + 1], ffr(b, 2), rtol=1e-12)
    np.testing.assert_allclose(ffr(a, 2)[cut:], ffr(b, 4), rtol=1e-12)
    np.testing.assert_allclose(ffr(a, 1), ffr(b, 1), rtol=1e-12)


def test_resampling_to_half_the_step_hardly_matters() -> None:
    document = forked()
    finer = []
    for vessel in document["vessels"]:
        points, radius = np.array(vessel["points_mm"]), np.array(vessel["radius_mm"])
        at = np.linspace(0, len(points) - 1, 2 * len(points) - 1)
        index = np.arange(len(points))
        finer.append(
            vessel
            | {
                "points_mm": np.column_stack([np.interp(at, index, points[:, c]) for c in range(3)]).tolist(),
                "radius_mm": np.interp(at, index, radius).tolist(),
            }
        )
    a, b = solved(document), solved(document | {"vessels": finer})
    for i in range(4):
        np.testing.assert_allclose(ffr(a, i), ffr(b, i)[::2], atol=1e-3)


def test_side_branch_takes_flow_where_it_leaves() -> None:
    solution = solved(forked())
    place = solution.model.tree.placements[1]
    branches = list(dict.fromkeys(place.branch.tolist()))
    assert len(branches) == 2
    q = solution.flows.flow[0]
    side = int(solution.model.tree.placements[3].branch[0])
    assert q[branches[0]] == pytest.approx(q[branches[1]] + q[side], rel=1e-12)


def test_occluded_vessel_has_no_number_and_the_rest_is_solved() -> None:
    document = forked()
    radius = np.array(document["vessels"][3]["radius_mm"])
    radius[60:70] = 0.05
    healthy = [0.95] * len(radius)
    document["vessels"][3] |= {"radius_mm": radius.tolist(), "healthy_radius_mm": healthy}
    closed, opened = solved(document), solved(forked())
    place = closed.model.tree.placements[3]
    assert all(closed.model.branches[b].closed for b in np.unique(place.branch))
    assert closed.flows.flow[0, int(place.branch[0])] == 0.0
    assert ffr(closed, 2)[-1] > 0.5
    # The territory behind the occlusion keeps its share: the sister is not given its flow.
    assert closed.flows.outlet_flow[0].sum() < opened.flows.outlet_flow[0].sum()


def test_a_tree_closed_at_its_root_has_no_flow_at_all() -> None:
    document = single(0.5)
    radius = np.array(document["vessels"][0]["radius_mm"])
    radius[180:220] = 0.1
    document["vessels"][0]["radius_mm"] = radius.tolist()
    solution = solved(document)
    assert solution.flows.outlet_flow.max() == 0.0
    assert solution.lesions[0].ffr_distal is None
    assert "occluded" in solution.lesions[0].flags
    flow = document | {"bc": {"inlet": {"kind": "flow", "ml_min": 50.0}, "outlets": [{"vessel": "a", "r": 1, "pd": 0}]}}
    assert problems(flow) == ["bc_invalid"]


def test_outlet_flow_follows_healthy_radii_and_demand() -> None:
    document = {
        "vessels": [
            line((0, 0, 0), (1, 0, 0), 10.0, 3.0, id="r"),
            line((10, 0, 0), (1, 1, 0), 5.0, 2.0, id="a", parent="r"),
            line((10, 0, 0), (1, -1, 0), 5.0, 1.0, id="b", parent="r"),
        ],
        "patient": {"q_hyp_ml_min": 200.0, "sbp_mmhg": 120, "dbp_mmhg": 80},
    }
    solution = solved(document)
    assert solution.bc.weights == pytest.approx([8 / 9, 1 / 9])
    assert solution.bc.inlet_pressure_pa == pytest.approx((80 + 40 / 3) * 133.322)
    assert solution.flows.outlet_flow[0].sum() * 6e7 == pytest.approx(200.0, rel=0.02)
    matched = solved(document, match_healthy_flow=True)
    assert matched.flows.outlet_flow[0].sum() * 6e7 == pytest.approx(200.0, rel=2e-3)


def test_status_says_how_flow_was_found() -> None:
    two = forked()
    two["vessels"].append(line((-40, 0, 0), (-1, 0, 0), 60.0, 1.7, id="rca"))
    cases = {"q_hyp_ml_min": "measured", "lv_mass_g": "patient_scaled", "q_rest_ml_min": "patient_scaled"}
    for key, status in cases.items():
        assert solved(two | {"patient": {key: 120.0}}).bc.status == status
    root_rule = solved(two | {"patient": {}})
    assert root_rule.bc.status == "estimated"
    expected = 3.3e-6 * ((2.1 / 1.9) ** 2.5 + (1.7 / 1.9) ** 2.5)
    assert root_rule.bc.q_hyp_m3_s == pytest.approx(expected, rel=0.1)
    assert "flow.root_reference_flow" in P.unconfirmed(root_rule.used)
    alone = solved(forked())
    assert alone.bc.flags == ("single_ostium",)
    assert alone.bc.status == "estimated"
    shared_out = solved(forked() | {"patient": {"lv_mass_g": 70.0, "missing_ostium_radius_mm": 2.1}})
    assert shared_out.bc.q_hyp_m3_s == pytest.approx(alone.bc.q_hyp_m3_s / 2, rel=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"patient": {"sbp_mmhg": 80, "dbp_mmhg": 90}},
        {"patient": {"sbp_mmhg": 80}},
        {"bc": {"inlet": {"kind": "pressure", "mmhg": 4.0}}},
        {"bc": {"inlet": {"kind": "flow", "ml_min": 50.0}}},
        {"bc": {"outlets": []}},
        {"bc": {"outlets": [{"vessel": "a", "r": -1.0, "pd": 5.0}]}},
        {"bc": {"outlets": [{"vessel": "a", "r": 1.0, "pd": 5.0}, {"vessel": "a", "r": 1.0, "pd": 5.0}]}},
    ],
)
def test_impossible_boundary_conditions_are_refused(change: dict[str, Any]) -> None:
    assert set(problems(single() | change)) == {"bc_invalid"}


def test_prescribed_outlets_give_the_closed_form() -> None:
    document = single(0.0) | {
        "bc": {"inlet": {"kind": "pressure", "mmhg": 90.0}, "outlets": [{"vessel": "a", "r": 0.8, "pd": 5.0}]}
    }
    solution = solved(document)
    own = 8 * 4e-3 * 0.04 / (np.pi * 1.5e-3**4) / (133.322 / (1e-6 / 60))
    assert solution.flows.flow[0, 0] * 6e7 == pytest.approx(85.0 / (0.8 + own), rel=1e-9)
    assert solution.bc.status == "prescribed"


def test_serial_transitional_eccentric_small_and_calcified_are_flagged() -> None:
    r = np.minimum(cosine(0.5, 40.0, 8.0), np.roll(cosine(0.4, 40.0, 8.0), 100))
    vessel = line((0, 0, 0), (1, 0, 0), 40.0, r, id="a", healthy_radius_mm=[1.5] * 401)
    vessel |= {"aspect_ratio": [1.6] * 401, "calcium": [False] * 190 + [True] * 211}
    solution = solved({"vessels": [vessel], "patient": {"q_hyp_ml_min": 300.0}})
    assert [len(solution.lesions), "serial" in solution.lesions[0].flags, "serial" in solution.lesions[1].flags] == [
        2, True, False,
    ]  # fmt: skip
    assert {"eccentric", "transitional", "calcified"} <= set(solution.lesions[0].flags)


def test_distal_ffr_is_read_20_mm_on_or_at_the_end_with_a_flag() -> None:
    far = solved(forked()).lesions[0]
    assert far.s_end_m + 0.020 > 0.050
    assert "distal_at_vessel_end" in far.flags
    long = line((0, 0, 0), (1, 0, 0), 80.0, cosine(0.5, 80.0), id="a", healthy_radius_mm=[1.5] * 401)
    solution = solved({"vessels": [long], "patient": {"q_hyp_ml_min": 120.0}})
    lesion = solution.lesions[0]
    at = np.interp(lesion.s_end_m + 0.02, solution.model.tree.branches[0].s_m, ffr(solution))
    assert lesion.ffr_distal == pytest.approx(at, rel=1e-12)
    assert "distal_at_vessel_end" not in lesion.flags


def test_unsteady_factor_multiplies_only_the_quadratic_loss() -> None:
    entries = dict(P.entries)
    entries["flow.rms_over_mean"] = replace(entries["flow.rms_over_mean"], value=1.2)
    case: Case = replace(case_of(validate(TreeDocument, single(0.6))), options=Options("analytic", 0))
    steady, unsteady = (
        solve(case, constants, np.random.default_rng(0)) for constants in (P, replace(P, entries=entries))
    )
    assert isinstance(steady, Solution)
    assert isinstance(unsteady, Solution)
    q = unsteady.flows.flow[0, 0]
    expected = unsteady.model.resistance[0] * q + 1.44 * unsteady.model.expansion[0] * q**2
    assert unsteady.flows.drop[0, 0] == pytest.approx(expected, rel=1e-9)
    assert unsteady.flows.flow[0, 0] < steady.flows.flow[0, 0]
