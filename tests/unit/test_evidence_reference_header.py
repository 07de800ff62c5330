from __future__ import annotations

import copy
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread, dcmwrite
from tests.evidence_cases import STUDY, headers, without

from wetread.adapters.evidence.reference_header import (
    DERIVED_FRAME_OF_REFERENCE,
    NO_GEOMETRY,
    NOT_STATED,
    reference_view,
)
from wetread.core.errors import InvalidInput
from wetread.core.identifiers import derived_uid

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
    "Manufacturer",
)


def test_complete_headers_pass_as_they_are() -> None:
    sources = headers(3)
    view = reference_view(sources, STUDY)
    assert view.flags == ()
    assert view.has_geometry
    assert str(view.identity.PatientName) == "Doe^Jane"
    assert [i.ImagePositionPatient for i in view.images] == [s.ImagePositionPatient for s in sources]
    assert view.images[0].FrameOfReferenceUID == sources[0].FrameOfReferenceUID


def test_missing_type_2_attributes_are_empty() -> None:
    view = reference_view(without(headers(2), *TYPE_2), STUDY)
    for keyword in TYPE_2:
        assert str(view.identity[keyword].value) == ""


def test_sources_stay_untouched() -> None:
    sources = without(headers(3), "FrameOfReferenceUID", "PatientBirthDate")
    before = copy.deepcopy(sources)
    reference_view(sources, STUDY)
    assert sources == before


@pytest.mark.parametrize("kind", ["missing", "one_per_slice", "not_a_uid"])
def test_unusable_frame_of_reference_is_derived_from_the_series(kind: str) -> None:
    sources = headers(3)
    for number, source in enumerate(sources):
        if kind == "missing":
            del source.FrameOfReferenceUID
        else:
            source.FrameOfReferenceUID = derived_uid("other", number) if kind == "one_per_slice" else "none"
    view = reference_view(sources, STUDY)
    assert view.flags == (DERIVED_FRAME_OF_REFERENCE,)
    assert {i.FrameOfReferenceUID for i in view.images} == {
        derived_uid("frame-of-reference", sources[0].SeriesInstanceUID)
    }


@pytest.mark.parametrize(
    ("stated", "expected"), [(None, NOT_STATED), ("", NOT_STATED), ("Basic profile", "Basic profile")]
)
def test_deidentified_without_a_method_says_so(stated: str | None, expected: str) -> None:
    sources = headers(1)
    sources[0].PatientIdentityRemoved = "YES"
    if stated is not None:
        sources[0].DeidentificationMethod = stated
    assert reference_view(sources, STUDY).identity.DeidentificationMethod == expected


def test_identified_patient_gets_no_method() -> None:
    assert "DeidentificationMethod" not in reference_view(headers(1), STUDY).identity


@pytest.mark.parametrize(
    ("keyword", "written", "expected"),
    [
        ("StudyDate", "2026.01.02", "20260102"),
        ("StudyDate", "2026-1-2", ""),
        ("StudyDate", "20261345", ""),
        ("PatientBirthDate", "unknown", ""),
        ("StudyTime", "03:04:05.25", "030405.25"),
        ("StudyTime", "9999", ""),
        ("PatientSex", "female", ""),
        ("PatientSex", "m", "M"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_values_that_are_none_are_left_empty(keyword: str, written: str, expected: str) -> None:
    sources = headers(1)
    setattr(sources[0], keyword, written)
    assert reference_view(sources, STUDY).identity[keyword].value == expected


def received(source: Dataset, charset: str, name: str, stated: str | None = None) -> Dataset:
    """The header as it arrives: written in *charset*, which the file calls *stated*."""
    source.SpecificCharacterSet = charset
    source.PatientName = name
    with BytesIO() as buffer:
        dcmwrite(buffer, source, implicit_vr=False, little_endian=True)
        data = buffer.getvalue()
    return dcmread(BytesIO(data.replace(charset.encode(), (stated or charset).encode())), force=True)


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 192", "山田^太郎"), ("ISO_IR 144", "Иванов^Иван")],
)
def test_names_are_decoded_by_the_source_character_set(charset: str, name: str) -> None:
    view = reference_view([received(headers(1)[0], charset, name)], STUDY)
    assert str(view.identity.PatientName) == name
    assert view.identity.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_unknown_character_set_does_not_stop_the_result() -> None:
    source = received(headers(1)[0], "ISO_IR 100", "Naïve^Name", stated="ISO_IR 999")
    assert "Name" in str(reference_view([source], STUDY).identity.PatientName)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry_is_flagged(keyword: str) -> None:
    view = reference_view(without(headers(2), keyword), STUDY)
    assert view.flags == (NO_GEOMETRY,)
    assert not view.has_geometry


@pytest.mark.parametrize(
    ("keyword", "value"), [("PixelSpacing", [0, 0]), ("ImageOrientationPatient", [0, 0, 0, 0, 0, 0])]
)
def test_impossible_geometry_counts_as_missing(keyword: str, value: list[float]) -> None:
    sources = headers(1)
    setattr(sources[0], keyword, value)
    assert not reference_view(sources, STUDY).has_geometry


def test_long_decimal_strings_are_shortened() -> None:
    sources = headers(1)
    sources[0].ImagePositionPatient = [-123.540456912345678, 1 / 3, 2e-17]
    written = reference_view(sources, STUDY).images[0].ImagePositionPatient
    assert all(len(str(v)) <= 16 for v in written)
    assert [float(v) for v in written] == pytest.approx(sources[0].ImagePositionPatient, abs=1e-9)


def test_patient_id_is_never_altered() -> None:
    sources = headers(1)
    sources[0].PatientID = "0012 34/ab"
    assert reference_view(sources, STUDY).identity.PatientID == "0012 34/ab"


@pytest.mark.parametrize(
    "sources",
    [
        [],
        without(headers(1), "SOPInstanceUID"),
        without(headers(1), "SOPClassUID"),
        without(headers(1), "SeriesInstanceUID"),
    ],
)
def test_unreferable_source_is_invalid(sources: list[Dataset]) -> None:
    with pytest.raises(InvalidInput):
        reference_view(sources, STUDY)


def test_header_of_another_study_is_invalid() -> None:
    with pytest.raises(InvalidInput, match="another study"):
        reference_view(headers(1), derived_uid("another"))


@pytest.mark.parametrize(("zone", "kept"), [("+0130", "+0130"), ("", ""), ("UTC", "")])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_time_zone_is_kept_when_it_is_one(zone: str, kept: str) -> None:
    sources = headers(1)
    sources[0].TimezoneOffsetFromUTC = zone
    assert reference_view(sources, STUDY).timezone == kept
