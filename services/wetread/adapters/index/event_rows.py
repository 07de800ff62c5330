"""Rows of the event table as events."""

from __future__ import annotations

from typing import Any, Final

import orjson
from sqlalchemy import Row

from wetread.core.events import Event, EventType

TRACE_KEY: Final = "traceparent"
"""Where a row keeps the event's trace, beside its data: the release before passes it on without minding it."""


def event_of(row: Row[Any]) -> Event:
    """Return a row of the table as an event."""
    data = orjson.loads(row.data_json)
    return Event(
        id=row.id,
        type=EventType(row.type),
        tenant=row.tenant,
        subject=row.subject,
        time=row.time,
        trace=data.pop(TRACE_KEY, None),
        data=data,
        stamps=orjson.loads(row.stamps_json),
        cursor=row.cursor,
    )
