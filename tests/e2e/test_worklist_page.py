"""The worklist in a real browser: live order, keyboard, hostile names, nothing refused by the policy."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright
from tests.worklist_app import app_of, served
from tests.worklist_rows import detectors, fill, raise_by_ai
from tests.worklist_world import World

from wetread.core.events import EventType
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState

pytestmark = pytest.mark.server("chromium")

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, database_kind: None) -> World:
    world = World.at(tmp_path)
    fill(world)
    return world


@pytest.fixture
def url(world: World) -> Iterator[str]:
    stopping = threading.Event()
    with served(app_of(world, stopping, detectors), stopping) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, url: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, base_url=url)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    yield page
    page.close()
    assert complaints == []


def order(page: Any) -> list[str]:
    return page.eval_on_selector_all("#rows > .row", "rows => rows.map(row => row.dataset.uid)")


def live(page: Any) -> None:
    page.goto("/")
    page.wait_for_selector(".live.on")


def test_a_finding_moves_its_study_to_the_top_while_the_reader_keeps_his_place(page: Any, world: World) -> None:
    live(page)
    uid = "1.2.3.5"
    assert order(page).index(uid) > 3
    page.focus(f'[data-uid="{uid}"] .open')
    world.study("1.2.3.77", minutes_ago=0.1, name="NEW^STUDY")
    raise_by_ai(world, uid, "ich", "suspected intracranial haemorrhage")
    world.result(uid, "ich", AiState.POSITIVE, volume_ml=12.0, score=0.9)
    world.event(EventType.RESULT_READY, uid, detector="ich", state="positive")
    page.wait_for_selector(f'[data-uid="{uid}"].p-stat')
    page.wait_for_selector(f'[data-uid="{uid}"] .state:text-is("Positive")')
    assert "1.2.3.77" in order(page)
    assert [name for name in order(page)[:6] if name == uid]
    assert page.evaluate("document.activeElement.closest('.row').dataset.uid") == uid
    assert page.title().startswith("(4 STAT)")
    assert "NOVAK" in page.text_content("#announce")


def test_stat_first_with_the_overlay_and_the_statement_in_sight(page: Any) -> None:
    live(page)
    assert page.text_content(".row:first-child .badge") == "STAT"
    assert page.text_content(".ruo") == RUO_STATEMENT
    for row in range(4):
        expect(page.locator(".thumb img").nth(row)).to_have_js_property("naturalWidth", 256)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    assert page.locator(".ruo").bounding_box()["y"] >= 0


def test_the_keyboard_is_enough(page: Any) -> None:
    live(page)
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.closest('.row').dataset.uid") == order(page)[1]
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("novak")
    expect(page.locator("#rows > .row")).to_have_count(1)
    assert page.url.endswith("/?q=novak")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#study")
    assert page.text_content(".identity h1") == "NOVAK, JAN"
    page.keyboard.press("Escape")
    page.wait_for_selector("#rows")


def test_raising_by_hand_while_the_study_goes_on(page: Any, world: World) -> None:
    uid = "1.2.3.7"
    page.goto(f"/studies/{uid}")
    page.wait_for_selector(".live.on")
    page.select_option("#raise select", "stat")
    page.fill("#raise-reason", "ward caled")
    page.press("#raise-reason", "ArrowLeft")
    page.press("#raise-reason", "ArrowLeft")
    world.result(uid, "ich", AiState.NEGATIVE, score=0.1)
    world.event(EventType.RESULT_READY, uid, detector="ich", state="negative")
    page.wait_for_selector('.card .state:text-is("Negative")')
    # The page was drawn anew under the hands of the person who types: nothing is lost, the caret stands where it was.
    page.keyboard.type("l")
    assert page.input_value("#raise-reason") == "ward called"
    assert page.input_value("#raise select") == "stat"
    page.click("#raise button")
    page.wait_for_selector("#study.p-stat")
    assert "ward called" in page.text_content(".reasons")
    assert page.locator("#raise").count() == 0


def test_a_hostile_name_is_shown_and_not_run(page: Any, world: World) -> None:
    markup = "<img src=x onerror=alert(2)>"
    world.study("1.2.3.66", name="<script>alert(1)</script>^<svg/onload>", description=markup, minutes_ago=0)
    live(page)
    name = page.text_content('[data-uid="1.2.3.66"] .open')
    assert name == "<script>alert(1)</script>, <svg/onload>"
    page.click('[data-uid="1.2.3.66"]')
    page.wait_for_selector("#study")
    assert "alert(1)" in page.text_content(".identity h1")
    assert markup in page.text_content(".identity .description")


def test_ages_tick(page: Any, world: World) -> None:
    world.study("1.2.3.55", minutes_ago=0)
    live(page)
    age = page.locator('[data-uid="1.2.3.55"] [data-since]')
    first = age.text_content()
    assert re.fullmatch(r"\d+ s", first)
    expect(age).not_to_have_text(first)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (900, 700), (390, 844)])
def test_nothing_sticks_out_at_any_width(page: Any, width: int, height: int) -> None:
    page.set_viewport_size({"width": width, "height": height})
    for path in ("/", "/studies/1.2.3.1"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        clipped = page.evaluate(
            """() => [...document.querySelectorAll('.row > *')].filter(cell => cell.scrollWidth > cell.clientWidth + 1)
                .map(cell => cell.className + ': ' + cell.textContent.trim())"""
        )
        assert clipped == []


def test_the_text_can_be_read(page: Any) -> None:
    """WCAG 2.2 AA: 4.5 to 1 for every text on the ground it stands on."""
    live(page)
    poor = page.evaluate(
        """() => {
          const parse = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
            .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length === 3 || c[3] > .99) return c; } return [0, 0, 0]; };
          return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()
              && !e.closest('dialog, option, noscript')
              && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), e.className, e.textContent.trim().slice(0, 30)];
          }).filter(([ratio]) => ratio < 4.5);
        }"""
    )
    assert poor == []


def test_the_stream_over_http_resumes_and_lets_the_server_stop(world: World) -> None:
    stopping = threading.Event()
    with served(app_of(world, stopping), stopping) as address, httpx.Client(base_url=address, timeout=10) as client:
        stream = client.stream("GET", "/api/v1/events/stream", headers={"Last-Event-ID": "1"})
        response = stream.__enter__()
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("id:")) == "id: 1"
        assert next(line for line in lines if line.startswith("id:")) == "id: 2"
        world.event(EventType.STUDY_CHANGED, "1.2.3.7", id="while listening")
        assert any("while listening" in line for line in lines)
        stopping.set()
        assert list(lines) is not None  # the stream ends by itself; served() asserts that the server stops, too
        stream.__exit__(None, None, None)


def test_a_long_poll_wakes_when_the_last_detector_is_final(world: World, url: str) -> None:
    def finish() -> None:
        world.task("1.2.3.2", "ich", AiState.NEGATIVE)
        world.task("1.2.3.2", "stroke-ncct", AiState.NEGATIVE)
        world.event(EventType.RESULT_READY, "1.2.3.2", id="the last one")

    timer = threading.Timer(0.3, finish)
    timer.start()
    body = httpx.get(f"{url}/api/v1/studies/1.2.3.2/findings?wait=20s", timeout=30).json()
    timer.join()
    assert {result["state"] for result in body["results"]} == {"negative"}
