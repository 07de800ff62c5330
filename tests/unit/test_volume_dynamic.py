"""Dynamic series: planes imaged again and again, by position and by the clock of their headers."""

from __future__ import annotations

import numpy as np
import pytest

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.detector import DynamicVolume, Volume
from wetread.core.dicom.clocks import Clocks, trusted_times
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.dicom.selection import select
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.manifest import InputNeeds
from wetread.testing.sections import ct_plane, part10

NEEDS = InputNeeds.model_validate(
    {
        "modality": ["CT"],
        "series": {"min_slices": 2},
        "time": {"min_points": 4, "max_step_s": 3.0, "min_duration_s": 5.0},
        "select": "longest_dynamic",
    }
)


def image(plane: int, time: int, seconds: float | None = None, **attributes) -> bytes:
    """An image whose stored value says which plane and time it is."""
    values = np.full((4, 6), 1024 + 10 * time + plane, np.int16)
    seconds = 2.0 * time if seconds is None else seconds
    written = {"AcquisitionTime": f"1015{seconds:09.6f}", "AcquisitionNumber": time + 1, **attributes}
    return part10(ct_plane(values, (0, 0, 5.0 * plane), number=100 * time + plane + 1, **written))


def series(planes: int = 3, times: int = 5, **attributes) -> list[bytes]:
    return [image(p, t, **attributes) for t in range(times) for p in range(planes)]


def assembled(objects: list[bytes], needs: InputNeeds = NEEDS) -> Volume:
    return assemble_input(objects, PydicomFrameDecoder(), needs, threads=2)


def test_planes_and_times_are_found_in_any_order() -> None:
    objects = series()
    order = np.random.default_rng(3).permutation(len(objects))
    volume = assembled([objects[k] for k in order])
    assert isinstance(volume, DynamicVolume)
    assert volume.dynamic.shape == (5, 3, 4, 6)
    assert volume.dynamic[:, :, 0, 0].tolist() == [[10.0 * t + p for p in range(3)] for t in range(5)]
    assert volume.times_s[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert np.shares_memory(volume.voxels, volume.dynamic)
    assert volume.positions_mm.tolist() == [0.0, 5.0, 10.0]
    assert volume.modality == "CT"
    assert volume.flags == ()


def test_planes_taken_one_after_the_other_keep_their_own_times() -> None:
    objects = [image(p, t, 2.0 * t + 0.5 * p) for t in range(5) for p in range(3)]
    volume = assembled(objects)
    assert isinstance(volume, DynamicVolume)
    assert volume.times_s[1].tolist() == [2.0, 2.5, 3.0]


def test_without_needs_of_time_the_latest_images_make_one_volume() -> None:
    volume = assembled(series(), InputNeeds.model_validate({"modality": ["CT"], "select": "thinnest_soft"}))
    assert not isinstance(volume, DynamicVolume)
    assert volume.voxels[:, 0, 0].tolist() == [40.0, 41.0, 42.0]
    assert "duplicates_dropped" in volume.flags


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        (series(times=3), "too_few_time_points"),
        (series(times=1), "too_few_time_points"),
        (series()[:-1], "missing_time_points"),
        (series(AcquisitionTime="101500"), "no_time"),
        ([image(p, t, 2.0 * t + (4.0 if t > 2 else 0.0)) for t in range(5) for p in range(3)], "irregular_time"),
        ([image(p, t, 0.5 * t) for t in range(5) for p in range(3)], "truncated_time"),
        (series(planes=1), "missing_slices"),
        ([*series()[:3], *(o[:-4] for o in series()[3:])], "decode_error"),
    ],
)
def test_what_is_no_dynamic_series_says_why(objects: list[bytes], reason: str) -> None:
    with pytest.raises(NotProcessable) as caught:
        assembled(objects)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("clock", "written"),
    [
        ("triggered", lambda t: {"AcquisitionTime": "101500", "TriggerTime": 2000.0 * t}),
        ("written", lambda t: {"AcquisitionTime": None, "ContentTime": f"1015{2 * t:02d}"}),
        (
            "indexed",
            lambda t: {"AcquisitionTime": None, "TemporalPositionIdentifier": t + 1, "TemporalResolution": 2000},
        ),
        ("acquired", lambda t: {"AcquisitionTime": None, "AcquisitionDateTime": f"202601152359{50 + 2 * t:02d}+0100"}),
    ],
)
def test_the_first_clock_that_runs_is_believed(clock: str, written) -> None:
    volume = assembled([image(p, t, **written(t)) for t in range(5) for p in range(3)])
    assert isinstance(volume, DynamicVolume), clock
    assert volume.times_s[:, 2].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_a_scan_over_midnight_goes_on() -> None:
    dates = [("20260115", "235958"), ("20260116", "000000"), ("20260116", "000002"), ("20260116", "000004")]
    objects = [
        image(p, t, AcquisitionDate=day, AcquisitionTime=clock)
        for t, (day, clock) in enumerate(dates)
        for p in range(2)
    ]
    volume = assembled(objects)
    assert isinstance(volume, DynamicVolume)
    assert volume.times_s[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0]


def test_clocks_that_miss_an_image_are_passed_over() -> None:
    clocks = [Clocks(acquired=5.0, written=1.0), Clocks(acquired=None, written=3.0)]
    assert trusted_times(clocks, [0, 0]) == [0.0, 2.0]
    assert trusted_times([Clocks(), Clocks()], [0, 0]) is None


def facts_of(objects: list[bytes], tmp_path):
    from wetread.detection.folder import studies_in

    for number, data in enumerate(objects):
        (tmp_path / f"{number:04d}.dcm").write_bytes(data)
    (study,) = studies_in(tmp_path)
    return study.facts


def test_the_rule_takes_all_images_of_the_series_with_most_time_points(tmp_path) -> None:
    chosen = select(NEEDS, facts_of(series(), tmp_path))
    assert len(chosen.sop_instance_uids) == 15
    assert chosen.completeness == "incomplete"  # instance numbers have holes here, so more may come
    assert chosen.lacking == ""
    assert "3 planes imaged 5 times" in chosen.reason


def test_a_series_still_arriving_says_what_it_lacks(tmp_path) -> None:
    assert select(NEEDS, facts_of(series()[:-1], tmp_path)).lacking == "missing_time_points"


def test_too_few_repeats_are_named(tmp_path) -> None:
    assert select(NEEDS, facts_of(series(times=2), tmp_path)).lacking == "too_few_time_points"


def test_a_plain_stack_is_no_case(tmp_path) -> None:
    with pytest.raises(NotApplicable) as caught:
        select(NEEDS, facts_of(series(times=1), tmp_path))
    assert caught.value.reason == "no_suitable_series"
