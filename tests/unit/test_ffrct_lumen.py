"""Constants, tree cutting, healthy lumen and lesions."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wetread.core.errors import ConfigurationError
from wetread.ffrct.physiology_file import parse_physiology, shipped_physiology
from wetread.ffrct.science.branches import BranchTree, build_branches
from wetread.ffrct.science.healthy import fit_healthy, healthy_radii
from wetread.ffrct.science.lesions import LesionRule, find_narrowings
from wetread.ffrct.science.losses import expansion_coefficient, released
from wetread.ffrct.science.lumen_model import build_model, lesion_rule
from wetread.ffrct.science.polylines import Polyline, cut_at_ostium, tree_of_polylines
from wetread.ffrct.science.tree import Vessel, VesselTree

P = shipped_physiology()
RULE = LesionRule(0.8, 0.95, 1.5e-3)


def vessel(name: str, parent: str | None, start: tuple[float, ...], along: tuple[float, ...], length: float,
           radius: np.ndarray | float = 1.5, count: int = 201) -> Vessel:  # fmt: skip
    s = np.linspace(0.0, length, count)
    points = np.array(start) + s[:, None] * np.array(along) / np.linalg.norm(along)
    r = np.broadcast_to(np.asarray(radius, dtype=float), count) * 1e-3
    return Vessel(name, parent, name, points * 1e-3, r, np.ones(count), np.zeros(count, dtype=bool))


def dip(s: np.ndarray, centre: float, length: float, depth: float) -> np.ndarray:
    z = np.clip((s - centre) / (length / 2), -1, 1)
    return 1 - depth / 2 * (1 + np.cos(np.pi * z))


def test_every_constant_has_unit_range_and_status() -> None:
    assert len(P.entries) > 20
    for key, entry in P.entries.items():
        assert entry.unit, key
        assert entry.range[0] <= entry.value <= entry.range[1], key
        assert entry.source_title, key
        assert entry.status != "confirmed" or entry.source_doi, key


def test_hash_follows_the_numbers_not_the_layout() -> None:
    text = (files("wetread.ffrct.science") / "physiology.yaml").read_text(encoding="utf-8")
    assert parse_physiology("# another comment\n" + text).sha256 == P.sha256
    assert parse_physiology(text.replace("value: 1060.0", "value: 1050.0")).sha256 != P.sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("unit: kg/m3", "unit: stone"),
        ("value: 1060.0", "value: 5.0"),
        ("status: design", "status: guessed"),
        ("status: design", "status: confirmed"),
        ("constants:", "other:"),
        ("  blood.rho:\n", "  blood.rho: [\n"),
    ],
)
def test_unsound_constants_are_refused(old: str, new: str) -> None:
    text = (files("wetread.ffrct.science") / "physiology.yaml").read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(ConfigurationError):
        parse_physiology(text.replace(old, new, 1))


def test_units_are_converted_to_si() -> None:
    assert P.si("pressure.pv") == pytest.approx(5 * 133.322)
    assert P.si("flow.root_reference_flow") == pytest.approx(3.3e-6)
    assert P.si("lesion.min_length") == pytest.approx(1.5e-3)
    assert P.si("flow.mbf_hyp") * 100 * 6e7 == pytest.approx(350.0)


def branches(*vessels: Vessel) -> BranchTree:
    built = build_branches(VesselTree(vessels))
    assert isinstance(built, BranchTree), built
    return built


def test_side_branch_cuts_its_parent_between_samples() -> None:
    tree = branches(
        vessel("a", None, (0, 0, 0), (1, 0, 0), 40.0, np.linspace(2, 1, 41), 41),
        vessel("b", "a", (20.25, 0, 0), (0, 1, 0), 10.0, 0.8, 11),
    )
    assert tree.parents.tolist() == [-1, 0, 0]
    assert tree.branches[0].s_m[-1] == pytest.approx(20.25e-3)
    assert tree.branches[0].radius_m[-1] == pytest.approx(np.interp(20.25, [0, 40], [2, 1]) * 1e-3)
    assert (tree.placements[0].branch >= 0).all()
    assert len(np.unique(tree.placements[0].branch)) == 2


def test_daughter_near_the_end_leaves_at_the_end() -> None:
    tree = branches(
        vessel("a", None, (0, 0, 0), (1, 0, 0), 40.0),
        vessel("b", "a", (39.8, 0, 0), (0, 1, 0), 10.0),
        vessel("c", "a", (40.0, 0, 0), (0, -1, 0), 10.0),
    )
    assert tree.parents.tolist() == [-1, 0, 0]


def test_one_follower_is_the_same_branch_and_starts_at_starts_are_found() -> None:
    chain = branches(vessel("a", None, (0, 0, 0), (1, 0, 0), 20.0), vessel("b", "a", (20, 0, 0), (1, 0, 0), 20.0))
    assert len(chain.branches) == 1
    assert len(chain.branches[0].s_m) == 401
    three = branches(
        vessel("a", None, (0, 0, 0), (1, 0, 0), 20.0),
        vessel("b", "a", (20, 0, 0), (1, 1, 0), 20.0),
        vessel("c", "b", (20, 0, 0), (1, -1, 0), 20.0),
    )
    assert three.parents.tolist() == [-1, 0, 0]
    assert all((place.branch >= 0).all() for place in three.placements)


def test_two_ostia_give_two_roots() -> None:
    tree = branches(vessel("a", None, (0, 0, 0), (1, 0, 0), 20.0), vessel("b", None, (-9, 0, 0), (-1, 0, 0), 20.0))
    assert tree.parents.tolist() == [-1, -1]


@settings(max_examples=30, deadline=None)
@given(taper=st.floats(0.0, 0.4), centre=st.floats(0.25, 0.75), length=st.floats(4, 20), depth=st.floats(0.25, 0.85))
def test_healthy_fit_bridges_a_lesion(taper: float, centre: float, length: float, depth: float) -> None:
    s = np.linspace(0, 60e-3, 241)
    truth = 1.8e-3 * (1 - taper * s / s[-1])
    fit = fit_healthy(s, truth * dip(s * 1e3, centre * 60, length, depth), RULE)
    assert (np.diff(fit) <= 1e-12).all()
    assert np.abs(fit / truth - 1).max() < 0.06


def test_healthy_fit_leaves_a_clean_taper_alone_and_follows_noise_from_above() -> None:
    s = np.linspace(0, 50e-3, 201)
    truth = np.linspace(2.0e-3, 1.4e-3, 201)
    np.testing.assert_allclose(fit_healthy(s, truth, RULE), truth, rtol=1e-9)
    noisy = truth * (1 + 0.03 * np.random.default_rng(0).normal(size=201))
    fit = fit_healthy(s, noisy, RULE)
    assert 0.0 < np.median(fit / truth - 1) < 0.04


def test_lesions_at_both_ends_of_a_branch_are_found() -> None:
    s = np.linspace(0, 40e-3, 161)
    for centre in (0.0, 40.0):
        radius = 1.5e-3 * dip(s * 1e3, centre, 12.0, 0.6)
        found = find_narrowings(s, radius, fit_healthy(s, radius, RULE), RULE)
        assert len(found) == 1
        assert s[found[0].throat] * 1e3 == pytest.approx(centre, abs=0.5)


def test_common_exponent_lifts_a_diseased_daughter_start() -> None:
    short = np.linspace(0, 1, 21)
    tree = branches(
        vessel("a", None, (0, 0, 0), (1, 0, 0), 20.0, 2.0),
        vessel("b", "a", (20, 0, 0), (1, 1, 0), 30.0, 1.58),
        vessel("c", "a", (20, 0, 0), (1, -1, 0), 30.0, 1.45),
        vessel("d", "b", tuple(np.array((20, 0, 0)) + 30 / 2**0.5 * np.array((1, 1, 0))), (1, 2, 0), 20.0, 1.25),
        vessel("e", "b", tuple(np.array((20, 0, 0)) + 30 / 2**0.5 * np.array((1, 1, 0))), (2, 1, 0), 20.0, 1.0),
    )
    radii = healthy_radii(tree, RULE)
    given = [branch.radius_m for branch in tree.branches]
    for fitted, radius in zip(radii, given, strict=True):
        assert (fitted >= radius * (1 - 1e-12)).all()
        assert (np.diff(fitted) <= 1e-15).all()
    assert max(float((f / r).max()) for f, r in zip(radii, given, strict=True)) < 1.101
    assert short[0] == 0.0


def test_lesion_is_measured_against_the_healthy_lumen() -> None:
    s = np.linspace(0, 40, 401)
    model = build_model(branches(vessel("a", None, (0, 0, 0), (1, 0, 0), 40.0, 1.5 * dip(s, 20, 10, 0.5), 401)), P)
    (lesion,) = model.branches[0].lesions
    assert lesion.diameter_stenosis == pytest.approx(0.5, abs=0.01)
    assert lesion.area_ratio == pytest.approx(0.25, abs=0.01)
    # Ends at 0.95 of healthy: shorter than the support of the cosine.
    assert lesion.length_m == pytest.approx(10e-3 * (1 - 2 * np.arccos(0.8) / (2 * np.pi)), rel=0.02)
    assert not model.branches[0].closed


def test_short_or_shallow_narrowings_are_none() -> None:
    s = np.linspace(0, 40e-3, 801)
    healthy = np.full(801, 1.5e-3)
    assert find_narrowings(s, healthy * dip(s * 1e3, 20, 10, 0.19), healthy, RULE) == ()
    assert find_narrowings(s, healthy * dip(s * 1e3, 20, 2.0, 0.3), healthy, RULE) == ()
    assert len(find_narrowings(s, healthy * dip(s * 1e3, 20, 10, 0.3), healthy, RULE)) == 1


def test_closed_throat_closes_the_branch_and_what_follows() -> None:
    s = np.linspace(0, 20, 201)
    model = build_model(
        branches(
            vessel("a", None, (0, 0, 0), (1, 0, 0), 20.0),
            vessel("b", "a", (20, 0, 0), (1, 1, 0), 20.0, np.where(abs(s - 8) < 2, 0.1, 1.2), 201),
            vessel("c", "a", (20, 0, 0), (1, -1, 0), 20.0, 1.1),
            vessel("d", "b", (20 + 20 / 2**0.5, 20 / 2**0.5, 0), (0, 0, 1), 20.0, 1.0),
            vessel("e", "b", (20 + 20 / 2**0.5, 20 / 2**0.5, 0), (0, 0, -1), 20.0, 0.9),
        ),
        P,
    )
    closed = {model.tree.branches[i].first_vessel: b.closed for i, b in enumerate(model.branches)}
    assert closed == {0: False, 1: True, 2: False, 3: True, 4: True}
    assert model.open_outlets.sum() == 1


def test_expansion_loss_is_released_between_throat_and_end() -> None:
    s = np.linspace(0, 40, 401)
    model = build_model(branches(vessel("a", None, (0, 0, 0), (1, 0, 0), 40.0, 1.5 * dip(s, 20, 10, 0.6), 401)), P)
    (lesion,) = model.branches[0].lesions
    share = released(lesion, model.tree.branches[0].s_m, model.tree.branches[0].radius_m)
    assert share[0] == 0.0
    assert share[-1] == 1.0
    assert (np.diff(share) >= 0).all()
    assert share[200] == 0.0
    assert 0.0 < share[225] < 1.0
    whole = expansion_coefficient(1.0, 1060.0, lesion.radius_throat_m, lesion.healthy_throat_m)
    assert model.expansion[0] == pytest.approx(float(whole))


def test_lesion_rule_comes_from_the_constants() -> None:
    assert lesion_rule(P) == RULE


def test_centrelines_from_an_aorta_are_cut_and_merged() -> None:
    s = np.linspace(0, 100, 401)
    radius = np.where(s < 20, 12.0, np.maximum(2.0 - 0.008 * (s - 20), 3.0 - 0.5 * (s - 20)))
    main = np.column_stack([s, 0 * s, 0 * s])
    side = np.column_stack([np.minimum(s, 60), np.maximum(s - 60, 0), 0 * s])
    lines = [Polyline(points[::-1] * 1e-3, radius[::-1] * 1e-3) for points in (main, side)]
    tree = tree_of_polylines(lines, "inscribed")
    assert [v.parent for v in tree.vessels] == [None, "v0"]
    assert tree.vessels[0].radius_m.max() < 2.6e-3
    assert 20e-3 < tree.vessels[0].points_m[0, 0] < 24e-3
    assert tree.vessels[1].points_m[0, 0] == pytest.approx(60e-3, abs=0.6e-3)
    thin = Polyline(main * 1e-3, np.full(401, 1.5e-3))
    assert cut_at_ostium(thin) is thin
