"""The typed client against the real application in process: what the API says arrives as values and typed errors."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from tests.worklist_app import app_of, served
from tests.worklist_rows import detectors, fill
from tests.worklist_world import World

from wetread.client import AsyncClient, AsyncWorkitems, Client, Workitems, models, verify_signature
from wetread.client.answers import error_of
from wetread.client.stream import EventStream
from wetread.core.errors import (
    Conflict,
    Forbidden,
    Gone,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    Unavailable,
    Unprocessable,
    WetreadError,
    WorkitemStateError,
)
from wetread.core.events import EventType
from wetread.core.findings import StoredSeries
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState, StudyAiState
from wetread.core.webhook_signature import signature_headers

ROOT = Path(__file__).resolve().parents[2]
STORED = (StoredSeries(modality="SR", series_uid="1.2.3.7", sop_instance_uids=("1.2.3.7.1",)),)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with (
        TestClient(app_of(world, detectors=detectors)) as web,
        Client("http://testserver", "key", transport=web._transport) as made,
    ):
        yield made


def mocked(handle: Any, **options: Any) -> Client:
    return Client("http://testserver/", transport=httpx.MockTransport(handle), **options)


# --- calls -----------------------------------------------------------------------------------------------------------


def test_the_worklist_arrives_in_order_and_whole(world: World, client: Client) -> None:
    fill(world)
    page = client.worklist_page(limit=3)
    assert (len(page.items), page.ruo) == (3, RUO_STATEMENT)
    assert page.next is not None
    rest = client.worklist_page(limit=200, cursor=page.next)
    everything = [item.study_uid for item in client.worklist()]
    assert [item.study_uid for item in (*page.items, *rest.items)] == everything
    assert len(everything) == 10
    first = page.items[0]
    assert first.priority is Priority.STAT
    assert first.due_at.utcoffset() is not None
    assert [item.study_uid for item in client.worklist(state=StudyAiState.MEASURED)] == ["1.2.3.3"]
    assert {item.study_uid for item in client.worklist(priority=Priority.BATCH)} == {"1.2.3.9"}
    assert {item.study_uid for item in client.worklist(text="okonkwo")} == {"1.2.3.1"}
    assert {item.study_uid for item in client.worklist(modality="CR")} == {"1.2.3.6"}


def test_iteration_goes_over_pages() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        page = {"items": [], "next": None if "cursor" in request.url.params else "c1", "ruo": "r"}
        asked.append(request.url.params.get("cursor"))
        return httpx.Response(200, json=page)

    asked: list[str | None] = []
    assert list(mocked(handle).worklist()) == []
    assert asked == [None, "c1"]


def test_raise_findings_manifest_and_timeline(world: World, client: Client) -> None:
    world.study("1.2.3")
    world.result("1.2.3", "ich", AiState.POSITIVE, volume_ml=12.5, score=0.9, stored=STORED)
    world.event(EventType.STUDY_RECEIVED, "1.2.3")
    assert client.raise_study("1.2.3", Priority.STAT, "phone call").priority is Priority.STAT
    findings = client.findings("1.2.3")
    assert (findings.state, findings.final) == (StudyAiState.POSITIVE, True)
    [result] = findings.results
    assert (result.state, result.score, result.stored[0].series_uid) == (AiState.POSITIVE, 0.9, "1.2.3.7")
    assert (result.findings[0].volume_ml, result.findings[0].key_image.plane) == (12.5, 1)
    assert client.manifest("1.2.3", instances=3).signal == "manifest"
    assert client.manifest("1.2.3", sop_instance_uids=iter(["1.2.3.1.1"])).generation == 1
    assert [entry.arguments["manifest"] for entry in world.work.take() if "manifest" in entry.arguments] == [
        {"instances": 3},
        {"sop_instance_uids": ["1.2.3.1.1"]},
    ]
    told = client.timeline("1.2.3")
    assert [event.type for event in told.events] == ["study.received", "worklist.priority_changed"]


def test_a_reader_takes_gives_back_and_finishes(world: World, client: Client) -> None:
    fill(world)
    taken = client.assign_study("1.2.3.1", "dr-a", "on call")
    assert taken.reading is not None
    assert (taken.reading.reader, taken.reading.read_at) == ("dr-a", None)
    with pytest.raises(Conflict):
        client.assign_study("1.2.3.1", "dr-b")
    with pytest.raises(Unprocessable):
        client.release_study("1.2.3.1")
    assert client.release_study("1.2.3.1", "handed over").reading is None
    read = client.complete_study("1.2.3.1").reading
    assert read is not None
    assert read.read_at is not None
    assert "1.2.3.1" not in [item.study_uid for item in client.worklist()]


def test_a_reader_judges_findings(world: World, client: Client) -> None:
    fill(world)

    def said() -> models.Feedback | None:
        found = [f for r in client.findings("1.2.3.1").results for f in r.findings]
        assert len(found) == 1
        return found[0].feedback

    finding = next(f for r in client.findings("1.2.3.1").results for f in r.findings)
    answer = client.acknowledge_finding("1.2.3.1", finding.finding_id)
    assert answer.feedback.acknowledged_at is not None
    assert answer.feedback.verdict is None
    assert client.accept_finding("1.2.3.1", finding.finding_id).feedback.verdict == "accepted"
    with pytest.raises(Unprocessable):
        client.reject_finding("1.2.3.1", finding.finding_id, " ")
    assert client.reject_finding("1.2.3.1", finding.finding_id, "plexus").feedback.reason == "plexus"
    volume = finding.measurements[0]
    corrected = models.MeasurementEdit(code=volume.code, value=19.5, unit=volume.unit)
    client.edit_finding("1.2.3.1", finding.finding_id, "too big", measurements=[corrected], laterality="left")
    kept = said()
    assert kept is not None
    assert kept.verdict == "edited"
    assert kept.changes == {"laterality": "left", "measurements": [corrected.model_dump()]}
    with pytest.raises(Unprocessable):
        client.edit_finding(
            "1.2.3.1", finding.finding_id, "x", measurements=[models.MeasurementEdit(code="0", value=1, unit="mm")]
        )
    with pytest.raises(NotFound):
        client.acknowledge_finding("1.2.3.1", "a/b?c")


def test_what_the_service_says_of_itself() -> None:
    asked: list[httpx.URL] = []
    answers = {
        "/api/v1/reports/sla": {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z", "definitions": {},
            "targets_s": {"stat": 300}, "rows": [{"group": {"site": "a"}, "studies": 1, "in_target": None,
            "clocks": {"read": {"studies": 1, "p50_s": 2.0, "p90_s": 2.0, "p95_s": None}}}]},
        "/api/v1/usage": {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z", "studies": 1,
            "gb_hours": 0.5, "models": []},
        "/api/v1/detectors": {"detectors": [], "ruo": RUO_STATEMENT},
    }  # fmt: skip

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        return httpx.Response(200, json=answers[request.url.path])

    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)
    with mocked(handle) as client:
        assert client.sla_report(start, end, by=["site", "modality"]).rows[0].clocks["read"].p50_s == 2.0
        assert dict(asked[-1].params) == {"from": start.isoformat(), "to": end.isoformat(), "by": "site,modality"}
        assert client.usage(start).gb_hours == 0.5
        assert dict(asked[-1].params) == {"from": start.isoformat()}
        assert client.detectors() == ()


def test_waiting_ends_when_final_or_in_time(world: World, client: Client) -> None:
    world.study("1.2.3")
    world.task("1.2.3", "ich", AiState.RUNNING)
    pending = client.findings("1.2.3", wait_seconds=0.3)
    assert not pending.final
    world.task("1.2.3", "ich", AiState.NEGATIVE)
    assert client.findings("1.2.3", wait_seconds=30).final


def test_a_wait_longer_than_a_poll_asks_again() -> None:
    states = iter(["pending", "pending", "not_applicable"])

    def handle(request: httpx.Request) -> httpx.Response:
        waits.append(request.url.params["wait"])
        return httpx.Response(200, json={"study_uid": "1.2", "state": next(states), "results": [], "ruo": "r"})

    waits: list[str] = []
    assert mocked(handle).findings("1.2", wait_seconds=300).final
    assert waits == ["60.000s"] * 3


def test_subscriptions_from_first_to_last(client: Client) -> None:
    made = client.subscribe("http://127.0.0.1:9/hook", ["finding.positive"])
    assert made.secrets[0].startswith("whsec_")
    assert [s.id for s in client.subscriptions()] == [made.id]
    assert client.subscription(made.id).types == ("finding.positive",)
    assert client.rotate_secret(made.id).secrets[1] == made.secrets[0]
    assert not client.test_delivery(made.id).delivered
    assert client.deliveries(made.id, state="dead") == ()
    client.unsubscribe(made.id)
    with pytest.raises(NotFound):
        client.subscription(made.id)


def test_webhooks_are_verified_with_what_the_client_ships(client: Client) -> None:
    made = client.subscribe("http://127.0.0.1:9/hook")
    headers = signature_headers(made.secrets, "e1", 1000, b"{}")
    assert verify_signature(made.secrets, headers, b"{}", now=1001) == "e1"
    with pytest.raises(NotAuthenticated):
        verify_signature(made.secrets, headers, b"{ }", now=1001)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_the_errors_of_the_server_are_raised_again(client: Client) -> None:
    with pytest.raises(NotFound, match="no such study"):
        client.findings("9.9")
    with pytest.raises(InvalidInput):
        client.findings("not a uid")
    with pytest.raises(InvalidInput):
        client.worklist_page(cursor="forged")
    with pytest.raises(Unprocessable) as caught:
        client.subscribe("http://[::1")
    assert caught.value.code


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput), (401, NotAuthenticated), (403, Forbidden), (404, NotFound), (409, Conflict), (410, Gone),
        (418, InvalidInput), (429, Unavailable), (500, WetreadError), (502, Unavailable), (503, Unavailable),
    ],
)  # fmt: skip
def test_answers_without_a_problem_object_have_an_error_too(status: int, kind: type[WetreadError]) -> None:
    for body in (b"<html>", b"[]"):
        error = error_of(httpx.Response(status, content=body))
        assert type(error) is kind
        assert error.detail == f"HTTP {status}"


def test_details_of_a_problem_are_kept() -> None:
    busy = error_of(httpx.Response(503, headers={"retry-after": "7"}, json={"detail": "later"}))
    assert isinstance(busy, Unavailable)
    assert (busy.retry_after, busy.detail) == (7.0, "later")
    dated = error_of(httpx.Response(503, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    assert isinstance(dated, Unavailable)
    assert dated.retry_after is None
    problem = {"type": "urn:wetread:problem:workitem-state", "detail": "taken", "dicom_status": "C301"}
    taken = error_of(httpx.Response(400, json=problem))
    assert isinstance(taken, WorkitemStateError)
    assert (taken.dicom_status, taken.http_status) == (0xC301, 400)


def test_no_answer_and_a_strange_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(Unavailable, match="does not answer"):
        mocked(refuse).worklist_page()
    with pytest.raises(WetreadError, match="WorklistPage"):
        mocked(lambda _request: httpx.Response(200, json={"items": 1})).worklist_page()


def test_newer_fields_are_ignored_and_the_key_is_sent() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer k"
        return httpx.Response(200, json={"events": [], "next": 4, "later": True})

    assert mocked(handle, api_key="k").events(4).next == 4


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_by_cursor(world: World, client: Client) -> None:
    for number in range(3):
        world.event(EventType.STUDY_CHANGED, "1.2.3", id=f"e{number}")
    first = client.events(limit=2)
    assert [event.id for event in first.events] == ["e0", "e1"]
    assert [event.id for event in client.events(first.next).events] == ["e2"]
    assert client.events(types=["study.received"]).events == ()


def frame(cursor: int, kind: str = "study.changed") -> str:
    event = {"id": f"e{cursor}", "type": kind, "source": "/t", "subject": "1.2", "time": "2026-03-01T00:00:00Z"}
    return f"id: {cursor}\nevent: {kind}\ndata: {json.dumps(event | {'cursor': cursor, 'data': {}})}\n\n"


def test_a_broken_stream_goes_on_where_it_was() -> None:
    bodies = iter([": heartbeat\n\nretry: 50\nid: 4\n\n", frame(5) + frame(6)[:-5], frame(6) + frame(6) + frame(7)])
    asked: list[str | None] = []
    pauses: list[float] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 3:
            raise httpx.ReadError("gone", request=request)
        if len(asked) == 4:
            return httpx.Response(503)
        return httpx.Response(200, text=next(bodies))

    follow = mocked(handle, pause=pauses.append).follow(types=["study.changed"])
    assert [next(follow).cursor for _ in range(3)] == [5, 6, 7]
    assert asked == [None, "4", "5", "5", "5"]
    assert pauses == [0.05] * 4


def test_another_stream_and_a_refusal_end_it() -> None:
    reset = mocked(lambda _request: httpx.Response(200, text="event: reset\ndata: {}\n\n"))
    with pytest.raises(Gone, match="afresh"):
        next(reset.follow(after=10**9))
    refused = mocked(lambda _request: httpx.Response(400, json={"detail": "types names no event"}))
    with pytest.raises(InvalidInput, match="types"):
        next(refused.follow(types=["nonsense"]))
    stream = EventStream(None)
    stream.line("data: {}")
    with pytest.raises(WetreadError, match="no event"):
        stream.line("")


def test_both_clients_follow_a_real_stream(world: World) -> None:
    stopping = threading.Event()
    with served(app_of(world, stopping), stopping) as url:
        world.event(EventType.STUDY_RECEIVED, "1.2.3", id="e0")

        async def follow() -> list[str]:
            seen = []
            async with AsyncClient(url) as client:
                async for event in client.follow(after=0):
                    seen.append(event.id)
                    if len(seen) == 2:
                        return seen
                    await asyncio.to_thread(world.event, EventType.STUDY_CHANGED, "1.2.3", id="e1")
            return seen

        assert asyncio.run(follow()) == ["e0", "e1"]
        with Client(url) as client:
            stream = client.follow(after=1)
            assert next(stream).id == "e1"
            stream.close()


# --- the asynchronous client, and what both promise ------------------------------------------------------------------


def test_the_asynchronous_client_says_the_same(world: World, client: Client) -> None:
    fill(world)

    async def look() -> None:
        transport = httpx.ASGITransport(app_of(world, detectors=detectors))
        async with AsyncClient("http://testserver", transport=transport) as other:
            assert [item async for item in other.worklist()] == list(client.worklist())
            assert await other.findings("1.2.3.1") == client.findings("1.2.3.1")
            assert await other.timeline("1.2.3.1", limit=2) == client.timeline("1.2.3.1", limit=2)
            assert await other.events(limit=5) == client.events(limit=5)
            made = await other.subscribe("http://127.0.0.1:9/hook")
            assert [s.id for s in await other.subscriptions()] == [made.id]
            assert await other.deliveries(made.id) == ()
            await other.unsubscribe(made.id)
            with pytest.raises(NotFound):
                await other.raise_study("9.9", Priority.STAT, "why")

    asyncio.run(look())


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Workitems, AsyncWorkitems)])
def test_both_clients_have_the_same_methods(one: type, other: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(function).parameters) for name, function in found if name[0] != "_"}

    assert methods(one) == methods(other)


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (models.WorklistPage, "WorklistOut"), (models.WorklistItem, "WorklistItemOut"), (models.Reason, "ReasonOut"),
        (models.Ai, "AiOut"), (models.TaskState, "TaskOut"), (models.Findings, "FindingsOut"),
        (models.Result, "ResultOut"), (models.RecordedResult, "RecordedResultOut"), (models.Finding, "FindingOut"),
        (models.Reading, "ReadingOut"), (models.Feedback, "FeedbackOut"),
        (models.FindingFeedback, "FindingFeedbackOut"), (models.MeasurementEdit, "MeasurementEditIn"),
        (models.Detectors, "DetectorsOut"), (models.Detector, "DetectorOut"),
        (models.OperatingPoint, "OperatingPointOut"), (models.Clock, "ClockOut"), (models.SlaRow, "SlaRowOut"),
        (models.Sla, "SlaOut"), (models.Usage, "UsageOut"), (models.ModelUsage, "ModelUsageOut"),
        (models.Measurement, "MeasurementOut"), (models.KeyImage, "KeyImageOut"), (models.Stored, "StoredOut"),
        (models.Manifest, "ManifestOut"), (models.Moment, "MomentOut"), (models.Timeline, "TimelineOut"),
        (models.Task, "TaskRowOut"), (models.Tasks, "TasksOut"), (models.TaskDetail, "TaskDetailOut"),
        (models.Events, "EventsOut"), (models.Subscription, "SubscriptionOut"),
        (models.SubscriptionWithSecrets, "SubscriptionWithSecrets"), (models.Subscriptions, "SubscriptionsOut"),
        (models.Delivery, "DeliveryOut"), (models.Deliveries, "DeliveriesOut"),
        (models.TestDelivery, "TestDeliveryOut"),
    ],
)  # fmt: skip
def test_the_models_are_those_of_the_openapi_description(model: Any, schema: str) -> None:
    described = json.loads((ROOT / "docs/openapi.json").read_text())["components"]["schemas"][schema]["properties"]
    assert set(model.model_fields) == set(described)


def test_the_examples_of_the_page_are_python_and_their_names_exist() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    for block in blocks:
        imports = [line for line in block.splitlines() if line.startswith("from wetread")]
        compile(block, "docs/client.md", "exec")
        exec("\n".join(imports), {})


def test_the_event_model_leaves_out_only_the_envelope() -> None:
    described = json.loads((ROOT / "docs/openapi.json").read_text())["components"]["schemas"]["EventOut"]["properties"]
    assert set(described) - set(models.Event.model_fields) == {"specversion", "datacontenttype"}
