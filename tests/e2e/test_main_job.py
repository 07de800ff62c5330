"""The main job over real HTTP: a study goes in, a read comes out, and the source comes back byte for byte."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from tests.e2e.conftest import Wetread, another, wait_for

from wetread.commands.dicom_folder import FileStudy
from wetread.commands.receiver import WebhookReceiver
from wetread.commands.send import Sender, multipart_body
from wetread.core.ruo import RUO_STATEMENT


@pytest.fixture(scope="module")
def receiver(wetread: Wetread):
    with WebhookReceiver() as hook:
        answer = wetread.post(
            "/api/v1/subscriptions",
            json={"url": hook.url, "types": ["finding.positive", "result.ready", "worklist.priority_changed"]},
        )
        assert answer.status_code == 201, answer.text
        hook.secret = answer.json()["secrets"][0]
        yield hook


@pytest.fixture(scope="module")
def read_bleed(wetread: Wetread, bleed: FileStudy, receiver: WebhookReceiver) -> list[dict]:
    sender = Sender(wetread.url)
    report = sender.send(bleed)
    sender.close()
    assert (report.sent, report.failures) == (len(bleed.instances), {})
    return wetread.final_results(bleed.study_uid)


def test_positive_study_rises_and_somebody_is_told(
    wetread: Wetread, bleed: FileStudy, read_bleed: list[dict], receiver: WebhookReceiver
) -> None:
    [result] = [r for r in read_bleed if r["detector"] == "ich"]
    assert result["state"] == "positive"
    assert result["score"] >= result["threshold"]
    assert sum(f["volume_ml"] for f in result["findings"]) > 5
    item = wetread.worklist_item(bleed.study_uid)
    assert item is not None
    assert item["priority"] == "stat"
    assert item["ai"]["state"] == "positive"
    assert [r for r in item["reasons"] if r["source"] == "ai"]
    told = receiver.first(bleed.study_uid, frozenset({"finding.positive"}), timeout=20)
    assert told is not None
    assert RUO_STATEMENT in str(told.event)
    patient = dcmread(bleed.instances[0].path, stop_before_pixels=True)
    assert str(patient.PatientName) not in str(told.event), "minimal data by default"


def test_quiet_study_stays_and_says_negative(wetread: Wetread, quiet: FileStudy) -> None:
    sender = Sender(wetread.url)
    sender.send(quiet)
    sender.close()
    results = wetread.final_results(quiet.study_uid)
    assert {r["state"] for r in results if r["detector"] == "ich"} <= {"negative", "positive", "indeterminate"}
    item = wetread.worklist_item(quiet.study_uid)
    assert item is not None
    if all(r["state"] == "negative" for r in results):
        assert item["priority"] != "stat"


@pytest.mark.usefixtures("read_bleed")
def test_results_are_found_by_qido_as_sr_seg_sc(wetread: Wetread, bleed: FileStudy) -> None:
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    found = client.search_for_series(study_instance_uid=bleed.study_uid)
    modalities = {Dataset.from_json(item).Modality for item in found}
    assert {"CT", "SR", "SEG"} <= modalities
    assert modalities & {"OT", "SC", "CT"}
    study = Dataset.from_json(client.search_for_studies(search_filters={"StudyInstanceUID": bleed.study_uid})[0])
    assert {"CT", "SR", "SEG"} <= set(study.ModalitiesInStudy)
    assert study.NumberOfStudyRelatedInstances > len(bleed.instances)


@pytest.mark.usefixtures("read_bleed")
def test_the_study_says_where_the_score_came_from(wetread: Wetread, bleed: FileStudy) -> None:
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    found = client.search_for_series(study_instance_uid=bleed.study_uid, search_filters={"SeriesNumber": "9005"})
    uids = [str(Dataset.from_json(item).SeriesInstanceUID) for item in found]
    (made,) = [image for uid in uids for image in client.retrieve_series(bleed.study_uid, uid)]
    assert (made.SegmentationType, made.SegmentSequence[0].SegmentLabel) == ("FRACTIONAL", "Where the score came from")
    assert 1 <= made.NumberOfFrames <= 6
    assert len(made.PixelData) < 100_000
    assert made.pixel_array.max() > 128


@pytest.mark.usefixtures("read_bleed")
@pytest.mark.server("dicom3tools")
def test_every_result_object_passes_dciodvfy(wetread: Wetread, bleed: FileStudy, tmp_path: Path) -> None:
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    checked = set()
    for item in client.search_for_instances(study_instance_uid=bleed.study_uid):
        found = Dataset.from_json(item)
        if found.SOPInstanceUID in {i.sop_instance_uid for i in bleed.instances}:
            continue
        stored = client.retrieve_instance(bleed.study_uid, found.SeriesInstanceUID, found.SOPInstanceUID)
        path = tmp_path / "object.dcm"
        stored.save_as(path)
        output = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
        assert not [line for line in (output.stderr + output.stdout).splitlines() if line.startswith("Error")]
        checked.add(str(stored.Modality))
    assert {"SR", "SEG"} <= checked


@pytest.mark.usefixtures("read_bleed")
def test_source_instances_come_back_byte_for_byte(wetread: Wetread, bleed: FileStudy) -> None:
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    series_uid = str(dcmread(bleed.instances[0].path, stop_before_pixels=True).SeriesInstanceUID)
    for instance in bleed.instances[:5]:
        answer = wetread.get(
            f"/dicom-web/studies/{bleed.study_uid}/series/{series_uid}/instances/{instance.sop_instance_uid}",
            headers={"Accept": "application/dicom; transfer-syntax=*"},
        )
        assert answer.status_code == 200
        assert answer.content == instance.path.read_bytes()
    whole = client.retrieve_series(bleed.study_uid, series_uid)
    assert {i.SOPInstanceUID for i in whole} == {i.sop_instance_uid for i in bleed.instances}


@pytest.mark.usefixtures("read_bleed")
def test_every_task_is_a_completed_workitem(wetread: Wetread, bleed: FileStudy) -> None:
    answer = wetread.get("/dicom-web/workitems", params={"StudyInstanceUID": bleed.study_uid})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    assert {item["00741000"]["Value"][0] for item in answer.json()} == {"COMPLETED"}


@pytest.mark.usefixtures("read_bleed")
def test_sending_the_study_again_changes_nothing(wetread: Wetread, bleed: FileStudy, read_bleed: list[dict]) -> None:
    sender = Sender(wetread.url)
    report = sender.send(bleed, resume=False)
    assert report.sent == len(bleed.instances)
    assert sender.send(bleed).already_there == len(bleed.instances)
    sender.close()
    again = wetread.final_results(bleed.study_uid)
    assert [r["stored"] for r in again] == [r["stored"] for r in read_bleed]


def test_stow_by_dicomweb_client(wetread: Wetread, quiet: FileStudy, tmp_path: Path) -> None:
    study = another(quiet, tmp_path / "study")
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    answer = client.store_instances([dcmread(i.path) for i in study.instances])
    assert len(answer.ReferencedSOPSequence) == len(study.instances)
    wait_for(lambda: wetread.worklist_item(study.study_uid), lambda item: item is not None)


@pytest.mark.skipif(shutil.which("curl") is None, reason="NOT RUN: no curl on this machine")
def test_stow_by_curl(wetread: Wetread, quiet: FileStudy, tmp_path: Path) -> None:
    study = another(quiet, tmp_path / "study")
    boundary = secrets.token_hex(8)
    body = tmp_path / "body"
    body.write_bytes(b"".join(multipart_body(study.instances, boundary)))
    command = [
        "curl",
        "--silent",
        "--show-error",
        "--write-out",
        "%{http_code}",
        "--output",
        str(tmp_path / "answer"),
        "--header",
        f'Content-Type: multipart/related; type="application/dicom"; boundary={boundary}',
        "--data-binary",
        f"@{body}",
        f"{wetread.url}/dicom-web/studies",
    ]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert code == "200"
    assert len(wetread.get(f"/dicom-web/studies/{study.study_uid}/instances").json()) >= len(study.instances)


def test_wrong_body_part_and_localizer_only_end_with_a_reason(
    wetread: Wetread, quiet: FileStudy, tmp_path: Path
) -> None:
    chest = {"BodyPartExamined": "CHEST", "StudyDescription": "CT thorax", "SeriesDescription": "Thorax"}
    whole = len(quiet.instances)
    studies = {
        "chest": another(quiet, tmp_path / "chest", slices=whole, ProtocolName="Thorax", **chest),
        "localizer": another(
            quiet, tmp_path / "localizer", slices=whole, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
        ),
        "three-slices": another(quiet, tmp_path / "three-slices", slices=3),
    }
    sender = Sender(wetread.url)
    for study in studies.values():
        sender.send(study)
    sender.close()
    outcomes = {}
    for kind, study in studies.items():
        results = wetread.final_results(study.study_uid)
        outcomes[kind] = {(r["state"], r["reason"]) for r in results if r["detector"] == "ich"}
    assert outcomes["chest"] == {("not_applicable", "body_part")}
    assert {state for state, _ in outcomes["localizer"]} <= {"not_applicable", "not_processable"}
    assert {state for state, _ in outcomes["three-slices"]} == {"not_processable"}
    assert all(reason for pairs in outcomes.values() for _, reason in pairs)


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"not multipart at all", 'multipart/related; type="application/dicom"; boundary=x', 400),
        (
            b"--x\r\nContent-Type: application/dicom\r\n\r\nnot dicom\r\n--x--\r\n",
            'multipart/related; type="application/dicom"; boundary=x',
            409,
        ),
        (b"{}", "text/plain", 415),
        (b"{}", "application/json", 409),
        (b"", 'multipart/related; type="application/dicom"; boundary=x', 400),
    ],
)
def test_bad_requests_get_a_defined_answer(wetread: Wetread, body: bytes, content_type: str, status: int) -> None:
    answer = wetread.post("/dicom-web/studies", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status, answer.text


def test_truncated_instance_is_refused_and_its_neighbour_is_kept(
    wetread: Wetread, quiet: FileStudy, tmp_path: Path
) -> None:
    study = another(quiet, tmp_path / "study")
    good = study.instances[0].path.read_bytes()
    header = dcmread(BytesIO(good), stop_before_pixels=True)
    broken = study.instances[1].path.read_bytes()[:300]
    parts = (
        b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in (good, broken)) + b"--b--\r\n"
    )
    answer = wetread.post(
        "/dicom-web/studies",
        content=parts,
        headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'},
    )
    assert answer.status_code == 202
    module = answer.json()
    assert module["00081199"]["Value"][0]["00081155"]["Value"] == [header.SOPInstanceUID]
    assert len(module.get("00081198", module.get("0008119A"))["Value"]) == 1


@pytest.mark.parametrize("uid", ["..%2f..%2fetc", "1.2.3%00", "1.2;rm"])
def test_path_characters_in_uids_are_refused(wetread: Wetread, uid: str) -> None:
    assert wetread.get(f"/dicom-web/studies/{uid}/series").status_code in {400, 404}
    assert wetread.get(f"/api/v1/studies/{uid}/findings").status_code in {400, 404}


def test_conflicting_duplicate_is_refused_and_the_first_is_kept(wetread: Wetread, bleed: FileStudy, read_bleed) -> None:
    original = dcmread(bleed.instances[0].path)
    original.PatientComments = "another content under the same UID"
    buffer = BytesIO()
    original.save_as(buffer, enforce_file_format=True)
    answer = wetread.post(
        "/dicom-web/studies", content=buffer.getvalue(), headers={"Content-Type": "application/dicom"}
    )
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [45070]
