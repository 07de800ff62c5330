"""Must show 3 of the detectors' issue: ``wetread models new``, one folder, nothing else touched: served end to end."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread
from tests.e2e.conftest import NEW_DETECTOR, Wetread

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.send import Sender
from wetread.testing.contracts.folder_suite import objects_of


@pytest.fixture(scope="module")
def abdomen(new_detector: Path, tmp_path_factory: pytest.TempPathFactory) -> FileStudy:
    folder = tmp_path_factory.mktemp("abdomen")
    for number, data in enumerate(objects_of(new_detector)):
        (folder / f"{number:03d}.dcm").write_bytes(data)
    return scan_folder(folder).studies[0]


def test_a_detector_made_a_moment_ago_reads_a_study(wetread: Wetread, abdomen: FileStudy) -> None:
    sender = Sender(wetread.url)
    assert sender.send(abdomen).failures == {}
    sender.close()
    found = {r["detector"]: r for r in wetread.final_results(abdomen.study_uid)}
    result = found.pop(NEW_DETECTOR)
    assert {r["state"] for r in found.values()} == {"not_applicable"}
    assert (result["detector"], result["version"], result["state"]) == (NEW_DETECTOR, "0.1.0", "positive")
    assert result["shadow"], "a new detector raises nothing before somebody says so"
    item = wetread.worklist_item(abdomen.study_uid)
    assert item is not None
    assert item["priority"] == "routine"
    client = DICOMwebClient(f"{wetread.url}/dicom-web")
    series = {Dataset.from_json(s).Modality: Dataset.from_json(s) for s in client.search_for_series(abdomen.study_uid)}
    assert {"CT", "SR", "SEG"} <= set(series)
    [report] = client.retrieve_series(abdomen.study_uid, series["SR"].SeriesInstanceUID)
    with BytesIO() as buffer:
        report.save_as(buffer, enforce_file_format=True)
        text = str(dcmread(BytesIO(buffer.getvalue())))
    volume = result["findings"][0]["volume_ml"]
    assert "Nodule" in text
    assert "milliliter" in text
    assert f"{volume:g}" in text
