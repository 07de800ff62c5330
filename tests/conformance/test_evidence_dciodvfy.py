"""Every produced object under dciodvfy: no line may begin with ``Error``, and the warnings are listed here."""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import Dataset, dcmread
from tests.evidence_cases import evidence, headers, positive, refusal, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.core.detector import Explanation, Observation
from wetread.core.ports import EncodedObject, EvidenceInput
from wetread.core.states import AiState

pytestmark = pytest.mark.server("dicom3tools")

# What dciodvfy warns of on our objects, and why it stays: the source's own gaps, our private codes, and a laterality
# that an encoder cannot know. A new kind of warning fails the test.
KNOWN_WARNINGS = (
    r"Missing attribute or value that would be needed to build DICOMDIR",
    r"Retired Person Name form",
    r"Unrecognized defined term = <99WETREAD>",
    r"is only permitted to be empty when actually unknown",
)


IODS = {"sr": "Comprehensive3DSR", "seg": "Segmentation", "explanation": "Segmentation", "sc": "SCImage"}


def dciodvfy(data: bytes, path: Path) -> list[str]:
    path.write_bytes(data)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
    return (done.stderr + done.stdout).splitlines()


def verify(item: EncodedObject, folder: Path) -> None:
    lines = dciodvfy(item.data, folder / f"{item.sop_instance_uid}.dcm")
    assert IODS[item.role] in lines  # it was recognised, so it was checked
    assert [line for line in lines if line.startswith("Error")] == []
    warnings = [line for line in lines if line.startswith("Warning")]
    assert [w for w in warnings if not any(re.search(known, w) for known in KNOWN_WARNINGS)] == []


def check(case: EvidenceInput, folder: Path, roles: set[str]) -> list[EncodedObject]:
    objects = Encoder().encode(case)
    assert {o.role for o in objects} == roles
    for item in objects:
        verify(item, folder)
    return objects


def test_the_gate_would_see_an_error(tmp_path: Path) -> None:
    capture = dcmread(BytesIO(Encoder().encode(evidence())[-1].data))
    del capture.Laterality
    with BytesIO() as buffer:
        capture.save_as(buffer)
        lines = dciodvfy(buffer.getvalue(), tmp_path / "broken.dcm")
    assert [line for line in lines if line.startswith("Error") and "Laterality" in line]


def odd(change: Callable[[list[Dataset]], None]) -> list[Dataset]:
    sources = headers()
    change(sources)
    return sources


def _anonymous(sources: list[Dataset]) -> None:
    for source in sources:
        source.PatientIdentityRemoved = "YES"
        source.DeidentificationMethod = ""


def _many_frames(sources: list[Dataset]) -> None:
    for number, source in enumerate(sources):
        source.FrameOfReferenceUID = f"1.2.3.{number + 1}"


def _foreign(sources: list[Dataset]) -> None:
    for source in sources:
        source.SpecificCharacterSet = "ISO_IR 192"
        source.PatientName = "山田^太郎=やまだ^たろう"
        source.StudyDescription = "頭部"


SYNTHETIC = {
    "complete": headers(),
    "tilted": headers(tilt_deg=18.5),
    "irregular": headers(steps=[4.0, 4.0, 1.08, 7.0, 7.0, 14.0, 7.0, 7.0, 4.0, 4.0, 4.0]),
    "bare": without(
        headers(),
        "PatientName",
        "PatientID",
        "PatientBirthDate",
        "PatientSex",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
        "Manufacturer",
        "FrameOfReferenceUID",
        "SliceThickness",
        "SpecificCharacterSet",
    ),
    "anonymous": odd(_anonymous),
    "one_frame_of_reference_per_slice": odd(_many_frames),
    "foreign_script": odd(_foreign),
}


@pytest.mark.parametrize("name", sorted(SYNTHETIC))
def test_positive_result_on_odd_headers_is_valid(name: str, tmp_path: Path) -> None:
    check(evidence(SYNTHETIC[name]), tmp_path, {"sr", "seg", "sc"})


