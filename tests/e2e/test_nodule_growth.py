"""Two chest CTs of one patient, three months apart, the nodule twice the volume: the later one says that it grew."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from tests.e2e.conftest import Wetread, wait_for

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.send import Sender
from wetread.core.states import FINAL
from wetread.detection.registry import bundled_folder, companion, read_folder
from wetread.testing.phantoms import chest_lesions
from wetread.testing.phantoms.chest import ChestSpec, chest_series, make_chest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEED = 2_900_001
DAYS = 92


def written(folder: Path, name: str, diameter_mm: float, **header: str) -> FileStudy:
    """Write the chest of the seed with a nodule of *diameter_mm* as a study of its own."""
    options = companion(read_folder(bundled_folder() / "lung-nodule"), "cases").CONTRACT_OPTIONS
    given = {**options["given"], "nodule.diameter_mm": diameter_mm}
    phantom = make_chest(SEED, ChestSpec(**{**options, "given": given}))
    (folder / name).mkdir()
    for number, data in enumerate(chest_series(phantom)):
        image = dcmread(BytesIO(data))
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(image, keyword, f"{image[keyword].value}.{len(name)}")
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        for keyword, value in header.items():
            setattr(image, keyword, value)
        image.save_as(folder / name / f"{number:03d}.dcm")
    return scan_folder(folder / name).studies[0]


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[FileStudy, FileStudy]:
    """(then, now): the same place in the same lungs, whatever room the larger nodule needs."""
    place = chest_lesions.place_for
    monkeypatch.setattr(
        chest_lesions,
        "place_for",
        lambda rng, body, trees, kind, radius, taken: place(rng, body, trees, kind, max(radius, 9.0), taken),
    )
    then = written(tmp_path, "then", 12.0, StudyDate="20251001", StudyTime="101500")
    now = written(tmp_path, "today", 12.0 * 2 ** (1 / 3), StudyDate="20260101", StudyTime="101500")
    return then, now


def nodules(wetread: Wetread, study: FileStudy) -> dict[str, Any]:
    return next((r for r in wetread.results(study.study_uid) if r["detector"] == "lung-nodule"), {})


def send(wetread: Wetread, study: FileStudy) -> None:
    sender = Sender(wetread.url)
    assert sender.send(study).failures == {}
    sender.close()


def final(result: dict[str, Any]) -> bool:
    return bool(result) and result["state"] in FINAL and bool(result["stored"])


def test_a_prior_that_comes_late_tells_growth(wetread: Wetread, scans: tuple[FileStudy, FileStudy]) -> None:
    then, now = scans
    send(wetread, now)
    first = wait_for(lambda: nodules(wetread, now), final, seconds=180)
    assert first["state"] == "positive"
    assert first["priors"] == {"results": [], "left_out": []}
    assert [f["change"] for f in first["findings"]] == [None] * len(first["findings"])
    send(wetread, then)
    second = wait_for(
        lambda: nodules(wetread, now), lambda r: final(r) and bool((r["priors"] or {}).get("results")), seconds=300
    )
    assert [p["study_uid"] for p in second["priors"]["results"]] == [then.study_uid]
    [grown] = [f for f in second["findings"] if f["change"] and f["change"]["course"] == "grown"]
    assert (grown["change"]["prior_study_uid"], grown["change"]["prior_date"]) == (then.study_uid, "2025-10-01")
    values = {m["meaning"]: m["value"] for m in grown["measurements"]}
    ratio = 1 + values["Change of volume since the earlier result"] / 100
    assert ratio == pytest.approx(2.0, rel=0.2)
    assert values["Volume doubling time"] == pytest.approx(DAYS * math.log(2) / math.log(ratio), abs=0.1)
    report = next(s["series_uid"] for s in second["stored"] if s["modality"] == "SR")
    [document] = DICOMwebClient(f"{wetread.url}/dicom-web").retrieve_series(now.study_uid, report)
    text = str(document)
    for said in ("Increase in size", "Volume doubling time", then.study_uid):
        assert said in text
    assert nodules(wetread, then)["priors"] == {"results": [], "left_out": []}, "nothing earlier than the earlier one"
