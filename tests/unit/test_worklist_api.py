"""The provider API in process: the contract's fields, typed refusals, nothing silent."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.worklist_app import InProcess, app_of
from tests.worklist_world import World

from wetread.core.events import EventType
from wetread.core.findings import StoredSeries
from wetread.core.manifest import Card, Manifest
from wetread.core.ports import DetectorInfo
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState
from wetread.core.webhook_signature import check_secret


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def api(world: World) -> InProcess:
    return InProcess(app_of(world), "http://testserver/api/v1")


def test_the_worklist_has_the_fields_of_the_contract(world: World, api: InProcess) -> None:
    world.study("1.2.3", minutes_ago=10, priority=Priority.URGENT, patient_id="P-9", description="CT HEAD")
    world.task("1.2.3", "ich", AiState.RUNNING, progress=30)
    body = api.get("/worklist").json()
    assert body["ruo"] == RUO_STATEMENT
    assert body["next"] is None
    (item,) = body["items"]
    assert item.keys() == {
        "study_uid", "patient_id", "modality", "description", "received_at", "due_at", "priority", "reasons", "ai",
            "band", "reading",
    }  # fmt: skip
    assert (item["study_uid"], item["patient_id"], item["modality"], item["priority"]) == (
        "1.2.3",
        "P-9",
        "CT",
        "urgent",
    )
    assert (item["received_at"], item["due_at"]) == ("2026-02-28T23:50:00.000Z", "2026-03-01T00:20:00.000Z")
    assert item["reasons"][0]["source"] == "order"
    assert item["ai"]["state"] == "pending"
    (task,) = item["ai"]["tasks"]
    assert (task["detector"], task["state"], task["progress"], task["shadow"]) == ("ich", "running", 30, False)


def test_paging_and_filters_over_http(world: World, api: InProcess) -> None:
    for number in range(5):
        world.study(f"1.{number}", minutes_ago=30 - number)
    listed, cursor = [], None
    while True:
        body = api.get("/worklist", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        listed += [item["study_uid"] for item in body["items"]]
        cursor = body["next"]
        if cursor is None:
            break
    assert listed == [f"1.{number}" for number in range(5)]
    assert api.get("/worklist?state=positive").json()["items"] == []
    assert api.get("/worklist?priority=highest").status_code == 422
    assert api.get("/worklist?limit=0").status_code == 422
    refused = api.get("/worklist?cursor=nonsense")
    assert (refused.status_code, refused.headers["content-type"]) == (400, "application/problem+json")


def test_shadow_tasks_are_shown_as_such_and_do_not_count(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.task("1.2.3", "ich", AiState.NEGATIVE)
    world.task("1.2.3", "stroke", AiState.POSITIVE, shadow=True)
    ai = api.get("/worklist").json()["items"][0]["ai"]
    assert ai["state"] == "negative"
    assert [(task["detector"], task["shadow"]) for task in ai["tasks"]] == [("ich", False), ("stroke", True)]


def test_raising_by_hand(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    answer = api.post("/worklist/1.2.3:raise", json={"priority": "stat", "reason": "called by the ward"})
    assert answer.status_code == 200
    assert answer.json()["priority"] == "stat"
    assert answer.json()["reasons"][-1]["text"] == "called by the ward"
    lower = api.post("/worklist/1.2.3:raise", json={"priority": "batch", "reason": "not urgent"})
    assert lower.json()["priority"] == "stat", "nobody can lower a study"
    (event,) = api.get("/events?types=worklist.priority_changed").json()["events"]
    assert event["data"]["source"] == "manual"


def test_a_study_that_nobody_registered_can_be_raised(world: World, api: InProcess) -> None:
    world.study("1.2.3", priority=None, minutes_ago=4)
    item = api.post("/worklist/1.2.3:raise", json={"priority": "urgent", "reason": "x"}).json()
    assert (item["priority"], item["due_at"]) == ("urgent", "2026-03-01T00:26:00.000Z")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/worklist/9.9:raise", {"priority": "stat", "reason": "x"}, 404),
        ("/worklist/..%2fx:raise", {"priority": "stat", "reason": "x"}, 404),
        ("/worklist/abc:raise", {"priority": "stat", "reason": "x"}, 400),
        ("/worklist/1.2.3:raise", {"priority": "stat", "reason": ""}, 422),
        ("/worklist/1.2.3:raise", {"priority": "stat"}, 422),
        ("/worklist/1.2.3:raise", {"priority": "stat", "reason": "x", "by": "me"}, 422),
        ("/studies/9.9/manifest", {"instances": 3}, 404),
        ("/studies/1.2.3/manifest", {}, 422),
        ("/studies/1.2.3/manifest", {"instances": 3, "sop_instance_uids": ["1.2"]}, 422),
        ("/studies/1.2.3/manifest", {"instances": 0}, 422),
        ("/studies/1.2.3/manifest", {"sop_instance_uids": ["../x"]}, 422),
        ("/subscriptions", {"url": "http://10.0.0.1/"}, 422),
        ("/subscriptions", {"url": "ftp://x/"}, 422),
        ("/subscriptions", {"url": "https://h.example/", "types": ["nonsense"]}, 422),
        ("/subscriptions", {"url": "https://h.example/", "secrets": ["weak"]}, 400),
        ("/subscriptions/none:test", {}, 404),
        ("/subscriptions/none:rotate", {}, 404),
    ],
)
def test_bad_requests_get_typed_answers(world: World, api: InProcess, path: str, body: object, status: int) -> None:
    world.study("1.2.3")
    assert api.post(path, json=body).status_code == status


@pytest.mark.parametrize("path", ["/studies/9.9/findings", "/subscriptions/none", "/subscriptions/none/deliveries"])
def test_what_does_not_exist_is_not_found(api: InProcess, path: str) -> None:
    assert api.get(path).status_code == 404


def test_findings_carry_results_with_score_volume_digest_and_stored_series(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    stored = (StoredSeries(modality="SR", series_uid="1.2.3.7", sop_instance_uids=("1.2.3.7.1",)),)
    world.result("1.2.3", "ich", AiState.POSITIVE, volume_ml=23.4, score=0.93, stored=stored)
    body = api.get("/studies/1.2.3/findings").json()
    assert (body["study_uid"], body["state"], body["ruo"]) == ("1.2.3", "positive", RUO_STATEMENT)
    (result,) = body["results"]
    expected = {
        "detector": "ich", "version": "1.0.0", "state": "positive", "reason": None, "score": 0.93, "threshold": 0.61,
        "shadow": False, "model_digest": "ab" * 32, "stored": [{"modality": "SR", "series_uid": "1.2.3.7"}],
    }  # fmt: skip
    assert expected.items() <= result.items()
    (finding,) = result["findings"]
    assert (finding["code"], finding["volume_ml"]) == ("1386000", 23.4)


@pytest.mark.parametrize("state", [state for state in AiState if state is not AiState.NEGATIVE])
def test_a_detector_without_a_result_is_listed_and_never_negative(world: World, api: InProcess, state: AiState) -> None:
    world.study("1.2.3")
    world.task("1.2.3", "ich", state, reason="missing_slices")
    body = api.get("/studies/1.2.3/findings").json()
    (result,) = body["results"]
    assert result["state"] == state
    assert body["state"] != "negative"
    assert (result["score"], result["findings"], result["reason"]) == (None, [], "missing_slices")


def test_while_a_rerun_is_pending_the_earlier_result_is_kept_apart(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.result("1.2.3", "ich", AiState.NEGATIVE, score=0.1)
    world.task("1.2.3", "ich", AiState.QUEUED, result_key="1.2.3/ich")
    body = api.get("/studies/1.2.3/findings").json()
    (result,) = body["results"]
    assert (result["state"], result["findings"], body["state"]) == ("queued", [], "pending")
    assert result["previous"]["state"] == "negative"


def test_a_result_of_another_run_does_not_speak_for_the_task(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.result("1.2.3", "ich", AiState.NEGATIVE)
    world.task("1.2.3", "ich", AiState.FAILED, reason="timeout", result_key="another run")
    (result,) = api.get("/studies/1.2.3/findings").json()["results"]
    assert (result["state"], result["reason"]) == ("failed", "timeout")


def test_a_long_poll_answers_at_once_when_all_is_final(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.task("1.2.3", "ich", AiState.NEGATIVE)
    world.task("1.2.3", "shadow", AiState.RUNNING, shadow=True)
    assert api.get("/studies/1.2.3/findings?wait=60s").json()["state"] == "negative"
    world.study("1.2.4", looked_at=True)
    assert api.get("/studies/1.2.4/findings?wait=60s").json()["state"] == "not_applicable"


def test_a_long_poll_ends_with_its_time(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.task("1.2.3", "ich", AiState.RUNNING)
    assert api.get("/studies/1.2.3/findings?wait=0.2s").json()["state"] == "pending"
    assert api.get("/studies/1.2.3/findings?wait=ages").status_code == 400


def test_a_manifest_is_evaluated_with_the_current_generation(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    for _twice in range(2):
        answer = api.post("/studies/1.2.3/manifest", json={"instances": 324})
        assert answer.status_code == 202
        assert answer.json() == {"study_uid": "1.2.3", "generation": 1, "signal": "manifest"}
    (entry,) = world.work.take()
    assert (entry.workflow, entry.queue) == ("evaluate_study", "control")
    assert entry.arguments == {
        "tenant": "default", "study_uid": "1.2.3", "generation": 1, "signal": "manifest",
        "manifest": {"instances": 324},
    }  # fmt: skip


def test_events_by_cursor(world: World, api: InProcess) -> None:
    world.event(EventType.STUDY_RECEIVED, "1.1", instances=3)
    world.event(EventType.RESULT_READY, "1.1", state="negative")
    first = api.get("/events?limit=1").json()
    (event,) = first["events"]
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "study.received", "1.1")
    assert event["data"]["ruo"] == RUO_STATEMENT
    second = api.get("/events", params={"after": first["next"]}).json()
    assert [event["type"] for event in second["events"]] == ["result.ready"]
    end = api.get("/events", params={"after": second["next"]}).json()
    assert end == {"events": [], "next": second["next"]}
    assert api.get("/events?types=nonsense").status_code == 400


def test_tenants_are_apart(world: World, api: InProcess) -> None:
    world.study("1.2.3")
    world.event(EventType.STUDY_RECEIVED, "1.2.3")
    api.post("/subscriptions", json={"url": "https://h.example/"})
    other = {"x-tenant": "other"}
    assert api.get("/worklist", headers=other).json()["items"] == []
    assert api.get("/events", headers=other).json()["events"] == []
    assert api.get("/subscriptions", headers=other).json() == {"subscriptions": []}
    assert api.get("/studies/1.2.3/findings", headers=other).status_code == 404
    body = {"priority": "stat", "reason": "x"}
    assert api.post("/worklist/1.2.3:raise", json=body, headers=other).status_code == 404


def test_the_life_of_a_subscription(world: World, api: InProcess) -> None:
    made = api.post("/subscriptions", json={"url": "https://h.example/hook", "types": ["finding.positive"]})
    assert made.status_code == 201
    name, (secret,) = made.json()["id"], made.json()["secrets"]
    check_secret(secret)
    shown = api.get(f"/subscriptions/{name}").json()
    assert "secrets" not in shown
    assert (shown["active"], shown["include_patient"], shown["types"]) == (True, False, ["finding.positive"])
    assert api.get("/subscriptions").json()["subscriptions"] == [shown]
    rotated = api.post(f"/subscriptions/{name}:rotate").json()["secrets"]
    assert rotated[1] == secret
    assert rotated[0] != secret
    assert len(api.post(f"/subscriptions/{name}:rotate").json()["secrets"]) == 2
    world.event(EventType.FINDING_POSITIVE, "1.1", id="e1")
    (delivery,) = api.get(f"/subscriptions/{name}/deliveries?state=pending").json()["deliveries"]
    assert (delivery["event_id"], delivery["state"], delivery["attempts"]) == ("e1", "pending", 0)
    assert api.get(f"/subscriptions/{name}/deliveries?state=dead").json()["deliveries"] == []
    assert api.delete(f"/subscriptions/{name}").status_code == 204
    assert api.delete(f"/subscriptions/{name}").status_code == 404


def test_a_sample_to_nobody_says_so(api: InProcess) -> None:
    name = api.post("/subscriptions", json={"url": "http://127.0.0.1:1/"}).json()["id"]
    answer = api.post(f"/subscriptions/{name}:test").json()
    assert answer["delivered"] is False
    assert "cannot be reached" in answer["detail"]


def test_openapi_describes_every_answer(api: InProcess) -> None:
    paths = api.get("http://testserver/openapi.json").json()["paths"]
    ours = {path: operations for path, operations in paths.items() if path.startswith("/api/v1/")}
    assert {
        "/api/v1/worklist", "/api/v1/worklist/{study_uid}:raise", "/api/v1/studies/{study_uid}/findings",
        "/api/v1/studies/{study_uid}/manifest", "/api/v1/detectors", "/api/v1/events", "/api/v1/events/stream",
        "/api/v1/subscriptions", "/api/v1/subscriptions/{subscription_id}",
        "/api/v1/subscriptions/{subscription_id}:test",
    } <= ours.keys()  # fmt: skip
    for path, operations in ours.items():
        for operation in operations.values():
            assert operation["summary"]
            if path.endswith("/stream") or "204" in operation["responses"]:
                continue
            success = next(value for code, value in operation["responses"].items() if code.startswith("2"))
            assert success["content"]["application/json"]["schema"], path


def test_detectors_say_what_they_are_for_and_what_not(world: World) -> None:
    manifest = Manifest.model_validate(
        {
            "schema": "wetread.detector/1", "name": "ich", "version": "1.0.0", "title": "Intracranial haemorrhage",
            "intended_use": "order of reading", "not_for": ["diagnosis"],
            "input": {"modality": ["CT"], "select": "thin"}, "findings": [{"code": ["SCT", "1386000"]}],
            "resources": {"memory_mb": 500}, "licence": {"code": "A", "weights": "A", "training_data": "A"},
        }
    )  # fmt: skip
    point = {"name": "sens90", "threshold": 0.61, "set": "tuning", "sensitivity": 0.9, "specificity": 0.8}
    card = Card.model_validate({"name": "ich", "version": "1.0.0", "operating_points": [point], "shadow": True})
    info = DetectorInfo("ich", "1.0.0", manifest, card, "ab" * 32)
    api = InProcess(app_of(world, detectors=lambda: {"ich": info}), "http://testserver/api/v1")
    body = api.get("/detectors").json()
    (detector,) = body["detectors"]
    assert (detector["name"], detector["not_for"], detector["findings"]) == ("ich", ["diagnosis"], ["SCT:1386000"])
    assert (detector["shadow"], detector["operating_points"]) == (True, [point])
    assert body["ruo"] == RUO_STATEMENT
