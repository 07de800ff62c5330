"""Timeline and tasks: nothing is silent, and what ended without an answer can be tried again, once at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from tests.orchestration_fakes import STUDY
from tests.orchestration_world import World
from tests.worklist_app import InProcess, app_of
from tests.worklist_world import World as Hospital
from typer.testing import CliRunner

from wetread import client
from wetread.adapters.index.tasks import SqlTasks
from wetread.cli import app as cli
from wetread.commands import tasks as command
from wetread.core.errors import NotProcessable, Unavailable, WetreadError
from wetread.core.ports import Task
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import RETRYABLE, AiState
from wetread.worklist import task_endpoints, timeline
from wetread.worklist.ports import WorklistPorts


class Stories:
    """The event table of the orchestration's world with what the timeline asks of it."""

    def __init__(self, world: World) -> None:
        self._world = world

    def append(self, tx: Any, event: Any) -> bool:
        return self._world.events.append(tx, event)

    def latest(self, tx: Any) -> int:
        return max((event.cursor for event in self._world.events.after(tx, "default", 0, limit=100_000)), default=0)

    def of_study(self, tx: Any, tenant: str, study_uid: str, *, limit: int = 200) -> list[Any]:
        found = self._world.events.after(tx, tenant, 0, limit=100_000)
        return [event for event in found if event.subject == study_uid][-limit:]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def api(world: World) -> InProcess:
    """The routes over the orchestration's world: what they queue is run by the real evaluation."""
    ports = WorklistPorts(
        database=world.database, clock=world.clock, worklist=None, order=None, claims=None, events=Stories(world),
        subscriptions=None, deliveries=None, tasks=world.ports.tasks, results=world.ports.results,
        studies=world.studies, work=world.queue, webhooks=None, reports=None, detectors=dict, stopping=None,
    )  # type: ignore[arg-type]  # fmt: skip
    app = FastAPI()

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Any) -> Any:
        request.state.tenant = request.headers.get("x-tenant", "default")
        return await call_next(request)

    @app.exception_handler(WetreadError)
    async def translate(_request: Request, error: WetreadError) -> JSONResponse:
        return JSONResponse(error.problem(), status_code=error.http_status)

    app.include_router(timeline.router(ports))
    app.include_router(task_endpoints.router(ports))
    return InProcess(app, "http://testserver")


def failed(world: World) -> None:
    """Deliver a head whose run is given up after every attempt."""
    world.runner.errors = [Unavailable("no engine")] * 4
    world.deliver(range(1, 31), transfer_end=True)
    world.settle()
    assert world.task().reason == "dead_letter"


def test_a_dead_task_is_listed_shown_and_retried_to_an_answer(world: World, api: InProcess) -> None:
    failed(world)
    [row] = api.get("/tasks", params={"state": "dead"}).json()["tasks"]
    assert (row["study_uid"], row["detector"], row["state"], row["reason"]) == (STUDY, "ich", "failed", "dead_letter")
    assert row["dead"]
    assert row["retryable"]
    former = world.task()
    answer = api.post(f"/tasks/{STUDY}/ich:retry", json={"reason": "engine is back"})
    assert (answer.status_code, answer.json()["state"]) == (202, "awaiting_images")
    again = api.post(f"/tasks/{STUDY}/ich:retry")
    assert again.status_code == 409, "one at a time"
    world.settle()
    task = world.task()
    assert (task.state, task.runs) == (AiState.POSITIVE, former.runs + 1)
    assert task.workitem_uid != former.workitem_uid
    shown = api.get(f"/tasks/{STUDY}/ich").json()
    types = [event["type"] for event in shown["events"]]
    assert types.index("task.dead") < types.index("task.retried") < types.index("task.finished")
    [retried] = [event for event in shown["events"] if event["type"] == "task.retried"]
    assert (retried["state"], retried["reason"], retried["text"]) == ("failed", "dead_letter", "engine is back")
    assert api.get("/tasks", params={"state": "dead"}).json()["tasks"] == []


def test_what_is_retried_in_vain_can_be_retried_again(world: World, api: InProcess) -> None:
    failed(world)
    for _ in range(2):
        world.runner.errors = [Unavailable("no engine")] * 4
        assert api.post(f"/tasks/{STUDY}/ich:retry").status_code == 202
        world.settle()
        assert world.task().reason == "dead_letter"
    assert world.task().runs == 3


def test_data_that_were_refused_are_looked_at_again(world: World, api: InProcess) -> None:
    world.runner.select_error = NotProcessable("no_geometry", "no positions")
    world.deliver(range(1, 31), transfer_end=True)
    world.settle()
    assert world.task().state is AiState.NOT_PROCESSABLE
    world.runner.select_error = None
    assert api.post(f"/tasks/{STUDY}/ich:retry").status_code == 202
    world.settle()
    assert world.task().state is AiState.POSITIVE


@pytest.mark.parametrize("state", sorted(set(AiState) - RETRYABLE - {AiState.SUPERSEDED}))
def test_only_what_has_no_answer_is_retried(world: World, api: InProcess, state: AiState) -> None:
    world.index(range(1, 4))
    way = {AiState.RUNNING: [AiState.QUEUED, AiState.RUNNING]}.get(state, [AiState.QUEUED, state])
    if state in {AiState.AWAITING_IMAGES, AiState.QUEUED, AiState.NOT_APPLICABLE}:
        way = [state]
    with world.database.write() as tx:
        for step in way:
            reason = "body_part" if step is AiState.NOT_APPLICABLE else None
            world.ports.tasks.put(tx, Task("default", STUDY, "ich", "0.1.0", step, reason=reason))
    answer = api.post(f"/tasks/{STUDY}/ich:retry")
    assert (answer.status_code, str(state) in answer.json()["detail"]) == (409, True)
    assert world.task().state is state


