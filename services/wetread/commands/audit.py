"""``wetread audit``: the audit trail of a data folder, of all tenants, and whether it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from wetread.adapters.audit.chain import broken_links
from wetread.adapters.audit.trail import SqlAccessTrail
from wetread.adapters.index.audit import SqlAuditLog
from wetread.adapters.index.database import SqlDatabase
from wetread.core.ports.access import AccessEntry, AccessFilter
from wetread.settings import Settings

_PAGE = 1000


def run_audit(
    *,
    data: Path | None,
    tenant: str | None,
    study: str | None,
    actor: str | None,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> int:
    """Print the entries, oldest first. Returns the exit code."""
    database = _database(data)
    if database is None:
        return 2
    wanted = AccessFilter(
        since=since.timestamp() if since else None,
        until=until.timestamp() if until else None,
        study_uid=study,
        actor=actor,
    )
    try:
        for entry in _entries(database, tenant, wanted):
            print(_json_line(entry) if as_json else _line(entry))
    finally:
        database.close()
    return 0


def run_verify(*, data: Path | None) -> int:
    """Say whether every entry follows from the one before. Returns 0, or 1 when one does not."""
    database = _database(data)
    if database is None:
        return 2
    try:
        broken = [
            (table, *link)
            for table, chain in (("access_log", SqlAccessTrail()), ("audit_log", SqlAuditLog()))
            for link in broken_links(database, chain)
        ]
    finally:
        database.close()
    for table, tenant, number in broken:
        print(f"{table}: entry {number} of tenant {tenant or '-'} does not follow from the one before it")
    if not broken:
        print("the audit trail is whole")
    return 1 if broken else 0


def _database(data: Path | None) -> SqlDatabase | None:
    settings = Settings() if data is None else Settings(data=data)
    if isinstance(settings.database, Path) and not settings.database.is_file():
        print(f"wetread: there is no data folder {settings.data}", file=sys.stderr)
        return None
    database = SqlDatabase(settings.database)
    database.create_schema()
    return database


def _entries(database: SqlDatabase, tenant: str | None, wanted: AccessFilter) -> Iterator[AccessEntry]:
    trail, after = SqlAccessTrail(), wanted.after
    while True:
        page = AccessFilter(after, wanted.since, wanted.until, wanted.study_uid, wanted.actor)
        with database.read() as tx:
            found = trail.entries(tx, tenant, page, limit=_PAGE)
        yield from found
        if len(found) < _PAGE:
            return
        after = found[-1].number


def _line(entry: AccessEntry) -> str:
    access = entry.access
    at = datetime.fromtimestamp(entry.at).astimezone().isoformat(timespec="seconds")
    who = f"{access.tenant or '-'}/{access.actor or '-'}"
    times = f" x{entry.count}" if entry.count > 1 else ""
    return f"{at} {who} {access.address} {access.action} {access.study_uid or '-'} {access.outcome}{times}"


def _json_line(entry: AccessEntry) -> str:
    from wetread.bootstrap.audit import audit_entry

    shown = audit_entry(entry).model_dump_json()
    return f'{{"tenant":"{entry.access.tenant}",{shown[1:]}'
