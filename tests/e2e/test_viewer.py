"""OHIF under ``/viewer``: the CT with the report's outline and with the segmentation; no request fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright
from tests.e2e.conftest import Wetread

from wetread.commands.dicom_folder import FileStudy
from wetread.commands.send import Sender

pytestmark = [pytest.mark.server("chromium", "ohif"), pytest.mark.timeout(300)]

ARGUMENTS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist",
]  # fmt: skip

ON_SCREEN = """() => {
    const { measurementService, segmentationService } = window.services;
    return {
        measurements: measurementService.getMeasurements().map((m) => [m.toolName, m.referencedImageId ?? ""]),
        segments: segmentationService.getSegmentations().flatMap((s) => Object.values(s.segments).map((g) => g.label)),
    };
}"""


@pytest.fixture
def study(wetread: Wetread, bleed: FileStudy) -> str:
    sender = Sender(wetread.url)
    sender.send(bleed)
    sender.close()
    wetread.final_results(bleed.study_uid)
    return bleed.study_uid


@pytest.fixture
def page(wetread: Wetread) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, base_url=wetread.url)
        failed: list[str] = []

        def note(what: object, url: str) -> None:
            # The study page's event stream ends when the viewer opens.
            if not url.endswith("/events/stream"):
                failed.append(f"{what} {url}")

        page.on("requestfailed", lambda request: note(request.failure, request.url))
        page.on("response", lambda answer: note(answer.status, answer.url) if answer.status >= 400 else None)
        page.on("pageerror", lambda error: note(error, page.url))
        yield page
        browser.close()
        assert not failed


def shown(page: Page, what: str) -> list[Any]:
    """Wait until the viewer shows measurements or segments."""
    page.wait_for_function(f"window.services && ({ON_SCREEN})().{what}.length > 0", timeout=90_000)
    return page.evaluate(ON_SCREEN)[what]


def test_the_viewer_opens_on_the_finding_and_shows_the_segmentation(page: Page, study: str) -> None:
    page.goto(f"/studies/{study}")
    page.click("#viewer")
    tools = {name for name, _ in shown(page, "measurements")}
    assert tools == {"PlanarFreehandROI", "Length"}
    page.get_by_text("investigational use only").wait_for()
    page.get_by_text("Confirm and hide").click()
    folder = os.environ.get("WETREAD_SCREENSHOTS")
    if folder:
        page.screenshot(path=f"{folder}/viewer-report.png")
    # 9005 is where the score came from: FRACTIONAL, which this viewer does not show
    page.locator('[data-cy="study-browser-thumbnail-no-image"][data-series="9002"]').dblclick()
    assert shown(page, "segments")
    if folder:
        page.wait_for_timeout(3000)  # the viewer says nowhere that it has drawn
        page.screenshot(path=f"{folder}/viewer-segmentation.png")
