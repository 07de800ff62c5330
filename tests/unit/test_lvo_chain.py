"""Large-vessel occlusion on head CTA phantoms: the head frame, the vessels, what one side lacks, and every refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from wetread.core.detector import Volume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.lvo.analysis import Analysis, analyse
from wetread.lvo.answer import MISSING, result_of
from wetread.lvo.asymmetry import FEATURES
from wetread.lvo.frame import back_to_planes, head_frame
from wetread.lvo.score import side_score
from wetread.lvo.vessels import find_vessels
from wetread.testing.phantoms.cta_head import CtaPhantom, cta_phantom, render_cta, without_contrast

COARSE = {"step_mm": 1.5, "pixel_mm": 1.2, "collateral": 0.15, "noise_hu": 8.0, "lumen_hu": 380.0, "calcium": False}
MODEL = {"offset": -3.0, "weights": dict.fromkeys(FEATURES, 0.0) | {"distal_stretch": 1.0, "distal_length": 4.0}}


@cache
def made(**changes) -> CtaPhantom:
    return cta_phantom(1_000_500, split="tune", **{**COARSE, **changes})


@cache
def read(**changes) -> Analysis:
    return analyse(made(**changes).to_volume())


@pytest.mark.slow
@pytest.mark.parametrize(("site", "side"), [("ICA", "left"), ("M1", "right"), ("M2", "left")])
def test_the_occluded_side_lacks_vessels(site, side) -> None:
    phantom, found = made(occlusion=site, side=side), read(occlusion=site, side=side)
    worse = max(found.sides, key=lambda s: float(s.features[4:8].sum()))
    assert worse.side == side
    assert worse.missing_mm > 15.0
    assert worse.end is not None
    end = found.frame.to_lps(np.array([worse.end], dtype=float))[0]
    assert phantom.stop_lps_mm is not None
    assert np.linalg.norm(end - phantom.stop_lps_mm) < 20.0


@pytest.mark.slow
def test_open_vessels_lack_little_and_the_circle_of_willis_is_found() -> None:
    found = read(occlusion=None)
    assert max(s.missing_mm for s in found.sides) < 15.0
    middle = (found.frame.hu.shape[2] - 1) / 2
    place = found.frame.to_lps(np.array([[found.marks.plane, found.marks.row, middle]]))[0]
    assert place - [made(occlusion=None).spec.shift_mm, 0.0, 0.0] == pytest.approx([0.0, 0.0, 0.0], abs=6.0)


@pytest.mark.slow
def test_the_result_names_side_and_place_and_is_drawn() -> None:
    phantom, found = made(occlusion="M1", side="right"), read(occlusion="M1", side="right")
    volume = phantom.to_volume()
    left, right = (side_score(side, MODEL) for side in found.sides)
    result = result_of(found, volume, (left, right), 0.5, MODEL)
    occlusion, worse, better = result.observations
    assert (result.state, occlusion.laterality, worse.laterality, better.laterality) == (
        "positive",
        "right",
        "right",
        "left",
    )
    place = {m.name: m.value for m in occlusion.measures}
    assert occlusion.key_plane is not None
    assert volume.origins[occlusion.key_plane, 2] == pytest.approx(place["position_z"], abs=phantom.spec.step_mm)
    assert result.mask is not None
    marked = np.argwhere(result.mask == MISSING)
    across = volume.origins[0, 0] + marked[:, 2] * volume.pixel_spacing[1] - phantom.spec.shift_mm
    assert np.mean(across < 0) > 0.95
    document, picture = result.attachments
    said = json.loads(document.data)
    assert said["sides"]["right"]["score"] == pytest.approx(right, abs=1e-5)
    assert picture.capture
    assert picture.data.startswith(b"\x89PNG")
    quiet = result_of(found, volume, (left, right), 1.0, MODEL)
    assert (quiet.state, quiet.observations[0].laterality, quiet.observations[0].label) == ("negative", "", None)


@pytest.mark.slow
def test_the_frame_follows_turn_and_shift_under_tilt_and_finds_its_way_back() -> None:
    phantom = made(occlusion=None, turn_deg=8.0, roll_deg=-4.0, nod_deg=0.0, shift_mm=6.0, tilt_deg=12.0)
    volume = phantom.to_volume()
    frame = head_frame(volume)
    turn, roll = np.rad2deg(np.arctan2(frame.rotation[0, 1:], frame.rotation[0, 0]))
    assert (turn, roll) == pytest.approx((8.0, -4.0), abs=0.5)
    assert frame.rotation @ frame.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    bone = back_to_planes(frame, (frame.hu > 500).astype(np.uint8), volume)
    true = volume.voxels > 500
    assert 2 * (bone.astype(bool) & true).sum() / (bone.sum() + true.sum()) > 0.9


@pytest.mark.slow
def test_faint_vessels_reach_further_than_those_that_are_followed_and_stay_above_the_noise() -> None:
    vessels = read(occlusion="M2", side="left").vessels
    pale = (vessels.faint > 0) & ~vessels.mask
    assert np.array_equal(vessels.faint[vessels.mask], vessels.weight[vessels.mask])
    assert 0.1 < pale.sum() / vessels.mask.sum() < 3.0
    assert (vessels.inside | ~pale).all()
    assert not vessels.weight[~vessels.mask].any()


@pytest.mark.slow
def test_a_scan_down_into_the_neck_gives_the_same_end_point() -> None:
    phantom, found = made(occlusion="M1", side="right"), read(occlusion="M1", side="right")
    volume = phantom.to_volume()
    extra = 80
    neck = np.repeat(volume.voxels[:1], extra, axis=0)
    below = volume.origins[0] - np.outer(np.arange(extra, 0, -1), [0.0, 0.0, phantom.spec.step_mm])
    longer = replace(
        volume,
        voxels=np.concatenate([neck, volume.voxels]),
        origins=np.concatenate([below, volume.origins]),
        weights_mm=np.full(extra + len(volume.voxels), phantom.spec.step_mm),
        frames=volume.frames[:1] * extra + volume.frames,
    )
    again = analyse(longer)
    ends = [analysis.frame.to_lps(np.array([analysis.sides[1].end], dtype=float))[0] for analysis in (found, again)]
    assert ends[0] == pytest.approx(ends[1], abs=4.0)


def small(**changes) -> Volume:
    return cta_phantom(
        1_000_501, split="tune", **{"step_mm": 3.0, "pixel_mm": 2.0, "occlusion": None, "noise_hu": 5.0, **changes}
    ).to_volume()


def refusal(volume: Volume) -> str:
    with pytest.raises((NotApplicable, NotProcessable)) as caught:
        find_vessels(head_frame(volume).hu)
    return caught.value.reason


@pytest.mark.slow
def test_what_is_no_angiogram_of_a_head_says_so() -> None:
    phantom = cta_phantom(1_000_501, split="tune", step_mm=3.0, pixel_mm=2.0, noise_hu=5.0, veins=0.0)
    assert phantom.spec.calcium
    assert refusal(render_cta(without_contrast(phantom.spec)).to_volume()) == "contrast"
    volume = phantom.to_volume()
    assert refusal(replace(volume, voxels=np.minimum(volume.voxels, 200.0))) == "body_part"
    assert refusal(replace(volume, voxels=np.full_like(volume.voxels, -1000.0))) == "body_part"


def test_a_head_that_moved_or_lies_across_is_refused() -> None:
    volume = small()
    moved = volume.voxels.copy()
    moved[len(moved) // 2 :] = np.roll(moved[len(moved) // 2 :], 3, axis=2)
    assert refusal(replace(volume, voxels=moved)) == "motion"
    turned = replace(volume, row_direction=np.array([0.0, 1.0, 0.0]), column_direction=np.array([-1.0, 0.0, 0.0]))
    assert refusal(turned) == "mixed_orientation"
    one = replace(volume, voxels=volume.voxels[:1], origins=volume.origins[:1])
    assert refusal(one) == "missing_slices"
