"""Phantom series as DICOM: readable, consistent in geometry, damaged only on request."""

from itertools import pairwise

import numpy as np
import pydicom
import pytest

from wetread.testing.phantoms import Headers, HeadSpec, PhantomSpecError, make, to_volume, write_dicom
from wetread.testing.phantoms.demo import _STUDIES
from wetread.testing.phantoms.dicom import uid
from wetread.testing.phantoms.seeds import SPLITS


@pytest.fixture(scope="module")
def phantom():
    spec = HeadSpec(thickness_mm=5.0, step_mm=5.0, coverage_mm=60.0, tilt_deg=15.0, regular=True)
    return make(21, spec)


@pytest.fixture(scope="module")
def written(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    return write_dicom(phantom, folder, headers=Headers(localizer=True))


def test_slices_hold_the_rendered_hounsfield_numbers(phantom, written):
    for index in (0, 5):
        stored = pydicom.dcmread(written.files[index])
        hu = stored.pixel_array * float(stored.RescaleSlope) + float(stored.RescaleIntercept)
        assert np.abs(hu - phantom.volume[index]).max() <= 0.5


def test_geometry_tags_agree_with_each_other(phantom, written):
    slices = [pydicom.dcmread(f, stop_before_pixels=True) for f in written.files[: len(phantom.volume)]]
    row, column = (np.array(slices[0].ImageOrientationPatient[a:b], dtype=float) for a, b in ((0, 3), (3, 6)))
    assert row @ column == pytest.approx(0.0, abs=1e-6)
    tilt = np.degrees(np.arcsin(column[2]))
    assert tilt == pytest.approx(float(slices[0].GantryDetectorTilt), abs=1e-3)
    heights = [float(s.ImagePositionPatient[2]) for s in slices]
    assert all(b - a == pytest.approx(5.0, abs=1e-4) for a, b in pairwise(heights))
    assert {s.FrameOfReferenceUID for s in slices} == {slices[0].FrameOfReferenceUID}
    assert [s.InstanceNumber for s in slices] == list(range(1, len(slices) + 1))


def test_headers_say_synthetic_and_name_no_person(written):
    header = pydicom.dcmread(written.files[0], stop_before_pixels=True)
    assert str(header.PatientName).startswith("PHANTOM^")
    assert "phantom" in header.PatientComments.lower()
    assert header.BodyPartExamined == "HEAD"
    assert "ContrastBolusAgent" not in header
    assert header.SOPClassUID == pydicom.uid.CTImageStorage
    assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID


def test_identifiers_come_from_the_seed(phantom, written, tmp_path):
    again = write_dicom(phantom, tmp_path / "again")
    other = write_dicom(phantom, tmp_path / "other", seed=22, slices=range(2))
    assert again.sop_instance_uids == written.sop_instance_uids
    assert again.study_instance_uid == written.study_instance_uid
    assert not set(other.sop_instance_uids) & set(again.sop_instance_uids)
    assert len(set(again.sop_instance_uids)) == len(again.sop_instance_uids)
    assert all(len(u) <= 64 for u in again.sop_instance_uids)
    assert uid(1, "a", 2) == uid(1, "a", 2) != uid(2, "a", 2)


def test_the_localizer_is_a_series_of_its_own(written):
    scout = pydicom.dcmread(written.files[-1])
    assert "LOCALIZER" in scout.ImageType
    assert scout.SeriesInstanceUID != written.series_instance_uid
    assert scout.StudyInstanceUID == written.study_instance_uid
    assert scout.pixel_array.shape == (scout.Rows, scout.Columns)


def test_damaged_headers_on_request(phantom, tmp_path):
    series = write_dicom(
        phantom,
        tmp_path,
        slices=range(3, 5),
        headers=Headers(no_frame_of_reference=True, wrong_spacing=True, padding_hu=-3024),
    )
    damaged = pydicom.dcmread(series.files[0])
    assert "FrameOfReferenceUID" not in damaged
    assert float(damaged.SpacingBetweenSlices) == pytest.approx(21.09)
    hu = damaged.pixel_array + float(damaged.RescaleIntercept)
    assert hu[0, 0] == -3024
    assert np.abs(hu[100:150, 100:150] - phantom.volume[3][100:150, 100:150]).max() <= 0.5
    with pytest.raises(PhantomSpecError):
        write_dicom(phantom, tmp_path, slices=range(0))


@pytest.mark.parametrize(
    ("syntax", "expected"),
    [
        ("rle", pydicom.uid.RLELossless),
        ("jpeg-ls", pydicom.uid.JPEGLSLossless),
    ],
)
def test_compressed_slices_lose_nothing(phantom, tmp_path, syntax, expected):
    series = write_dicom(phantom, tmp_path, slices=range(4, 5), headers=Headers(syntax=syntax))
    stored = pydicom.dcmread(series.files[0])
    assert stored.file_meta.TransferSyntaxUID == expected
    assert stored.SOPInstanceUID == series.sop_instance_uids[0]
    hu = stored.pixel_array + float(stored.RescaleIntercept)
    assert np.abs(hu - phantom.volume[4]).max() <= 0.5


def test_to_volume_keeps_positions_and_drops_doubles(phantom):
    volume, mask = to_volume(phantom)
    assert volume.voxels.shape == mask.shape == phantom.volume.shape
    assert volume.weights_mm == pytest.approx(np.full(len(mask), 5 * np.cos(np.radians(15.0))), rel=1e-6)
    assert volume.tilt_deg == 15.0
    twin = make(21, HeadSpec(thickness_mm=5.0, step_mm=5.0, coverage_mm=60.0, tilt_deg=15.0, regular=True))
    doubled = type(twin)(
        **{name: getattr(twin, name) for name in twin.__dataclass_fields__}
        | {
            "volume": np.repeat(twin.volume, 2, axis=0),
            "mask": np.repeat(twin.mask, 2, axis=0),
            "positions_lps_mm": np.repeat(twin.positions_lps_mm, 2, axis=0),
        }
    )
    single, _ = to_volume(doubled)
    assert np.array_equal(single.voxels, volume.voxels)
    assert single.flags == ("duplicate_positions",)


def test_demo_studies_use_test_seeds_only():
    assert all(seed in SPLITS["s0"] for _, seed, _, _ in _STUDIES)
