"""The change feed on SQL: numbers are given out by a counter row in the transaction of the change (ADR 0204).

Whoever holds the row commits next, so that numbers are gapless and become visible in their order on any database.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.tables import change_counters, changes
from wetread.adapters.index.upsert import insert_row
from wetread.core.ports.changes import Change, ChangeAction, ChangeState
from wetread.core.ports.database import Transaction

_IN_LIMIT: Final = 500
_COLUMNS: Final = (
    *(changes.c.sequence, changes.c.study_uid, changes.c.series_uid, changes.c.sop_uid),
    *(changes.c.action, changes.c.at),
)
_COUNT: Final = DriverStatement(
    update(change_counters)
    .where(change_counters.c.tenant == bindparam("of"))
    .values(last=change_counters.c.last + bindparam("more"))
    .returning(change_counters.c.last)
)
_ALL: Final = select(func.sum(change_counters.c.last))
_INSERT: Final = DriverStatement(insert(changes))
Path = tuple[str, str, str]
"""Study, series and SOP Instance UID."""


class SqlChangeFeed:
    """Read side; rows are written by ``record``."""

    def changes(
        self,
        tx: Transaction,
        tenant: str,
        *,
        limit: int,
        offset: int = 0,
        after: int = 0,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Change]:
        """Return a page of the feed; see the port."""
        where = [changes.c.tenant == tenant, changes.c.sequence > after]
        if since is not None:
            where.append(changes.c.at >= since)
        if until is not None:
            where.append(changes.c.at < until)
        query = select(*_COLUMNS).where(*where).order_by(changes.c.sequence).limit(limit).offset(offset)
        return _with_states(connection_of(tx), tenant, connection_of(tx).execute(query).all())

    def latest_change(self, tx: Transaction, tenant: str) -> Change | None:
        """Return the newest change."""
        newest = select(*_COLUMNS).where(changes.c.tenant == tenant).order_by(changes.c.sequence.desc()).limit(1)
        found = _with_states(connection_of(tx), tenant, connection_of(tx).execute(newest).all())
        return found[0] if found else None

    def last_change(self, tx: Transaction, tenant: str) -> int:
        """Return the sequence of the newest change."""
        return last_sequence(connection_of(tx), tenant)

    def changes_of_all(self, tx: Transaction) -> int:
        """Return the number of all tenants' changes: one row per tenant is read."""
        return int(connection_of(tx).execute(_ALL).scalar() or 0)


def record(
    connection: Connection, tenant: str, paths: Sequence[Path], action: ChangeAction, at: float, *, once: bool = False
) -> int:
    """Append a change per instance and return the newest sequence number of the tenant.

    ``once`` (replay): only what the feed does not tell yet.
    """
    if once:
        told = _newest(connection, tenant, [path[2] for path in paths])
        here = {uid for uid, (_, newest) in told.items() if newest != "delete"}
        paths = [path for path in paths if (path[2] in here) == (action == "delete")]
    if not paths:
        return last_sequence(connection, tenant)
    counted = _COUNT.first(connection, {"of": tenant, "more": len(paths)})
    if counted is None:
        # The first change of a tenant; another writer may be making the row, then this waits for it.
        insert_row(connection, change_counters, {"tenant": tenant, "last": 0})
        counted = _COUNT.first(connection, {"of": tenant, "more": len(paths)})
    assert counted is not None
    last = int(counted[0])
    first = last - len(paths) + 1
    # Whole microseconds, as the feed shows them: asking from a time that was shown must find its change.
    at = math.floor(at * 1e6) / 1e6
    rows = [
        {
            "tenant": tenant,
            "sequence": first + number,
            "study_uid": study,
            "series_uid": series,
            "sop_uid": sop,
            "action": action,
            "at": at,
        }
        for number, (study, series, sop) in enumerate(paths)
    ]
    _INSERT.many(connection, rows)
    return last


def last_sequence(connection: Connection, tenant: str) -> int:
    """Return the newest sequence number of a tenant; 0 when nothing has happened."""
    query = select(change_counters.c.last).where(change_counters.c.tenant == tenant)
    return int(connection.execute(query).scalar() or 0)


def _newest(connection: Connection, tenant: str, sop_uids: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return sequence and action of the newest change of each instance."""
    found: dict[str, tuple[int, str]] = {}
    for at in range(0, len(sop_uids), _IN_LIMIT):
        query = (
            select(changes.c.sop_uid, changes.c.sequence, changes.c.action)
            .where(changes.c.tenant == tenant, changes.c.sop_uid.in_(sop_uids[at : at + _IN_LIMIT]))
            .order_by(changes.c.sequence)
        )
        found.update({row[0]: (row[1], row[2]) for row in connection.execute(query)})
    return found


def _with_states(connection: Connection, tenant: str, rows: Sequence[Any]) -> list[Change]:
    newest = _newest(connection, tenant, [row.sop_uid for row in rows])
    result = []
    for row in rows:
        sequence, action = newest[row.sop_uid]
        state: ChangeState = "deleted" if action == "delete" else "replaced" if sequence > row.sequence else "current"
        result.append(Change(row[0], row[1], row[2], row[3], row[4], row[5], state))
    return result
