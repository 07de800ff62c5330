"""Leases of worker processes on SQL."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import executors
from wetread.adapters.index.upsert import replace_row
from wetread.core.ports.database import Transaction

_LEADER: Final = "leader:take-over"
"""Row that stands for the leadership; its ``service`` column names the executor that has it."""


class SqlExecutors:
    """ExecutorRepository on SQL."""

    def beat(self, tx: Transaction, executor: str, service: str, *, now: float, lease_seconds: float) -> None:
        """Renew an executor's lease."""
        self._put(tx, executor, service, now, lease_seconds)

    def lead(self, tx: Transaction, executor: str, *, now: float, lease_seconds: float) -> bool:
        """Take or keep the leadership; False while another living executor has it."""
        row = connection_of(tx).execute(select(executors).where(executors.c.id == _LEADER)).one_or_none()
        if row is not None and row.service != executor and row.lease_until > now:
            return False
        self._put(tx, _LEADER, executor, now, lease_seconds)
        return True

    def expired(self, tx: Transaction, *, now: float) -> list[str]:
        """Return the executors whose lease has run out."""
        query = select(executors.c.id).where(executors.c.lease_until < now, executors.c.id != _LEADER)
        return list(connection_of(tx).execute(query.order_by(executors.c.id)).scalars())

    def remove(self, tx: Transaction, executor: str) -> None:
        """Forget an executor."""
        connection_of(tx).execute(delete(executors).where(executors.c.id == executor))

    @staticmethod
    def _put(tx: Transaction, identity: str, service: str, now: float, lease_seconds: float) -> None:
        connection = connection_of(tx)
        started = connection.execute(select(executors.c.started_at).where(executors.c.id == identity)).scalar()
        values = {
            "id": identity,
            "service": service,
            "started_at": started if started is not None else now,
            "lease_until": now + lease_seconds,
        }
        replace_row(connection, executors, values)