def test_other_tenants_and_unknown_pairs_are_not_there(world: World, api: InProcess) -> None:
    failed(world)
    other = {"x-tenant": "other"}
    assert api.get("/tasks", headers=other).json()["tasks"] == []
    for call, path in [
        (api.get, f"/tasks/{STUDY}/ich"),
        (api.post, f"/tasks/{STUDY}/ich:retry"),
        (api.get, f"/studies/{STUDY}/timeline"),
    ]:
        assert call(path, headers=other).status_code == 404
    assert api.get(f"/tasks/{STUDY}/absent").status_code == 404
    assert api.get("/tasks", params={"state": "undead"}).status_code == 422
    assert api.post(f"/tasks/{STUDY}/ich:retry", json={"resaon": "typo"}).status_code == 422


def test_the_timeline_tells_the_story_with_stamps_and_reasons(world: World, api: InProcess) -> None:
    failed(world)
    body = api.get(f"/studies/{STUDY}/timeline").json()
    assert (body["ruo"], body["more"]) == (RUO_STATEMENT, False)
    types = [event["type"] for event in body["events"]]
    assert types[0] == "study.received"
    assert types.index("task.queued") < types.index("task.started") < types.index("task.failed")
    assert [event["cursor"] for event in body["events"]] == sorted(event["cursor"] for event in body["events"])
    [end] = [event for event in body["events"] if event["type"] == "task.failed"]
    assert (end["detector"], end["state"], end["reason"]) == ("ich", "failed", "dead_letter")
    assert set(end["stages"]) >= {"committed", "evaluated"}
    assert set(end["stamps"]) == {"received", *end["stages"]}
    assert all(seconds >= 0 for seconds in end["stages"].values())
    short = api.get(f"/studies/{STUDY}/timeline", params={"limit": 2}).json()
    assert [event["id"] for event in short["events"]] == [event["id"] for event in body["events"][-2:]]
    assert short["more"] is True


def test_the_service_offers_them_below_its_prefix(tmp_path: Path) -> None:
    hospital = Hospital.at(tmp_path)
    hospital.study("1.2.3")
    hospital.task("1.2.3", "ich", AiState.FAILED, reason="timeout")
    hospital.tasks = SqlTasks()  # type: ignore[assignment]
    api = InProcess(app_of(hospital), "http://testserver/api/v1")
    assert api.get("/tasks", params={"state": "failed"}).json()["tasks"][0]["reason"] == "timeout"
    assert api.get("/tasks", params={"state": "dead"}).json()["tasks"] == []
    assert api.get("/studies/1.2.3/timeline").json()["events"] == []
    assert api.post("/tasks/1.2.3/ich:retry").status_code == 202
    assert [event["type"] for event in api.get("/studies/1.2.3/timeline").json()["events"]] == ["task.retried"]
    assert [entry.arguments["signal"].split(":")[1] for entry in hospital.work.take()] == ["retry"]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    hospital = Hospital.at(tmp_path)
    hospital.study("1.2.3")
    hospital.task("1.2.3", "ich", AiState.FAILED, reason="dead_letter")
    hospital.task("1.2.3", "pe", AiState.NEGATIVE)
    hospital.tasks = SqlTasks()  # type: ignore[assignment]
    with TestClient(app_of(hospital)) as web:
        transport = web._transport

        class Wired(client.Client):
            def __init__(self, url: str, api_key: str | None) -> None:
                super().__init__(url, api_key, transport=transport)

            def close(self) -> None:
                """The transport is the test's."""

        monkeypatch.setattr(client, "Client", Wired)

        def invoke(*arguments: str) -> tuple[int, str, str]:
            result = CliRunner().invoke(cli, ["tasks", *arguments])
            return result.exit_code, result.stdout, result.stderr

        yield invoke


def test_the_commands_list_show_and_retry(call: Any) -> None:
    code, text, _ = call("list")
    assert (code, len(text.splitlines())) == (0, 2)
    code, text, _ = call("dead")
    assert "ich 1.0.0  failed(dead_letter) dead  1.2.3" in text
    code, text, _ = call("list", "--state", "running")
    assert (code, text) == (0, "no such tasks\n")
    code, text, _ = call("list", "--json", "--limit", "1")
    assert len(json.loads(text)["tasks"]) == 1
    code, text, _ = call("retry", "1.2.3", "ich", "--reason", "again")
    assert (code, "awaiting_images" in text, "task.retried  failed  dead_letter  again" in text) == (0, True, True)
    code, text, _ = call("show", "1.2.3", "ich", "--json")
    assert json.loads(text)["detail"] == "retried by hand"


def test_the_commands_say_what_went_wrong(call: Any) -> None:
    code, _, error = call("retry", "1.2.3", "pe")
    assert (code, "the task is negative" in error) == (1, True)
    code, _, error = call("show", "1.2.3", "absent", "--json")
    assert (code, json.loads(error)["status"]) == (2, 404)
    assert call("list", "--state", "undead")[0] == 2


def test_no_server_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    silent = client.Client("http://127.0.0.1:1", "key", transport=httpx.MockTransport(refuse))
    assert command.run_list(silent, state=None, limit=1, as_json=False) == 3
    broken = client.Client("http://x", None, transport=httpx.MockTransport(lambda _r: httpx.Response(502)))
    assert command.run_list(broken, state=None, limit=1, as_json=False) == 3
    assert "does not answer" in capsys.readouterr().err
