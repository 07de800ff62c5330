"""Trusted proxies: whose word on scheme, host and client address is taken (RFC 7239; spec 1.2)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import APIRouter, Request, WebSocket
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.gateway_support import instance, running

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.forwarded import Family, TrustedNetworks, forwarded_elements
from wetread.bootstrap.permissions import PERMISSIONS
from wetread.bootstrap.proxies import Proxies, as_seen
from wetread.bootstrap.shell import Guards
from wetread.bootstrap.web import build_app
from wetread.core.access import Scope
from wetread.core.ports.access import Access
from wetread.core.service import Service
from wetread.gateway.responses import base_url
from wetread.gateway.settings import GatewaySettings
from wetread.settings import Settings

PROXY, OUTER, CLIENT = "10.0.0.7", "192.0.2.1", "203.0.113.9"
NETWORKS = Settings(trusted_proxies="10.0.0.0/8, 192.0.2.0/24, fd00::/8").proxy_networks


def described(
    headers: dict[str, str] | list[tuple[str, str]],
    *,
    peer: str = PROXY,
    family: Family = "x-forwarded",
    host: str = "",
) -> tuple[str, str]:
    """Return the DICOMweb base URL and the client address that a request has."""
    given = list(headers.items()) if isinstance(headers, dict) else headers
    given = [("host", host or "inner:8080"), *given]
    scope: Any = {
        "type": "http",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
        "server": ("10.1.1.1", 8080),
        "client": (peer, 40_000),
    }
    seen = TrustedNetworks(NETWORKS, family).seen(peer, scope["headers"])
    scope = scope if seen is None else as_seen(scope, seen)
    return base_url(Request(scope), GatewaySettings()), scope["client"][0]


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "pacs.example"}, "https://pacs.example"),
        ({"X-Forwarded-Proto": "HTTPS", "X-Forwarded-Host": "PACS.example:8443"}, "https://pacs.example:8443"),
        ({"X-Forwarded-Host": "pacs.example", "X-Forwarded-Port": "8042"}, "http://pacs.example:8042"),
        ({"X-Forwarded-Host": "pacs.example:81", "X-Forwarded-Port": "8042"}, "http://pacs.example:81"),
        ({"X-Forwarded-Host": "pacs.example:443", "X-Forwarded-Proto": "https"}, "https://pacs.example"),
        ({"X-Forwarded-Host": "[2001:db8::1]:8443"}, "http://[2001:db8::1]:8443"),
        ({"X-Forwarded-Host": "[2001:db8::1]"}, "http://[2001:db8::1]"),
        ({"X-Forwarded-Host": "pacs.example", "X-Forwarded-Prefix": "/site/a/"}, "http://pacs.example/site/a"),
        ({"X-Forwarded-Prefix": "/site"}, "http://inner:8080/site"),
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Port": "443"}, "https://inner:8080"),
        ({"X-Forwarded-Proto": "https"}, "https://inner:8080"),
    ],
)
def test_urls_come_from_what_a_trusted_proxy_says_and_keep_their_port(headers: dict[str, str], base: str) -> None:
    assert described(headers)[0] == base + "/dicom-web"


def test_a_host_that_is_passed_on_without_port_gets_that_of_the_proxy() -> None:
    """AWS and GCP load balancers leave Host as it is and say the port apart."""
    said = {"X-Forwarded-Proto": "https", "X-Forwarded-Port": "8443"}
    assert described(said, host="pacs.example")[0] == "https://pacs.example:8443/dicom-web"
    assert described({"X-Forwarded-Proto": "https"}, host="pacs.example")[0] == "https://pacs.example/dicom-web"


@pytest.mark.parametrize("family", ["x-forwarded", "forwarded"])
@pytest.mark.parametrize("peer", [CLIENT, "2001:db8::5", "testclient", ""])
def test_nobody_else_is_believed(peer: str, family: Family) -> None:
    said = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/evil",
        "X-Forwarded-For": "1.2.3.4",
        "Forwarded": "for=1.2.3.4;host=evil.example;proto=https",
    }
    assert described(said, peer=peer, family=family) == ("http://inner:8080/dicom-web", peer)


def test_the_family_of_headers_that_the_proxy_does_not_write_is_the_clients() -> None:
    assert described({"Forwarded": f"for={CLIENT};host=evil.example"}) == ("http://inner:8080/dicom-web", PROXY)
    said = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": CLIENT}
    assert described(said, family="forwarded") == ("http://inner:8080/dicom-web", PROXY)


HOSTILE = [
    "evil.example, pacs.example",
    "user@evil.example",
    "user:secret@evil.example",
    "evil.example/path",
    "evil.example?x",
    "evil.example#x",
    "evil.example\\x",
    "evil.example\r\nSet-Cookie: a=b",
    "evil example",
    "evil.example:0",
    "evil.example:65536",
    "evil.example:",
    "evil.example:80:80",
    "evil%2eexample",
    "évil.example",
    "[::1",
    "[::g]",
    "[1.2.3.4]",
    "-evil",
    "//evil.example",
    "",
    " ",
    "a" * 300,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_hosts_never_get_into_a_url(value: str) -> None:
    assert described({"X-Forwarded-Host": value})[0] == "http://inner:8080/dicom-web"
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    assert described({"Forwarded": f'host="{quoted}"'}, family="forwarded")[0] == "http://inner:8080/dicom-web"


@pytest.mark.parametrize(
    ("name", "value"),
    [("Proto", "javascript"), ("Proto", "https, http"), ("Proto", "https\x0b"), ("Port", "0"),
     ("Port", "99999"), ("Port", "8443, 443"), ("Port", "+8443"), ("Port", "٨"), ("Prefix", "//evil.example"),
     ("Prefix", "/a/../b"), ("Prefix", "a"), ("Prefix", "/a b"), ("Prefix", "/a?b"), ("Prefix", "/a%0d%0a")],
)  # fmt: skip
def test_hostile_schemes_ports_and_prefixes_are_not_said(name: str, value: str) -> None:
    text = value.encode().decode("latin-1")
    said = {f"X-Forwarded-{name}": text, "X-Forwarded-Host": "pacs.example"}
    assert described(said)[0] == "http://pacs.example/dicom-web"


def test_a_header_that_is_there_twice_is_not_said() -> None:
    twice = [("X-Forwarded-Host", "pacs.example"), ("X-Forwarded-Host", "evil.example")]
    assert described(twice)[0] == "http://inner:8080/dicom-web"


@given(st.text(st.characters(codec="latin-1"), max_size=40), st.sampled_from(["Host", "Proto", "Port", "Prefix"]))
@settings(max_examples=40, deadline=None)
def test_whatever_is_said_the_url_stays_a_url(value: str, name: str) -> None:
    for family, headers in (
        ("x-forwarded", {f"X-Forwarded-{name}": value}),
        ("forwarded", {"Forwarded": value}),
        ("forwarded", {"Forwarded": f'host="{value}";proto=https;for="{value}"'}),
    ):
        base, address = described(headers, family=family)  # type: ignore[arg-type]
        parts = urlsplit(base)
        assert parts.scheme in ("http", "https")
        assert parts.username is parts.password is None
        assert base.isascii()
        assert base.isprintable()
        assert not set(base) & set(" \"'<>\\^`{|}@?#%,")
        assert parts.path.endswith("/dicom-web")
        assert parts.port != 0
        ip_address(address)


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        (CLIENT, CLIENT),
        (f"{CLIENT}, {OUTER}", CLIENT),
        (f"6.6.6.6, {CLIENT}, {OUTER}, 10.9.9.9", CLIENT),
        (f"{CLIENT}:4711, [fd00::1]:80", CLIENT),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        (f"::ffff:{CLIENT}", CLIENT),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        (f"{CLIENT}, unknown", PROXY),
        (f"{CLIENT}, unknown, {OUTER}", OUTER),
        ("MARKED^NAME", PROXY),
        ("2001:db8::1%MARKED", PROXY),
        ("1.2.3", PROXY),
        (",", PROXY),
        ("", PROXY),
    ],
)
def test_the_client_is_the_rightmost_untrusted_address(chain: str, address: str) -> None:
    assert described({"X-Forwarded-For": chain})[1] == address
    assert described([("X-Forwarded-For", part) for part in chain.split(",")])[1] == address, "in lines of its own"


@pytest.mark.parametrize(
    ("value", "base", "address"),
    [
        (f"for={CLIENT};proto=https;host=pacs.example", "https://pacs.example", CLIENT),
        (f'For="{CLIENT}:4711";PROTO=https;Host="pacs.example:8443";by=_x', "https://pacs.example:8443", CLIENT),
        (f"for={CLIENT};host=pacs.example;proto=https, for={OUTER};host=inner2", "https://pacs.example", CLIENT),
        (f"for=6.6.6.6;host=evil.example, for={CLIENT};host=pacs.example", "http://pacs.example", CLIENT),
        (f'for=6.6.6.6;host=evil.example, for=unknown, for="{OUTER}"', "http://inner:8080", OUTER),
        ('for="[2001:db8::1]:80"', "http://inner:8080", "2001:db8::1"),
        ("for=_hidden;host=pacs.example", "http://pacs.example", PROXY),
        ('host="pacs.\\example"', "http://pacs.example", PROXY),
        (f", ,for={CLIENT} ; proto=https,", "https://inner:8080", CLIENT),
        (f"for={CLIENT};for=6.6.6.6;host=evil.example", "http://inner:8080", PROXY),
        (f"for={CLIENT} host=evil.example", "http://inner:8080", PROXY),
        (f'for="{CLIENT}', "http://inner:8080", PROXY),
        (f"for={CLIENT};", "http://inner:8080", CLIENT),
        (f"for = {CLIENT}", "http://inner:8080", PROXY),
        (f"for={CLIENT}, " * 500, "http://inner:8080", PROXY),
    ],
)
def test_rfc_7239_elements_from_the_nearest_proxy_outwards(value: str, base: str, address: str) -> None:
    assert described({"Forwarded": value}, family="forwarded") == (base + "/dicom-web", address)


VISIBLE = st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(st.lists(st.dictionaries(st.sampled_from(["for", "host", "proto", "by"]), VISIBLE, min_size=1), max_size=5))
@settings(max_examples=25, deadline=None)
def test_rfc_7239_4_quoted_values_come_back_as_they_were(elements: list[dict[str, str]]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(";".join(f"{name}={quoted(value)}" for name, value in element.items()) for element in elements)
    assert forwarded_elements(text) == elements


def test_settings_take_networks_only() -> None:
    assert Settings(trusted_proxies=" 10.0.0.0/8 ,::1").trusted_proxies == "10.0.0.0/8,::1/128"
    assert Settings().proxy_networks == ()
    for wrong in ("10.0.0.1/8", "proxy.example", "*", "10.0.0.0/33"):
        with pytest.raises(ValueError, match="trusted proxies are networks"):
            Settings(trusted_proxies=wrong)


class Trail:
    """An audit journal that keeps what it is told."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def note(self, access: Access, *, at: float, request_id: str) -> None:
        assert at > 0
        assert request_id
        self.addresses.append(access.address)