@pytest.mark.parametrize("name", ["complete", "tilted", "irregular", "bare"])
def test_where_the_score_came_from_is_valid(name: str, tmp_path: Path) -> None:
    values = np.zeros((12, 8, 8), np.float32)
    values[3:7, 2:5, 1:4] = 0.75
    axes = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    explanation = Explanation("cam", values, np.array([-18.0, -14.0, 0.0]), *axes, (5.0, 5.0, 5.0))
    given = replace(evidence(SYNTHETIC[name]), explanation=explanation)
    check(given, tmp_path, {"sr", "seg", "explanation", "sc"})


@pytest.mark.parametrize(
    "case",
    [
        refusal(AiState.NEGATIVE),
        refusal(AiState.NOT_PROCESSABLE, "missing_slices", "a hole of 15 mm"),
        refusal(AiState.NOT_APPLICABLE, "modality"),
        refusal(AiState.FAILED, "timeout", shadow=True, phantom_evidence_id=""),
    ],
)
def test_every_other_outcome_is_valid(case: EvidenceInput, tmp_path: Path) -> None:
    check(case, tmp_path, {"sr"})


def test_measured_organ_is_valid(tmp_path: Path) -> None:
    seen = Observation("hippocampus", "measured", label=1, laterality="left")
    check(evidence(result=positive(observations=(seen,), state="measured")), tmp_path, {"sr", "seg"})


def test_detector_without_a_network_is_valid(tmp_path: Path) -> None:
    check(evidence(model_digest="", input_digest="", phantom_evidence_id=""), tmp_path, {"sr", "seg", "sc"})


def unpacked(archive: Path, folder: Path) -> list[Dataset]:
    """The longest CT series of *archive*, in order along its normal."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            source = dcmread(path, force=True)
            if "ImagePositionPatient" in source and "ImageOrientationPatient" in source:
                found.append(source)
    orientation = np.array(found[0].ImageOrientationPatient, float)
    normal = np.cross(orientation[:3], orientation[3:])
    return sorted(found, key=lambda s: float(np.dot(normal, np.array(s.ImagePositionPatient, float))))


@pytest.mark.parametrize(
    "archive", ["head-ct/*.tar.xz", "head-ct-nc/*342*.tar.xz", "head-ct-nc/*427*.tar.xz"], ids=["ge", "cq342", "cq427"]
)
def test_real_head_ct_takes_valid_results(archive: str, shared: Path, tmp_path: Path) -> None:
    """A synthetic blob on each real head CT: geometry and headers are the sender's, tilt, holes and gaps included."""
    (path,) = sorted(shared.glob(archive))
    sources = unpacked(path, tmp_path / "in")
    planes, rows, columns = len(sources), sources[0].Rows, sources[0].Columns
    mask = np.zeros((planes, rows, columns), np.uint8)
    row, column = np.mgrid[:rows, :columns]
    middle = planes // 2
    for plane in range(middle - 3, middle + 3):
        mask[plane][((row - 250) / 25) ** 2 + ((column - 180) / 40) ** 2 <= 1] = 1
    bare = [Dataset({k: v for k, v in s.items() if k != 0x7FE00010}) for s in sources]
    result = positive(mask, observations=positive().observations[:1])
    case = evidence(bare, result, series_uid=sources[0].SeriesInstanceUID)
    objects = check(case, tmp_path, {"sr", "seg", "sc"})

    report = hd.sr.srread(BytesIO(objects[0].data))
    assert len(report.content.get_volumetric_roi_measurement_groups()) == 1
    segmentation = hd.seg.segread(BytesIO(objects[1].data))
    back = segmentation.get_pixels_by_source_instance(
        [s.SOPInstanceUID for s in sources], assert_missing_frames_are_empty=True
    )
    assert (back[..., 0] == mask).all()
    places = [
        [float(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        for frame in segmentation.PerFrameFunctionalGroupsSequence
    ]
    expected = [[float(v) for v in s.ImagePositionPatient] for s in sources[middle - 3 : middle + 3]]
    assert sorted(places) == sorted(expected)
