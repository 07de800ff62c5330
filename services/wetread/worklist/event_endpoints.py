"""The event stream over HTTP: by cursor, and live as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from wetread.core.cloudevents import cloud_event
from wetread.core.errors import InvalidInput
from wetread.core.event_stream import EVENT_STREAM, Page, frame_of, live, parse_last_event_id
from wetread.core.events import Event, EventType
from wetread.core.tail import EventTail
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of

BATCH: Final = 100


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

    answers: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {}}}}

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

        def read(cursor: int) -> Page:
            with ports.database.read() as tx:
                latest = ports.events.latest(tx)
                return page_of(ports.events.after(tx, tenant, cursor, limit=BATCH, types=wanted), latest)

        resumed = parse_last_event_id(last_event_id)
        return StreamingResponse(
            live(read, tail, after if resumed is None else resumed),
            media_type=EVENT_STREAM,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    return api


def page_of(found: list[Event], latest: int) -> Page:
    """Return a look at the event table, of which *latest* is the newest cursor of all tenants."""
    return Page([(event.cursor, frame(event)) for event in found], latest, latest, more=len(found) == BATCH)


def frame(event: Event) -> bytes:
    """Return one event as a server-sent event."""
    return frame_of(event.cursor, orjson.dumps(cloud_event(event)), event=event.type)


def parse_types(text: str) -> list[EventType] | None:
    """Return the event types of a comma-separated list, None for all. Raises InvalidInput."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return [EventType(name) for name in names] or None
    except ValueError as error:
        msg = "types names an event type that does not exist"
        raise InvalidInput(msg) from error