def test_the_audit_trail_and_every_face_see_the_client(tmp_path: Path) -> None:
    database = SqlDatabase(tmp_path / "x.db")
    database.create_schema()
    router = APIRouter()

    @router.get("/studies/seen")
    async def where(request: Request) -> dict[str, str]:
        return {"base": str(request.base_url), "route": request.url.path}

    @router.websocket("/w")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(f"{websocket.url} {websocket.client.host if websocket.client else ''}")

    trail = Trail()
    guards = Guards(
        audit=trail, permissions=PERMISSIONS | dict.fromkeys(["GET /studies/seen", "WEBSOCKET /w"], Scope.DICOM_READ)
    )
    trusted = TrustedNetworks(NETWORKS)
    app = build_app([Service("t", router)], checks={}, metrics=Metrics(database), guards=guards, proxies=trusted)
    said = {"X-Forwarded-For": f"6.6.6.6, {CLIENT}", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "pacs.example",
            "X-Forwarded-Prefix": "/site"}  # fmt: skip
    http = TestClient(app, client=(PROXY, 1))
    assert http.get("/studies/seen", headers=said).json() == {
        "base": "https://pacs.example/site/",
        "route": "/studies/seen",
    }
    with http.websocket_connect("/w", headers=said) as channel:
        assert channel.receive_text() == f"wss://pacs.example/w {CLIENT}"
    TestClient(app, client=(CLIENT, 1)).get("/studies/seen", headers=said)
    assert trail.addresses == [CLIENT, CLIENT, CLIENT]
    database.close()


