"""The event stream over HTTP: by cursor, and live as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from wetread.core.cloudevents import cloud_event
from wetread.core.errors import InvalidInput
from wetread.core.events import Event, EventType
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of
from wetread.worklist.tail import EventTail

HEARTBEAT_SECONDS: Final = 15.0
BATCH: Final = 100
_RECONNECT_MS: Final = 2000

Batch = tuple[list[Event], int]
"""Events after a cursor, and the newest cursor of all tenants at that moment."""


def router(ports: WorklistPorts, tail: EventTail) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["events"])

    @api.get("/events", response_model_exclude_unset=True)  # an extension that is not there is left out
    def events(
        request: Request,
        *,
        after: Annotated[int, Query(ge=0, description="the last cursor you have seen")] = 0,
        types: Annotated[str, Query(description="comma-separated event types; none: all")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = BATCH,
    ) -> schemas.EventsOut:
        """Events after a cursor, in the order they were committed. Delivered at least once: de-duplicate by ``id``."""
        wanted = parse_types(types)
        with ports.database.read() as tx:
            found = ports.events.after(tx, tenant_of(request), after, limit=limit, types=wanted)
        return schemas.EventsOut(
            events=[schemas.EventOut.model_validate(cloud_event(event)) for event in found],
            next=found[-1].cursor if found else after,
        )

    answers: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @api.get("/events/stream", response_class=StreamingResponse, responses=answers)
    async def stream(
        request: Request,
        *,
        types: Annotated[str, Query(description="comma-separated event types; none: all")] = "",
        after: Annotated[int | None, Query(ge=0, description="start here; default: now")] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """Live events. ``id:`` is the cursor; a reconnect with ``Last-Event-ID`` misses nothing."""
        tenant, wanted = tenant_of(request), parse_types(types)

        def read(cursor: int) -> Batch:
            with ports.database.read() as tx:
                latest = ports.events.latest(tx)
                return ports.events.after(tx, tenant, cursor, limit=BATCH, types=wanted), latest

        start = _parse_cursor(last_event_id) if last_event_id else after
        return StreamingResponse(
            event_stream(read, tail, start),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return api


async def event_stream(
    read: Callable[[int], Batch],
    tail: EventTail,
    start: int | None,
    *,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """Yield frames of ``text/event-stream`` (HTML 9.2) from the cursor *start*, None: from now on.

    Pulls from the table at the pace of the client, so one that stops reading costs no memory. The first frame sets
    the client's last event id: a client that loses the connection before its first event misses nothing either.
    """
    newest = (await run_in_threadpool(read, 2**62))[1]
    cursor = newest if start is None else start
    if cursor > newest:
        # The client remembers a stream that is not this one (another data folder): tell it to read afresh.
        cursor = newest
        yield b"event: reset\ndata: {}\n\n"
    yield f"retry: {_RECONNECT_MS}\nid: {cursor}\n\n".encode()
    while not tail.closed:
        found, seen = await run_in_threadpool(read, cursor)
        for event in found:
            cursor = event.cursor
            yield frame(event)
        if len(found) == BATCH:
            continue
        if not await tail.wait_beyond(seen, heartbeat_seconds):
            yield b": heartbeat\n\n"


def frame(event: Event) -> bytes:
    """Return one event as a server-sent event."""
    head = f"id: {event.cursor}\nevent: {event.type}\ndata: ".encode()
    return head + orjson.dumps(cloud_event(event)) + b"\n\n"


def parse_types(text: str) -> list[EventType] | None:
    """Return the event types of a comma-separated list, None for all. Raises InvalidInput."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return [EventType(name) for name in names] or None
    except ValueError as error:
        msg = "types names an event type that does not exist"
        raise InvalidInput(msg) from error


def _parse_cursor(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        msg = "Last-Event-ID is not a cursor of this stream"
        raise InvalidInput(msg)
    return int(text)
