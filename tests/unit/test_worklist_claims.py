"""Readers take from the real list: overdue studies are served, claims lapse, and everything said is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worklist_app import InProcess, app_of
from tests.worklist_world import TENANT, World

from wetread.core.errors import Conflict
from wetread.core.events import EventType
from wetread.core.ports import WorklistFilter
from wetread.core.priority import Priority
from wetread.core.reading_order import DEFAULT_GUARD, taken_since_overdue
from wetread.core.states import AiState

UID = "1.2.3.1"
FINDING = f"/api/v1/studies/{UID}/findings/ich-1"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def api(world: World) -> InProcess:
    return InProcess(app_of(world), "http://testserver")


def listed(world: World) -> list[str]:
    with world.database.read() as tx:
        page = world.worklist.page(tx, TENANT, now=world.clock.now(), wanted=WorklistFilter(), limit=50)
    return [item.study_uid for item in page.items]


def take(world: World, reader: str = "r") -> str:
    """Take the top of the list and read it, as readers do."""
    top = listed(world)[0]
    with world.database.write() as tx:
        assert world.claims.assign(tx, TENANT, top, reader, now=world.clock.now())
        assert world.claims.complete(tx, TENANT, top, reader, now=world.clock.now())
    return top


@given(st.lists(st.booleans(), max_size=12))
def test_the_counter_is_the_run_since_the_last_that_passed_nobody(passed: list[bool]) -> None:
    expected = len(passed) if all(passed) else passed.index(False)
    assert taken_since_overdue(passed) == expected


def test_overdue_studies_are_served_although_the_top_refills(world: World) -> None:
    """Without the claims this list serves T for ever: every read of it begins T, T, O."""
    for n in range(3):
        world.study(f"1.9.{n}", minutes_ago=300 - n)
    order = []
    for n in range(9):
        world.study(f"1.1.{n}", minutes_ago=1, priority=Priority.STAT)
        world.study(f"1.2.{n}", minutes_ago=1, priority=Priority.STAT)
        order.append(take(world))
    for k in range(3):
        assert order.index(f"1.9.{k}") + 1 <= (k + 1) * (DEFAULT_GUARD.share + 1)
    assert [uid.startswith("1.9.") for uid in order] == [False, False, True] * 3


def test_what_is_put_back_does_not_count(world: World) -> None:
    world.study("1.9.1", minutes_ago=300)
    for n in range(4):
        world.study(f"1.1.{n}", minutes_ago=1, priority=Priority.STAT)
    assert [take(world), take(world)] == ["1.1.0", "1.1.1"]
    assert listed(world)[0] == "1.9.1"
    with world.database.write() as tx:  # the overdue one is taken and put back: it is still its turn
        world.claims.assign(tx, TENANT, "1.9.1", "r", now=world.clock.now())
    assert listed(world) == ["1.1.2", "1.1.3", "1.9.1"], "in a reader's hands it is listed last"
    with world.database.write() as tx:
        assert world.claims.release(tx, TENANT, "1.9.1", now=world.clock.now()).reader == "r"
    assert listed(world)[0] == "1.9.1"


def test_a_claim_lapses_and_another_reader_can_take_the_study(world: World) -> None:
    world.study(UID, minutes_ago=1, priority=Priority.STAT)
    world.study("1.2.3.2", minutes_ago=1)
    with world.database.write() as tx:
        assert world.claims.assign(tx, TENANT, UID, "first", now=world.clock.now())
        assert not world.claims.assign(tx, TENANT, UID, "first", now=world.clock.now())
        with pytest.raises(Conflict):
            world.claims.assign(tx, TENANT, UID, "second", now=world.clock.now())
    assert listed(world) == ["1.2.3.2", UID]
    world.clock.at += DEFAULT_GUARD.claim_seconds
    assert listed(world)[0] == UID
    with world.database.write() as tx:
        assert world.claims.assign(tx, TENANT, UID, "second", now=world.clock.now())
        with pytest.raises(Conflict):
            world.claims.complete(tx, TENANT, UID, "first", now=world.clock.now())
        assert world.claims.complete(tx, TENANT, UID, "second", now=world.clock.now())
        assert not world.claims.complete(tx, TENANT, UID, "second", now=world.clock.now())
        with pytest.raises(Conflict):
            world.claims.assign(tx, TENANT, UID, "first", now=world.clock.now())


def test_every_study_is_on_one_page_of_the_list_also_in_a_readers_hands(world: World) -> None:
    uids = {world.study(f"1.5.{n}", minutes_ago=n + 1) for n in range(7)}
    with world.database.write() as tx:
        world.claims.assign(tx, TENANT, "1.5.6", "r", now=world.clock.now())
    seen, cursor = [], None
    while True:
        with world.database.read() as tx:
            page = world.worklist.page(
                tx, TENANT, now=world.clock.now(), wanted=WorklistFilter(), limit=2, cursor=cursor
            )
        seen += [item.study_uid for item in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert sorted(seen) == sorted(uids)
    assert seen[-1] == "1.5.6"


def test_the_readers_day_over_the_api(world: World, api: InProcess) -> None:
    world.study(UID, priority=None)  # nobody registered it: it can be taken all the same
    url = f"/api/v1/worklist/{UID}"
    me, other = {"x-client": "dr-a"}, {"x-client": "dr-b"}
    taken = api.post(f"{url}:assign", headers=me).json()
    assert (taken["band"], taken["reading"]["reader"]) == ("assigned", "dr-a")
    assert api.post(f"{url}:assign", headers=other).status_code == 409
    assert api.post(f"{url}:release", headers=other).status_code == 422
    assert api.post(f"{url}:release", headers=other, json={"reason": "gone home"}).json()["reading"] is None
    assert api.post(f"{url}:release", headers=me).status_code == 409
    assert api.post(f"{url}:assign", headers=me, json={"reader": "dr-c"}).json()["reading"]["reader"] == "dr-c"
    assert api.post(f"{url}:complete", headers=me).status_code == 409
    done = api.post(f"{url}:complete", headers={"x-client": "dr-c"}).json()
    assert done["reading"]["read_at"]
    assert api.get("/api/v1/worklist").json()["items"] == []
    assert api.post("/api/v1/worklist/1.2.3.99:assign").status_code == 404
    assert api.post(f"{url}:assign", headers={"x-tenant": "other"}).status_code == 404
    told = [(event["type"], event["data"]["actor"], event["data"]["reader"]) for event in _events(api)]
    assert told == [
        ("worklist.assigned", "dr-a", "dr-a"),
        ("worklist.released", "dr-b", "dr-a"),
        ("worklist.assigned", "dr-a", "dr-c"),
        ("worklist.completed", "dr-c", "dr-c"),
    ]


def test_feedback_is_kept_as_events_and_never_moves_the_list(world: World, api: InProcess) -> None:
    world.study(UID, priority=Priority.STAT)
    world.study("1.2.3.2")
    world.result(UID, "ich", AiState.POSITIVE, volume_ml=12.0, score=0.9)
    before = listed(world)
    me, other = {"x-client": "dr-a"}, {"x-client": "dr-b"}
    assert api.post(f"{FINDING}:acknowledge", headers=me).json()["feedback"]["acknowledged_by"] == "dr-a"
    again = api.post(f"{FINDING}:acknowledge", headers=other).json()["feedback"]
    assert again["acknowledged_by"] == "dr-a", "the first one counts"
    assert api.post(f"{FINDING}:reject", headers=me, json={"reason": " "}).status_code == 422
    assert api.post(f"{FINDING}:edit", headers=me, json={"reason": "x"}).status_code in {400, 422}
    wrong = {"reason": "x", "measurements": [{"code": "1", "value": 1, "unit": "mm"}]}
    assert api.post(f"{FINDING}:edit", headers=me, json=wrong).status_code == 422
    for _ in range(2):  # a click that came twice is one verdict
        assert api.post(f"{FINDING}:reject", headers=me, json={"reason": "calcified plexus"}).status_code == 200
    right = {"reason": "smaller", "measurements": [{"code": "118565006", "value": 9.5, "unit": "mL"}]}
    api.post(f"{FINDING}:edit", headers=other, json=right)
    findings = api.get(f"/api/v1/studies/{UID}/findings").json()["results"][0]["findings"]
    feedback = findings[0]["feedback"]
    assert (feedback["verdict"], feedback["verdict_by"], feedback["reason"]) == ("edited", "dr-b", "smaller")
    assert feedback["changes"]["measurements"][0]["value"] == 9.5
    assert findings[0]["volume_ml"] == 12.0, "the recorded result never changes"
    assert listed(world) == before
    assert [e["type"] for e in _events(api)] == ["finding.acknowledged", "finding.rejected", "finding.edited"]


def test_a_verdict_acknowledges_and_shadow_findings_cannot_be_judged(world: World, api: InProcess) -> None:
    world.study(UID)
    world.result(UID, "ich", AiState.POSITIVE, volume_ml=12.0)
    world.result(UID, "pe", AiState.POSITIVE, volume_ml=1.0, shadow=True)
    said = api.post(f"{FINDING}:accept", headers={"x-client": "dr-a"}).json()["feedback"]
    assert (said["acknowledged_by"], said["verdict"]) == ("dr-a", "accepted")
    shadow = f"/api/v1/studies/{UID}/findings/pe-1:accept"
    assert api.post(shadow).status_code == 404
    assert api.post(FINDING + ":accept", headers={"x-tenant": "other"}).status_code == 404
    with world.database.read() as tx:
        kinds = [event.type for event in world.events.of_study(tx, TENANT, UID, types=[EventType.FINDING_ACCEPTED])]
    assert kinds == [EventType.FINDING_ACCEPTED]


def _events(api: InProcess) -> list[dict[str, object]]:
    kinds = "finding.acknowledged,finding.accepted,finding.rejected,finding.edited"
    kinds += ",worklist.assigned,worklist.released,worklist.completed"
    return list(api.get(f"/api/v1/events?types={kinds}").json()["events"])
