from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import DataElement, Dataset, config, dcmread
from pydicom.datadict import dictionary_has_tag
from tests.evidence_cases import STUDY, blob, evidence, headers, positive, refusal, run, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.evidence.stamp import series_description
from wetread.core.detector import FrameRef
from wetread.core.errors import ComputationFailed, InvalidInput
from wetread.core.identifiers import derived_uid, digest
from wetread.core.ports import EncodedObject, EvidenceEncoder, EvidenceInput
from wetread.core.results import result_set
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT
from wetread.core.states import AiState

ROOT = Path(__file__).resolve().parents[2]
EARLY_AND_SHADOW = evidence(shadow=True)
CASES = {
    "positive": evidence(),
    "negative": refusal(AiState.NEGATIVE),
    "not_processable": refusal(AiState.NOT_PROCESSABLE, "missing_slices", "hole of 15 mm"),
    "not_applicable": refusal(AiState.NOT_APPLICABLE, "modality"),
    "failed": refusal(AiState.FAILED, "timeout"),
    "empty_mask": evidence(result=positive(np.zeros_like(blob()), observations=(), state="negative")),
    "shadow": EARLY_AND_SHADOW,
    "bare_headers": evidence(
        without(
            headers(),
            "FrameOfReferenceUID",
            "PatientBirthDate",
            "PatientName",
            "PatientSex",
            "StudyTime",
            "StudyID",
            "ReferringPhysicianName",
        )
    ),
}


def encode(case: EvidenceInput) -> list[tuple[EncodedObject, Dataset]]:
    return [(o, dcmread(BytesIO(o.data))) for o in Encoder().encode(case)]


@cache
def encoded(name: str) -> list[tuple[EncodedObject, Dataset]]:
    return encode(CASES[name])


def texts(dataset: Dataset) -> str:
    return "\n".join(str(e.value) for e in dataset.iterall() if e.VR in {"UT", "LT", "LO", "ST"})


def test_encoder_fulfils_the_port() -> None:
    encoder: EvidenceEncoder = Encoder()
    assert encoder.version


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_object_is_complete_and_belongs_to_the_study(name: str) -> None:
    objects = encoded(name)
    assert objects[0][0].role == "sr"
    for described, dataset in objects:
        assert dataset.StudyInstanceUID == STUDY == CASES[name].result.run.study_uid
        assert dataset.SOPInstanceUID == described.sop_instance_uid == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.SOPClassUID == described.sop_class_uid == dataset.file_meta.MediaStorageSOPClassUID
        assert dataset.SeriesInstanceUID == described.series_instance_uid
        assert dataset.SeriesInstanceUID not in {h.SeriesInstanceUID for h in CASES[name].headers}
        assert dataset.Modality == described.modality
        assert dataset.SeriesNumber >= 9000
        assert dataset.SeriesDescription.startswith("ich 1.2.0 Research use only")
        assert all(dictionary_has_tag(e.tag) for e in dataset)


@pytest.mark.parametrize("name", sorted(CASES))
def test_research_use_statement_is_in_every_object(name: str) -> None:
    for described, dataset in encoded(name):
        assert RUO_STATEMENT in texts(dataset), described.role
        assert RUO_SHORT in dataset.SeriesDescription


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("positive", ["sr", "seg"] + ["sc"] * 4),
        ("bare_headers", ["sr", "seg"] + ["sc"] * 4),
        ("negative", ["sr"]),
        ("not_processable", ["sr"]),
        ("not_applicable", ["sr"]),
        ("failed", ["sr"]),
        ("empty_mask", ["sr"]),
    ],
)
def test_views_by_outcome(name: str, roles: list[str]) -> None:
    assert [o.role for o, _ in encoded(name)] == roles


@pytest.mark.parametrize("name", sorted(CASES))
def test_same_input_gives_the_same_bytes(name: str) -> None:
    assert Encoder().encode(CASES[name]) == [o for o, _ in encoded(name)]


def test_another_process_at_another_time_gives_the_same_bytes() -> None:
    program = (
        "from tests.evidence_cases import evidence\n"
        "from wetread.adapters.evidence.encoder import Encoder\n"
        "from wetread.core.identifiers import digest\n"
        "print(digest(*[o.data.hex() for o in Encoder().encode(evidence())]))"
    )
    environment = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}",
        "TZ": "Asia/Kolkata",
    }
    other = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert other.stdout.strip() == digest(*[o.data.hex() for o in Encoder().encode(evidence())])


def test_identity_comes_from_the_result_key() -> None:
    objects = Encoder().encode(evidence())
    assert objects[0].sop_instance_uid == derived_uid("ab" * 32, "sr", 1)
    assert objects[1].series_instance_uid == derived_uid("ab" * 32, "seg", 0)
    assert objects[3].sop_instance_uid == derived_uid("ab" * 32, "sc", 2)
    other = Encoder().encode(evidence(result_key="cd" * 32))
    assert not {o.sop_instance_uid for o in objects} & {o.sop_instance_uid for o in other}
    assert len({o.series_instance_uid for o in objects}) == 3


def test_no_attribute_is_from_the_clock_of_the_encoder() -> None:
    for _, dataset in encode(evidence()):
        assert dataset.InstanceCreationDate == dataset.ContentDate == dataset.SeriesDate == "20260921"
        assert dataset.InstanceCreationTime == dataset.ContentTime == "141320.250000"


def test_times_follow_the_zone_that_the_source_declares() -> None:
    sources = headers()
    for source in sources:
        source.TimezoneOffsetFromUTC = "+0530"
    _, report = encode(evidence(sources))[0]
    assert report.TimezoneOffsetFromUTC == "+0530"
    assert report.ContentTime == "194320.250000"


