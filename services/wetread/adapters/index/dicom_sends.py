"""Results on their way to DICOM destinations, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Row, insert, select, update

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import dicom_send_cursors, dicom_sends
from wetread.core.ports.database import Transaction
from wetread.core.ports.sends import ResultSend, SendState


class SqlResultSends:
    """The port on two tables."""

    def cursor(self, tx: Transaction, tenant: str, destination: str) -> int | None:
        """Return how far the events were read."""
        columns = dicom_send_cursors.c
        query = select(columns.cursor).where(columns.tenant == tenant, columns.destination == destination)
        value = connection_of(tx).execute(query).scalar()
        return None if value is None else int(value)

    def move(self, tx: Transaction, tenant: str, destination: str, cursor: int) -> None:
        """Remember how far the events were read."""
        columns, connection = dicom_send_cursors.c, connection_of(tx)
        moved = (
            update(dicom_send_cursors)
            .where(columns.tenant == tenant, columns.destination == destination)
            .values(cursor=cursor)
        )
        if connection.execute(moved).rowcount == 0:
            connection.execute(insert(dicom_send_cursors).values(tenant=tenant, destination=destination, cursor=cursor))

    def open(self, tx: Transaction, send: ResultSend) -> None:
        """Insert unless known."""
        connection, columns = connection_of(tx), dicom_sends.c
        known = select(columns.event_id).where(*_key(send))
        if connection.execute(known).first() is None:
            connection.execute(
                insert(dicom_sends).values(
                    tenant=send.tenant, destination=send.destination, event_id=send.event_id, **_values(send)
                )
            )

    def due(self, tx: Transaction, tenant: str, destination: str, *, now: float, limit: int) -> Sequence[ResultSend]:
        """Return what is to be sent now."""
        columns = dicom_sends.c
        query = (
            select(dicom_sends)
            .where(
                columns.tenant == tenant,
                columns.destination == destination,
                columns.state == SendState.PENDING,
                columns.due_at <= now,
            )
            .order_by(columns.due_at)
            .limit(limit)
        )
        return [_send(row) for row in connection_of(tx).execute(query)]

    def record(self, tx: Transaction, send: ResultSend) -> None:
        """Write the outcome of an attempt."""
        connection_of(tx).execute(update(dicom_sends).where(*_key(send)).values(**_values(send)))


def _key(send: ResultSend) -> list[Any]:
    columns = dicom_sends.c
    return [
        columns.tenant == send.tenant,
        columns.destination == send.destination,
        columns.event_id == send.event_id,
    ]


def _values(send: ResultSend) -> dict[str, Any]:
    return {
        "study_uid": send.study_uid,
        "series_json": orjson.dumps(send.series_uids).decode(),
        "state": str(send.state),
        "attempts": send.attempts,
        "due_at": send.due_at,
        "last_error": send.last_error,
        "updated_at": send.updated_at,
    }


def _send(row: Row[Any]) -> ResultSend:
    return ResultSend(
        tenant=row.tenant,
        destination=row.destination,
        event_id=row.event_id,
        study_uid=row.study_uid,
        series_uids=tuple(orjson.loads(row.series_json)),
        state=SendState(row.state),
        attempts=row.attempts,
        due_at=row.due_at,
        last_error=row.last_error,
        updated_at=row.updated_at,
    )
