from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from tests.evidence_cases import blob, evidence, headers, positive, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.evidence.overlay import LINE
from wetread.adapters.evidence.reference_header import reference_view
from wetread.adapters.evidence.sc import MAX_SLICES, display_window, key_planes
from wetread.core.detector import Observation
from wetread.core.findings import Code
from wetread.core.ports import EvidenceInput
from wetread.core.ruo import RUO_STATEMENT

BLEED = Observation("intracranial_hemorrhage", "positive", label=1)


def captures(case: EvidenceInput) -> list[Dataset]:
    return [dcmread(BytesIO(o.data)) for o in Encoder().encode(case) if o.role == "sc"]


def test_captures_are_single_rgb_images_of_one_series() -> None:
    images = captures(evidence())
    assert [i.InstanceNumber for i in images] == [1, 2, 3, 4]
    assert len({i.SeriesInstanceUID for i in images}) == 1
    for image in images:
        assert image.pixel_array.shape == (image.Rows, image.Columns, 3)
        assert image.PhotometricInterpretation == "RGB"
        assert image.Laterality == ""
        assert image.BurnedInAnnotation == "YES"
        assert image.ImageComments == RUO_STATEMENT
        assert image.PatientOrientation == ["L", "P"]
        assert "PixelSpacing" not in image  # bands and enlargement: nothing here may be measured


def test_each_capture_names_its_source_image() -> None:
    case = evidence()
    sources = [i.SourceImageSequence[0].ReferencedSOPInstanceUID for i in captures(case)]
    assert sources == [case.headers[plane].SOPInstanceUID for plane in (4, 5, 6, 9)]


def test_outline_is_burned_in_where_the_region_is() -> None:
    case = evidence(headers(12, 64, 64), positive(blob((12, 64, 64))[..., :64], observations=(BLEED,)))
    image = captures(case)[1].pixel_array
    rows, columns = np.nonzero((image == LINE).all(axis=2))
    factor = 512 // 64
    assert columns.min() == 13 * factor
    assert columns.max() == 28 * factor - 1
    assert rows.max() - rows.min() == 15 * factor - 1


def test_only_flagged_findings_are_captured() -> None:
    measured = Observation("hippocampus", "measured", label=1)
    assert captures(evidence(result=positive(observations=(measured,), state="measured"))) == []
    unsure = Observation("intracranial_hemorrhage", "indeterminate", label=1)
    assert len(captures(evidence(result=positive(observations=(unsure,), state="indeterminate")))) == 4


def test_no_capture_without_pixels() -> None:
    case = evidence()
    assert captures(EvidenceInput(case.result, case.headers, case.mask, None)) == []


def test_slices_are_shared_among_findings() -> None:
    mask = np.zeros((12, 64, 80), np.uint8)
    mask[:, 10:20, 10:20] = 1
    one = captures(evidence(result=positive(mask, observations=(BLEED,))))
    assert len(one) == MAX_SLICES
    eight = captures(evidence(result=positive(mask, observations=(BLEED,) * 8)))
    assert len(eight) == 8


def test_key_image_comes_first_then_the_largest_sections() -> None:
    finding = evidence().result.findings[0]
    region = blob() == 1
    assert key_planes(finding, region, 12, 1) == [5]
    assert key_planes(finding, region, 12, 2) == [5, 6]
    assert key_planes(finding, region, 12, 6) == [4, 5, 6, 7]
    assert key_planes(finding, None, 12, 6) == [5]


@pytest.mark.parametrize(
    ("modality", "code", "source_window", "expected"),
    [
        ("CT", None, (350, 2000), (40, 80)),
        ("CT", Code(value="x", scheme="99X", meaning="x"), (350, 2000), (350, 2000)),
        ("MR", None, (600, 1200), (600, 1200)),
        ("MR", None, None, (50, 98)),
    ],
)
def test_window_is_the_concepts_own_then_the_sources(modality, code, source_window, expected) -> None:
    sources = headers(1)
    sources[0].Modality = modality
    if source_window:
        sources[0].WindowCenter, sources[0].WindowWidth = source_window
    finding = evidence().result.findings[0]
    if code is not None:
        finding = finding.model_copy(update={"code": code})
    plane = np.linspace(0, 100, 10_001, dtype=np.float32).reshape(1, -1)
    view = reference_view(sources, sources[0].StudyInstanceUID)
    assert display_window(finding, view, plane) == pytest.approx(expected, abs=0.1)


def test_unknown_orientation_leaves_patient_orientation_empty() -> None:
    images = captures(evidence(without(headers(), "ImageOrientationPatient")))
    assert all(image.PatientOrientation == "" for image in images)
