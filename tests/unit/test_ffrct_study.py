"""Asking for FFR of a study in the archive, and reading the result, its attachments and its page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from tests.ffrct_case import case, phantom, run_of
from tests.worklist_world import World

from wetread.core.errors import NotFound, WetreadError
from wetread.core.findings import ResultSet, StoredAttachment
from wetread.core.ports import Task
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState
from wetread.core.workqueue import EVALUATE, asked_for, run_request
from wetread.ffrct.cta import attachments
from wetread.ffrct.ports import FfrPorts
from wetread.ffrct.service import build

STUDY, SERIES = "1.2.3.7", "1.2.3.7.1"


class Archive:
    """Facts of one CT study with an SR series beside."""

    def facts(self, tx: Any, tenant: str, study_uid: str) -> Any:
        if (tenant, study_uid) != ("default", STUDY):
            raise NotFound("no such study")
        series = [(SERIES, "CT"), (f"{STUDY}.2", "SR")]
        return SimpleNamespace(series=[SimpleNamespace(series_instance_uid=u, modality=m) for u, m in series])

    def summary(self, tx: Any, tenant: str, study_uid: str) -> Any:
        return SimpleNamespace(generation=4)


class Artifacts(dict[tuple[str, str], bytes]):
    def put(self, tenant: str, key: str, data: bytes) -> None:
        self[tenant, key] = data

    def get(self, tenant: str, key: str) -> bytes:
        return self[tenant, key]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


@pytest.fixture
def artifacts() -> Artifacts:
    return Artifacts()


@pytest.fixture
def client(world: World, artifacts: Artifacts) -> TestClient:
    ports = FfrPorts(
        database=world.database,
        clock=world.clock,
        studies=Archive(),  # type: ignore[arg-type]
        tasks=world.tasks,  # type: ignore[arg-type]
        results=world.results,  # type: ignore[arg-type]
        artifacts=artifacts,
        work=world.work,  # type: ignore[arg-type]
    )
    app = FastAPI()

    @app.middleware("http")
    async def tenant(request: Request, call_next: Any) -> Any:
        request.state.tenant = request.headers.get("x-tenant", "default")
        return await call_next(request)

    @app.exception_handler(WetreadError)
    async def problem(_request: Request, error: WetreadError) -> JSONResponse:
        return JSONResponse(error.problem(), error.http_status, media_type="application/problem+json")

    app.include_router(build(ports).http)
    return TestClient(app)


def store(world: World, artifacts: Artifacts, state: AiState = AiState.MEASURED, reason: str | None = None) -> None:
    run = run_of(phantom().slices[0]).model_copy(update={"study_uid": STUDY})
    kept = []
    for item in attachments(case()) if reason is None else ():
        key = f"attachment/{item.name}"
        artifacts.put("default", key, item.data)
        kept.append(StoredAttachment(name=item.name, media_type=item.media_type, key=key, capture=item.capture))
    result = ResultSet(run=run, state=state, reason=reason, detail="advice", attachments=tuple(kept))
    with world.database.write() as tx:
        world.results.put(tx, result, ())


def test_asking_queues_one_evaluation_for_the_detector(client: TestClient, world: World) -> None:
    url = f"/api/v1/studies/{STUDY}/series/{SERIES}/ffr"
    first, again = client.post(url), client.post(url)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["location"] == f"/api/v1/tasks/{STUDY}/ffr-ct"
    assert first.json()["disclaimer"] == RUO_STATEMENT
    (queued,) = world.work.take()
    assert queued.workflow == EVALUATE
    assert asked_for([queued.arguments["signal"], "commit"]) == {"ffr-ct"}
    assert run_request("ffr-ct") == queued.arguments["signal"]


def test_asking_names_the_workitem_and_refuses_what_is_not_there(client: TestClient, world: World) -> None:
    def post(study: str, series: str, **headers: str) -> Any:
        return client.post(f"/api/v1/studies/{study}/series/{series}/ffr", headers=headers)

    task = Task("default", STUDY, "ffr-ct", "0.1.0", AiState.RUNNING, workitem_uid="1.2.9")
    with world.database.write() as tx:
        world.tasks.put(tx, task)
    assert post(STUDY, SERIES).json()["workitem_uid"] == "1.2.9"
    assert post("1.2.3.8", SERIES).status_code == 404
    assert post(STUDY, "1.2.3.9").status_code == 404
    assert post(STUDY, SERIES, **{"x-tenant": "other"}).status_code == 404
    other = post(STUDY, f"{STUDY}.2")
    assert (other.status_code, other.json()["code"]) == (422, "not_ct")
    with world.database.write() as tx:
        world.tasks.put(tx, Task("default", STUDY, "ffr-ct", "0.1.0", AiState.NOT_PROCESSABLE, reason="motion"))
    assert post(STUDY, SERIES).status_code == 409


def test_result_attachments_and_page(client: TestClient, world: World, artifacts: Artifacts) -> None:
    assert client.get(f"/api/v1/studies/{STUDY}/ffr").status_code == 404
    assert client.get(f"/ffr/{STUDY}").status_code == 404
    store(world, artifacts)
    body = client.get(f"/api/v1/studies/{STUDY}/ffr").json()
    assert body["state"] == "measured"
    assert body["result"]["vessels"][0]["ffr"] == case().result["vessels"][0]["ffr"]
    assert len(body["tree"]["vessels"][0]["points_mm"]) == len(body["result"]["vessels"][0]["ffr"])
    picture = client.get(f"/api/v1/studies/{STUDY}/ffr/mpr-rca.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert client.get(f"/api/v1/studies/{STUDY}/ffr/nothing.png").status_code == 404
    assert client.get(f"/api/v1/studies/{STUDY}/ffr", headers={"x-tenant": "other"}).status_code == 404
    page = client.get(f"/ffr/{STUDY}")
    assert RUO_STATEMENT in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name, kind in (("ffr.js", "text/javascript"), ("ffr.css", "text/css")):
        assert f"/ffr/static/{name}" in page.text
        assert client.get(f"/ffr/static/{name}").headers["content-type"].startswith(kind)
    assert client.get("/ffr/static/service.py").status_code == 404


def test_a_refusal_is_shown_by_its_code_and_without_a_number(
    client: TestClient, world: World, artifacts: Artifacts
) -> None:
    store(world, artifacts, AiState.NOT_PROCESSABLE, "no_contrast")
    body = client.get(f"/api/v1/studies/{STUDY}/ffr").json()
    assert body == {"state": "not_processable", "code": "no_contrast", "detail": "advice", "disclaimer": RUO_STATEMENT}
