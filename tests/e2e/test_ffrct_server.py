"""CT-derived FFR through a running server: an angiogram is stored, its workflow runs, objects and page come out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from playwright.sync_api import sync_playwright
from pydicom import Dataset, dcmread
from tests.e2e.conftest import PhantomStudies, Wetread

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.local_server import local_server
from wetread.commands.send import Sender
from wetread.core.ruo import RUO_STATEMENT
from wetread.testing.phantoms.coronary import write_phantom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.server("chromium")]
MINUTES = 600.0
"""The whole chain in a worker: half a minute on two free cores, several on a busy machine."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_stores: None) -> Iterator[Wetread]:
    with local_server(tmp_path_factory.mktemp("ffr")) as supervisor:
        yield Wetread(supervisor)


@pytest.fixture(scope="module")
def angiogram(tmp_path_factory: pytest.TempPathFactory) -> FileStudy:
    folder = tmp_path_factory.mktemp("angiogram")
    write_phantom(20_310, folder, size="short", stenoses=2, severity=(0.5, 0.5), profiles=("cosine",))
    return scan_folder(folder).studies[0]


@pytest.fixture(scope="module")
def results(server: Wetread, angiogram: FileStudy) -> list[dict[str, Any]]:
    sender = Sender(server.url)
    assert sender.send(angiogram).failures == {}
    sender.close()
    return server.final_results(angiogram.study_uid, seconds=MINUTES)


def test_the_rule_picks_the_angiogram_and_the_chain_measures_it(
    server: Wetread, angiogram: FileStudy, results: list[dict[str, Any]]
) -> None:
    by_detector = {r["detector"]: r for r in results}
    assert by_detector["ffr-ct"]["state"] == "measured"
    assert by_detector["ich"]["state"] == "not_applicable"
    item = server.worklist_item(angiogram.study_uid)
    assert item is not None
    assert item["ai"]["state"] == "measured"
    assert item["priority"] == "routine"  # a measurement raises nothing
    answer = server.get("/dicom-web/workitems", params={"StudyInstanceUID": angiogram.study_uid})
    assert [i["00741000"]["Value"][0] for i in answer.json()] == ["COMPLETED"]


@pytest.mark.usefixtures("results")
def test_sr_seg_and_captures_come_back_with_the_numbers_of_the_result(server: Wetread, angiogram: FileStudy) -> None:
    client = DICOMwebClient(f"{server.url}/dicom-web")
    ours: dict[str, list[Dataset]] = {}
    for found in client.search_for_series(study_instance_uid=angiogram.study_uid):
        series = Dataset.from_json(found)
        if series.Modality != "CT" or series.get("SeriesDescription", "").startswith("wetread"):
            objects = client.retrieve_series(angiogram.study_uid, series.SeriesInstanceUID)
            ours.setdefault(str(series.Modality), []).extend(objects)
    kinds = {o.SOPClassUID.name for objects in ours.values() for o in objects}
    assert {"Comprehensive 3D SR Storage", "Segmentation Storage"} <= kinds
    assert any("Secondary Capture" in kind for kind in kinds)
    [report] = ours["SR"]
    measured = sorted(
        round(float(item.MeasuredValueSequence[0].NumericValue), 4)
        for item in _items(report)
        if item.ValueType == "NUM" and item.ConceptNameCodeSequence[0].CodeValue == "371842003"
    )
    answer = server.get(f"/api/v1/studies/{angiogram.study_uid}/ffr").json()
    assert answer["state"] == "measured"
    distal = [x["ffr_distal_20mm"] for x in answer["result"]["lesions"] if x["ffr_distal_20mm"] is not None]
    ends = [v["ffr"][-1] for v in answer["result"]["vessels"] if v["label"] in {"LM", "LAD", "LCx", "RCA"}]
    assert measured == pytest.approx(sorted([*distal, *ends]), abs=2e-4)
    assert RUO_STATEMENT in answer["result"]["disclaimer"]
    assert set(answer["attachments"]) >= {"ffr.json", "tree.json", "tree.png", "tree.glb", "tree.vtp"}
    for name in answer["attachments"]:
        assert server.get(f"/api/v1/studies/{angiogram.study_uid}/ffr/{name}").content


@pytest.mark.usefixtures("results")
def test_the_page_draws_the_tree_and_the_curve_of_the_chosen_vessel(
    server: Wetread, angiogram: FileStudy, tmp_path: Path
) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server.url}/ffr/{angiogram.study_uid}")
        page.wait_for_selector("body[data-ready=yes]", timeout=30_000)
        assert RUO_STATEMENT in page.text_content(".statement")
        names = page.locator("#vessels button").all_text_contents()
        assert {"LM", "LAD", "LCx", "RCA"} <= {name.split()[0] for name in names}
        before = page.locator("#curve").screenshot()
        page.locator("#vessels button", has_text="RCA").first.click()
        assert "RCA" in page.text_content("#title")
        assert page.locator("#curve").screenshot() != before
        page.screenshot(path=tmp_path / "ffr-page.png")
        browser.close()
    assert complaints == []
    assert (tmp_path / "ffr-page.png").stat().st_size > 20_000


@pytest.mark.usefixtures("results")
def test_a_head_ct_beside_it_asks_for_no_ffr(server: Wetread, phantoms: PhantomStudies) -> None:
    study = phantoms.study(2_800_006)
    assert dcmread(study.instances[0].path, stop_before_pixels=True).BodyPartExamined != "HEART"
    sender = Sender(server.url)
    sender.send(study)
    sender.close()
    by_detector = {r["detector"]: r for r in server.final_results(study.study_uid, seconds=MINUTES)}
    assert (by_detector["ffr-ct"]["state"], by_detector["ffr-ct"]["stored"]) == ("not_applicable", [])
    assert by_detector["ffr-ct"]["reason"] == "body_part"
    assert server.get(f"/api/v1/studies/{study.study_uid}/ffr").status_code == 404


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)
