"""Taking instances out of the index, with a tombstone for each: deletion, and its replay (ADR 0204)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from wetread.adapters.index.changes import record
from wetread.adapters.index.rows import series_columns, study_columns
from wetread.adapters.index.tables import dead_records, deletion_keys, instances, series, studies, tombstones
from wetread.adapters.index.upsert import insert_row
from wetread.core.dicom.attributes import Attributes
from wetread.core.dicom.facts import age_years, series_header
from wetread.core.dicomweb.stored_metadata import unpack
from wetread.core.ports.changes import KEY_SECONDS, Removal

_IN_LIMIT: Final = 500


def bury(connection: Connection, tenant: str, removal: Removal, *, once: bool) -> int:
    """Remove what *removal* names and return how many instances were not buried before."""
    known = _buried(connection, tenant, [found.locator for found in removal.instances])
    fresh = [found for found in removal.instances if found.locator not in known]
    if not fresh:
        return 0
    study = (studies.c.tenant == tenant, studies.c.study_uid == removal.study_uid)
    generation = connection.execute(select(studies.c.generation).where(*study)).scalar() or 0
    rows = [
        {
            "tenant": tenant,
            "locator": found.locator,
            "study_uid": removal.study_uid,
            "series_uid": found.series_uid,
            "sop_uid": found.sop_uid,
            "generation": generation,
            "removed_at": removal.at,
        }
        for found in fresh
    ]
    connection.execute(insert(tombstones), rows)
    for at in range(0, len(fresh), _IN_LIMIT):
        # By locator: a copy that was stored again after the deletion is another record and stays.
        members = [found.locator for found in fresh[at : at + _IN_LIMIT]]
        uids = [found.sop_uid for found in fresh[at : at + _IN_LIMIT]]
        connection.execute(
            delete(instances).where(
                instances.c.tenant == tenant, instances.c.sop_uid.in_(uids), instances.c.locator.in_(members)
            )
        )
    paths = [(removal.study_uid, found.series_uid, found.sop_uid) for found in fresh]
    version = record(connection, tenant, paths, "delete", removal.at, once=once)
    recount(connection, tenant, removal.study_uid, {found.series_uid for found in fresh}, version)
    return len(fresh)


def recount(connection: Connection, tenant: str, study_uid: str, touched: set[str], version: int) -> None:
    """Set the counters of a study anew; what is empty goes.

    A study and a series have the attributes of their first instance; that may be another one now.
    """
    below: Any = (instances.c.tenant == tenant, instances.c.study_uid == study_uid)
    per_series = select(instances.c.series_uid, func.count()).where(*below).group_by(instances.c.series_uid)
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(per_series)}
    whole, parts = _firsts(connection, tenant, study_uid, touched & counts.keys())
    for uid in touched:
        one = (series.c.tenant == tenant, series.c.study_uid == study_uid, series.c.series_uid == uid)
        if uid in counts:
            shown = series_columns(parts[uid], series_header(parts[uid]))
            changed = {"instance_count": counts[uid], "version": version, **shown}
            connection.execute(update(series).where(*one).values(**changed))
        else:
            connection.execute(delete(series).where(*one))
    study = (studies.c.tenant == tenant, studies.c.study_uid == study_uid)
    if not counts:
        connection.execute(delete(studies).where(*study))
        return
    kinds = select(series.c.modality).where(series.c.tenant == tenant, series.c.study_uid == study_uid).distinct()
    modalities = sorted({row[0] for row in connection.execute(kinds)} - {""})
    connection.execute(
        update(studies)
        .where(*study)
        .values(
            series_count=len(counts),
            instance_count=sum(counts.values()),
            generation=studies.c.generation + 1,
            modalities="\\" + "".join(f"{name}\\" for name in modalities),
            **study_columns(whole, age_years(whole)),
        )
    )


def _firsts(
    connection: Connection, tenant: str, study_uid: str, series_uids: set[str]
) -> tuple[Attributes, dict[str, Attributes]]:
    """Return the attributes of the first instance of a study and of some of its series, in the order of storing.

    A study without instances has none.
    """
    below = (instances.c.tenant == tenant, instances.c.study_uid == study_uid)
    rows = connection.execute(
        select(instances.c.series_uid, instances.c.sop_uid, instances.c.received_at, instances.c.locator).where(*below)
    )
    ordered = sorted(rows, key=lambda row: (row[2], place_of(row[3])))
    first: dict[str, str] = {}
    for row in ordered:
        first.setdefault(row[0], row[1])

    def attributes(sop_uid: str) -> Attributes:
        one = select(instances.c.metadata_json).where(instances.c.tenant == tenant, instances.c.sop_uid == sop_uid)
        found: Attributes = orjson.loads(unpack(bytes(connection.execute(one).scalar_one())))
        return found

    whole = attributes(ordered[0][1]) if ordered else {}
    return whole, {uid: attributes(first[uid]) for uid in series_uids}


def last_generation(connection: Connection, tenant: str, study_uid: str) -> int:
    """Return the generation that a deleted study had; 0 for one that never was. A new copy counts on from there."""
    query = select(func.max(tombstones.c.generation)).where(
        tombstones.c.tenant == tenant, tombstones.c.study_uid == study_uid
    )
    return int(connection.execute(query).scalar() or 0)


def was_removed(
    connection: Connection, tenant: str, study_uid: str, series_uid: str | None, sop_uid: str | None
) -> bool:
    """Return whether something was deleted at or below a path."""
    where = [tombstones.c.tenant == tenant, tombstones.c.study_uid == study_uid]
    if series_uid is not None:
        where.append(tombstones.c.series_uid == series_uid)
    if sop_uid is not None:
        where.append(tombstones.c.sop_uid == sop_uid)
    return connection.execute(select(tombstones.c.locator).where(*where).limit(1)).first() is not None


def dead(connection: Connection, tenant: str, records: Sequence[tuple[str, str]]) -> set[str]:
    """Return which of the (SOP Instance UID, locator) records a rebuild must not bring back.

    Those with a tombstone, and older copies of the same instance by the same writer: left over from a store whose
    index transaction had failed. And those that were replaced, or lost against another content of the same instance.
    """
    buried: dict[str, list[str]] = {}
    uids = [uid for uid, _ in records]
    for at in range(0, len(uids), _IN_LIMIT):
        query = select(tombstones.c.sop_uid, tombstones.c.locator).where(
            tombstones.c.tenant == tenant, tombstones.c.sop_uid.in_(uids[at : at + _IN_LIMIT])
        )
        for uid, locator in connection.execute(query):
            buried.setdefault(uid, []).append(locator)
    found = {locator for uid, locator in records if any(_covers(grave, locator) for grave in buried.get(uid, ()))}
    locators = [locator for _, locator in records]
    for at in range(0, len(locators), _IN_LIMIT):
        aside = select(dead_records.c.locator).where(
            dead_records.c.tenant == tenant, dead_records.c.locator.in_(locators[at : at + _IN_LIMIT])
        )
        found.update(connection.execute(aside).scalars())
    return found


def _covers(grave: str, locator: str) -> bool:
    stream, position = place_of(locator)
    of, last = place_of(grave)
    return stream == of and position <= last


def place_of(locator: str) -> tuple[str, tuple[int, int]]:
    """Return the stream of a locator (writer and tenant), and (segment, offset) within it."""
    head, _, offset = locator.rpartition(":")
    stream, dash, number = head.rpartition("-")
    return (stream, (int(number), int(offset))) if dash else (head, (0, int(offset)))


def _buried(connection: Connection, tenant: str, locators: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for at in range(0, len(locators), _IN_LIMIT):
        query = select(tombstones.c.locator).where(
            tombstones.c.tenant == tenant, tombstones.c.locator.in_(locators[at : at + _IN_LIMIT])
        )
        found.update(connection.execute(query).scalars())
    return found


def remember_key(connection: Connection, tenant: str, removal: Removal) -> None:
    """Note the key of a removal, and forget those that are too old by then to be asked for."""
    old = (deletion_keys.c.tenant == tenant, deletion_keys.c.at < removal.at - KEY_SECONDS)
    connection.execute(delete(deletion_keys).where(*old))
    insert_row(
        connection, deletion_keys, {"tenant": tenant, "key": removal.key, "path": removal.path, "at": removal.at}
    )


def path_of_key(connection: Connection, tenant: str, key: str, since: float) -> str | None:
    """Return the path of the removal that had a key, at or after *since*."""
    query = select(deletion_keys.c.path).where(
        deletion_keys.c.tenant == tenant, deletion_keys.c.key == key, deletion_keys.c.at >= since
    )
    found: str | None = connection.execute(query).scalar()
    return found
