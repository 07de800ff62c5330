"""The event channel: websockets that receive the UPS events of their AE title (RAD-109; PS3.18 8.10.4 and 8.10.5).

The event log in the database is the queue: a connection holds one batch in memory, however slow its reader is. One
watcher per process looks for new rows while anybody is connected and wakes the connections that have some; so events
written by any process of the deployment arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

import orjson
from fastapi import WebSocket, WebSocketDisconnect
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import Response

from wetread.core.errors import Forbidden, NotFound, WetreadError
from wetread.core.ports.ups import QueuedEvent
from wetread.core.ups import UpsStatus
from wetread.core.ups_events import frame
from wetread.worklist.ups import UpsService
from wetread.worklist.ups_requests import ae_title

logger = logging.getLogger("wetread.ups")

_BATCH: Final = 100
_TRY_AGAIN_LATER: Final = 1013
_INTERNAL_ERROR: Final = 1011

Subscriber = tuple[str, str]
"""Tenant and AE title."""


class EventChannel:
    """All open connections of one process."""

    def __init__(self, service: UpsService) -> None:
        self._service = service
        self._settings = service.settings
        self._waiting: dict[Subscriber, set[asyncio.Event]] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def serve(
        self,
        websocket: WebSocket,
        aet: str,
        tenant_of: Callable[[HTTPConnection], str],
        allowed_aet: Callable[[HTTPConnection, str], bool],
    ) -> None:
        """Run one connection until either side ends it. Refusals are answered before the upgrade."""
        try:
            tenant = tenant_of(websocket)
            title = ae_title(aet)
            self._check_origin(websocket)
            if not allowed_aet(websocket, title):
                msg = "the receiving AE title is unknown"
                raise NotFound(msg, dicom_status=UpsStatus.RECEIVING_AE_UNKNOWN)
        except WetreadError as error:
            await _deny(websocket, error)
            return
        await websocket.accept()
        wake = asyncio.Event()
        wake.set()
        listeners = self._waiting.setdefault((tenant, title), set())
        listeners.add(wake)
        self._watch()
        gone = asyncio.create_task(_until_closed(websocket))
        sending = asyncio.create_task(self._send_events(websocket, (tenant, title), wake))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not gone.done() and (failure := sending.exception()) is not None:
                logger.warning("a UPS event channel failed", extra={"error": type(failure).__name__})
                await websocket.close(_INTERNAL_ERROR)
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(gone, sending, return_exceptions=True)
            listeners.discard(wake)
            if not listeners:
                self._waiting.pop((tenant, title), None)

    async def _send_events(self, websocket: WebSocket, subscriber: Subscriber, wake: asyncio.Event) -> None:
        position = await run_in_threadpool(self._delivered, subscriber)
        while True:
            await wake.wait()
            wake.clear()
            while batch := await run_in_threadpool(self._after, subscriber, position):
                for event in batch:
                    message = frame(event.cursor, event.workitem_uid, event.type, event.attributes)
                    try:
                        async with asyncio.timeout(self._settings.send_timeout_s):
                            await websocket.send_text(orjson.dumps(message).decode())
                    except TimeoutError:
                        logger.warning("a UPS subscriber does not read: closed")
                        await self._close_unread(websocket)
                        return
                position = batch[-1].cursor
                await run_in_threadpool(self._delivered_to, subscriber, position)

    async def _close_unread(self, websocket: WebSocket) -> None:
        # The close frame queues behind what the subscriber does not read, so it gets no longer than a message did.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.send_timeout_s):
                await websocket.close(_TRY_AGAIN_LATER, "events are not read fast enough")

    def _delivered(self, subscriber: Subscriber) -> int:
        with self._service.database.read() as tx:
            return self._service.repository.delivered_up_to(tx, *subscriber)

    def _after(self, subscriber: Subscriber, position: int) -> list[QueuedEvent]:
        oldest = self._service.clock.now() - self._settings.event_retention_s
        with self._service.database.read() as tx:
            return self._service.repository.events_after(tx, *subscriber, position, limit=_BATCH, not_before=oldest)

    def _delivered_to(self, subscriber: Subscriber, position: int) -> None:
        with self._service.database.write() as tx:
            self._service.repository.mark_delivered(tx, *subscriber, position)

    def _watch(self) -> None:
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._look_for_news())

    async def _look_for_news(self) -> None:
        cursor = 0
        while self._waiting:
            try:
                cursor, subscribers = await run_in_threadpool(self._news, cursor)
            except Exception as error:  # noqa: BLE001 - the watcher must outlive any fault of the database
                # The type only: a database driver puts row values, hence patient data, into its message.
                logger.warning("the UPS event log cannot be read: trying again", extra={"error": type(error).__name__})
                subscribers = set()
            for subscriber in subscribers:
                for wake in self._waiting.get(subscriber, ()):
                    wake.set()
            await asyncio.sleep(self._settings.poll_s)

    def _news(self, cursor: int) -> tuple[int, set[Subscriber]]:
        with self._service.database.read() as tx:
            return self._service.repository.new_for(tx, cursor)

    def _check_origin(self, websocket: WebSocket) -> None:
        """Refuse pages of other sites: browsers send their credentials with any websocket they are told to open."""
        origin = websocket.headers.get("origin")
        if origin is None or origin in self._settings.allowed_origins:
            return
        if urlsplit(origin).netloc != websocket.headers.get("host"):
            msg = "this origin may not open the event channel"
            raise Forbidden(msg)


async def _until_closed(websocket: WebSocket) -> None:
    """Read and ignore what a subscriber sends, until it leaves."""
    try:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    except WebSocketDisconnect:
        return


async def _deny(websocket: WebSocket, error: WetreadError) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        body = orjson.dumps(error.problem(quote(websocket.url.path)))
        await websocket.send_denial_response(Response(body, error.http_status, media_type="application/problem+json"))
    else:
        await websocket.close(1008)
