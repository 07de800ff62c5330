"""Cross-origin access: preflights on every path, an allow-list, and nothing for pages that are not on it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.testclient import TestClient

from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.cors import CorsPolicy
from wetread.bootstrap.permissions import Need
from wetread.bootstrap.shell import Guards
from wetread.bootstrap.web import build_app
from wetread.core.service import Service
from wetread.settings import Settings

VIEWER = "https://viewer.example"


def client(tmp_path: Path, policy: CorsPolicy) -> TestClient:
    database = SqlDatabase(tmp_path / "x.db")
    database.create_schema()
    keyfile = tmp_path / "keys"
    keyfile.write_text(f"{hashlib.sha256(b'k1').hexdigest()} north a\n", encoding="utf-8")
    router = APIRouter()

    @router.get("/thing")
    async def thing() -> dict[str, str]:
        return {}

    guards = Guards(ApiKeys(keyfile), permissions={"GET /thing": Need.CREDENTIAL})
    app = build_app([Service("t", router)], checks={}, metrics=Metrics(database), guards=guards, cors=policy)
    return TestClient(app)


def preflight(http: TestClient, path: str, origin: str, headers: str = "authorization, accept"):
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": headers,
    }
    return http.options(path, headers=asked)


@pytest.mark.parametrize("path", ["/thing", "/no/such/path", "/dicom-web/studies/1.2.3"])
def test_preflight_is_204_without_credentials_on_every_path(tmp_path: Path, path: str) -> None:
    answer = preflight(client(tmp_path, CorsPolicy(frozenset({VIEWER}))), path, VIEWER)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == VIEWER
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, accept"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://viewer.example.evil", "HTTPS://VIEWER"])
def test_unlisted_origins_get_no_permission(tmp_path: Path, origin: str) -> None:
    http = client(tmp_path, CorsPolicy(frozenset({VIEWER})))
    asked = preflight(http, "/thing", origin)
    plain = http.get("/thing", headers={"Origin": origin, "Authorization": "Bearer k1"})
    assert (asked.status_code, plain.status_code) == (204, 200)
    for answer in (asked, plain):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" in answer.headers["vary"]


def test_answers_and_errors_are_readable_by_a_listed_page(tmp_path: Path) -> None:
    http = client(tmp_path, CorsPolicy(frozenset({VIEWER}), "same-site"))
    good = http.get("/thing", headers={"Origin": VIEWER, "Authorization": "Bearer k1"})
    refused = http.get("/thing", headers={"Origin": VIEWER})
    assert (good.status_code, refused.status_code) == (200, 401)
    for answer in (good, refused):
        assert answer.headers["access-control-allow-origin"] == VIEWER
        exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
        assert exposed >= {
            *("Content-Range", "Content-Location", "ETag", "Warning", "Location", "Retry-After", "X-Request-Id"),
        }
        assert answer.headers["cross-origin-resource-policy"] == "same-site"


def test_requested_headers_are_echoed_only_when_they_are_names(tmp_path: Path) -> None:
    http = client(tmp_path, CorsPolicy(frozenset({VIEWER})))
    answer = preflight(http, "/thing", VIEWER, "x-a, bad name; y")
    assert "access-control-allow-headers" not in answer.headers


def test_without_a_list_nothing_is_allowed(tmp_path: Path) -> None:
    answer = preflight(client(tmp_path, CorsPolicy()), "/thing", VIEWER)
    assert answer.status_code == 204
    assert "access-control-allow-origin" not in answer.headers


def test_options_without_request_method_is_no_preflight(tmp_path: Path) -> None:
    http = client(tmp_path, CorsPolicy(frozenset({VIEWER})))
    assert http.options("/thing", headers={"Origin": VIEWER}).status_code == 401


def test_setting_lists_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().allowed_origins == frozenset()
    settings = Settings(cors_origins=" https://viewer.example, http://localhost:3000 ,")
    assert settings.allowed_origins == {VIEWER, "http://localhost:3000"}
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


@pytest.mark.parametrize("bad", ["*", "viewer.example", "https://viewer.example/", "https://a.b/path", "https://A.b"])
def test_setting_refuses_what_no_browser_sends(bad: str) -> None:
    with pytest.raises(ValidationError, match="origin"):
        Settings(cors_origins=bad)
