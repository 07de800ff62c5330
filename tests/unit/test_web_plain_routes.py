"""Plain routes are answered past the framework as it would answer them: parameters, errors, refusals, HEAD."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.testclient import TestClient
from tests.gateway_support import build

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.plain_routes import plain_routes
from wetread.bootstrap.route_table import routes_of
from wetread.bootstrap.shell import Guards
from wetread.bootstrap.web import build_app
from wetread.core.errors import NotFound, Unavailable
from wetread.core.service import Service


async def say(request: Request) -> Response:
    return JSONResponse({"got": request.path_params, "plain": "router" not in request.scope, "method": request.method})


async def missing(_request: Request) -> Response:
    raise NotFound("no such study")


async def down(_request: Request) -> Response:
    raise Unavailable("the store does not answer", retry_after=7.0)


async def teapot(_request: Request) -> Response:
    raise HTTPException(418, "a teapot", {"X-Pot": "yes"})


async def boom(_request: Request) -> Response:
    raise RuntimeError("MARKED^PATIENT")


async def torn(_request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"some"
        raise NotFound("gone in mid answer")

    return StreamingResponse(body())


ENDPOINTS = {
    "/a/{study}": say,
    "/a/{study}/b/{path:path}": say,
    "/missing": missing,
    "/down": down,
    "/teapot": teapot,
    "/boom": boom,
    "/torn": torn,
}


def application(tmp_path: Path) -> Any:
    database = SqlDatabase(tmp_path / "x.db")
    database.create_schema()
    router = APIRouter()
    for path, endpoint in ENDPOINTS.items():
        router.add_route(path, endpoint, methods=["GET"])
    return build_app([Service("t", router)], checks={}, metrics=Metrics(database), guards=Guards())


@pytest.fixture
def http(tmp_path: Path) -> TestClient:
    return TestClient(application(tmp_path), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("path", "got"),
    [
        ("/a/1.2.3", {"study": "1.2.3"}),
        ("/a/x%20y", {"study": "x y"}),
        ("/a/1/b/2/3", {"study": "1", "path": "2/3"}),
        ("/a/1/b/", {"study": "1", "path": ""}),
        ("/a/1/b//3/", {"study": "1", "path": "/3/"}),
    ],
)
def test_placeholders_stand_for_what_the_framework_says(http: TestClient, path: str, got: dict[str, str]) -> None:
    assert http.get(path).json() == {"got": got, "plain": True, "method": "GET"}
    plain = FastAPI()
    for template, endpoint in ENDPOINTS.items():
        plain.router.add_route(template, endpoint, methods=["GET"])
    assert TestClient(plain).get(path).json()["got"] == got


def test_head_is_answered_and_other_methods_are_refused_with_allow(http: TestClient) -> None:
    assert http.head("/a/1").status_code == 200
    refused = http.post("/a/1")
    assert refused.status_code == 405
    assert refused.headers["cache-control"] == "no-store", "as every error"
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_slash_too_many_is_redirected(http: TestClient) -> None:
    assert http.get("/a/1/", follow_redirects=False).status_code == 307
    assert http.get("/a/1/").json()["got"] == {"study": "1"}


def test_errors_become_problems(http: TestClient) -> None:
    answer = http.get("/missing?PatientName=MARKED")
    assert (answer.status_code, answer.json()["detail"]) == (404, "no such study")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "MARKED" not in answer.text
    assert answer.headers["x-request-id"]
    assert http.get("/down").headers["retry-after"] == "7"
    assert (http.get("/teapot").status_code, http.get("/teapot").headers["x-pot"]) == (418, "yes")


def test_what_nobody_foresaw_is_a_500_without_its_message_and_in_the_log(
    http: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "wetread.web"):
        answer = http.get("/boom")
    assert answer.status_code == 500
    assert "MARKED" not in answer.text
    assert [record.message for record in caplog.records if record.name == "wetread.web"] == ["unexpected error"]


def test_the_server_sees_what_nobody_foresaw(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        TestClient(application(tmp_path)).get("/boom")


def test_an_error_after_the_first_byte_ends_the_connection(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(30)
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/torn",
        "headers": [],
        "query_string": b"",
        "http_version": "1.1",
    }
    with pytest.raises((NotFound, ExceptionGroup)):
        asyncio.run(application(tmp_path)(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[-1]["more_body"]


def test_only_routes_without_anything_of_the_framework_are_plain() -> None:
    router = APIRouter()
    router.add_route("/plain", say, methods=["GET"])
    router.add_route("/twice", say, methods=["GET"])
    router.add_route("/twice", say, methods=["POST"])
    router.add_route("/number/{at:int}", say, methods=["GET"])
    router.add_route("/mixed/x{at}", say, methods=["GET"])

    @router.get("/modelled")
    async def modelled() -> dict[str, str]:
        return {}

    def threaded(_request: Request) -> Response:
        return Response()

    router.add_route("/threaded", threaded, methods=["GET"])
    app = FastAPI(openapi_url=None)
    app.include_router(router)
    assert set(plain_routes(app.routes)) == {"/plain"}


def test_every_route_of_the_gateway_is_plain(tmp_path: Path) -> None:
    parts = build(tmp_path)
    routes = parts.app.app.app.routes
    templates = {template for _, template in routes_of(routes) if template.startswith("/dicom-web")}
    assert templates
    assert templates <= set(plain_routes(routes))
    parts.database.close()
