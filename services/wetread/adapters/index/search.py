"""QIDO search on SQL: indexed keys narrow the candidates, the reference matcher of core has the last word.

A key that SQL decides exactly is left to SQL; any other (wild cards, names, sequence paths, attributes without a
column) is verified on the stored JSON. When such a key would have to be verified on too many candidates the search is
refused instead of being slow or wrong.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson
from sqlalchemy import Column, ColumnElement, Connection, Select, and_, exists, func, or_, select

from wetread.adapters.index.tables import instances, series, studies
from wetread.core.dicom.attributes import folded
from wetread.core.dicomweb.levels import DEFAULTS, INSTANCE_FRAGMENT, Level, level_of
from wetread.core.dicomweb.match import matches, normalised
from wetread.core.dicomweb.query import Key, Query
from wetread.core.errors import PayloadTooLarge
from wetread.core.ports.archive import COUNT_LIMIT, Match, SearchPage

VERIFY_LIMIT: Final = 10_000
"""Candidates that may be verified one by one."""

_COLUMNS: Final[Mapping[int, Column[Any]]] = {
    0x00080020: studies.c.study_date,
    0x00080030: studies.c.study_time,
    0x00080050: studies.c.accession_number,
    0x00080080: studies.c.institution,
    0x00081030: studies.c.description,
    0x00100020: studies.c.patient_id,
    0x00100030: studies.c.birth_date,
    0x00100040: studies.c.sex,
    0x0020000D: studies.c.study_uid,
    0x00200010: studies.c.study_id,
    0x00080021: series.c.series_date,
    0x00080031: series.c.series_time,
    0x00080060: series.c.modality,
    0x0008103E: series.c.description,
    0x00180015: series.c.body_part,
    0x0020000E: series.c.series_uid,
    0x00200011: series.c.series_number,
    0x00400244: series.c.performed_date,
    0x00400245: series.c.performed_time,
    0x00080016: instances.c.sop_class_uid,
    0x00080018: instances.c.sop_uid,
    0x00200013: instances.c.instance_number,
    0x00201206: studies.c.series_count,
    0x00201208: studies.c.instance_count,
    0x00201209: series.c.instance_count,
}
_NAMES: Final[Mapping[int, Column[Any]]] = {
    0x00100010: studies.c.patient_name_folded,
    0x00080090: studies.c.referring_physician_folded,
}
_MODALITIES: Final = 0x00080061
INDEXED: Final = frozenset(_COLUMNS) | frozenset(_NAMES) | {_MODALITIES}
"""Attributes that a search narrows in SQL; any other is verified on the candidates."""
_FRAGMENT_TAGS: Final = frozenset(int(tag, 16) for tag in INSTANCE_FRAGMENT)


class Searcher:
    """One search in one transaction."""

    def __init__(
        self, connection: Connection, tenant: str, query: Query, study_uid: str | None, series_uid: str | None
    ) -> None:
        self._connection = connection
        self._tenant = tenant
        self._query = query
        self._study = study_uid
        self._series = series_uid
        self._verify: list[Key] = []
        self._shared: tuple[tuple[str, str | None], dict[str, Mapping[str, Any]]] | None = None

    def run(self) -> SearchPage:
        """Return the page asked for."""
        query = self._query
        statement = self._statement()
        if not self._verify:
            rows = self._connection.execute(statement.limit(query.page).offset(query.offset)).all()
            page = [self._match(row) for row in rows]
            if len(page) < query.page or not page:
                remaining = 0 if page or query.page else self._count(statement)
                return SearchPage(tuple(page), remaining)
            remaining = self._count(statement.offset(query.offset + len(page)))
            return SearchPage(tuple(page), remaining, remaining >= COUNT_LIMIT)
        found = self._verified(statement)
        page = list(islice(found, query.offset, query.offset + query.page))
        remaining = sum(1 for _ in islice(found, COUNT_LIMIT))
        return SearchPage(tuple(page), remaining, remaining >= COUNT_LIMIT)

    def _count(self, statement: Select[Any]) -> int:
        counted = statement.with_only_columns(studies.c.study_uid).order_by(None).limit(COUNT_LIMIT).subquery()
        return int(self._connection.execute(select(func.count()).select_from(counted)).scalar_one())

    def _statement(self) -> Select[Any]:
        level = self._query.level
        columns: list[Any] = [
            *(studies.c.study_uid, studies.c.attributes_json, studies.c.modalities),
            *(studies.c.series_count, studies.c.instance_count),
        ]
        source: Any = studies
        order: list[Any] = [studies.c.study_date.desc(), studies.c.study_time.desc(), studies.c.study_uid.desc()]
        where: list[ColumnElement[bool]] = [studies.c.tenant == self._tenant]
        if self._study is not None:
            where.append(studies.c.study_uid == self._study)
        if level >= Level.SERIES:
            columns += [series.c.series_uid, series.c.attributes_json, series.c.instance_count]
            source = source.join(
                series, and_(series.c.tenant == studies.c.tenant, series.c.study_uid == studies.c.study_uid)
            )
            order += [series.c.series_number, series.c.series_uid]
            if self._series is not None:
                where.append(series.c.series_uid == self._series)
        if level is Level.INSTANCE:
            columns += [instances.c.sop_uid, instances.c.attributes_json, instances.c.transfer_syntax_uid]
            if self._needs_metadata():
                columns.append(instances.c.metadata_json)
            source = source.join(
                instances,
                and_(
                    instances.c.tenant == series.c.tenant,
                    instances.c.study_uid == series.c.study_uid,
                    instances.c.series_uid == series.c.series_uid,
                ),
            )
            order += [instances.c.instance_number, instances.c.sop_uid]
        where += self._conditions()
        return select(*columns).select_from(source).where(*where).order_by(*order)

    def _needs_metadata(self) -> bool:
        """Return whether answer or keys name instance attributes that are not kept beside the row."""
        asked = set(self._query.include) | {key.path[0] for key in self._query.keys}
        return self._query.include_all or any(
            level_of(tag) is Level.INSTANCE and tag not in _FRAGMENT_TAGS and tag not in DEFAULTS[Level.INSTANCE]
            for tag in asked
        )

    def _conditions(self) -> list[ColumnElement[bool]]:
        """Return what SQL can say about the keys; what it cannot decide alone is kept for verification."""
        where: list[ColumnElement[bool]] = []
        below: dict[Level, list[Key]] = {}
        for key in self._query.keys:
            if key.universal:
                continue
            if key.level > self._query.level:
                below.setdefault(key.level, []).append(key)
                continue
            condition, exact = self._condition(key)
            if condition is not None:
                where.append(condition)
            if not exact:
                self._verify.append(key)
        for level, keys in below.items():
            # One child has to match all keys of its level, so they are decided together.
            decided = [self._condition(key) for key in keys]
            known = [condition for condition, _ in decided if condition is not None]
            if known:
                where.append(self._related(level, and_(*known)))
            if not all(exact for _, exact in decided):
                self._verify += keys
        return where

    def _condition(self, key: Key) -> tuple[ColumnElement[bool] | None, bool]:
        """Return (condition that holds for every match, whether it holds for matches only)."""
        tag = key.path[0]
        column = _COLUMNS.get(tag)
        if len(key.path) > 1 or key.matches_empty:
            return None, False
        if tag in _NAMES:
            return _name_condition(_NAMES[tag], key, fuzzy=self._query.fuzzy), False
        if tag == _MODALITIES:
            return or_(*(_modality_condition(value) for value in key.any_of or (key.value,))), not key.wild
        return (None, False) if column is None else self._column_condition(key, column)

    def _column_condition(self, key: Key, column: Column[Any]) -> tuple[ColumnElement[bool] | None, bool]:
        if key.vr == "IS":
            whole = key.value.isdecimal() and len(key.value) < 18
            return (column == int(key.value), True) if whole else (None, False)
        if key.any_of:
            return (None, False) if key.wild else (column.in_(key.any_of), True)
        if key.vr in ("DA", "TM"):
            return self._moment_condition(key, column)
        if key.wild:
            return _wild_condition(column, key.value), False
        return column == key.value, True

    def _moment_condition(self, key: Key, column: Column[Any]) -> tuple[ColumnElement[bool] | None, bool]:
        """Dates are stored normalised and compare as text; writers shorten times, so those are only narrowed."""
        limits = key.range
        if key.vr == "TM":
            return (column.startswith(key.value[:2], autoescape=True) if limits is None else None), False
        if limits is None:
            return column == normalised(key.value, "DA"), True
        low, high = (normalised(part, "DA") for part in limits)
        bounds: list[ColumnElement[bool]] = [column != ""]
        if low:
            bounds.append(column >= low)
        if high:
            bounds.append(column <= high)
        return and_(*bounds), not self._has_time_range(key.path[0])

    def _has_time_range(self, date: int) -> bool:
        """Return whether the range of a date combines with one of its time (PS3.4 C.2.2.2.5)."""
        partner = date + 0x10 if date != 0x00400244 else 0x00400245
        return any(key.path == (partner,) and key.range is not None for key in self._query.keys)

    def _related(self, level: Level, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        """Match an entity that has at least one child for which *condition* holds."""
        if level is Level.SERIES:
            return exists().where(
                series.c.tenant == studies.c.tenant, series.c.study_uid == studies.c.study_uid, condition
            )
        related = [instances.c.tenant == studies.c.tenant, instances.c.study_uid == studies.c.study_uid]
        if self._query.level is Level.SERIES:
            related.append(instances.c.series_uid == series.c.series_uid)
        return exists().where(*related, condition)

    def _verified(self, statement: Select[Any]) -> Iterator[Match]:
        keys = [key for key in self._verify if key.level <= self._query.level]
        below = [[key for key in self._verify if key.level is level] for level in Level if level > self._query.level]
        # Streamed: a page is usually full long before the last candidate. Closed: a server-side cursor would stay.
        with self._connection.execute(statement, execution_options={"stream_results": True}) as rows:
            for number, row in enumerate(rows):
                if number >= VERIFY_LIMIT:
                    msg = "the search would have to look into too many data sets: add a key that narrows it"
                    raise PayloadTooLarge(msg)
                found = self._match(row)
                # Ranges over date and time are one range: the matcher sees all keys of this level together.
                related = all(self._has_child(group, found) for group in below if group)
                if related and matches(keys, found.attributes, fuzzy=self._query.fuzzy):
                    yield found

    def _has_child(self, keys: list[Key], found: Match) -> bool:
        """Look for a child of a lower level whose stored attributes match all *keys*."""
        if keys[0].level is Level.SERIES:
            statement = select(series.c.attributes_json).where(
                series.c.tenant == self._tenant, series.c.study_uid == found.study_uid
            )
            return any(
                matches(keys, orjson.loads(row[0]), fuzzy=self._query.fuzzy)
                for row in self._connection.execute(statement)
            )
        where = [instances.c.tenant == self._tenant, instances.c.study_uid == found.study_uid]
        if found.series_uid is not None:
            where.append(instances.c.series_uid == found.series_uid)
        rows = self._connection.execute(select(instances.c.metadata_json).where(*where).limit(VERIFY_LIMIT))
        return any(matches(keys, orjson.loads(zlib.decompress(row[0])), fuzzy=self._query.fuzzy) for row in rows)

    def _match(self, row: Any) -> Match:
        """Build the attributes of one result: its level, and the levels above it."""
        level = self._query.level
        attributes = dict(self._above(row))
        series_uid = sop_uid = None
        if level >= Level.SERIES:
            series_uid = row[5]
        if level is Level.INSTANCE:
            sop_uid = row[8]
            attributes |= orjson.loads(zlib.decompress(row[11]) if len(row) > 11 else row[9])
            attributes["00083002"] = _entry("UI", [row[10]])
        return Match(row[0], series_uid, sop_uid, attributes)

    def _above(self, row: Any) -> dict[str, Mapping[str, Any]]:
        """Return study and series attributes of a row; the rows of one series share them."""
        key = (row[0], row[5] if self._query.level >= Level.SERIES else None)
        if self._shared is not None and self._shared[0] == key:
            return self._shared[1]
        attributes: dict[str, Mapping[str, Any]] = orjson.loads(row[1])
        attributes["00080061"] = _entry("CS", [part for part in row[2].split("\\") if part])
        attributes["00201206"] = _entry("IS", [row[3]])
        attributes["00201208"] = _entry("IS", [row[4]])
        if self._query.level >= Level.SERIES:
            attributes |= orjson.loads(row[6])
            attributes["00201209"] = _entry("IS", [row[7]])
        self._shared = (key, attributes)
        return attributes


def _entry(vr: str, found: list[Any]) -> dict[str, Any]:
    return {"vr": vr, "Value": found} if found else {"vr": vr}


def _like(value: str) -> str:
    """Return a DICOM wild card as a LIKE pattern (escape character ESC, which no DICOM text of a key holds)."""
    escaped = value.replace("\x1b", "").replace("%", "\x1b%").replace("_", "\x1b_")
    return escaped.replace("*", "%").replace("?", "_")


def _wild_condition(column: Column[Any], value: str) -> ColumnElement[bool]:
    """LIKE narrows (its case folding differs between databases); a literal prefix lets the index help."""
    prefix = value[: min(value.find(c) for c in "*?" if c in value)]
    narrowed: ColumnElement[bool] = column.like(_like(value), escape="\x1b")
    if prefix:
        narrowed = and_(column >= prefix, column < prefix + "\U0010ffff", narrowed)
    return narrowed


def _name_condition(column: Column[Any], key: Key, *, fuzzy: bool) -> ColumnElement[bool] | None:
    literal = folded(key.value).rstrip("^")
    if not literal.isascii() or "=" in literal:
        return None
    if not fuzzy:
        # Any component group may match, with empty trailing components left out.
        return column.like(f"%{_like(literal)}%", escape="\x1b")
    tokens = [token for token in literal.replace("^", " ").replace(",", " ").replace(".", " ").split() if token]
    return and_(*(column.like(f"%{_like(token)}%", escape="\x1b") for token in tokens)) if tokens else None


def _modality_condition(value: str) -> ColumnElement[bool]:
    inner = _like(value) if any(c in value for c in "*?") else _like(value.replace("*", "").replace("?", ""))
    return studies.c.modalities.like(f"%\\{inner}\\%", escape="\x1b")
