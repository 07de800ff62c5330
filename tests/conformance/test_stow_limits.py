"""STOW under limits: 413, 429, 503, 507, 408; duplicates as each tenant wants; one's limit is not the other's."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from tests.gateway_support import Parts, build, instance, multipart, reasons, running, stow_headers
from tests.tenants_world import Ids, two_hospitals

from wetread.adapters.index.usage import SqlUsageMeter
from wetread.core.errors import QuotaExceeded, WetreadError
from wetread.core.facts import Source
from wetread.core.ports.usage import Usage
from wetread.core.tenants import TenantFile, TenantPolicy, Tenants
from wetread.gateway.admission import Admission, Room
from wetread.gateway.committer import InFlight
from wetread.gateway.settings import GatewaySettings, IngestSettings


def settings(policy: TenantPolicy | None = None, **ingest: Any) -> GatewaySettings:
    tenants = Tenants(TenantFile(default=policy or TenantPolicy()))
    return GatewaySettings(ingest=IngestSettings(tenants=tenants, **ingest))


def store_body(number: int = 1) -> bytes:
    return multipart([instance(SOPInstanceUID=f"1.2.3.1.{number}")])


def test_a_request_larger_than_the_tenant_may_send_is_413(tmp_path: Path) -> None:
    body = store_body()
    with running(tmp_path, settings=settings(TenantPolicy(request_bytes=len(body) - 1))) as site:
        declared = site.client.post("/dicom-web/studies", content=body, headers=stow_headers())
        assert (declared.status_code, declared.json()["type"]) == (413, "urn:wetread:problem:payload-too-large")
        chunked = site.client.post("/dicom-web/studies", content=iter([body[:100], body[100:]]), headers=stow_headers())
        assert chunked.status_code == 413, "found out on the way"
        assert site.get("/instances").json() == []
    with running(tmp_path / "2", settings=settings(TenantPolicy(request_bytes=len(body)))) as site:
        assert site.client.post("/dicom-web/studies", content=body, headers=stow_headers()).status_code == 200


def test_a_used_up_quota_is_507_for_this_tenant_only(tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text("tenants: {south: {storage_bytes: 20000}, west: {storage_instances: 1}}")
    with two_hospitals(tmp_path, tenants_file=tmp_path / "tenants.yaml") as world:
        world.south.store(Ids())
        over = world.south.ask("POST", "/dicom-web/studies", content=bytes(20_000), headers=stow_headers())
        assert over.status_code == 507
        assert (over.json()["type"], over.json()["dicom_status"]) == ("urn:wetread:problem:quota-exceeded", "A700")
        assert "retry-after" not in over.headers, "waiting does not help"
        assert world.south.ask("GET", "/dicom-web/studies").status_code == 200
        for _ in range(3):
            world.north.store(Ids())


def test_instances_are_counted_too(tmp_path: Path) -> None:
    parts = build(tmp_path, settings=settings(TenantPolicy(storage_instances=2)))
    usage = SqlUsageMeter()
    parts.ingest.store("north", [instance(SOPInstanceUID=f"1.2.{n}") for n in range(2)], source=Source())
    parts.ingest.store("south", [instance(SOPInstanceUID="1.2.9")], source=Source())
    with parts.database.read() as tx:
        assert usage.usage(tx, "north").instances == 2
        assert usage.usage(tx, "south").stored_bytes * 2 == pytest.approx(
            usage.usage(tx, "north").stored_bytes, rel=0.1
        )
        assert usage.usage(tx, "west") == Usage(0, 0)
    room = Room(parts.database, usage)
    policy = TenantPolicy(storage_instances=2)
    asyncio.run(room.check("south", policy, 0))
    with pytest.raises(QuotaExceeded):
        asyncio.run(room.check("north", policy, 0))


class Gate:
    """A gate in front of an endpoint that answers when it is told to."""

    def __init__(self, folder: Path, policy: TenantPolicy | None = None, **ingest: Any) -> None:
        self.parts: Parts = build(folder, settings=settings(policy, **ingest))
        self.now = 0.0
        self.open = asyncio.Event()
        self.entered = 0

    def admission(self, **extra: Any) -> Admission:
        self.budget = InFlight(self.parts.settings.ingest.in_flight_bytes)

        async def endpoint(request: Any) -> Response:
            self.entered += 1
            async for _ in request.stream():
                pass
            await self.open.wait()
            return Response()

        return Admission(endpoint, self.budget, self.parts.settings.ingest, clock=lambda: self.now, **extra)


def request(tenant: str = "north", body: bytes = b"x", messages: Any = None, **headers: str) -> Any:
    waiting = iter(messages or [{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:
        message = next(waiting)
        return message() if callable(message) else message

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/dicom-web/studies",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "state": {"tenant": tenant},
        "query_string": b"",
    }
    return Request(scope, receive)


async def status(admission: Admission, asked: Any) -> tuple[int, float | None]:
    try:
        return (await admission(asked)).status_code, None
    except WetreadError as error:
        return error.http_status, getattr(error, "retry_after", None)


def test_one_tenants_crowd_is_429_and_everybodys_is_503(tmp_path: Path) -> None:
    async def run() -> None:
        gate = Gate(tmp_path, TenantPolicy(stores_at_once=2), requests_at_once=3)
        admission = gate.admission()
        inside = [asyncio.create_task(status(admission, request("north"))) for _ in range(2)]
        await asyncio.sleep(0)
        assert await status(admission, request("north")) == (429, 2.0)
        inside.append(asyncio.create_task(status(admission, request("south"))))
        await asyncio.sleep(0)
        assert await status(admission, request("west")) == (503, 2.0)
        gate.open.set()
        assert [await task for task in inside] == [(200, None)] * 3
        assert await status(admission, request("north")) == (200, None), "who has left makes room"

    asyncio.run(run())


def test_a_request_waits_for_memory_with_its_body_unread_then_is_503(tmp_path: Path) -> None:
    async def run() -> None:
        gate = Gate(tmp_path, in_flight_bytes=100, back_pressure_seconds=0.05)
        admission = gate.admission()
        gate.open.set()
        gate.budget.add(100)
        asked = request(messages=[])
        assert await status(admission, asked) == (503, 2.0)
        assert gate.entered == 0, "not a byte was read"
        waiting = asyncio.create_task(status(admission, request()))
        await asyncio.sleep(0.01)
        gate.budget.release(50)
        assert await waiting == (200, None)

    asyncio.run(run())


def test_a_body_slower_than_a_request_may_be_is_408(tmp_path: Path) -> None:
    async def run(bytes_per_second: int) -> int:
        gate = Gate(tmp_path / str(bytes_per_second))
        gate.open.set()

        def later() -> Any:
            gate.now += 10
            return {"type": "http.request", "body": bytes(10 * bytes_per_second), "more_body": True}

        end = {"type": "http.request", "body": b"", "more_body": False}
        return (await status(gate.admission(), request(messages=[*[later] * 9, end])))[0]

    slowest = IngestSettings().slowest_bytes_per_second
    assert asyncio.run(run(slowest)) == 200
    assert asyncio.run(run(slowest - 1)) == 408


def test_what_we_do_with_the_bytes_is_not_the_clients_time(tmp_path: Path) -> None:
    async def run() -> int:
        gate = Gate(tmp_path)
        gate.open.set()

        async def endpoint(asked: Any) -> Any:
            async for _ in asked.stream():
                gate.now += 1000  # a slow disk
            return Response()

        messages = [{"type": "http.request", "body": b"x", "more_body": more} for more in (True, True, False)]
        admission = gate.admission()
        admission._endpoint = endpoint
        return (await status(admission, request(messages=messages)))[0]

    assert asyncio.run(run()) == 200


def test_a_quota_counts_what_was_admitted_since_it_was_measured(tmp_path: Path) -> None:
    class Meter:
        used, asked = 0, 0

        def usage(self, _tx: Any, _tenant: str) -> Usage:
            self.asked += 1
            return Usage(0, self.used)

    async def run() -> None:
        gate, meter = Gate(tmp_path, TenantPolicy(storage_bytes=100)), Meter()
        gate.open.set()
        room = Room(gate.parts.database, meter, clock=lambda: gate.now)
        admission = gate.admission(room=room)
        sized = {"content-length": "40"}
        assert [(await status(admission, request(**sized)))[0] for _ in range(3)] == [200, 200, 507]
        assert meter.asked == 1
        meter.used, gate.now = 61, gate.now + 11
        assert (await status(admission, request(**sized)))[0] == 507
        meter.used, gate.now = 60, gate.now + 11
        assert (await status(admission, request(**sized)))[0] == 200
        assert meter.asked == 3

    asyncio.run(run())


@pytest.mark.parametrize(("policy", "status_code", "reason"), [("reject", 409, 45070), ("keep_first", 202, None)])
def test_conflicting_duplicates_as_the_tenant_wants(
    tmp_path: Path, policy: str, status_code: int, reason: int | None
) -> None:
    other = "keep_first" if policy == "reject" else "reject"
    (tmp_path / "tenants.yaml").write_text(
        f"default: {{duplicates: {other}}}\ntenants: {{north: {{duplicates: {policy}}}}}"
    )
    with two_hospitals(tmp_path, tenants_file=tmp_path / "tenants.yaml") as world:

        def store(number: int) -> httpx.Response:
            body = multipart([instance(SOPInstanceUID="1.2.3.1.1", InstanceNumber=number)])
            return world.north.ask("POST", "/dicom-web/studies", content=body, headers=stow_headers())

        assert [store(number).status_code for number in (1, 1, 2)] == [200, 200, status_code]
        assert reasons(store(3)) == ([reason] if reason else [])


def test_a_tenant_over_its_rate_hears_429_and_the_other_does_not(tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(
        "tenants: {north: {requests_per_second: 0.1, burst: 2}, default: {requests_per_second: 0.1}}"
    )
    with two_hospitals(tmp_path, tenants_file=tmp_path / "tenants.yaml") as world:
        answers = [world.north.ask("GET", "/dicom-web/studies") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[2].json()["type"] == "urn:wetread:problem:too-many-requests"
        assert 1 <= int(answers[2].headers["retry-after"]) <= 10
        assert {world.south.ask("GET", "/dicom-web/studies").status_code for _ in range(20)} == {200}
        assert {world.nobody.get("/livez").status_code for _ in range(20)} == {200}, "probes are nobody's"


def test_streams_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text("default: {streams_at_once: 1}")
    with (
        two_hospitals(tmp_path, tenants_file=tmp_path / "tenants.yaml") as world,
        world.north.http.stream("GET", "/api/v1/events/stream") as first,
        world.south.http.stream("GET", "/api/v1/events/stream") as other,
    ):
        assert first.status_code == other.status_code == 200
        assert world.north.ask("GET", "/api/v1/events/stream").status_code == 429
        changes = [{"Accept": kind} for kind in ("text/event-stream", "application/json")]
        asked = [world.north.ask("GET", "/dicom-web/changefeed", headers=header).status_code for header in changes]
        assert asked == [429, 200], "a stream only when it is asked for as one"
        assert world.north.ask("GET", "/dicom-web/studies").status_code == 200