def test_patient_and_study_are_inherited() -> None:
    for _, dataset in encode(evidence()):
        assert str(dataset.PatientName) == "Doe^Jane"
        assert (dataset.PatientID, dataset.PatientSex, dataset.StudyDate) == ("P-1", "F", "20260102")
        assert dataset.AccessionNumber == "A-9"


def test_foreign_script_survives() -> None:
    sources = headers()
    for source in sources:
        source.SpecificCharacterSet = "ISO_IR 192"
        source.PatientName = "山田^太郎"
    for _, dataset in encode(evidence(sources)):
        assert str(dataset.PatientName) == "山田^太郎"
        assert dataset.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["Einteilig", "Ümläut", "A" * 70])
def test_no_library_warns_or_logs_a_patient(name: str, recwarn, caplog) -> None:
    sources = headers()
    for source in sources:
        source.SpecificCharacterSet = "ISO_IR 192"
        source["PatientName"] = DataElement("PatientName", "PN", name, validation_mode=config.IGNORE)
        source["PatientID"] = DataElement("PatientID", "LO", f"ID-{name}", validation_mode=config.IGNORE)
    recwarn.clear()
    with caplog.at_level("DEBUG"):
        objects = encode(evidence(sources))
    said = caplog.text + "".join(str(w.message) for w in recwarn)
    assert name not in said
    for uid in (sources[0].StudyInstanceUID, sources[5].SOPInstanceUID, objects[0][1].SOPInstanceUID):
        assert uid not in said
    assert {str(d.PatientName) for _, d in objects} == {name}


def test_source_headers_are_unchanged() -> None:
    sources = without(headers(), "FrameOfReferenceUID", "PatientBirthDate")
    before = [s.to_json() for s in sources]
    Encoder().encode(evidence(sources))
    assert [s.to_json() for s in sources] == before


def test_region_without_geometry_still_gets_its_report() -> None:
    objects = encode(evidence(without(headers(), "ImagePositionPatient")))
    assert [o.role for o, _ in objects] == ["sr"] + ["sc"] * 4
    assert "segmentation_omitted" in texts(objects[0][1])
    assert "no_image_geometry" in texts(objects[0][1])


@pytest.mark.parametrize(
    "change",
    [
        lambda e: replace(e, headers=[]),
        lambda e: replace(e, headers=e.headers[:5]),
        lambda e: replace(e, headers=list(reversed(e.headers))),
        lambda e: replace(e, mask=e.mask[:5]),
        lambda e: replace(e, mask=e.mask[:, :10]),
        lambda e: replace(e, mask=e.mask.astype(np.float32)),
        lambda e: replace(e, result=e.result.model_copy(update={"run": run(study_uid=derived_uid("another"))})),
    ],
)
def test_input_that_does_not_belong_together_is_refused(change) -> None:
    with pytest.raises(InvalidInput):
        Encoder().encode(change(evidence()))


def test_private_source_class_still_gets_its_report() -> None:
    case = refusal(AiState.NOT_APPLICABLE, "modality")
    case.headers[0].SOPClassUID = "1.2.3.4"
    ((_, report),) = encode(case)
    listed = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert listed.ReferencedSOPClassUID == "1.2.3.4"


def test_multi_frame_source_gets_report_and_captures() -> None:
    (source,) = headers(1)
    source.NumberOfFrames = 12
    outcome = result_set(run(), positive(), tuple(FrameRef(source.SOPInstanceUID, n + 1) for n in range(12)))
    objects = encode(EvidenceInput(outcome, [source], blob(), lambda _: np.zeros((64, 80), np.float32)))
    assert [o.role for o, _ in objects] == ["sr"] + ["sc"] * 4
    assert "segmentation_omitted" in texts(objects[0][1])
    frames = {int(e.value) for e in objects[0][1].iterall() if e.keyword == "ReferencedFrameNumber"}
    assert frames == {6, 10}


def test_refusal_of_a_library_is_typed_and_quotes_nothing() -> None:
    case = evidence()
    for source in case.headers:
        source.SOPClassUID = "1.2.3.4"  # no segmentation of a class that nobody knows
    with pytest.raises(ComputationFailed) as caught:
        Encoder().encode(case)
    assert caught.value.reason == "crashed"
    assert "1.2.3.4" not in caught.value.detail


@pytest.mark.parametrize("name", ["ich", "brain-volumetry", "a" * 63])
def test_series_description_fits_and_keeps_the_statement(name: str) -> None:
    text = series_description(run(detector=name))
    assert len(text) <= 64
    assert "1.2.0" in text
    assert "Research use only." in text


def test_encoder_module_does_not_import_highdicom_early() -> None:
    program = "import sys, wetread.adapters.evidence.encoder; print('highdicom' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "services")}
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
    )
    assert answer.stdout.strip() == "False"


def test_thousand_references_stay_under_a_second() -> None:
    sources = headers(1000, 16, 16)
    mask = np.zeros((1000, 16, 16), np.uint8)
    mask[500:520, 4:8, 4:8] = 1
    case = evidence(sources, positive(mask, observations=positive().observations[:1]))
    Encoder().encode(evidence())
    times = []
    for _ in range(2):
        start = time.process_time()
        objects = Encoder().encode(case)
        times.append(time.process_time() - start)
    report = dcmread(BytesIO(objects[0].data))
    listed = [
        instance.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    assert set(listed) == {s.SOPInstanceUID for s in sources} | {objects[1].sop_instance_uid}
    assert min(times) < 1.0
