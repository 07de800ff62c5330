"""Large-vessel occlusion on head CTA phantoms: the head frame, the vessels, and what one side lacks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from wetread.core.detector import Volume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.lvo.asymmetry import FEATURES, SideReading, read_sides
from wetread.lvo.frame import HeadFrame, back_to_planes, head_frame
from wetread.lvo.vessels import find_vessels
from wetread.testing.phantoms.cta_head import CtaPhantom, cta_phantom
from wetread.testing.phantoms.cta_parameters import draw_cta
from wetread.testing.phantoms.errors import PhantomSeedError, PhantomSpecError

pytestmark = pytest.mark.slow

COARSE = {"voxel_mm": (1.5, 1.2), "collateral": 0.15, "noise_hu": 8.0, "stenosis": 0.0, "calcium": False}


@cache
def case(**changes) -> tuple[CtaPhantom, HeadFrame, tuple[SideReading, SideReading]]:
    made = cta_phantom(1_000_500, split="tune", **{**COARSE, **changes})
    frame = head_frame(made.to_volume())
    return made, frame, read_sides(find_vessels(frame.hu))


@pytest.mark.parametrize(("site", "side"), [("ICA", "left"), ("M1", "right"), ("M2", "left")])
def test_the_occluded_side_lacks_vessels(site, side) -> None:
    made, frame, readings = case(occlusion=site, side=side)
    worse = max(readings, key=lambda r: float(r.features.sum()))
    assert worse.side == side
    assert float(worse.features.sum()) > 1.0
    assert worse.begins is not None
    begins = frame.to_lps(np.array([worse.begins], dtype=float))[0]
    assert made.stop_lps_mm is not None
    assert np.sign(begins[0] - made.spec.shift_mm) == np.sign(made.stop_lps_mm[0] - made.spec.shift_mm)
    assert np.linalg.norm(begins - made.stop_lps_mm) < 30.0


def test_open_vessels_lack_little() -> None:
    left, right = case(occlusion=None)[2]
    assert len(left.features) == len(FEATURES)
    occluded = case(occlusion="M1", side="right")[2][1]
    assert max(left.features.sum(), right.features.sum()) < 0.6 * occluded.features.sum()


def test_the_frame_undoes_turn_and_shift_and_finds_its_way_back() -> None:
    made, frame, _ = case(occlusion=None, turn_deg=8.0, roll_deg=-4.0, shift_mm=6.0)
    assert np.degrees(np.arccos(frame.rotation[0] @ [1.0, 0.0, 0.0])) == pytest.approx(8.9, abs=1.5)
    assert frame.rotation @ frame.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    volume = made.to_volume()
    bone = back_to_planes(frame, (frame.hu > 500).astype(np.uint8), volume)
    true = volume.voxels > 500
    assert 2 * (bone.astype(bool) & true).sum() / (bone.sum() + true.sum()) > 0.9


def changed(function) -> Volume:
    volume = case(occlusion=None)[0].to_volume()
    return replace(volume, voxels=function(volume.voxels))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda hu: np.where((hu > 80) & (hu < 600), 38.0, hu).astype(np.float32), "contrast"),
        (lambda hu: np.minimum(hu, 200.0), "body_part"),
        (lambda hu: np.full_like(hu, -1000.0), "body_part"),
    ],
)
def test_what_is_no_angiogram_of_a_head_says_so(function, reason) -> None:
    with pytest.raises(NotApplicable) as caught:
        find_vessels(head_frame(changed(function)).hu)
    assert caught.value.reason == reason


def test_a_turned_image_is_refused() -> None:
    volume = case(occlusion=None)[0].to_volume()
    turned = replace(volume, row_direction=np.array([0.0, 1.0, 0.0]), column_direction=np.array([-1.0, 0.0, 0.0]))
    with pytest.raises(NotProcessable) as caught:
        head_frame(turned)
    assert caught.value.reason == "mixed_orientation"


def test_phantoms_follow_their_seed_and_split() -> None:
    assert draw_cta(3_100_000, split="s2") == draw_cta(3_100_000, split="s2")
    assert draw_cta(3_200_000, split="s3").calcium
    occluded = [draw_cta(2_000_000 + k).occlusion for k in range(60)]
    assert 20 < sum(site is not None for site in occluded) < 40
    assert {"ICA", "M1", "M2"} <= set(occluded)
    with pytest.raises(PhantomSeedError):
        draw_cta(5, split="s0")
    with pytest.raises(PhantomSpecError):
        draw_cta(2_000_000, stenosis=1.0)
