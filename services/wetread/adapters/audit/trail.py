"""The audit trail on SQL: append-only rows, those of a tenant chained by digests (ADR 1002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import delete, func, insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import access_log
from wetread.core.ports.access import Access, AccessEntry, AccessFilter, Link, chained
from wetread.core.ports.database import Transaction

_FIELDS: Final = ("tenant", "actor", "action", "study_uid", "outcome", "address")


def told(entry: AccessEntry) -> bytes:
    """Return what the digest of an entry is made from, beside the digest before it."""
    fields = [
        *(getattr(entry.access, name) for name in _FIELDS),
        *(entry.at, entry.until, entry.count, entry.request_id),
    ]
    return orjson.dumps(fields)


class SqlAccessTrail:
    """The port on one table."""

    def append(self, tx: Transaction, entries: Sequence[AccessEntry]) -> None:
        """Append, each behind the tenant's newest."""
        connection = connection_of(tx)
        newest: dict[str, str] = {}
        rows: list[dict[str, Any]] = []
        for entry in entries:
            tenant = entry.access.tenant
            if tenant not in newest:
                last = select(access_log.c.digest).where(access_log.c.tenant == tenant)
                last = last.order_by(access_log.c.number.desc()).limit(1)
                newest[tenant] = connection.execute(last).scalar() or ""
            newest[tenant] = chained(newest[tenant], told(entry))
            rows.append(
                {name: getattr(entry.access, name) for name in _FIELDS}
                | {
                    "at": entry.at,
                    "until": entry.until,
                    "count": entry.count,
                    "request_id": entry.request_id,
                    "digest": newest[tenant],
                }
            )
        if rows:
            connection.execute(insert(access_log), rows)

    def entries(self, tx: Transaction, tenant: str | None, wanted: AccessFilter, *, limit: int) -> list[AccessEntry]:
        """Return entries, oldest first."""
        columns = access_log.c
        query = select(access_log).where(columns.number > wanted.after).order_by(columns.number).limit(limit)
        if tenant is not None:
            query = query.where(columns.tenant == tenant)
        if wanted.since is not None:
            query = query.where(columns.until >= wanted.since)
        if wanted.until is not None:
            query = query.where(columns.at < wanted.until)
        if wanted.study_uid is not None:
            query = query.where(columns.study_uid == wanted.study_uid)
        if wanted.actor is not None:
            query = query.where(columns.actor == wanted.actor)
        return [_entry(row) for row in connection_of(tx).execute(query)]

    def audit_links(self, tx: Transaction, after: int, *, limit: int) -> list[Link]:
        """Return the entries of all tenants behind a number, oldest first, as links."""
        found = self.entries(tx, None, AccessFilter(after=after), limit=limit)
        return [Link(entry.number, entry.access.tenant, told(entry), entry.digest) for entry in found]

    def expire(self, tx: Transaction, before: float, *, limit: int) -> int:
        """Forget old entries, of each tenant from its oldest on, so that what is left is one chain."""
        columns = access_log.c
        # The first that stays, found by walking from the oldest on.
        kept = select(columns.number).where(columns.until >= before).order_by(columns.number).limit(1).scalar_subquery()
        old = select(columns.number).where(columns.number < func.coalesce(kept, 2**62)).order_by(columns.number)
        connection = connection_of(tx)
        return connection.execute(delete(access_log).where(columns.number.in_(old.limit(limit)))).rowcount


def _entry(row: Any) -> AccessEntry:
    access = Access(*(getattr(row, name) for name in _FIELDS))
    # "count" of a row is a method of tuples: taken by its column.
    count = row._mapping[access_log.c.count]  # noqa: SLF001 - the documented way
    return AccessEntry(row.number, access, row.at, row.until, count, row.request_id, row.digest)
