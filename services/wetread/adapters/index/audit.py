"""The audit log on SQL: append-only rows, each with a digest over itself and the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import orjson
from sqlalchemy import insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import audit_log
from wetread.core.ports.access import Link, chained
from wetread.core.ports.changes import AuditEntry
from wetread.core.ports.database import Transaction

_FIELDS: Final = ("at", "actor", "action", "study_uid", "series_uid", "sop_uid", "outcome", "request_id")


def told(entry: AuditEntry) -> bytes:
    """Return what the digest of an entry is made from, beside the digest before it."""
    return orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)


class SqlAuditLog:
    """The port on one table."""

    def audit(self, tx: Transaction, tenant: str, entry: AuditEntry) -> None:
        """Append an entry."""
        newest = (
            select(audit_log.c.digest).where(audit_log.c.tenant == tenant).order_by(audit_log.c.number.desc()).limit(1)
        )
        connection = connection_of(tx)
        digest = chained(connection.execute(newest).scalar() or "", told(entry))
        connection.execute(insert(audit_log).values(tenant=tenant, digest=digest, **asdict(entry)))

    def audit_entries(self, tx: Transaction, tenant: str) -> Sequence[tuple[AuditEntry, str]]:
        """Return the entries, oldest first."""
        query = select(audit_log).where(audit_log.c.tenant == tenant).order_by(audit_log.c.number)
        return [(_entry(row), row.digest) for row in connection_of(tx).execute(query)]

    def audit_links(self, tx: Transaction, after: int, *, limit: int) -> list[Link]:
        """Return the entries of all tenants behind a number, oldest first, as links."""
        query = select(audit_log).where(audit_log.c.number > after).order_by(audit_log.c.number).limit(limit)
        rows = connection_of(tx).execute(query)
        return [Link(row.number, row.tenant, told(_entry(row)), row.digest) for row in rows]


def _entry(row: Any) -> AuditEntry:
    return AuditEntry(*(getattr(row, name) for name in _FIELDS))
