"""The audit log on SQL: append-only rows, each with a digest over itself and the one before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import orjson
from sqlalchemy import insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import audit_log
from wetread.core.ports.changes import AuditEntry
from wetread.core.ports.database import Transaction


def digest(before: str, entry: AuditEntry) -> str:
    """Return the link of an entry to the one before it (empty for the first)."""
    return hashlib.sha256(before.encode() + orjson.dumps(entry, option=orjson.OPT_SORT_KEYS)).hexdigest()


class SqlAuditLog:
    """The port on one table."""

    def audit(self, tx: Transaction, tenant: str, entry: AuditEntry) -> None:
        """Append an entry."""
        newest = (
            select(audit_log.c.digest).where(audit_log.c.tenant == tenant).order_by(audit_log.c.number.desc()).limit(1)
        )
        connection = connection_of(tx)
        before = connection.execute(newest).scalar() or ""
        connection.execute(insert(audit_log).values(tenant=tenant, digest=digest(before, entry), **asdict(entry)))

    def audit_entries(self, tx: Transaction, tenant: str) -> Sequence[tuple[AuditEntry, str]]:
        """Return the entries, oldest first."""
        columns = audit_log.c
        query = (
            select(
                *(columns.at, columns.actor, columns.action, columns.study_uid, columns.series_uid),
                *(columns.sop_uid, columns.outcome, columns.request_id, columns.digest),
            )
            .where(columns.tenant == tenant)
            .order_by(columns.number)
        )
        return [(AuditEntry(*row[:8]), row[8]) for row in connection_of(tx).execute(query)]
