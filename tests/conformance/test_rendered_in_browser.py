"""What a browser does with rendered reports and documents that somebody wrote to be run: nothing."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import httpx
import pydicom
import pytest
from playwright.sync_api import sync_playwright
from pydicom.dataset import Dataset
from tests.conformance.test_wado_rendered_documents import CDA, content, plain, report
from tests.gateway_support import encoded, multipart, serving, stow_headers

pytestmark = [pytest.mark.slow, pytest.mark.server("chromium"), pytest.mark.timeout(300)]

RUN = "<script>document.title='ran'; fetch('/ran')</script><img src='/ran' onerror=\"document.title='ran'\">"
ACTIVE = b"""<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="/ran"?>
<html xmlns="http://www.w3.org/1999/xhtml"><body><script>document.title='ran'; fetch('/ran')</script></body></html>"""


def test_a_hostile_report_is_read_and_a_hostile_document_is_saved(tmp_path: Path) -> None:
    letter = report(content("TEXT", "Finding", TextValue=RUN), title="Letter")
    active = plain(CDA, EncapsulatedDocument=ACTIVE + b"\0" * (len(ACTIVE) % 2), EncapsulatedDocumentLength=len(ACTIVE))
    with serving(tmp_path) as (base, _), sync_playwright() as playwright:
        for data in (letter, active):
            stored = httpx.post(f"{base}/studies", content=multipart([encoded(data)]), headers=stow_headers())
            assert stored.status_code in (200, 202)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        asked: list[str] = []
        refused: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: refused.append(message.text))
        page.goto(address(base, letter))
        assert page.title() == "Letter"
        assert RUN in page.inner_text("main")
        assert page.evaluate("getComputedStyle(document.querySelector('.value')).whiteSpace").startswith("pre-wrap")
        assert refused == [], "the style is what the policy says"
        assert asked == [address(base, letter)]
        with page.expect_download() as download:
            page.evaluate("address => { location.href = address }", address(base, active))
        assert download.value.suggested_filename == "document.xml"
        assert Path(download.value.path()).read_bytes() == ACTIVE
        assert page.title() == "Letter"
        assert not [url for url in asked if url.endswith("/ran")]
        browser.close()


def address(base: str, data: Dataset) -> str:
    file = pydicom.dcmread(io.BytesIO(encoded(data)))
    series = f"{base}/studies/{file.StudyInstanceUID}/series/{file.SeriesInstanceUID}"
    return f"{series}/instances/{file.SOPInstanceUID}/rendered"
