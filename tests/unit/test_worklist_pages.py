"""The pages: exact words, hostile names, our own files only."""

from __future__ import annotations

import re
from datetime import date
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.worklist_app import InProcess, app_of
from tests.worklist_rows import detectors, evidence, fill
from tests.worklist_world import World

from wetread.core.events import EventType
from wetread.core.findings import Change, PriorReference, RunPriors
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState, StudyAiState
from wetread.worklist.ages import due_text, offset_text, span
from wetread.worklist.study_view import EVENT_WORDS
from wetread.worklist.views import RANK, STATE_WORDS, SUMMARY_WORDS, TONES, person_name, study_date, why

HOSTILE = "<script>alert(1)</script>^\"><img src=x onerror=alert(2)>'{{ 7*7 }}"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def site(world: World) -> InProcess:
    return InProcess(app_of(world, detectors=detectors), "http://testserver")


class Elements(HTMLParser):
    """Collects the start tags with their attributes, and the text of each list row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def words(text: str) -> list[str]:
    """Return the marks of AI states on a page, in order."""
    return [unescape(word) for word in re.findall(r'<span class="state[^"]*">([^<]*)</span>', text)]


def listed(text: str) -> list[str]:
    return re.findall(r'<li class="row[^>]*data-uid="([^"]*)"', text)


def test_stat_is_on_top_and_every_study_is_there(world: World, site: InProcess) -> None:
    fill(world)
    text = site.get("/").text
    assert listed(text)[:2] == ["1.2.3.2", "1.2.3.10"]
    assert sorted(listed(text)) == sorted(f"1.2.3.{number}" for number in range(1, 11))
    assert "(3 STAT) Reading list" in text
    assert re.search(r"<b>3</b> stat", text)


@pytest.mark.parametrize("path", ["/", "/studies/1.2.3.1", "/studies/9.9"])
def test_every_page_carries_the_statement_word_for_word(world: World, site: InProcess, path: str) -> None:
    fill(world)
    assert RUO_STATEMENT in unescape(site.get(path).text)


@pytest.mark.parametrize("state", list(AiState))
def test_each_state_has_its_own_words_and_only_a_negative_run_says_negative(
    world: World, site: InProcess, state: AiState
) -> None:
    world.study("1.1")
    world.task("1.1", "ich", state, reason="timeout")
    for path in ("/", "/studies/1.1"):
        found = words(site.get(path).text)
        if state in {AiState.NOT_APPLICABLE, AiState.SUPERSEDED} and path == "/":
            assert found == ["Not applicable"]
        else:
            assert found == [STATE_WORDS[state]]
        assert ("Negative" in found) is (state is AiState.NEGATIVE)


def test_a_study_without_an_answer_says_so(world: World, site: InProcess) -> None:
    world.study("1.1", minutes_ago=2, looked_at=False)
    world.study("1.2", minutes_ago=1)
    assert words(site.get("/").text) == ["AI pending", "Not applicable"]
    assert "not been evaluated yet" in site.get("/studies/1.1").text
    assert "has not been read by AI" in site.get("/studies/1.2").text


def test_the_words_of_the_state_table() -> None:
    assert {state: STATE_WORDS[state] for state in AiState} == {
        AiState.AWAITING_IMAGES: "AI pending", AiState.QUEUED: "AI pending", AiState.RUNNING: "AI pending",
        AiState.PRELIMINARY_POSITIVE: "Positive (early)", AiState.POSITIVE: "Positive", AiState.NEGATIVE: "Negative",
        AiState.INDETERMINATE: "Indeterminate", AiState.MEASURED: "Measured", AiState.NOT_APPLICABLE: "Not applicable",
        AiState.NOT_PROCESSABLE: "AI failed (data)", AiState.FAILED: "AI failed (system)",
        AiState.CANCELLED: "Cancelled", AiState.SUPERSEDED: "Superseded",
    }  # fmt: skip
    assert set(TONES) == set(RANK) == set(AiState)
    assert set(SUMMARY_WORDS) == set(StudyAiState)
    assert set(EVENT_WORDS) == set(EventType)


def test_shadow_results_are_hidden_from_readers(world: World, site: InProcess) -> None:
    world.study("1.1")
    world.result("1.1", "ich", AiState.POSITIVE, volume_ml=9.0, shadow=True, stored=evidence("1.1"))
    world.event(EventType.RESULT_READY, "1.1", detector="ich", state="positive", shadow=True)
    assert words(site.get("/").text) == ["Not applicable"]
    study = site.get("/studies/1.1").text
    assert "Positive" not in study
    assert "Result stored" not in study
    assert "/series/1.1.1/" in site.get("/studies/1.1/thumbnail").headers["location"]


def test_hostile_text_is_text(world: World, site: InProcess) -> None:
    world.study("1.1", name=HOSTILE, patient_id=HOSTILE, description=HOSTILE)
    world.task("1.1", "ich", AiState.FAILED, reason=HOSTILE)
    with world.database.write() as tx:
        reason = Reason("manual", HOSTILE, Priority.STAT, world.clock.now())
        world.order.raise_to(tx, "default", "1.1", reason)
    world.event(EventType.TASK_FAILED, "1.1", reason=HOSTILE, detector=HOSTILE)
    for path in ("/", "/studies/1.1", "/fragments/worklist", f"/?q={HOSTILE}"):
        text = site.get(path).text
        tags = Elements(text).tags
        scripts = [attributes for tag, attributes in tags if tag == "script"]
        assert all(attributes.get("src", "").startswith("/static/worklist.js") for attributes in scripts)
        for tag, attributes in tags:
            assert not [name for name in attributes if name.startswith("on")], (path, tag)
            assert attributes.get("src") != "x"
        assert "{{ 7*7 }}" in text or path.startswith("/?q")
        assert "49" not in re.sub(r"[0-9.:]{3,}", "", text)


def test_a_page_loads_nothing_from_elsewhere(world: World, site: InProcess) -> None:
    fill(world)
    for path in ("/", "/studies/1.2.3.1"):
        answer = site.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        for _tag, attributes in Elements(answer.text).tags:
            assert "style" not in attributes, "the policy would refuse it"
            for name in ("src", "href", "action"):
                assert attributes.get(name, "/").startswith("/")
                assert not attributes.get(name, "/").startswith("//")
    for name in ("worklist.js", "worklist.css"):
        text = site.get(f"/static/{name}").text
        assert "://" not in text
        assert "eval(" not in text


def test_own_files_and_no_others(site: InProcess) -> None:
    for url in re.findall(r'(?:src|href)="(/static/[^"]+)"', site.get("/").text):
        assert site.get(url).status_code == 200
    for name in ("..%2fservice.py", "service.py", "%2e%2e%2fpages.py"):
        assert site.get(f"/static/{name}").status_code == 404


def test_the_study_page_shows_findings_measurements_and_where_the_objects_are(world: World, site: InProcess) -> None:
    fill(world)
    text = site.get("/studies/1.2.3.1").text
    assert words(text) == ["Positive", "AI pending", "Not applicable"]
    assert "OKONKWO, ADAEZE" in text
    assert "23.4 mL" in text
    assert "against threshold 0.61" in text
    for series in (7, 8, 9):
        assert f'href="/dicom-web/studies/1.2.3.1/series/1.2.3.1.{series}"' in text
    assert '<img src="/dicom-web/studies/1.2.3.1/series/1.2.3.1.9/instances/1.2.3.1.9.1/rendered"' in text
    assert "suspected intracranial haemorrhage" in text
    assert "Positive finding" in text


def test_the_thumbnail_is_the_overlay_when_there_is_one(world: World, site: InProcess) -> None:
    world.study("1.1", slices=3)
    source = site.get("/studies/1.1/thumbnail")
    assert source.status_code == 307
    assert source.headers["location"].startswith("/dicom-web/studies/1.1/series/1.1.1/instances/1.1.1.2/rendered?")
    world.result("1.1", "ich", AiState.POSITIVE, stored=evidence("1.1"))
    assert "/series/1.1.9/instances/1.1.9.1/rendered?" in site.get("/studies/1.1/thumbnail").headers["location"]
    world.study("1.2", modality="SR", slices=1)
    assert site.get("/studies/1.2/thumbnail").status_code == 204
    assert site.get("/studies/9.9/thumbnail").status_code == 404


def test_an_empty_list_says_how_to_send_a_study(site: InProcess) -> None:
    text = site.get("/").text
    assert "wetread send FOLDER --url http://testserver/" in text
    assert "http://testserver/dicom-web/studies" in text


def test_filters_keep_to_their_vocabulary(world: World, site: InProcess) -> None:
    fill(world)
    assert listed(site.get("/?priority=stat").text) == ["1.2.3.2", "1.2.3.10", "1.2.3.1"]
    assert listed(site.get("/?q=novak").text) == ["1.2.3.5"]
    assert "No study fits this filter" in site.get("/?q=nobody").text
    assert site.get("/?priority=highest").status_code == 400
    assert site.get("/fragments/worklist?state=wrong").status_code == 400


def test_more_studies_than_a_page(world: World, site: InProcess) -> None:
    for number in range(5):
        world.study(f"1.{number}", minutes_ago=30 - number)
    text = site.get("/?limit=2&q=doe").text
    assert listed(text) == ["1.0", "1.1"]
    assert 'href="/?limit=4&amp;q=doe"' in text
    assert "Show more" not in site.get("/?limit=5").text


def test_a_row_keeps_its_version_while_only_time_passes(world: World, site: InProcess) -> None:
    world.study("1.1")

    def version() -> str:
        return re.findall(r'data-version="([0-9a-f]+)"', site.get("/fragments/worklist").text)[0]

    first = version()
    world.clock.at += 60
    assert version() == first
    world.task("1.1", "ich", AiState.QUEUED)
    assert version() != first


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("DOE^JANE^M^DR^PHD", "DOE, DR JANE M (PHD)"),
        ("DOE", "DOE"),
        ("^JANE", "JANE"),
        ("", ""),
        ("YAMADA^TARO=山田^太郎=やまだ^たろう", "YAMADA, TARO · 山田, 太郎"),
        ("A^B^C^D^E^F^G", "A, D B C (E)"),
    ],
)
def test_person_names(value: str, shown: str) -> None:
    assert person_name(value) == shown


def test_spans_and_dates() -> None:
    assert [span(s) for s in (-5, 0, 59.9, 60, 3599, 3600, 86399, 90000)] == [
        "0 s", "0 s", "59 s", "1 min", "59 min", "1 h 00 min", "23 h 59 min", "1 d 1 h",
    ]  # fmt: skip
    assert due_text(100, 40) == "due in 1 min"
    assert due_text(40, 100) == "overdue 1 min"
    assert [offset_text(s) for s in (3.21, -0.5, 125, 7200)] == ["+3.2 s", "-0.5 s", "+2 min 05 s", "+2 h 00 min"]
    assert study_date("20260301") == "2026-03-01"
    assert study_date("unknown") == "unknown"


def test_why_a_study_is_on_top() -> None:
    order = Reason("order", "STAT order", Priority.STAT, 1.0)
    flag = Reason("ai", "suspected haemorrhage", Priority.STAT, 2.0)
    assert why(()) == ""
    assert why((Reason("order", "ordered", Priority.ROUTINE, 0.0),)) == ""
    assert why((Reason("order", "ordered", Priority.ROUTINE, 0.0), flag)) == "suspected haemorrhage (AI)"
    assert why((flag, order)) == "STAT order (order)"


def test_the_page_says_what_became_of_a_finding_and_what_was_compared(world: World, site: InProcess) -> None:
    world.study("1.1")
    world.result("1.1", "lung-nodule", AiState.POSITIVE, volume_ml=1.0)
    [(key, (result, stored))] = world.results.rows.items()
    then = PriorReference(study_uid="1.0", result_key="k", study_date=date(2025, 3, 1))
    change = Change(course="grown", prior_study_uid="1.0", prior_result_key="k", prior_date=then.study_date)
    pages = []
    for priors in (None, RunPriors(left_out=("birth_date",)), RunPriors(results=(then,))):
        findings = tuple(
            f.model_copy(update={"change": change if priors and priors.results else None}) for f in result.findings
        )
        run = result.run.model_copy(update={"priors": priors})
        world.results.rows[key] = (result.model_copy(update={"run": run, "findings": findings}), stored)
        pages.append(site.get("/studies/1.1").text)
    assert "earlier result" not in pages[0]
    assert "No earlier result to compare with. Not used: birth date." in pages[1]
    assert "Compared with earlier results of 2025-03-01." in pages[2]
    assert "grown since 2025-03-01" in pages[2]
