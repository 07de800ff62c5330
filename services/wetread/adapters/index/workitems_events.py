"""The event log of the UPS worklist: one row per event and subscriber, in the transaction of the change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from wetread.adapters.index.tables import ups_deliveries, ups_events
from wetread.core.ports.ups import QueuedEvent
from wetread.core.ups_events import UpsEvent


def queue(
    connection: Connection, tenant: str, uid: str, aets: Iterable[str], events: Sequence[UpsEvent], now: float
) -> int:
    """Append *events* of one workitem for each AE title, in order; return how many rows were written."""
    rows = [
        {
            "tenant": tenant,
            "aet": aet,
            "workitem_uid": uid,
            "type": int(event.type),
            "attributes_json": orjson.dumps(event.attributes).decode(),
            "created_at": now,
        }
        for event in events
        for aet in sorted(aets)
    ]
    if rows:
        connection.execute(insert(ups_events), rows)
    return len(rows)


def after(
    connection: Connection, tenant: str, aet: str, cursor: int, *, limit: int, not_before: float
) -> list[QueuedEvent]:
    """Return an AE's events after *cursor* that are not older than *not_before*."""
    rows = connection.execute(
        select(ups_events)
        .where(ups_events.c.tenant == tenant, ups_events.c.aet == aet, ups_events.c.cursor > cursor)
        .where(ups_events.c.created_at >= not_before)
        .order_by(ups_events.c.cursor)
        .limit(limit)
    )
    return [
        QueuedEvent(row.cursor, row.tenant, row.aet, row.workitem_uid, row.type, orjson.loads(row.attributes_json))
        for row in rows
    ]


def new_for(connection: Connection, cursor: int) -> tuple[int, set[tuple[str, str]]]:
    """Return the newest cursor and who has events after *cursor*."""
    newest = connection.scalar(select(func.max(ups_events.c.cursor))) or 0
    if newest <= cursor:
        return cursor, set()
    pairs = connection.execute(
        select(ups_events.c.tenant, ups_events.c.aet).where(ups_events.c.cursor > cursor).distinct()
    )
    return newest, {(row.tenant, row.aet) for row in pairs}


def delivered_up_to(connection: Connection, tenant: str, aet: str) -> int:
    """Return the delivery cursor of an AE; 0 before its first delivery."""
    return (
        connection.scalar(
            select(ups_deliveries.c.cursor).where(ups_deliveries.c.tenant == tenant, ups_deliveries.c.aet == aet)
        )
        or 0
    )


def mark_delivered(connection: Connection, tenant: str, aet: str, cursor: int) -> None:
    """Move the delivery cursor of an AE forward."""
    mine = (ups_deliveries.c.tenant == tenant, ups_deliveries.c.aet == aet)
    moved = connection.execute(
        update(ups_deliveries).where(*mine, ups_deliveries.c.cursor < cursor).values(cursor=cursor)
    )
    if moved.rowcount == 0 and delivered_up_to(connection, tenant, aet) == 0:
        try:
            with connection.begin_nested():
                connection.execute(insert(ups_deliveries).values(tenant=tenant, aet=aet, cursor=cursor))
        except IntegrityError:  # another connection of the same AE wrote it first
            connection.execute(
                update(ups_deliveries).where(*mine, ups_deliveries.c.cursor < cursor).values(cursor=cursor)
            )


def prune(connection: Connection, before: float) -> None:
    """Remove events older than *before*."""
    connection.execute(delete(ups_events).where(ups_events.c.created_at < before))
