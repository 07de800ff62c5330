"""A UPS worklist on real SQLite behind the real shell, with a clock that tests move, for unit and conformance tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from tests.databases import database_at
from websockets.sync.client import ClientConnection, connect

from wetread.adapters.index.workitems import SqlWorkitems
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.shell import Guards
from wetread.bootstrap.web import build_app
from wetread.core.service import Service
from wetread.core.ups_dataset import code, dicom_datetime, element
from wetread.worklist.ups import UpsHooks, UpsSettings
from wetread.worklist.ups_endpoints import any_aet, build_router

BASE = "http://testserver/dicom-web"
TENANT = "default"
EPOCH = 1_767_225_600.0  # 2026-01-01T00:00:00Z

_uids = itertools.count(1)


def fresh_uid() -> str:
    """Return a UID that no other test of this run uses."""
    return f"2.25.{10**9 + next(_uids)}"  # of one length: their text sorts as they were made


class Client:
    """Synchronous requests to an ASGI application in this process: no socket, no server."""

    def __init__(self, app: Any) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://testserver")

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> httpx.Response:
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Any) -> httpx.Response:
        return self.request("PUT", url, **options)

    def delete(self, url: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", url, **options)

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class Clock:
    """Time that stands still until a test moves it."""

    def __init__(self, at: float = EPOCH) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


def request_dataset(**changes: Any) -> dict[str, Any]:
    """Return the smallest dataset that a creation request may bring; *changes* are elements by keyword-free tag."""
    return {
        "00404005": element("DT", "20260101080000"),
        "00404041": element("CS", "READY"),
        "00741000": element("CS", "SCHEDULED"),
        "00741200": element("CS", "MEDIUM"),
        "00741204": element("LO", "Read the head CT"),
        **{tag.removeprefix("t"): value for tag, value in changes.items()},
    }


def performed(**changes: Any) -> dict[str, Any]:
    """Return an update that meets the final state requirements of COMPLETED."""
    item = {
        "00404019": element("SQ", code("110004", "DCM", "Computer Aided Detection")),
        "00404028": element("SQ", code("ws1", "99TEST", "Workstation 1")),
        "00404033": element("SQ"),
        "00404050": element("DT", dicom_datetime(EPOCH)),
        "00404051": element("DT", dicom_datetime(EPOCH + 60)),
        **{tag.removeprefix("t"): value for tag, value in changes.items()},
    }
    return {"00741216": element("SQ", item)}


def discontinuation() -> dict[str, Any]:
    """Return an update that meets the final state requirements of CANCELED."""
    reason = element("SQ", code("110513", "DCM", "Discontinued for unspecified reason"))
    return {"00741002": element("SQ", {"0074100E": reason})}


class Worklist:
    """Client and back door of one worklist."""

    def __init__(self, folder: Path, settings: UpsSettings | None = None, hooks: UpsHooks | None = None,
                 allowed_aet: Any = any_aet, keys: Any = None) -> None:  # fmt: skip
        self.clock = Clock()
        self.database = database_at(folder / "wetread.db")
        self.database.create_schema()
        self.repository = SqlWorkitems(self.clock)
        router = build_router(
            database=self.database,
            repository=self.repository,
            clock=self.clock,
            settings=settings or UpsSettings(poll_s=0.01),
            hooks=hooks,
            allowed_aet=allowed_aet,
        )
        self.service = Service(name="worklist", http=router)
        self.app = build_app([self.service], checks={}, metrics=Metrics(self.database), guards=Guards(keys))
        self.client = Client(self.app)

    def create(self, uid: str | None = None, /, **changes: Any) -> str:
        """Create a workitem over HTTP and return its UID."""
        uid = uid or fresh_uid()
        answer = self.client.post(f"/dicom-web/workitems?workitem={uid}", json=[request_dataset(**changes)])
        assert answer.status_code == 201, answer.text
        return uid

    def update(self, uid: str, dataset: Mapping[str, Any], lock: str | None = None) -> Any:
        query = f"?transaction-uid={lock}" if lock else ""
        return self.client.post(f"/dicom-web/workitems/{uid}{query}", json=[dataset])

    def ask_state(self, uid: str, state: str, lock: str | None = None) -> Any:
        body = {"00741000": element("CS", state)}
        if lock:
            body["00081195"] = element("UI", lock)
        return self.client.put(f"/dicom-web/workitems/{uid}/state", json=[body])

    def claimed(self, **changes: Any) -> tuple[str, str]:
        """Create and claim; return the UID and the Transaction UID."""
        uid, lock = self.create(**changes), fresh_uid()
        assert self.ask_state(uid, "IN PROGRESS", lock).status_code == 200
        return uid, lock

    def completed(self, **changes: Any) -> tuple[str, str]:
        uid, lock = self.claimed(**changes)
        assert self.update(uid, performed(), lock).status_code == 200
        assert self.ask_state(uid, "COMPLETED", lock).status_code == 200
        return uid, lock

    def canceled(self, **changes: Any) -> tuple[str, str]:
        uid, lock = self.claimed(**changes)
        assert self.update(uid, discontinuation(), lock).status_code == 200
        assert self.ask_state(uid, "CANCELED", lock).status_code == 200
        return uid, lock

    def get(self, uid: str) -> dict[str, Any]:
        answer = self.client.get(f"/dicom-web/workitems/{uid}")
        assert answer.status_code == 200, answer.text
        (dataset,) = answer.json()
        return dataset

    def state(self, uid: str) -> str:
        return self.get(uid)["00741000"]["Value"][0]

    def subscribe(self, uid: str, aet: str, query: str = "") -> Any:
        return self.client.post(f"/dicom-web/workitems/{uid}/subscribers/{aet}{query}")

    def queued(self, aet: str, tenant: str = TENANT) -> list[tuple[str, int, Mapping[str, Any]]]:
        """Return (workitem, type, attributes) of every event ever queued for an AE title."""
        with self.database.read() as tx:
            rows = self.repository.events_after(tx, tenant, aet, 0, limit=10_000, not_before=0.0)
        return [(row.workitem_uid, row.type, row.attributes) for row in rows]

    def close(self) -> None:
        self.client.close()
        self.database.close()


@contextmanager
def worklist(folder: Path, **options: Any) -> Iterator[Worklist]:
    """Open a worklist for one test."""
    opened = Worklist(folder, **options)
    try:
        yield opened
    finally:
        opened.close()


def refused(answer: Any, http_status: int, dicom_status: str) -> None:
    """Assert a problem+json answer with exactly these codes."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["status"], body.get("dicom_status")) == (http_status, http_status, dicom_status)


def warning(text: str) -> str:
    """Return the Warning header of PS3.18 with our service base URL."""
    return f"299 {BASE}: {text}"


@contextmanager
def live(app: Any) -> Iterator[str]:
    """Serve *app* on an ephemeral port of this machine; yields ``host:port``."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws_ping_interval=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.005)
    try:
        host, port = server.servers[0].sockets[0].getsockname()
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def channel(
    address: str, aet: str, path: str = "/dicom-web/subscribers/", **options: Any
) -> Iterator[ClientConnection]:
    """Open an event channel with an independent websocket client."""
    with connect(f"ws://{address}{path}{aet}", **options) as socket:
        yield socket


def next_event(socket: ClientConnection, timeout: float = 5.0) -> dict[str, Any]:
    """Return the next event message."""
    message = socket.recv(timeout=timeout)
    assert isinstance(message, str)  # a text frame (PS3.18 8.10.5)
    return json.loads(message)


def told(event: Mapping[str, Any]) -> tuple[str, int, str | None]:
    """Return (workitem, event type, state) of a message."""
    state = event.get("00741000", {}).get("Value", [None])[0]
    return event["00001000"]["Value"][0], event["00001002"]["Value"][0], state
