"""Scopes per verb at the real server, with tokens of a real issuer: 401, 403, websockets, streams that end on time."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.oidc_issuer import Issuer, issuing
from tests.tenants_world import AE, Ids, World, two_hospitals
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from wetread.bootstrap.permissions import PERMISSIONS, Need
from wetread.core.access import Scope


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with issuing() as running:
        yield running


@pytest.fixture(scope="module")
def world(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("oidc")
    with two_hospitals(folder, oidc_issuer=issuer.url, oidc_audience="wetread", oidc_leeway=0) as running:
        yield running


def bearer(issuer: Issuer, *scopes: str, seconds: float = 60, **claims: Any) -> dict[str, str]:
    now = time.time()
    return {"Authorization": f"Bearer {issuer.token(iat=now, exp=now + seconds, scope=' '.join(scopes), **claims)}"}


def ask(world: World, route: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Return status and headers of the answer to a route; of the handshake for websockets."""
    method, template = route.split(" ", 1)
    path = Ids().path(template)
    if method == "WEBSOCKET":
        try:
            with connect(world.url.replace("http", "ws", 1) + path, additional_headers=headers):
                return 101, {}
        except InvalidStatus as refused:
            return refused.response.status_code, refused.response.headers
    with world.nobody.stream(method, path, headers=headers) as answer:  # streams go on: their head is enough
        return answer.status_code, answer.headers


def test_every_route_opens_with_its_scope_and_with_no_other(world: World, issuer: Issuer) -> None:
    keys = {scope: bearer(issuer, scope) for scope in Scope}
    for route, need in PERMISSIONS.items():
        status, headers = ask(world, route, {})
        if need is Need.NOTHING:
            assert status in {200, 503}
            continue
        assert status == 401, route
        assert headers["www-authenticate"].startswith('Bearer realm="wetread"')
        if need is Need.CREDENTIAL:
            assert ask(world, route, bearer(issuer))[0] in {200, 308}, route
            continue
        others = bearer(issuer, *(scope for scope in Scope if scope is not need))
        status, headers = ask(world, route, others)
        assert status == 403, route
        assert headers["www-authenticate"] == f'Bearer realm="wetread", error="insufficient_scope", scope="{need}"'
        assert ask(world, route, keys[need])[0] not in {401, 403}, route


def test_refusals_are_typed_problems(world: World, issuer: Issuer) -> None:
    refused = world.nobody.get("/dicom-web/studies", headers=bearer(issuer, "dicom.read", seconds=-1))
    assert (refused.status_code, refused.json()["type"]) == (401, "urn:wetread:problem:not-authenticated")
    assert 'error="invalid_token", error_description="the token has expired"' in refused.headers["www-authenticate"]
    lacking = world.nobody.get("/dicom-web/studies", headers=bearer(issuer, "ups.read"))
    assert (lacking.status_code, lacking.json()["type"]) == (403, "urn:wetread:problem:forbidden")
    for answer in (refused, lacking):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"]


def test_keys_and_tokens_work_side_by_side(world: World, issuer: Issuer) -> None:
    ids = Ids()
    world.north.store(ids)
    path = f"/dicom-web/studies/{ids.study}/metadata"
    assert world.north.ask("GET", path).status_code == 200
    for tenant, status in (("north", 200), ("south", 404), ("elsewhere", 404)):
        headers = bearer(issuer, "dicom.read", tenant=tenant)
        assert world.nobody.get(path, headers=headers).status_code == status


def test_the_decision_falls_before_the_body_is_asked_for(world: World, issuer: Issuer) -> None:
    address = urlsplit(world.url)
    for authorization, status in (({}, b"401"), (bearer(issuer, "dicom.read"), b"403")):
        head = [
            "POST /dicom-web/studies HTTP/1.1",
            "Host: x",
            "Content-Type: application/dicom",
            "Content-Length: 100000000",
            "Expect: 100-continue",
            *(f"{name}: {value}" for name, value in authorization.items()),
        ]
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=5) as connection:
            connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
            assert connection.recv(4096).split()[1] == status


@pytest.mark.parametrize("offered", [["bearer.{token}"], ["ups.events", "bearer.{token}"]])
def test_a_browser_puts_its_token_into_the_subprotocol(world: World, issuer: Issuer, offered: list[str]) -> None:
    token = bearer(issuer, "ups.read")["Authorization"].removeprefix("Bearer ")
    address = f"{world.url.replace('http', 'ws', 1)}/ws/subscribers/{AE}"
    protocols: Any = [name.format(token=token) for name in offered]
    with connect(address, subprotocols=protocols) as channel:
        assert channel.subprotocol == (None if len(offered) == 1 else "ups.events"), "the token is not repeated"
    with pytest.raises(InvalidStatus), connect(address, subprotocols=["bearer.wrong"]):  # type: ignore[list-item]
        pass


def test_no_token_is_taken_from_the_query(world: World, issuer: Issuer) -> None:
    token = bearer(issuer, "worklist.read")["Authorization"].removeprefix("Bearer ")
    for name in ("access_token", "token", "api_key"):
        assert world.nobody.get("/api/v1/worklist", params={name: token}).status_code == 401


def test_two_credentials_are_none(world: World, issuer: Issuer) -> None:
    both = [*bearer(issuer, "dicom.read").items(), *world.south.headers.items()]
    assert world.nobody.get("/dicom-web/studies", headers=both).status_code == 401


def test_streams_end_with_the_credential(world: World, issuer: Issuer) -> None:
    begun = time.monotonic()
    headers = bearer(issuer, "ups.read", "worklist.read", seconds=1)
    address = f"{world.url.replace('http', 'ws', 1)}/ws/subscribers/{AE}"
    with (
        connect(address, additional_headers=headers) as channel,
        world.nobody.stream("GET", "/api/v1/events/stream", headers=headers) as events,
    ):
        assert b"".join(events.iter_bytes()).startswith(b"retry:"), "ended in order, not torn"
        with pytest.raises(ConnectionClosed) as closed:
            channel.recv(timeout=5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 3000
    assert 0.5 < time.monotonic() - begun < 5


@pytest.mark.parametrize("path", ["/metrics%0A", "/api/v1/audit%0A", "/dicom-web/studies%0A", "//metrics", "/METRICS"])
def test_odd_spellings_of_a_path_open_nothing(world: World, issuer: Issuer, path: str) -> None:
    answer = world.nobody.get(path, headers=bearer(issuer, "ups.read"))
    assert answer.status_code in {403, 404}
    assert world.nobody.get(path).status_code == 401


def test_a_slash_too_many_leads_back_to_the_guarded_path(world: World, issuer: Issuer) -> None:
    answer = world.nobody.get("/dicom-web/studies/", headers=bearer(issuer, "ups.read"))
    assert answer.status_code in {307, 404}
    if answer.status_code == 307:
        led = world.nobody.get(answer.headers["location"], headers=bearer(issuer, "ups.read"))
        assert led.status_code == 403


def test_an_issuer_that_is_silent_from_the_start_does_not_lock_keys_out(tmp_path: Path) -> None:
    """An issuer that cannot be reached is 503 for tokens, and nothing for keys."""
    gone = "http://127.0.0.1:9"
    with two_hospitals(tmp_path, oidc_issuer=gone, oidc_audience="wetread") as world, issuing() as other:
        assert world.north.ask("GET", "/dicom-web/studies").status_code == 200
        answer = world.nobody.get("/dicom-web/studies", headers=bearer(other, "dicom.read"))
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
