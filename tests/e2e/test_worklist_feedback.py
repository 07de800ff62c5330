"""The reader's hand in a real browser: take, reject with a reason, edit, overlay; nothing typed is lost."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright
from tests.worklist_app import app_of, served
from tests.worklist_rows import detectors, fill
from tests.worklist_world import TENANT, World

from wetread.core.events import EventType
from wetread.core.states import AiState

pytestmark = pytest.mark.server("chromium")

UID = "1.2.3.1"


@pytest.fixture
def world(tmp_path: Path, database_kind: None) -> World:
    world = World.at(tmp_path)
    fill(world)
    return world


@pytest.fixture
def page(world: World) -> Iterator[Any]:
    stopping = threading.Event()
    with (
        served(app_of(world, stopping, detectors), stopping) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, base_url=address)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
        browser.close()
    assert complaints == []


def test_a_reader_takes_judges_and_reads_by_keyboard(page: Any, world: World) -> None:
    page.goto(f"/studies/{UID}")
    page.wait_for_selector(".live.on")
    # Take the study: the key leads to the button, Enter presses it.
    page.keyboard.press("t")
    page.keyboard.press("Enter")
    page.wait_for_selector('#reading [data-verb="release"]')
    # Overlay off shows the sender's key image, and a redraw keeps it so.
    expect(page.locator(".overlaid img").first).to_be_visible()
    page.keyboard.press("Escape") if page.locator("input:focus").count() else None
    page.keyboard.press("o")
    expect(page.locator(".overlaid").first).to_be_hidden()
    expect(page.locator(".plain-image img").first).to_have_js_property("complete", True)
    # Rejecting without a reason is not possible.
    page.click('.feedback [data-verb="reject"]')
    expect(page.locator(".feedback .answer").first).to_have_text("Say why.")
    # What the form answered survives a redraw, as what is typed does.
    page.evaluate("refreshStudy()")
    expect(page.locator(".feedback .answer").first).to_have_text("Say why.")
    page.keyboard.type("calcifed")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    # A live redraw under the hands of who types: text, caret, overlay and the open edit stay.
    page.locator(".feedback summary").first.click()
    page.locator(".feedback [name=m1]").first.fill("19,5")
    page.locator(".feedback [name=reason]").first.focus()
    world.result(UID, "stroke-ncct", AiState.NEGATIVE, score=0.1)
    world.event(EventType.RESULT_READY, UID, id="redraw", detector="stroke-ncct", state="negative")
    page.wait_for_selector('.card .state:text-is("Negative")')
    assert page.locator(".feedback [name=reason]").first.input_value() == "calcifed"
    assert page.locator(".feedback [name=m1]").first.input_value() == "19,5"
    expect(page.locator(".feedback details").first).to_have_attribute("open", "")
    expect(page.locator(".overlaid").first).to_be_hidden()
    page.locator(".feedback [name=reason]").first.fill("hyperdense vein")
    page.click('.feedback [data-verb="edit"]')
    page.wait_for_selector(".v-edited")
    assert "now 19.5 mL" in " ".join(page.text_content(".feedback .said").split())
    page.fill(".feedback [name=reason]", "plexus")
    page.click('.feedback [data-verb="reject"]')
    page.wait_for_selector(".v-rejected")
    page.keyboard.press("o")
    if folder := os.environ.get("WETREAD_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/feedback.png", full_page=True)
    page.click('#reading [data-verb="complete"]')
    expect(page.locator("#reading")).to_contain_text("Read by")
    page.goto("/")
    page.wait_for_selector(".live.on")
    assert page.locator(f'[data-uid="{UID}"]').count() == 0
    with world.database.read() as tx:
        kinds = [str(event.type) for event in world.events.of_study(tx, TENANT, UID)]
    assert [kind for kind in kinds if kind.startswith(("finding.", "worklist.")) and kind != "finding.positive"] == [
        "worklist.priority_changed",
        "worklist.assigned",
        "finding.acknowledged",
        "finding.edited",
        "finding.rejected",
        "worklist.completed",
    ]


def test_a_press_is_not_lost_to_a_redraw(page: Any, world: World) -> None:
    page.goto(f"/studies/{UID}")
    page.wait_for_selector(".live.on")
    page.hover('.feedback [data-verb="reject"]')
    page.mouse.down()
    page.evaluate("document.getElementById('study').dataset.drawn = 'before'; void refreshStudy()")
    with page.expect_response(f"**/studies/{UID}"):
        page.evaluate("void refreshStudy()")
    page.mouse.up()
    expect(page.locator(".feedback .answer").first).to_have_text("Say why.")
    # The redraw came all the same, after the hand was off the button, and once.
    page.wait_for_selector("#study:not([data-drawn])")
    expect(page.locator(".feedback .answer").first).to_have_text("Say why.")
