from __future__ import annotations

from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.evidence_cases import blob, evidence, headers, positive, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import Observation
from wetread.core.ports import EncodedObject, EvidenceInput

BLEED = Observation("intracranial_hemorrhage", "positive", label=1)
IRREGULAR = [4.0, 4.0, 4.0, 4.0, 1.08, 7.0, 7.0, 7.0, 14.0, 7.0, 7.0]


def stored(case: EvidenceInput) -> EncodedObject | None:
    return next((o for o in Encoder().encode(case) if o.role == "seg"), None)


def read(case: EvidenceInput) -> hd.seg.Segmentation:
    found = stored(case)
    assert found is not None
    return hd.seg.segread(BytesIO(found.data))


def masks(dataset: hd.seg.Segmentation, case: EvidenceInput) -> np.ndarray:
    """Read the segmentation back onto the planes of the source: [plane, row, column, segment]."""
    return dataset.get_pixels_by_source_instance(
        [h.SOPInstanceUID for h in case.headers], assert_missing_frames_are_empty=True
    )


def test_mask_comes_back_voxel_by_voxel() -> None:
    case = evidence()
    dataset = read(case)
    back = masks(dataset, case)
    assert (back[..., 0] == (blob() == 1)).all()
    assert (back[..., 1] == (blob() == 2)).all()


def test_only_planes_with_voxels_are_stored() -> None:
    dataset = read(evidence())
    assert dataset.NumberOfFrames == 5
    assert dataset.SegmentationType == "BINARY"
    assert dataset.ContentQualification == "RESEARCH"


@pytest.mark.parametrize("sources", [headers(tilt_deg=18.5), headers(steps=IRREGULAR)])
def test_position_and_volume_survive(sources) -> None:
    """Every frame lies where its source image lies, so volume by true positions is the same from the SEG."""
    case = evidence(sources)
    dataset = read(case)
    by_position = {}
    arrays = dataset.pixel_array.reshape(-1, 64, 80)
    for frame, pixels in zip(dataset.PerFrameFunctionalGroupsSequence, arrays, strict=True):
        place = tuple(float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient)
        by_position[place] = by_position.get(place, 0) + int(pixels.sum())
    expected = {
        tuple(float(v) for v in h.ImagePositionPatient): int((blob()[k] > 0).sum())
        for k, h in enumerate(sources)
        if blob()[k].any()
    }
    assert by_position == expected
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert [float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing] == [0.5, 0.5]
    assert "SpacingBetweenSlices" not in shared.PixelMeasuresSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == sources[0].ImageOrientationPatient


def test_each_frame_names_its_source_image() -> None:
    case = evidence()
    for frame in read(case).PerFrameFunctionalGroupsSequence:
        place = frame.PlanePositionSequence[0].ImagePositionPatient
        source = next(h for h in case.headers if h.ImagePositionPatient == place)
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(hnp.arrays(np.uint8, (3, 8, 10), elements=st.integers(0, 2)))
def test_any_mask_survives_and_left_stays_left(mask: np.ndarray) -> None:
    observations = tuple(Observation("intracranial_hemorrhage", "positive", label=n) for n in (1, 2))
    case = evidence(headers(3, 8, 10), positive(mask, observations=observations))
    if not mask.any():
        assert stored(case) is None
        return
    dataset = read(case)
    back = masks(dataset, case)
    labels = [n for n in (1, 2) if (mask == n).any()]
    assert back.shape[-1] == len(labels)
    for index, label in enumerate(labels):
        assert (back[..., index] == (mask == label)).all()


def test_segment_is_described_by_finding_and_algorithm() -> None:
    first, second = read(evidence()).SegmentSequence
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "50960005"
    assert first.SegmentLabel == "Intracranial hemorrhage"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ich", "1.2.0")
    assert f"model_sha256={'c' * 64}" in algorithm.AlgorithmParameters
    findings = evidence().result.findings
    assert (first.TrackingUID, second.TrackingUID) == (findings[0].tracking_uid, findings[1].tracking_uid)


def test_findings_that_share_a_label_share_the_segment() -> None:
    dataset = read(evidence(result=positive(observations=(BLEED, BLEED))))
    assert len(dataset.SegmentSequence) == 1


@pytest.mark.parametrize(
    ("mask", "observations"),
    [
        (np.zeros((12, 64, 80), np.uint8), (BLEED,)),
        (blob(), ()),
        (blob(), (Observation("intracranial_hemorrhage", "positive", label=9),)),
        (blob(), (Observation("intracranial_hemorrhage", "positive"),)),
    ],
)
def test_no_segmentation_without_a_region_of_a_finding(mask, observations) -> None:
    assert stored(evidence(result=positive(mask, observations=observations))) is None


def test_labels_without_a_finding_are_left_out() -> None:
    case = evidence(result=positive(observations=(Observation("intracranial_hemorrhage", "positive", label=2),)))
    dataset = read(case)
    assert dataset.NumberOfFrames == 1
    assert (masks(dataset, case)[..., 0] == (blob() == 2)).all()


def test_one_frame_of_reference_where_the_source_has_many() -> None:
    sources = headers()
    for number, source in enumerate(sources):
        source.FrameOfReferenceUID = f"1.2.3.{number + 1}"
    dataset = read(evidence(sources))
    assert dataset.FrameOfReferenceUID.startswith("2.25.")


def test_thickness_falls_back_to_the_step_between_planes() -> None:
    dataset = read(evidence(without(headers(steps=IRREGULAR), "SliceThickness")))
    assert float(dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness) == 7.0


def test_random_dimension_uids_are_replaced() -> None:
    dataset = read(evidence())
    uid = dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID
    assert uid.startswith("2.25.")
    assert {i.DimensionOrganizationUID for i in dataset.DimensionIndexSequence} == {uid}
