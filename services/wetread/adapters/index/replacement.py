"""Another content under the same SOP Instance UID: the rows change over, the former record is dead (ADR 0209)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from wetread.adapters.index.changes import record
from wetread.adapters.index.removal import recount
from wetread.adapters.index.rows import instance_row
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.tables import dead_records, instances, studies
from wetread.adapters.index.upsert import insert_row
from wetread.core.ports.archive import IndexEntry, StudyAddition

_IN_LIMIT: Final = 500
INSERT_INSTANCES: Final = DriverStatement(insert(instances))


def swap(connection: Connection, tenant: str, entries: Sequence[IndexEntry], at: float) -> list[StudyAddition]:
    """Put *entries* in the place of the instances with the same UIDs, which lie in the same series."""
    by_study: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        by_study.setdefault(entry.study_uid, []).append(entry)
    uids = [entry.facts.sop_instance_uid for entry in entries]
    for start in range(0, len(uids), _IN_LIMIT):
        members = (instances.c.tenant == tenant, instances.c.sop_uid.in_(uids[start : start + _IN_LIMIT]))
        former = select(instances.c.sop_uid, instances.c.locator).where(*members)
        for uid, locator in connection.execute(former).all():
            _note(connection, tenant, uid, locator, at)
        connection.execute(delete(instances).where(*members))
    INSERT_INSTANCES.many(connection, [instance_row(tenant, entry) for entry in entries])
    paths = [(entry.study_uid, entry.series_uid, entry.facts.sop_instance_uid) for entry in entries]
    version = record(connection, tenant, paths, "update", at)
    return [_change(connection, tenant, uid, group, version) for uid, group in by_study.items()]


def put_aside(connection: Connection, tenant: str, records: Sequence[tuple[str, str]], at: float) -> None:
    """Note that (SOP Instance UID, locator) *records* are dead, and take out what is indexed from them."""
    for uid, locator in records:
        _note(connection, tenant, uid, locator, at)
        one = (instances.c.tenant == tenant, instances.c.sop_uid == uid, instances.c.locator == locator)
        found = connection.execute(select(instances.c.study_uid, instances.c.series_uid).where(*one)).first()
        if found is None:
            continue
        connection.execute(delete(instances).where(*one))
        version = record(connection, tenant, [(found[0], found[1], uid)], "delete", at)
        recount(connection, tenant, found[0], {found[1]}, version)


def _note(connection: Connection, tenant: str, uid: str, locator: str, at: float) -> None:
    insert_row(connection, dead_records, {"tenant": tenant, "locator": locator, "sop_uid": uid, "dead_at": at})


def _change(
    connection: Connection, tenant: str, study_uid: str, entries: list[IndexEntry], version: int
) -> StudyAddition:
    recount(connection, tenant, study_uid, {entry.series_uid for entry in entries}, version)
    one = (studies.c.tenant == tenant, studies.c.study_uid == study_uid)
    latest = max(entry.received_at for entry in entries)
    changed = update(studies).where(*one).values(last_received_at=latest).returning(studies.c.generation)
    generation = connection.execute(changed).scalar_one()
    return StudyAddition(study_uid, generation, first=False, new_instances=0, replaced=len(entries))
