"""The change feed: what was stored and deleted, in commit order, for those who keep a copy (ADR 0204).

Not in PS3.18. Names and parameters are those that clients of other servers know; ``after`` is ours.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from wetread.core.errors import InvalidInput, NotFound
from wetread.core.event_stream import EVENT_STREAM, Page, asks_for_events, frame_of, live, parse_last_event_id
from wetread.core.ports.archive import Archive
from wetread.core.ports.changes import Change
from wetread.core.ports.database import Database, Transaction
from wetread.core.tail import EventTail
from wetread.gateway.responses import base_url, json_response
from wetread.gateway.retrieval import addressed, tenant_of
from wetread.gateway.settings import GatewaySettings

JSON: Final = "application/json"
LIMIT: Final = 200
"""Largest page."""
_DEFAULT_LIMIT: Final = 100
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_STREAMED: Final = 100
"""Changes that a stream reads at once."""
_STREAMED_WITH_METADATA: Final = 10
_OF_STREAMS: Final = frozenset({"after", "includemetadata"})
_PARAMETERS: Final = frozenset({"offset", "limit", "after", "starttime", "endtime", "includemetadata", "accept"})


class ChangeFeedEndpoints:
    """``GET /changefeed``, as pages or as an event stream, and ``GET /changefeed/latest``."""

    def __init__(self, database: Database, archive: Archive, tail: EventTail, settings: GatewaySettings) -> None:
        self._database = database
        self._archive = archive
        self._tail = tail
        self._settings = settings

    async def page(self, request: Request) -> Response:
        """Return changes in order. A reader goes on with ``after`` = the last ``Sequence`` that it has seen."""
        if asks_for_events(request.headers.get("accept")):
            return self._stream(request)
        asked = _parameters(request)
        limit = _number(asked, "limit", _DEFAULT_LIMIT)
        if not 1 <= limit <= LIMIT:
            msg = f"limit is 1 to {LIMIT}"
            raise InvalidInput(msg)
        window = {
            "limit": limit,
            "offset": _number(asked, "offset", 0),
            "after": _number(asked, "after", 0),
            "since": _instant(asked, "starttime"),
            "until": _instant(asked, "endtime"),
        }
        metadata = _flag(asked, "includemetadata")
        return json_response(
            await run_sync(self._page, tenant_of(request), window, self._base(request, metadata=metadata)),
            media_type=JSON,
        )

    async def latest(self, request: Request) -> Response:
        """Return the newest change; 204 when nothing has happened yet."""
        metadata = _flag(_parameters(request), "includemetadata")
        found = await run_sync(self._latest, tenant_of(request), self._base(request, metadata=metadata))
        if found is None:
            return Response(status_code=204, headers={"Cache-Control": "no-store"})
        return json_response(found, media_type=JSON)

    def _stream(self, request: Request) -> Response:
        """Return changes as they come (HTML 9.2) behind ``Last-Event-ID`` or ``after``; ``id:`` is the ``Sequence``."""
        asked = _parameters(request)
        if not asked.keys() <= _OF_STREAMS:
            msg = "parameters of the event stream: after, includeMetadata"
            raise InvalidInput(msg)
        metadata = _flag(asked, "includemetadata")
        tenant, base = tenant_of(request), self._base(request, metadata=metadata)
        most = _STREAMED if base is None else _STREAMED_WITH_METADATA
        # A browser that reconnects asks for the same URL again: where it is now stands in the header.
        resumed = parse_last_event_id(request.headers.get("last-event-id"))
        start = _number(asked, "after", 0) if resumed is None else resumed
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=EVENT_STREAM)

        def read(cursor: int) -> Page:
            with self._database.read() as tx:
                seen = self._archive.changes_of_all(tx)  # first: what is committed from here on is seen next time
                newest = self._archive.last_change(tx, tenant)
                found = self._archive.changes(tx, tenant, limit=most, after=cursor) if newest > cursor else []
                items = [(one.sequence, orjson.dumps(self._item(tx, tenant, one, base))) for one in found]
            return Page([(at, frame_of(at, item)) for at, item in items], newest, seen, more=len(found) == most)

        return StreamingResponse(live(read, self._tail, start), headers=headers, media_type=EVENT_STREAM)

    def _base(self, request: Request, *, metadata: bool) -> str | None:
        return base_url(request, self._settings) if metadata else None

    def _page(self, tenant: str, window: dict[str, Any], base: str | None) -> list[dict[str, Any]]:
        with self._database.read() as tx:
            return [self._item(tx, tenant, change, base) for change in self._archive.changes(tx, tenant, **window)]

    def _latest(self, tenant: str, base: str | None) -> dict[str, Any] | None:
        with self._database.read() as tx:
            change = self._archive.latest_change(tx, tenant)
            return self._item(tx, tenant, change, base) if change else None

    def _item(self, tx: Transaction, tenant: str, change: Change, base: str | None) -> dict[str, Any]:
        item: dict[str, Any] = {
            "Sequence": change.sequence,
            "StudyInstanceUid": change.study_uid,
            "SeriesInstanceUid": change.series_uid,
            "SopInstanceUid": change.sop_uid,
            "Action": change.action,
            "Timestamp": datetime.fromtimestamp(change.at, UTC).isoformat().replace("+00:00", "Z"),
            "State": change.state,
        }
        if base is not None and change.state == "current":
            try:
                (group,) = self._archive.metadata(tx, tenant, change.study_uid, change.series_uid, change.sop_uid)
            except NotFound:
                return item  # the index is being rebuilt
            item["Metadata"] = orjson.loads(addressed(group.instances[0][1], base, group, change.sop_uid))
        return item


def _parameters(request: Request) -> dict[str, str]:
    """Return the query by lower-case name. A parameter that is not known is refused: ignored, it would return more."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        key = name.lower()
        if key not in _PARAMETERS:
            msg = "parameters of the change feed: offset, limit, after, startTime, endTime, includeMetadata"
            raise InvalidInput(msg)
        if key in found:
            msg = f"{name} is given twice"
            raise InvalidInput(msg)
        found[key] = value
    return found


def _number(asked: dict[str, str], name: str, default: int) -> int:
    value = asked.get(name)
    if value is None:
        return default
    if not _NUMBER.fullmatch(value):
        msg = f"{name} is an unsigned number"
        raise InvalidInput(msg)
    return int(value)


def _flag(asked: dict[str, str], name: str) -> bool:
    value = asked.get(name, "false").lower()
    if value not in ("true", "false"):
        msg = f"{name} is true or false"
        raise InvalidInput(msg)
    return value == "true"


def _instant(asked: dict[str, str], name: str) -> float | None:
    """Return Unix seconds of an RFC 3339 date and time; an offset is required."""
    value = asked.get(name)
    if value is None:
        return None
    try:
        # A plus sign of the offset arrives as a space when the client did not escape it.
        found = datetime.fromisoformat(value.replace(" ", "+"))
    except ValueError as error:
        msg = f"{name} is a date and time such as 2026-01-31T10:30:15Z"
        raise InvalidInput(msg) from error
    if found.tzinfo is None:
        msg = f"{name} needs an offset from UTC, such as Z"
        raise InvalidInput(msg)
    return found.timestamp()
