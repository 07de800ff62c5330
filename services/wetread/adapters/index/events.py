"""The event stream as a table: appended in the transaction of the change, read by cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import func, insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.event_rows import TRACE_KEY, event_of
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.tables import events
from wetread.adapters.index.turnarounds import SqlTurnarounds
from wetread.adapters.index.upsert import ignoring
from wetread.core import tracing
from wetread.core.events import Event
from wetread.core.ports import Deliveries, Transaction

# Statements of the ingest path.
_COLUMNS: Final = ("tenant", "id", "type", "subject", "time", "data_json", "stamps_json")
_INSERT: Final = DriverStatement(insert(events).inline(), columns=_COLUMNS)
_INSERT_ONCE: Final = {
    dialect: DriverStatement(ignoring(dialect, events, ("tenant", "id")).inline(), columns=_COLUMNS)
    for dialect in ("sqlite", "postgresql")
}


class SqlEventLog:
    """``EventLog`` on the index database.

    The cursor is safe to remember because numbers commit in order: every write transaction takes SQLite's one write
    lock at its start (``BEGIN IMMEDIATE``), so a number is given out only after all smaller ones are visible.
    """

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._turnarounds = SqlTurnarounds()

    def append(self, tx: Transaction, event: Event) -> bool:
        connection = connection_of(tx)
        if _INSERT_ONCE[connection.dialect.name].count(connection, _row(event.tenant, event)) == 0:
            return False
        self._told(tx, event.tenant, [event])
        return True

    def append_all(self, tx: Transaction, tenant: str, several: Sequence[Event]) -> None:
        ids = [event.id for event in several]
        query = select(events.c.id).where(events.c.tenant == tenant, events.c.id.in_(ids))
        known = set(connection_of(tx).execute(query).scalars())
        self._append(tx, tenant, [event for event in several if event.id not in known])

    def _append(self, tx: Transaction, tenant: str, new: Sequence[Event]) -> None:
        if not new:
            return
        _INSERT.many(connection_of(tx), [_row(tenant, event) for event in new])
        self._told(tx, tenant, new)

    def _told(self, tx: Transaction, tenant: str, new: Sequence[Event]) -> None:
        self._deliveries.open(tx, tenant, new)
        for event in new:
            self._turnarounds.note(tx, event)

    def after(
        self, tx: Transaction, tenant: str, cursor: int, *, limit: int = 100, types: Sequence[str] | None = None
    ) -> list[Event]:
        query = select(events).where(events.c.tenant == tenant, events.c.cursor > cursor)
        if types:
            query = query.where(events.c.type.in_([str(name) for name in types]))
        rows = connection_of(tx).execute(query.order_by(events.c.cursor).limit(limit))
        return [event_of(row) for row in rows]

    def get(self, tx: Transaction, tenant: str, event_id: str) -> Event | None:
        query = select(events).where(events.c.tenant == tenant, events.c.id == event_id)
        row = connection_of(tx).execute(query).first()
        return None if row is None else event_of(row)

    def of_study(
        self, tx: Transaction, tenant: str, study_uid: str, *, limit: int = 200, types: Sequence[str] | None = None
    ) -> list[Event]:
        query = select(events).where(events.c.tenant == tenant, events.c.subject == study_uid)
        if types:
            query = query.where(events.c.type.in_([str(name) for name in types]))
        rows = connection_of(tx).execute(query.order_by(events.c.cursor.desc()).limit(limit)).all()
        return [event_of(row) for row in reversed(rows)]

    def told(self, tx: Transaction, types: Sequence[str], *, since: float) -> list[Event]:
        query = select(events).where(events.c.type.in_([str(name) for name in types]), events.c.time >= since)
        return [event_of(row) for row in connection_of(tx).execute(query.order_by(events.c.cursor))]

    def latest(self, tx: Transaction) -> int:
        value = connection_of(tx).execute(select(func.max(events.c.cursor))).scalar()
        return int(value or 0)


def _row(tenant: str, event: Event) -> dict[str, Any]:
    trace = event.trace or tracing.current()
    data = dict(event.data) if trace is None else {**event.data, TRACE_KEY: trace}
    return {
        "tenant": tenant,
        "id": event.id,
        "type": str(event.type),
        "subject": event.subject,
        "time": event.time,
        "data_json": orjson.dumps(data).decode(),
        "stamps_json": orjson.dumps(dict(event.stamps)).decode(),
    }
