"""The study index on SQL: facts, places and counters (``StudyIndex``) and the gateway's write side (``Archive``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from wetread.adapters.index.audit import SqlAuditLog
from wetread.adapters.index.changes import SqlChangeFeed, record
from wetread.adapters.index.database import connection_of
from wetread.adapters.index.erasure import SqlErasures
from wetread.adapters.index.removal import bury, dead, last_generation, path_of_key, remember_key, was_removed
from wetread.adapters.index.replacement import INSERT_INSTANCES, put_aside, swap
from wetread.adapters.index.rows import instance_row, series_row, study_row
from wetread.adapters.index.search import Searcher
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.tables import instances, object_marks, series, studies
from wetread.core.dicom.facts import instance_facts_from_json
from wetread.core.dicomweb.query import Query
from wetread.core.errors import Gone, NotFound
from wetread.core.facts import SeriesFacts, Source, StudyFacts
from wetread.core.ports.archive import (
    ArchivedInstance,
    FragmentPage,
    IndexEntry,
    InstanceFragment,
    KnownInstance,
    SearchPage,
    SeriesMetadata,
    StudyAddition,
)
from wetread.core.ports.changes import AuditEntry, Removal
from wetread.core.ports.database import Transaction
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StoredInstance, StudySummary

_IN_LIMIT: Final = 500
"""Values per IN list: SQLite allows 32,766 variables, planners like fewer."""


# Statements of the ingest path.
_KNOWN_ONE: Final = DriverStatement(
    select(instances.c.study_uid, instances.c.series_uid, instances.c.content_hash, instances.c.locator).where(
        instances.c.tenant == bindparam("of"), instances.c.sop_uid == bindparam("uid")
    )
)
_KNOWN: Final = select(
    instances.c.sop_uid, instances.c.study_uid, instances.c.series_uid, instances.c.content_hash, instances.c.locator
).where(instances.c.tenant == bindparam("of"), instances.c.sop_uid.in_(bindparam("uids", expanding=True)))
_GROW_SERIES: Final = DriverStatement(
    update(series)
    .where(
        series.c.tenant == bindparam("of"),
        series.c.study_uid == bindparam("study"),
        series.c.series_uid == bindparam("one"),
    )
    .values(instance_count=series.c.instance_count + bindparam("more"), version=bindparam("now"))
)
_ONE_STUDY: Final = (studies.c.tenant == bindparam("of"), studies.c.study_uid == bindparam("study"))
_GROW_STUDY: Final = DriverStatement(
    update(studies)
    .where(*_ONE_STUDY)
    .values(
        instance_count=studies.c.instance_count + bindparam("more"),
        series_count=studies.c.series_count + bindparam("groups"),
        generation=studies.c.generation + 1,
        last_received_at=bindparam("latest"),
    )
    .returning(studies.c.generation, studies.c.modalities)
)
_SET_MODALITIES: Final = update(studies).where(*_ONE_STUDY).values(modalities=bindparam("found"))
_INSERT_STUDY: Final = insert(studies)
_INSERT_SERIES: Final = insert(series)
_MOVE_MARK: Final = DriverStatement(
    update(object_marks).where(object_marks.c.stream == bindparam("of")).values(locator=bindparam("to"))
)

# Statements of retrieval, by how deep the path goes.
_PATH: Final = (
    instances.c.tenant == bindparam("of"),
    instances.c.study_uid == bindparam("study"),
    instances.c.series_uid == bindparam("one"),
    instances.c.sop_uid == bindparam("uid"),
)
_BELOW: Final = tuple(
    DriverStatement(
        select(
            *(instances.c.study_uid, instances.c.series_uid, instances.c.sop_uid, instances.c.sop_class_uid),
            *(instances.c.instance_number, instances.c.transfer_syntax_uid, instances.c.content_hash),
            *(instances.c.locator, instances.c.length, instances.c.frames_json, instances.c.facts_json),
        )
        .join(
            series,
            and_(
                series.c.tenant == instances.c.tenant,
                series.c.study_uid == instances.c.study_uid,
                series.c.series_uid == instances.c.series_uid,
            ),
        )
        .where(*_PATH[:depth])
        .order_by(series.c.series_number, instances.c.series_uid, instances.c.instance_number, instances.c.sop_uid)
    )
    for depth in (2, 3, 4)
)
_LEVEL: Final = (
    series.c.tenant == bindparam("of"),
    series.c.study_uid == bindparam("study"),
    series.c.series_uid == bindparam("one"),
)
_LEVELS: Final = tuple(
    DriverStatement(
        select(series.c.series_uid, series.c.version)
        .where(*_LEVEL[:depth])
        .order_by(series.c.series_number, series.c.series_uid)
    )
    for depth in (2, 3)
)
_METADATA: Final = tuple(
    DriverStatement(
        select(instances.c.sop_uid, instances.c.metadata_json)
        .where(*_PATH[:depth])
        .order_by(instances.c.instance_number, instances.c.sop_uid)
    )
    for depth in (3, 4)
)
_FRAGMENTS: Final = DriverStatement(
    select(instances.c.sop_uid, instances.c.transfer_syntax_uid, instances.c.attributes_json)
    .where(*_PATH[:3])
    .order_by(instances.c.instance_number, instances.c.sop_uid)
    .limit(bindparam("page"))
    .offset(bindparam("skip"))
)
_COUNT_SERIES: Final = DriverStatement(select(series.c.instance_count).where(*_LEVEL))

# Statements of every evaluation.
_STUDY: Final = select(studies).where(*_ONE_STUDY)
_SERIES: Final = select(series).where(*_LEVEL[:2]).order_by(series.c.series_number, series.c.series_uid)
_FACTS: Final = DriverStatement(
    select(instances.c.series_uid, instances.c.facts_json)
    .where(*_PATH[:2])
    .order_by(instances.c.instance_number, instances.c.sop_uid)
)


class SqlArchive(SqlChangeFeed, SqlAuditLog, SqlErasures):
    """Both sides of the index in one repository; every statement names the tenant."""

    def known(self, tx: Transaction, tenant: str, sop_uids: Sequence[str]) -> dict[str, KnownInstance]:
        """Return the identity of those instances that are indexed."""
        connection = connection_of(tx)
        if len(sop_uids) == 1:
            row = _KNOWN_ONE.first(connection, {"of": tenant, "uid": sop_uids[0]})
            return {} if row is None else {sop_uids[0]: KnownInstance(*row)}
        found: dict[str, KnownInstance] = {}
        for chunk in _chunks(sop_uids):
            rows = connection.execute(_KNOWN, {"of": tenant, "uids": chunk})
            found.update({row[0]: KnownInstance(*row[1:]) for row in rows})
        return found

    def existing(self, tx: Transaction, tenant: str, study_uids: Sequence[str]) -> set[str]:
        """Return which of the studies are indexed."""
        query = select(studies.c.study_uid).where(studies.c.tenant == tenant, studies.c.study_uid.in_(study_uids))
        return set(connection_of(tx).execute(query).scalars())

    def add(
        self, tx: Transaction, tenant: str, entries: Sequence[IndexEntry], *, at: float, replayed: bool = False
    ) -> list[StudyAddition]:
        """Insert new instances; counters and the change feed move in the same transaction."""
        connection = connection_of(tx)
        paths = [(entry.study_uid, entry.series_uid, entry.facts.sop_instance_uid) for entry in entries]
        version = record(connection, tenant, paths, "create", at, once=replayed)
        by_study: dict[str, list[IndexEntry]] = {}
        for entry in entries:
            by_study.setdefault(entry.study_uid, []).append(entry)
        additions = [self._add_to_study(connection, tenant, uid, group, version) for uid, group in by_study.items()]
        if entries:
            INSERT_INSTANCES.many(connection, [instance_row(tenant, entry) for entry in entries])
        return additions

    def remove(self, tx: Transaction, tenant: str, removal: Removal, *, replayed: bool = False) -> int:
        """Take instances out, leave tombstones, a change and an audit entry."""
        count = bury(connection_of(tx), tenant, removal, once=replayed)
        if removal.key:
            remember_key(connection_of(tx), tenant, removal)
        if count:
            self.audit(
                tx,
                tenant,
                AuditEntry(
                    at=removal.at,
                    actor=removal.by,
                    action="delete",
                    study_uid=removal.study_uid,
                    series_uid=removal.series_uid or "",
                    sop_uid=removal.sop_uid or "",
                    outcome="done",
                    request_id=removal.request_id,
                ),
            )
        return count

    def removed_by_key(self, tx: Transaction, tenant: str, key: str, *, since: float) -> str | None:
        """Return the path of a removal by its key."""
        return path_of_key(connection_of(tx), tenant, key, since)

    def replace(self, tx: Transaction, tenant: str, entries: Sequence[IndexEntry], *, at: float) -> list[StudyAddition]:
        """Give indexed instances another content."""
        additions = swap(connection_of(tx), tenant, entries, at)
        for entry in entries:
            self.audit(
                tx,
                tenant,
                AuditEntry(
                    at=at,
                    actor=f"ae:{entry.source.ae}" if entry.source.ae else entry.source.client or "local",
                    action="replace",
                    study_uid=entry.study_uid,
                    series_uid=entry.series_uid,
                    sop_uid=entry.facts.sop_instance_uid,
                    outcome="done",
                    request_id="",
                ),
            )
        return additions

    def own_result(self, tx: Transaction, tenant: str, study_uid: str, series_uid: str) -> bool:
        """Return whether a series was written by wetread itself."""
        query = select(series.c.own_result).where(
            series.c.tenant == tenant, series.c.study_uid == study_uid, series.c.series_uid == series_uid
        )
        return bool(connection_of(tx).execute(query).scalar())

    def discard(self, tx: Transaction, tenant: str, records: Sequence[tuple[str, str]], *, at: float) -> None:
        """Note that records hold no instance."""
        put_aside(connection_of(tx), tenant, records, at)

    def dead(self, tx: Transaction, tenant: str, records: Sequence[tuple[str, str]]) -> set[str]:
        """Return which records were deleted, replaced or discarded."""
        return dead(connection_of(tx), tenant, records)

    def _add_to_study(
        self, connection: Connection, tenant: str, uid: str, entries: list[IndexEntry], version: int
    ) -> StudyAddition:
        by_series: dict[str, list[IndexEntry]] = {}
        for entry in entries:
            by_series.setdefault(entry.series_uid, []).append(entry)
        new_series = []
        for key, group in by_series.items():
            where = {"of": tenant, "study": uid, "one": key, "more": len(group), "now": version}
            if _GROW_SERIES.count(connection, where) == 0:
                new_series.append(series_row(tenant, group) | {"version": version})
        if new_series:
            connection.execute(_INSERT_SERIES, new_series)
        latest = max(entry.received_at for entry in entries)
        modalities = {entry.series.modality for entry in entries if entry.series.modality}
        grown = _GROW_STUDY.first(
            connection, {"of": tenant, "study": uid, "more": len(entries), "groups": len(new_series), "latest": latest}
        )
        if grown is None:
            generation = last_generation(connection, tenant, uid) + 1
            counted = {"series_count": len(new_series), "instance_count": len(entries), "generation": generation}
            fresh = study_row(tenant, entries[0]) | counted
            fresh |= {"modalities": _joined(modalities), "last_received_at": latest}
            connection.execute(_INSERT_STUDY, [fresh])
            return StudyAddition(uid, generation, first=True, new_instances=len(entries))
        known = set(grown[1].strip("\\").split("\\")) - {""}
        if not modalities <= known:
            connection.execute(_SET_MODALITIES, {"of": tenant, "study": uid, "found": _joined(modalities | known)})
        return StudyAddition(uid, grown[0], first=False, new_instances=len(entries))

    def next_generation(self, tx: Transaction, tenant: str, study_uid: str) -> int:
        """Raise and return the generation of a study."""
        connection = connection_of(tx)
        where = (studies.c.tenant == tenant, studies.c.study_uid == study_uid)
        current = connection.execute(select(studies.c.generation).where(*where)).scalar_one_or_none()
        if current is None:
            raise _no_study()
        connection.execute(update(studies).where(*where).values(generation=current + 1))
        return int(current) + 1

    def marks(self, tx: Transaction) -> list[str]:
        """Return the high-water marks."""
        return list(connection_of(tx).execute(select(object_marks.c.locator)).scalars())

    def move_marks(self, tx: Transaction, locators: Sequence[str]) -> None:
        """Advance the marks."""
        connection = connection_of(tx)
        newest = {_stream_of(locator): locator for locator in locators}
        for stream, locator in newest.items():
            if _MOVE_MARK.count(connection, {"of": stream, "to": locator}) == 0:
                connection.execute(insert(object_marks).values(stream=stream, locator=locator))

    def clear(self, tx: Transaction) -> None:
        """Forget everything that a rebuild writes anew."""
        for table in (instances, series, studies, object_marks):
            connection_of(tx).execute(delete(table))

    def search(
        self, tx: Transaction, tenant: str, query: Query, *, study_uid: str | None, series_uid: str | None
    ) -> SearchPage:
        """Run a search."""
        return Searcher(connection_of(tx), tenant, query, study_uid, series_uid).run()

    def fragments(
        self, tx: Transaction, tenant: str, study_uid: str, series_uid: str, *, limit: int, offset: int
    ) -> FragmentPage:
        """Return a page of a series' instances in the form that default answers are made of."""
        connection = connection_of(tx)
        named = _named(tenant, study_uid, series_uid, None)
        rows = _FRAGMENTS.all(connection, named | {"page": limit, "skip": offset})
        total = _COUNT_SERIES.first(connection, named)
        found = tuple(InstanceFragment(row[0], row[1], bytes(row[2])) for row in rows)
        return FragmentPage(found, max((total[0] if total else 0) - offset - len(found), 0))

    def instances(
        self, tx: Transaction, tenant: str, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> list[ArchivedInstance]:
        """Return the instances below a path, ordered by series number and instance number."""
        statement = _BELOW[(series_uid is not None) + (sop_uid is not None)]
        rows = statement.all(connection_of(tx), _named(tenant, study_uid, series_uid, sop_uid))
        if not rows:
            raise _nothing(connection_of(tx), tenant, study_uid, series_uid, sop_uid)
        return [
            ArchivedInstance(
                *(row[0], row[1], row[2], row[3], row[4], row[5], row[6]),
                lossy='"lossy":true' in row[10],
                ref=ObjectRef(row[7], row[8]),
                frames=orjson.loads(row[9]),
            )
            for row in rows
        ]

    def metadata(
        self, tx: Transaction, tenant: str, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> list[SeriesMetadata]:
        """Return the stored metadata below a path."""
        connection = connection_of(tx)
        result = []
        found: tuple[tuple[str, bytes], ...]
        for uid, version in _LEVELS[series_uid is not None].all(
            connection, _named(tenant, study_uid, series_uid, None)
        ):
            rows = _METADATA[sop_uid is not None].all(connection, _named(tenant, study_uid, uid, sop_uid))
            found = tuple((row[0], bytes(row[1])) for row in rows)
            if found:
                result.append(SeriesMetadata(study_uid, uid, version, found))
        if not result:
            raise _nothing(connection, tenant, study_uid, series_uid, sop_uid)
        return result

    def versions(self, tx: Transaction, tenant: str, study_uid: str, series_uid: str | None = None) -> list[int]:
        """Return the versions of a study's series."""
        where = [series.c.tenant == tenant, series.c.study_uid == study_uid]
        if series_uid is not None:
            where.append(series.c.series_uid == series_uid)
        found = list(
            connection_of(tx).execute(select(series.c.version).where(*where).order_by(series.c.series_uid)).scalars()
        )
        if not found:
            raise _nothing(connection_of(tx), tenant, study_uid, series_uid, None)
        return found

    def facts(self, tx: Transaction, tenant: str, study_uid: str) -> StudyFacts:
        """Return the header facts of a study."""
        connection, one = connection_of(tx), {"of": tenant, "study": study_uid}
        study = connection.execute(_STUDY, one).first()
        if study is None:
            raise _no_study()
        members: dict[str, list[Any]] = {}
        for uid, stored in _FACTS.all(connection, one):
            members.setdefault(uid, []).append(instance_facts_from_json(orjson.loads(stored)))
        rows = connection.execute(_SERIES, one)
        return StudyFacts(
            tenant=tenant,
            study_instance_uid=study_uid,
            series=tuple(
                SeriesFacts(
                    series_instance_uid=row.series_uid,
                    instances=tuple(members.get(row.series_uid, ())),
                    detector_result=row.own_result,
                    **orjson.loads(row.facts_json),
                )
                for row in rows
            ),
            generation=study.generation,
            description=study.description,
            patient_age_years=study.age_years,
            patient_sex=study.sex,
            received_at=study.received_at,
            last_received_at=study.last_received_at,
            source=Source(**orjson.loads(study.source_json)),
        )

    def summary(self, tx: Transaction, tenant: str, study_uid: str) -> StudySummary:
        """Return one study's summary."""
        row = connection_of(tx).execute(_STUDY, {"of": tenant, "study": study_uid}).first()
        if row is None:
            raise _no_study()
        return StudySummary(
            study_uid=study_uid,
            patient_id=row.patient_id,
            patient_name=row.patient_name,
            modalities=tuple(part for part in row.modalities.split("\\") if part),
            description=row.description,
            received_at=row.received_at,
            instances=row.instance_count,
            generation=row.generation,
        )

    def locate(
        self, tx: Transaction, tenant: str, study_uid: str, sop_instance_uids: Sequence[str] | None = None
    ) -> list[StoredInstance]:
        """Return where instances are, in the order asked for. Raises NotFound when one is not in the study."""
        found = {
            item.sop_uid: StoredInstance(
                item.sop_uid, item.series_uid, item.ref, item.content_hash, item.transfer_syntax_uid
            )
            for item in self.instances(tx, tenant, study_uid)
        }
        if sop_instance_uids is None:
            return list(found.values())
        missing = [uid for uid in sop_instance_uids if uid not in found]
        if missing:
            msg = f"{len(missing)} of the instances are not in this study"
            raise NotFound(msg)
        return [found[uid] for uid in sop_instance_uids]


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[at : at + _IN_LIMIT] for at in range(0, len(values), _IN_LIMIT))


def _named(tenant: str, study_uid: str, series_uid: str | None, sop_uid: str | None) -> dict[str, Any]:
    return {"of": tenant, "study": study_uid, "one": series_uid, "uid": sop_uid}


def _stream_of(locator: str) -> str:
    """Return the writer and tenant of a locator: everything before its segment number."""
    return locator.rpartition(":")[0].rpartition("-")[0] or locator.partition(":")[0]


def _joined(modalities: set[str]) -> str:
    return "\\" + "".join(f"{modality}\\" for modality in sorted(modalities))


def _no_study() -> NotFound:
    msg = "no such study"
    return NotFound(msg)


def _nothing(
    connection: Connection, tenant: str, study_uid: str, series_uid: str | None, sop_uid: str | None
) -> NotFound:
    level = "instance" if sop_uid else "series" if series_uid else "study"
    if was_removed(connection, tenant, study_uid, series_uid, sop_uid):
        return Gone(f"this {level} was deleted")
    msg = f"no such {level}"
    return NotFound(msg)
