"""The vessel tree and the comparison of sides on drawn vessels, where every length is known."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.core.errors import ConfigurationError
from wetread.lvo.asymmetry import FEATURES, SideReading, read_sides
from wetread.lvo.landmarks import Landmarks
from wetread.lvo.score import logistic, side_score
from wetread.lvo.tree import vessel_tree
from wetread.lvo.vessels import Vessels

MIDDLE = 84
MARKS = Landmarks(plane=38, row=57, scale=1.0)
MODEL = {"offset": -1.0, "weights": dict.fromkeys(FEATURES, 0.5)}


def tubes() -> np.ndarray:
    """Both M1, 24 mm each, and one branch of 30 mm upwards from each end."""
    mask = np.zeros((80, 100, 2 * MIDDLE + 1), dtype=bool)
    for sign in (1, -1):
        across = slice(*sorted((MIDDLE + sign * 10, MIDDLE + sign * 34)))
        mask[38:41, 48:51, across] = True
        mask[40:70, 49:51, MIDDLE + sign * 33 - 1 : MIDDLE + sign * 33 + 1] = True
    return mask


def sides(weight: np.ndarray, least: float = 0.0) -> tuple[SideReading, SideReading]:
    """Both sides of vessels that can be followed when they are brighter than *least*."""
    faint = weight.astype(np.float32)
    weight = np.where(faint > least, faint, np.float32(0.0))
    return read_sides(Vessels(weight > 0, weight, faint, np.ones(weight.shape, bool), 350.0, 36.0), MARKS)


def values(side: SideReading) -> dict[str, float]:
    return dict(zip(FEATURES, side.features, strict=True))


def test_a_tree_has_the_length_of_its_tubes_and_a_tip_at_each_end() -> None:
    mask = np.zeros((50, 40, 60), dtype=bool)
    mask[20:23, 20:23, 5:45] = True
    mask[20:45, 20:22, 30:32] = True
    tree = vessel_tree(mask, (21.0, 21.0, 5.0))
    tips = tree.points[tree.tips]
    assert len(tips) == 2
    assert tips[:, 2].max() == 44
    assert tips[:, 0].max() == 44
    assert tree.length.sum() == pytest.approx(39 + 24, abs=5.0)
    heads = tree.before == -1
    assert heads.sum() == 1
    assert tree.way[heads] < 1.5
    assert (tree.way[tree.before[~heads]] < tree.way[~heads]).all()


def test_parts_have_their_own_roots_and_crumbs_no_branch() -> None:
    mask = np.zeros((20, 20, 60), dtype=bool)
    mask[10, 10, 0:20] = mask[10, 10, 30:50] = True
    mask[2, 2, 2:5] = True
    tree = vessel_tree(mask, (10.0, 10.0, 25.0))
    assert (tree.before == -1).sum() == 2
    assert sorted(tree.points[tree.tips][:, 2]) == [0, 49]
    assert len(vessel_tree(np.zeros_like(mask), (0.0, 0.0, 0.0)).points) == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_shut_vessel_shows_on_its_side_where_it_stops(side) -> None:
    weight = tubes().astype(np.float32)
    gone = slice(MIDDLE + 20, None) if side == "left" else slice(0, MIDDLE - 19)
    weight[:, :, gone] = 0.0
    read = dict(zip(("left", "right"), sides(weight), strict=True))
    worse, better = read[side], read["right" if side == "left" else "left"]
    found = values(worse)
    assert found["proximal_length"] > 0.3
    assert found["distal_loss"] == 1.0
    assert found["distal_stretch"] == pytest.approx(2.0, abs=0.6)
    assert found["abrupt_end"] > 0.8
    assert found["carotid_loss"] == 0.0
    assert found["distal_short"] == pytest.approx(np.log(5.0))  # nothing, against 100 mm
    assert values(better)["distal_short"] < 1.0
    assert found["distal_cut"] > 1.5
    assert worse.site == "M1"
    sign = 1 if side == "left" else -1
    assert worse.end is not None
    assert worse.end == pytest.approx((39, 49, MIDDLE + sign * 19), abs=2)
    assert (np.flatnonzero(worse.missing.any(axis=(0, 1))) - MIDDLE).max() * sign >= -20
    assert better.end is None
    assert not better.missing.any()
    assert max(values(better)[name] for name in FEATURES if name != "distal_short") <= 0.0
    assert side_score(worse, MODEL) > 0.5 > side_score(better, MODEL)


def test_equal_sides_lack_nothing_and_a_dim_side_lacks_brightness_only() -> None:
    left, right = sides(tubes().astype(np.float32))
    assert left.features == pytest.approx(right.features, abs=0.04)
    assert max(values(left)[name] for name in FEATURES if name != "distal_short") < 0.02
    weight = tubes().astype(np.float32)
    weight[:, :, MIDDLE:] *= 0.7  # a stenosis in the neck
    dim = values(sides(weight)[0])
    assert dim["proximal_loss"] == pytest.approx(0.3, abs=0.01)
    assert dim["carotid_loss"] == pytest.approx(0.3, abs=0.01)
    assert dim["distal_cut"] == 0.0
    assert dim["proximal_stretch"] == dim["distal_stretch"] == dim["abrupt_end"] == 0.0


def test_a_thin_side_that_is_too_pale_to_follow_is_not_cut_off() -> None:
    weight = 0.4 * tubes().astype(np.float32)
    weight[:, :, MIDDLE:] *= 0.65
    found = values(sides(weight, least=0.28)[0])
    assert found["distal_length"] > 0.2  # as far as it can be followed
    assert found["distal_stretch"] > 1.0
    assert found["distal_cut"] == 0.0
    weight[:, :, MIDDLE + 20 :] = 0.0
    assert values(sides(weight, least=0.28)[0])["distal_cut"] > 1.5


def test_collaterals_do_not_hide_a_shut_vessel() -> None:
    weight = tubes().astype(np.float32)
    weight[:, :, MIDDLE + 20 :] *= 0.35
    worse, _ = sides(weight)
    assert worse.site == "M1"
    assert values(worse)["distal_stretch"] > 1.5


def test_vessels_filled_from_beyond_a_clot_count_as_cut_off_however_bright() -> None:
    weight = tubes().astype(np.float32)
    weight[:, :, MIDDLE + 27 :] *= 0.8
    assert values(sides(weight)[0])["distal_cut"] == 0.0
    weight[:, :, MIDDLE + 20 : MIDDLE + 27] = 0.1
    found = values(sides(weight)[0])
    assert found["distal_stretch"] == 0.0
    assert found["distal_cut"] > 1.5
    assert found["distal_short"] == pytest.approx(np.log(5.0))


def test_a_model_of_other_features_is_a_fault_of_the_card() -> None:
    assert logistic([0.0] * len(FEATURES), {**MODEL, "offset": 0.0}) == 0.5
    for model in ({}, {"offset": 0.0}, {"offset": 0.0, "weights": {"other": 1.0}}):
        with pytest.raises(ConfigurationError):
            logistic([0.0] * len(FEATURES), model)
