"""The perfusion chain on phantoms: figures, sides, and every typed refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from wetread.core.detector import DynamicVolume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.perfusion.analysis import Perfusion, analyse
from wetread.perfusion.answer import ARTERY, CORE, LATE, VEIN, result_of
from wetread.perfusion.grid import expand, reduce
from wetread.testing.phantoms.perfusion import PerfusionPhantom, perfusion_phantom

SMALL = {
    "matrix": 96,
    "planes": 4,
    "step_mm": 8.0,
    "interval_s": 2.0,
    "duration_s": 56.0,
    "noise": 2.0,
    "residue": "exponential",
    "half_angle_deg": 50.0,
    "core_share": 0.6,
}


@cache
def case(**changes) -> tuple[PerfusionPhantom, Perfusion]:
    made = perfusion_phantom(1_000_050, split="tune", **{**SMALL, "side": "left", **changes})
    return made, analyse(made.to_volume())


def reason_of(**changes) -> str:
    with pytest.raises((NotProcessable, NotApplicable)) as caught:
        case(**changes)
    return caught.value.reason


def healthy_ratio(made: PerfusionPhantom, found: Perfusion) -> float:
    at = found.tissue & np.isfinite(made.truth.cbf) & ~made.truth.hypoperfused
    return float(found.cbf[at].mean() / made.truth.cbf[at].mean())


def test_flow_and_volumes_of_the_phantom_are_found() -> None:
    made, found = case()
    assert healthy_ratio(made, found) == pytest.approx(1.0, abs=0.10)
    assert found.stroke.hypoperfused_ml == pytest.approx(made.truth.hypoperfused_ml, rel=0.10)
    overlap = (expand_of(found, found.stroke.core) & made.truth.core).sum() * 2
    assert overlap / (found.stroke.core.sum() + made.truth.core.sum()) > 0.6


def expand_of(found: Perfusion, values):
    return expand(values, found.series.block, (96, 96))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_is_the_patients(side) -> None:
    made, found = case(side=side)
    late, core = result_of(found, made.to_volume()).observations[:2]
    assert (late.laterality, core.laterality) == (side, side)


def test_no_lesion_gives_no_lesion() -> None:
    made, found = case(side=None)
    result = result_of(found, made.to_volume())
    assert found.stroke.hypoperfused_ml < 5.0
    assert result.state == "measured"
    assert [o.code for o in result.observations] == [
        "hypoperfused_tissue",
        "infarct_core",
        "perfusion_mismatch",
        "arterial_input",
        "venous_output",
    ]


def test_signal_of_mr_gives_the_same_picture() -> None:
    made, found = case(modality="MR", noise=8.0)
    assert found.stroke.hypoperfused_ml == pytest.approx(made.truth.hypoperfused_ml, rel=0.15)
    assert "relative_perfusion" in result_of(found, made.to_volume()).flags


def test_motion_is_undone_and_said() -> None:
    still, moved = case()[1], case(motion_mm=4.0)[1]
    assert moved.moved_mm > 2.0
    assert still.moved_mm < 0.6
    assert moved.stroke.hypoperfused_ml == pytest.approx(still.stroke.hypoperfused_ml, rel=0.10)
    assert "motion_corrected" in result_of(moved, case(motion_mm=4.0)[0].to_volume()).flags


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bolus": False}, "no_bolus"),
        ({"cut_after_s": 18.0}, "truncated_bolus"),
        ({"start_late_s": 16.0}, "truncated_bolus"),
        ({"jump_mm": 25.0}, "motion"),
        ({"half_width_mm": 25.0, "half_length_mm": 30.0}, "body_part"),
    ],
)
def test_what_cannot_be_computed_says_why(changes, reason) -> None:
    assert reason_of(**changes) == reason


def test_a_body_without_a_skull_is_another_body_part() -> None:
    volume = case()[0].to_volume()
    soft = np.minimum(volume.dynamic, 80.0)
    with pytest.raises(NotApplicable) as caught:
        analyse(replace(volume, dynamic=soft, voxels=soft[0]))
    assert caught.value.reason == "body_part"


def test_planes_of_a_shuttle_are_brought_to_common_times() -> None:
    still, shuttle = case()[1], case(shuttle=True)[1]
    assert shuttle.stroke.hypoperfused_ml == pytest.approx(still.stroke.hypoperfused_ml, rel=0.10)
    assert abs(float(np.nanmedian(shuttle.tmax_s) - np.nanmedian(still.tmax_s))) < 0.8


def test_the_result_lies_on_the_planes_of_the_source() -> None:
    made, found = case()
    volume = made.to_volume()
    result = result_of(found, volume)
    assert result.mask is not None
    assert result.mask.shape == volume.voxels.shape
    assert set(np.unique(result.mask)) == {0, CORE, LATE, ARTERY, VEIN}
    assert [m.name for m in result.maps] == [
        "cerebral_blood_flow",
        "cerebral_blood_volume",
        "mean_transit_time",
        "tmax",
    ]
    for item in result.maps:
        assert item.values.shape == volume.voxels.shape
        assert item.values.dtype == np.float32
        assert float(np.nanmin(item.values)) >= 0.0
    artery = next(o for o in result.observations if o.code == "arterial_input")
    place = [m.value for m in artery.measures[:3]]
    distance = np.linalg.norm(volume.origins[artery.key_plane] - place)
    assert distance < 225.0
    document = json.loads(result.attachments[0].data)
    assert document["core_ml"] == pytest.approx(found.stroke.core_ml, rel=1e-3)
    assert result.attachments[1].data.startswith(b"\x89PNG")


def test_fine_pixels_are_averaged_and_brought_back() -> None:
    volume = case()[0].to_volume()
    fine = replace(
        volume,
        dynamic=volume.dynamic.repeat(3, axis=2).repeat(3, axis=3)[:, :, :-1, :-1],
        voxels=volume.voxels.repeat(3, axis=1).repeat(3, axis=2)[:, :-1, :-1],
        pixel_spacing=(volume.pixel_spacing[0] / 3, volume.pixel_spacing[1] / 3),
    )
    assert isinstance(fine, DynamicVolume)
    series = reduce(fine)
    assert series.block == 2
    assert series.images.shape[2:] == (144, 144)
    assert expand(series.images[0], 2, (287, 287)).shape == (4, 287, 287)
    assert series.step_s == pytest.approx(1.0)
