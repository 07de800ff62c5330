"""What a store request has to pass before its body is read: size, room, its share of the process; and its pace after.

Received but not yet durable bytes are bounded in ``committer.InFlight``; this is the gate before it (spec: bounded
memory whatever the clients do).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive

from wetread.core.errors import InvalidInput, PayloadTooLarge, TooManyRequests, Unavailable
from wetread.core.ports.database import Database
from wetread.core.ports.usage import UsageMeter
from wetread.core.quota import StorageQuota
from wetread.core.shares import Share, Shares
from wetread.core.tenants import TenantPolicy
from wetread.gateway.committer import InFlight
from wetread.gateway.settings import IngestSettings

_BUSY_SECONDS: Final = 2.0

Endpoint = Callable[[Request], Awaitable[Response]]


class TooSlow(InvalidInput):
    """The body arrives slower than a request may (RFC 9110 15.5.9)."""

    status, slug, title = 408, "request-too-slow", "Request too slow"


class Admission:
    """A STOW endpoint with a gate in front of it. For one event loop."""

    def __init__(
        self,
        endpoint: Endpoint,
        budget: InFlight,
        settings: IngestSettings,
        room: Room | None = None,
        *,
        shares: Shares | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._budget = budget
        self._settings = settings
        self._room = room
        self._clock = clock
        self._shares = shares or Shares()
        self._open = 0

    async def __call__(self, request: Request) -> Response:
        """Store, or refuse before the body is read. Raises WetreadError."""
        tenant: str = getattr(request.state, "tenant", "default")
        policy = self._settings.tenants.policy(tenant)
        text = request.headers.get("content-length", "")
        declared = int(text) if text.isdecimal() and len(text) < 19 else 0
        if policy.request_bytes is not None and declared > policy.request_bytes:
            msg = f"the request is larger than {policy.request_bytes} bytes"
            raise PayloadTooLarge(msg)
        if self._open >= self._settings.requests_at_once:
            msg = "too many store requests are open"
            raise Unavailable(msg, retry_after=_BUSY_SECONDS)
        share = self._enter(tenant, policy)
        self._open += 1
        try:
            if self._room is not None:
                await self._room.check(tenant, policy, declared)
            # While too much is received and not durable the body stays where it is (TCP back-pressure).
            await self._budget.wait(self._settings.back_pressure_seconds)
            pace = _Pace(request.receive, self._settings, policy.request_bytes, self._clock)
            return await self._endpoint(Request(request.scope, pace))
        finally:
            self._open -= 1
            if share is not None:
                share.leave("stores")

    def _enter(self, tenant: str, policy: TenantPolicy) -> Share | None:
        """Count the request of a tenant that may have only so many at a time. Raises TooManyRequests."""
        if policy.stores_at_once is None:
            return None
        share = self._shares.of(tenant)
        with self._shares.turn:
            if share.open("stores") >= policy.stores_at_once:
                msg = f"more than {policy.stores_at_once} store requests at a time"
                raise TooManyRequests(msg, retry_after=_BUSY_SECONDS)
            share.enter("stores")
        return share


class Room:
    """What tenants with a storage quota use, measured now and then, never on the path of a request without a quota."""

    def __init__(
        self,
        database: Database,
        meter: UsageMeter,
        shares: Shares | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quota = StorageQuota(database, meter, shares or Shares(), clock)

    async def check(self, tenant: str, policy: TenantPolicy, declared: int) -> None:
        """Raise QuotaExceeded when the tenant has no room for *declared* more bytes."""
        if not self._quota.limits(policy):
            return
        if self._quota.stale(tenant):
            await run_sync(self._quota.measure, tenant)
        self._quota.admit(tenant, policy, declared)


class _Pace:
    """The body of one request: not slower than the slowest that is put up with, not larger than the tenant may send."""

    def __init__(
        self, receive: Receive, settings: IngestSettings, most: int | None, clock: Callable[[], float]
    ) -> None:
        self._receive = receive
        self._settings = settings
        self._most = most
        self._clock = clock
        self._waited = 0.0
        self._received = 0

    async def __call__(self) -> Message:
        begun = self._clock()
        message = await self._receive()
        # Only the waiting counts: what we do with the bytes in between is not the client's time.
        self._waited += self._clock() - begun
        self._received += len(message.get("body", b""))
        if self._most is not None and self._received > self._most:
            msg = f"the request is larger than {self._most} bytes"
            raise PayloadTooLarge(msg)
        grace, rate = self._settings.slow_grace_seconds, self._settings.slowest_bytes_per_second
        if self._waited > grace and self._received < self._waited * rate and message.get("more_body"):
            msg = f"the body arrives at less than {rate} bytes per second"
            raise TooSlow(msg)
        return message
