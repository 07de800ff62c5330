"""The ASGI shell: problem+json, tenant from the credential, readiness, metrics, no patient data in labels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from starlette.testclient import TestClient

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.permissions import PERMISSIONS, Need
from wetread.bootstrap.shell import Guards
from wetread.bootstrap.web import build_app
from wetread.core import tracing
from wetread.core.errors import NotFound, Unavailable
from wetread.core.service import Service
from wetread.detection.spans import SpanRecorder, finished_spans


def client(tmp_path: Path, *, keys: ApiKeys | None = None, red: bool = False) -> TestClient:
    database = SqlDatabase(tmp_path / "x.db")
    database.create_schema()
    router = APIRouter()

    @router.get("/who")
    async def who(request: Request) -> dict[str, str]:
        return {"tenant": request.state.tenant}

    @router.get("/studies/{uid}")
    async def missing(uid: str) -> None:
        raise NotFound

    @router.get("/boom")
    async def boom() -> None:
        msg = "MARKED^PATIENT"
        raise RuntimeError(msg)

    def check() -> None:
        if red:
            raise Unavailable("the object store does not answer")

    guards = Guards(keys, permissions=PERMISSIONS | {"GET /who": Need.CREDENTIAL})
    app = build_app([Service("t", router)], checks={"store": check}, metrics=Metrics(database), guards=guards)
    return TestClient(app, raise_server_exceptions=False)


def test_errors_are_problem_json_without_the_query(tmp_path: Path) -> None:
    answer = client(tmp_path).get("/studies/1.2.3?PatientName=MARKED")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == "/studies/1.2.3"
    assert "MARKED" not in answer.text
    assert answer.headers["x-request-id"]


def test_unexpected_errors_do_not_quote_their_message(tmp_path: Path) -> None:
    answer = client(tmp_path).get("/boom")
    assert answer.status_code == 500
    assert "MARKED" not in answer.text


@pytest.mark.parametrize("red", [False, True])
def test_readiness_names_what_is_red_and_liveness_does_not_care(tmp_path: Path, red: bool) -> None:
    http = client(tmp_path, red=red)
    answer = http.get("/readyz")
    assert answer.status_code == (503 if red else 200)
    assert ("does not answer" in answer.json()["checks"]["store"]) is red
    assert http.get("/livez").status_code == 200


def test_tenant_comes_from_the_credential_only(tmp_path: Path) -> None:
    keyfile = tmp_path / "keys"
    keyfile.write_text(f"{hashlib.sha256(b'k1').hexdigest()} north a\n", encoding="utf-8")
    http = client(tmp_path, keys=ApiKeys(keyfile))
    assert http.get("/who").status_code == 401
    assert http.get("/who").headers["www-authenticate"].startswith("Bearer")
    assert http.get("/metrics").status_code == 401
    assert http.get("/livez").status_code == 200
    good = http.get("/who", headers={"Authorization": "Bearer k1", "X-Tenant": "south"})
    assert good.json() == {"tenant": "north"}


def test_without_keys_the_tenant_is_default(tmp_path: Path) -> None:
    assert client(tmp_path).get("/who").json() == {"tenant": "default"}


def test_metrics_label_routes_not_paths(tmp_path: Path) -> None:
    http = client(tmp_path)
    http.get("/studies/1.2.3.4.5")
    text = http.get("/metrics").text
    assert 'route="/studies/{uid}",status="404"' in text
    assert "1.2.3.4.5" not in text
    assert "wetread_studies 0.0" in text


def test_requests_have_spans_by_route_and_nothing_of_what_they_say(tmp_path: Path) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracing.install(recorder := SpanRecorder())
    try:
        http = client(tmp_path)
        http.get("/studies/1.2.3?PatientName=MARKED", headers={"traceparent": caller})
        http.get("/boom", headers={"traceparent": caller})
        http.request("MARKED", "/who", headers={"traceparent": caller})
        for probe in ("/livez", "/readyz", "/metrics", "/nowhere"):
            http.get(probe, headers={"traceparent": caller})
        spans = finished_spans({"spans": recorder.take()})
    finally:
        tracing.install(None)
    assert [(span.name, span.attributes["http.response.status_code"]) for span in spans] == [
        ("GET /studies/{uid}", 404),
        ("GET /boom", 500),
    ], "what no route offers is no span: its method may be anything"
    assert {(span.kind, span.parent) for span in spans} == {("server", caller)}
    assert [span.error for span in spans] == [None, "RuntimeError"]
    assert "1.2.3" not in repr(spans)
    assert "MARKED" not in repr(spans)


def test_an_unknown_caller_leaves_no_span(tmp_path: Path) -> None:
    keyfile = tmp_path / "keys"
    keyfile.write_text(f"{hashlib.sha256(b'k').hexdigest()} t name\n")
    keys = ApiKeys(keyfile)
    tracing.install(recorder := SpanRecorder())
    try:
        caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        http = client(tmp_path, keys=keys)
        assert http.get("/who", headers=caller).status_code == 401
        assert recorder.take() == []
        assert http.get("/who", headers=caller | {"Authorization": "Bearer k"}).status_code == 200
        twice = [("Authorization", "Bearer k"), ("traceparent", caller["traceparent"]), ("traceparent", "x")]
        assert http.get("/who", headers=twice).status_code == 200
        assert [span["name"] for span in recorder.take()] == ["GET /who"], "two values are none"
    finally:
        tracing.install(None)


def test_the_frameworks_own_telemetry_is_off_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    app = client(tmp_path).app
    while not hasattr(app, "router"):
        app = app.app
    assert set(app._telemetry) >= {"tracing", "metrics", "logs", "operation_spans", "auto_configure"}
    assert not any(app._telemetry[name] for name in ("tracing", "metrics", "logs", "operation_spans", "auto_configure"))
