"""A slide through the gateway to its page: a real task, a kill in between, and what a browser shows."""

from __future__ import annotations

import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, sync_playwright
from tests.e2e.conftest import Wetread, wait_for
from tests.e2e.test_viewer import ARGUMENTS
from tests.pathology_world import bigger, native, written

from wetread.commands.local_server import local_server
from wetread.commands.send import run_send
from wetread.core.states import FINAL
from wetread.pathology.convert import ConvertOptions, convert
from wetread.registry import WORKER
from wetread.testing.phantoms.slide import Planted, SlideSpec

pytestmark = [pytest.mark.slow, pytest.mark.server("openslide"), pytest.mark.timeout(600)]


def stow(wetread: Wetread, folder: Path, spec: Any) -> str:
    """Convert a synthetic slide, send it, return its study."""
    slide = native(written(folder, spec=spec))
    convert(slide, folder / "dicom", ConvertOptions(base_mpp=(0.5, 0.5), digest=f"{spec.width:064d}", acquired_at=0.0))
    assert run_send(folder / "dicom", url=wetread.url, connections=2, api_key=None, as_json=True) == 0
    (study,) = wetread.get("/dicom-web/studies", params={"ModalitiesInStudy": "SM"}).json()
    return str(study["0020000D"]["Value"][0])


def slide_of(wetread: Wetread, study: str) -> dict[str, Any]:
    answer = wetread.get(f"/api/v1/studies/{study}/pathology")
    return answer.json()["slides"][0] if answer.status_code == 200 else {"state": "", "progress": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module_stores: None) -> Iterator[Wetread]:
    folder = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WETREAD_QUIET_STUDY", "1")
        patch.setenv("WETREAD_QUIET_SERIES", "0.5")
        with local_server(folder / "data") as supervisor:
            yield Wetread(supervisor)


def processes_of(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command = (entry.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == parent and "slide_process" in command:
            found.append(int(entry.parent.name))
    return found


def test_a_slide_is_analysed_over_kills_and_its_results_are_in_the_study(server: Wetread, tmp_path: Path) -> None:
    spec = SlideSpec(6144, 6144, planted=(Planted(2048, 2048, 1024),), texture=512)
    study = stow(server, tmp_path, spec)
    parts = Path(server.supervisor.settings.data) / "slides"
    (worker,) = [child for child in server.supervisor.children if child.names == WORKER]

    def rows() -> int:
        return sum(int(p.stem.rsplit("-", 1)[1]) for p in parts.glob("*/*/parts/*/part-*.parquet"))

    # First the process of the slide, whose next attempt goes on; then the whole worker, which another one takes up.
    wait_for(rows, lambda count: count >= 32, seconds=240)
    for pid in processes_of(worker.process.pid):
        os.kill(pid, signal.SIGKILL)
    before = rows()
    wait_for(rows, lambda count: count >= before + 32 or slide_of(server, study)["state"] in FINAL, seconds=240)
    os.kill(worker.process.pid, signal.SIGKILL)
    state = wait_for(lambda: slide_of(server, study), lambda slide: slide["state"] in FINAL, seconds=300)
    assert (state["state"], state["progress"]) == ("measured", 100)
    results = wait_for(
        lambda: [r for r in server.results(study) if r["detector"].startswith("he-tile.")],
        lambda found: bool(found) and bool(found[0]["stored"]),
        seconds=120,
    )
    assert {each["modality"] for each in results[0]["stored"]} == {"SR", "SEG", "ANN", "OT"}
    whole = server.get(f"/api/v1/studies/{study}/series/{state['series_uid']}/pathology").json()
    tiles = whole["result"]["tiles"]
    assert tiles["resumed"] >= 32
    assert (tiles["done"], tiles["failed"]) == (tiles["planned"], 0)
    best = whole["result"]["regions"][0]
    assert abs(best["x"] - 2560) <= 256
    assert abs(best["y"] - 2560) <= 256
    item = server.get(f"/dicom-web/workitems/{state['workitem_uid']}").json()[0]
    assert item["00741000"]["Value"] == ["COMPLETED"]
    assert "Slides with map and marks" in server.get(f"/studies/{study}").text


@pytest.fixture
def page(server: Wetread) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, base_url=server.url)
        page.set_default_timeout(120_000)
        failed: list[str] = []

        def note(request: Request) -> None:
            # What the study's page still loads ends when the slides open.
            if not request.url.endswith(("/events/stream", "/rendered")):
                failed.append(f"{request.failure} {request.url}")

        page.on("requestfailed", note)
        page.on("response", lambda a: failed.append(f"{a.status} {a.url}") if a.status >= 400 else None)
        page.on("pageerror", lambda error: failed.append(str(error)))
        yield page
        browser.close()
        assert not failed


def pixels(page: Page) -> np.ndarray:
    shot = page.locator("#slide").screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), dtype=np.int16)


@pytest.mark.server("chromium", "ohif")
def test_the_page_paints_the_slide_and_its_layers_come_and_go(server: Wetread, page: Page, tmp_path: Path) -> None:
    listed = server.get("/dicom-web/studies", params={"ModalitiesInStudy": "SM"})
    found = listed.json() if listed.status_code == 200 else []
    study = found[0]["0020000D"]["Value"][0] if found else stow(server, tmp_path, bigger())
    wait_for(lambda: slide_of(server, study), lambda slide: slide["state"] == "measured", seconds=300)
    wait_for(
        lambda: server.get(f"/dicom-web/studies/{study}/series", params={"Modality": "ANN"}).status_code,
        lambda status: status == 200,
        seconds=120,
    )
    page.goto(f"/studies/{study}")
    page.click("#slides")
    page.locator('#layers input[data-kind="segment"]').first.wait_for()
    page.wait_for_function("Number(document.getElementById('slide').dataset.tiles) >= 3")
    boxes = page.locator("#layers input")
    assert boxes.count() >= 3

    def settled() -> np.ndarray:
        """Wait until nothing more is painted."""
        last = pixels(page)
        for _ in range(60):
            page.wait_for_timeout(700)
            now = pixels(page)
            if np.array_equal(now, last):
                return now
            last = now
        raise AssertionError("the slide never comes to rest")

    with_map = settled()
    pink = (with_map[..., 0] - with_map[..., 1] > 25) & (with_map[..., 2] - with_map[..., 1] > 10)
    assert pink.mean() > 0.1, "no tissue is painted"
    page.locator('#layers input[data-kind="segment"]:checked').uncheck()
    plain = settled()
    assert (np.abs(with_map - plain).max(axis=2) > 30).mean() > 0.01, "the map was not painted"
    page.locator('#layers input[data-kind="marks"]').first.check()
    marked = settled()
    assert (np.abs(marked - plain).max(axis=2) > 30).mean() > 0.002, "the marks were not painted"
    page.locator('#layers input[data-kind="marks"]').first.uncheck()
    assert np.array_equal(settled()[100:-100], plain[100:-100])
    if folder := os.environ.get("WETREAD_SCREENSHOTS"):
        page.locator('#layers input[data-kind="segment"]').last.check()
        settled()
        page.screenshot(path=str(Path(folder) / "slide.png"))
