"""Ultrasound clips: every kind of pixels gives the same brightness; times and pixel sizes are believed with care."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom import cine as module
from wetread.core.dicom.cine import assemble_cine, calibration_of, frame_times, without_colour
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.dicom.selection import named_or_longest_cine
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.manifest import CineNeeds, InputNeeds, LossyPolicy
from wetread.testing.phantoms.echo import echo_phantom
from wetread.testing.phantoms.echo_dicom import echo_dataset, echo_object

NEEDS = InputNeeds(modality=("US",), select="named_or_longest_cine", cine=CineNeeds(min_frames=4))


@pytest.fixture(scope="module")
def made():
    written = {"overlay": True, "ecg": True, "colour_bar": True}
    return echo_phantom(2_900_005, frames=range(6), view="a4c", columns=120.0, calibration="right", **written)


def bytes_of(header):
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(data, needs=NEEDS):
    return assemble_input([data], PydicomFrameDecoder(), needs)


def refusal(data, needs=NEEDS):
    with pytest.raises(NotProcessable) as caught:
        read(data, needs)
    return caught.value.reason


def test_a_clip_has_brightness_times_and_pixel_size_and_no_place_in_the_patient(made):
    cine, direct = read(echo_object(made)), made.to_cine()
    assert np.array_equal(cine.voxels, direct.voxels)
    assert np.array_equal(cine.coloured, direct.coloured)
    assert cine.times_s == pytest.approx(np.arange(6) / made.spec.frame_rate, abs=1e-5)
    assert cine.calibration.mm == pytest.approx((made.mm_per_pixel,) * 2)
    assert cine.calibration.box == made.box
    assert np.isnan(cine.origins).all()
    assert np.isnan(cine.pixel_spacing).all()
    assert [f.frame for f in cine.frames] == [1, 2, 3, 4, 5, 6]
    assert len({f.sop_instance_uid for f in cine.frames}) == 1
    assert cine.flags == ()


@pytest.mark.parametrize(
    ("photometric", "planar"), [("RGB", True), ("YBR_FULL", False), ("MONOCHROME2", False), ("PALETTE COLOR", False)]
)
def test_every_kind_of_pixels_shows_the_same_picture(made, photometric, planar):
    plain = read(echo_object(made))
    other = read(echo_object(made, photometric=photometric, planar=planar))
    grey = made.frames.max(axis=3) == made.frames.min(axis=3)
    assert np.abs(other.voxels - plain.voxels)[grey].max() <= 1.0


def test_grey_that_is_stored_inverted_or_with_more_bits_is_brought_to_the_same_scale(made):
    plain = read(echo_object(made, photometric="MONOCHROME2"))
    inverted = echo_dataset(made, photometric="MONOCHROME2")
    inverted.PhotometricInterpretation = "MONOCHROME1"
    inverted.PixelData = (255 - inverted.pixel_array).tobytes()
    assert np.array_equal(read(bytes_of(inverted)).voxels, plain.voxels)
    wide = echo_dataset(made, photometric="MONOCHROME2")
    values = wide.pixel_array.astype("<u2") * 257
    wide.BitsAllocated, wide.BitsStored, wide.HighBit = 16, 16, 15
    wide.PixelData = values.tobytes()
    assert np.allclose(read(bytes_of(wide)).voxels, plain.voxels, atol=0.01)


def test_colour_is_blackened_and_marked_unless_the_whole_picture_is_tinted():
    brightness = np.full((4, 3, 3), 200.0, np.float32)
    coloured = np.zeros((4, 3, 3), bool)
    coloured[:, 0, 0] = coloured[0, 2, 2] = True
    marked, tinted = without_colour(brightness, coloured)
    assert (tinted, marked.sum(), marked[0, 0]) == (False, 2, True)
    assert brightness[1, 0, 0] == 0
    assert brightness[1, 2, 2] == 200
    sepia = np.full((4, 3, 3), 200.0, np.float32)
    marked, tinted = without_colour(sepia, np.ones((4, 3, 3), bool))
    assert (tinted, marked.any(), sepia.min()) == (True, False, 200.0)


def with_region(**changes):
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType = 1, 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 10, 20
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 90, 70
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.05, 0.06
    for name, value in changes.items():
        setattr(region, name, value)
    header = Dataset()
    header.SequenceOfUltrasoundRegions = [region]
    return header


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({}, ""),
        ({"RegionLocationMaxX1": 100}, "calibration_outside_image"),
        ({"RegionLocationMinX0": 95}, "calibration_outside_image"),
        ({"PhysicalUnitsXDirection": 4}, "calibration_missing"),
        ({"RegionDataType": 3}, "calibration_missing"),
        ({"RegionSpatialFormat": 2}, "calibration_missing"),
        ({"PhysicalDeltaX": 0.0}, "calibration_missing"),
    ],
)
def test_a_pixel_size_is_believed_when_its_region_lies_inside_the_picture(changes, doubt):
    found, why = calibration_of(with_region(**changes), 80, 100)
    assert why == doubt
    if not doubt:
        assert found.mm == pytest.approx((0.6, 0.5))
        assert found.box == (20, 10, 70, 90)
    assert calibration_of(Dataset(), 80, 100) == (None, "calibration_missing")


def test_times_come_from_the_first_header_that_says_them():
    header = Dataset()
    assert frame_times(header, 3)[1] is False
    header.RecommendedDisplayFrameRate = 25
    assert frame_times(header, 3)[0] == pytest.approx([0, 0.04, 0.08])
    header.FrameTime = "20"
    assert frame_times(header, 3) == (pytest.approx([0, 0.02, 0.04]), True)
    header.FrameTimeVector = ["0", "10", "30"]
    assert frame_times(header, 3)[0] == pytest.approx([0, 0.01, 0.04])
    header.FrameTimeVector = ["0", "10", "-30"]
    assert frame_times(header, 3)[0] == pytest.approx([0, 0.02, 0.04])


def test_what_is_broken_has_a_typed_reason(made):
    def broken(**changes):
        header = echo_dataset(made)
        for name, value in changes.items():
            setattr(header, name, value)
        return bytes_of(header)

    no_size = echo_dataset(made)
    del no_size.Rows
    for data, reason in (
        (broken(PixelData=b"\0\0"), "decode_error"),
        (broken(NumberOfFrames=3), "too_few_frames"),
        (broken(PhotometricInterpretation="CMYK"), "decode_error"),
        (broken(PhotometricInterpretation="YBR_FULL_422"), "decode_error"),
        (broken(BitsAllocated=32), "decode_error"),
        (bytes_of(no_size), "decode_error"),
        (b"no DICOM", "decode_error"),
    ):
        assert refusal(data) == reason
    with pytest.raises(NotProcessable) as caught:
        assemble_cine([echo_object(made)] * 2, PydicomFrameDecoder(), NEEDS, NEEDS.cine)
    assert caught.value.reason == "several_clips"
    palette = dcmread(io.BytesIO(echo_object(made, photometric="PALETTE COLOR")))
    palette.GreenPaletteColorLookupTableData = palette.GreenPaletteColorLookupTableData[:100]
    assert refusal(bytes_of(palette)) == "decode_error"


def test_lossy_and_long_clips_are_flagged(made, monkeypatch):
    header = echo_dataset(made)
    header.LossyImageCompression, header.LossyImageCompressionRatio = "01", "19"
    assert read(bytes_of(header)).flags == ("lossy",)
    strict = NEEDS.model_copy(update={"lossy": LossyPolicy(allowed=True, max_ratio=10)})
    assert refusal(bytes_of(header), strict) == "lossy_not_allowed"
    few = NEEDS.model_copy(update={"cine": CineNeeds(min_frames=2, max_frames=4)})
    cut = read(echo_object(made), few)
    assert (len(cut.voxels), cut.flags) == (4, ("frames_left_out",))
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    assert refusal(echo_object(made)) == "too_large"


def clip(uid, frames, **changes):
    return InstanceFacts(uid, "1.2.840.10008.5.1.4.1.1.3.1", "h", "1.2", number_of_frames=frames, **changes)


def study(*series):
    return StudyFacts("t", "1", tuple(replace(s, series_instance_uid=f"1.{k}") for k, s in enumerate(series)))


def series(*instances, modality="US", **changes):
    return SeriesFacts("", modality, instances, **changes)


def test_a_clip_named_apical_comes_before_the_longest():
    many, named = series(clip("a", 90), clip("b", 120)), series(clip("c", 40), description="TTE A4C")
    assert named_or_longest_cine(NEEDS, study(many)).sop_instance_uids == ("b",)
    chosen = named_or_longest_cine(NEEDS, study(many, named))
    assert chosen.sop_instance_uids == ("c",)
    assert chosen.completeness == "enough"
    short = named_or_longest_cine(NEEDS, study(series(clip("a", 3))))
    assert short.lacking == "too_few_frames"


@pytest.mark.parametrize(
    ("given", "error", "reason"),
    [
        (study(series(clip("a", 1))), NotApplicable, "still_images"),
        (study(series(clip("a", 90), modality="XA")), NotApplicable, "modality"),
        (study(), NotApplicable, "no_suitable_series"),
        (study(series(clip("a", 90), detector_result=True)), NotApplicable, "no_suitable_series"),
        (study(series(clip("a", 90, lossy=True))), NotProcessable, "lossy_not_allowed"),
    ],
)
def test_a_study_without_a_clip_has_a_typed_reason(given, error, reason):
    needs = NEEDS.model_copy(update={"lossy": LossyPolicy(allowed=False)})
    with pytest.raises(error) as caught:
        named_or_longest_cine(needs, given)
    assert caught.value.reason == reason