def test_stored_answers_with_urls_are_kept_apart_by_base(tmp_path: Path) -> None:
    """The metadata of a series lie ready on the server; who asks under another name gets his own."""
    with running(tmp_path) as site:
        assert site.store(instance()).status_code == 200
        app = Proxies(site.app, TrustedNetworks(NETWORKS))
        inside, outside = TestClient(app, client=(PROXY, 1)), TestClient(app, client=(CLIENT, 1))
        said = {"X-Forwarded-Host": "pacs.example:8443", "X-Forwarded-Proto": "https"}
        for path in ("studies/1.2.3/metadata", "studies/1.2.3/series/1.2.3.1/metadata", "studies"):
            true, own, forged = (
                inside.get(f"/dicom-web/{path}", headers=said),
                inside.get(f"/dicom-web/{path}"),
                outside.get(f"/dicom-web/{path}", headers=said),
            )
            assert "https://pacs.example:8443/dicom-web/studies/1.2.3" in true.text
            assert "http://testserver" not in true.text
            assert "pacs.example" not in own.text + forged.text
            assert own.text == forged.text
            if path != "studies":
                assert true.headers["etag"] != own.headers["etag"] == forged.headers["etag"]
            assert true.headers["cache-control"].startswith("private")


def test_a_configured_base_wins_and_stands_before_the_base_path() -> None:
    headers = [(b"host", b"inner"), (b"x-forwarded-host", b"evil.example")]
    request = Request({"type": "http", "scheme": "http", "path": "/", "headers": headers, "server": ("inner", 80)})
    for configured in ("https://pacs.example/site/", "https://pacs.example/site"):
        assert base_url(request, GatewaySettings(public_base_url=configured)) == "https://pacs.example/site/dicom-web"
