"""Search of the UPS worklist: the database narrows and orders, the matching rules of the core decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, func, or_, select

from wetread.adapters.index.tables import workitems
from wetread.adapters.index.workitems_rows import INSTANCES
from wetread.core.ports.ups import SearchPage
from wetread.core.ups_attributes import LABEL, PRIORITY, SOP_INSTANCE, START, STATE
from wetread.core.ups_matching import STUDY, Key, matches, utc_range

_PATIENT_ID = ("00100020",)
_EXACT = {
    (STATE,): workitems.c.state,
    (PRIORITY,): workitems.c.priority,
    (LABEL,): workitems.c.label,
    _PATIENT_ID: workitems.c.patient_id,
}
_UIDS = {(SOP_INSTANCE,): workitems.c.uid, (STUDY,): workitems.c.study_uid}
_ORDER = (workitems.c.priority_rank, workitems.c.scheduled_start, workitems.c.created_at, workitems.c.uid)


def search(
    connection: Connection, tenant: str, keys: Sequence[Key], *, limit: int, offset: int, count_to: int
) -> SearchPage:
    """Return one page in reading order (priority, start, age, UID); see `UpsRepository.search`."""
    wanted = [key for key in keys if not key.universal]
    conditions = [workitems.c.tenant == tenant, *(condition for key in wanted for condition in _conditions(key))]
    undecided = [key for key in wanted if not _decided(key)]
    order = _order(wanted)
    if undecided:
        found = _matching(connection, conditions, undecided, order)
        return _scan(connection, tenant, found, limit=limit, offset=offset, count_to=count_to)
    rows = connection.execute(
        select(workitems.c.dataset_json).where(*conditions).order_by(*order).limit(limit).offset(offset)
    ).all()
    total = connection.scalar(select(func.count()).select_from(workitems).where(*conditions)) or 0
    datasets = [orjson.loads(row.dataset_json) for row in rows]
    return SearchPage(datasets, max(total - offset - len(datasets), 0), counted=True)


def _scan(
    connection: Connection, tenant: str, found: Iterable[str], *, limit: int, offset: int, count_to: int
) -> SearchPage:
    page: list[str] = []
    seen = 0
    counted = True
    for uid in found:
        seen += 1
        if seen > offset and len(page) < limit:
            page.append(uid)
        if seen >= offset + limit + count_to:
            counted = False
            break
    return SearchPage(_datasets(connection, tenant, page), max(seen - offset - len(page), 0), counted)


def _matching(
    connection: Connection,
    conditions: Sequence[ColumnElement[bool]],
    keys: Sequence[Key],
    order: Sequence[ColumnElement[Any]],
) -> Iterator[str]:
    whole = any(INSTANCES in key.path for key in keys)
    column = workitems.c.dataset_json if whole else workitems.c.search_json
    query = select(workitems.c.uid, column.label("json")).where(*conditions).order_by(*order)
    with connection.execute(query.execution_options(yield_per=200)) as rows:
        for row in rows:
            if matches(orjson.loads(row.json), keys):
                yield row.uid


def _order(keys: Sequence[Key]) -> Sequence[ColumnElement[Any]]:
    """Return the reading order; for keys that few rows match, in a form that no index serves.

    SQLite would walk the whole index of the order rather than look up one patient and sort.
    """
    if any(key.path in _UIDS or (key.exact and key.path == _PATIENT_ID) for key in keys):
        return (workitems.c.priority_rank + 0, *_ORDER[1:])
    return _ORDER


def _datasets(connection: Connection, tenant: str, uids: Sequence[str]) -> list[Mapping[str, Any]]:
    rows = connection.execute(
        select(workitems.c.uid, workitems.c.dataset_json).where(workitems.c.tenant == tenant, workitems.c.uid.in_(uids))
    )
    found = {row.uid: row.dataset_json for row in rows}
    return [orjson.loads(found[uid]) for uid in uids]


def _decided(key: Key) -> bool:
    """Whether the conditions of `_conditions` say exactly what the key says."""
    return key.path in _UIDS or (key.exact and key.path in _EXACT)


def _conditions(key: Key) -> list[ColumnElement[bool]]:
    """Return conditions that every match fulfils."""
    if key.path in _UIDS:
        return [_UIDS[key.path].in_(key.uids)]
    if key.exact and key.path in _EXACT:
        return [_EXACT[key.path] == key.value]
    if key.path == (START,):
        return [workitems.c.scheduled_start.between(*utc_range(key.value))]
    if key.path == ("00100010",):
        return [workitems.c.patient_name_folded.contains(literal, autoescape=True) for literal in key.literals]
    return _text_conditions(key)


def _text_conditions(key: Key) -> list[ColumnElement[bool]]:
    """Return that the JSON text holds the strings of *key*: a cheap way to leave most rows unread."""
    if key.vr == "PN" or INSTANCES in key.path:
        return []
    if key.uids:
        return [or_(*(_holds(uid) for uid in key.uids))]
    return [_holds(literal) for literal in key.literals]


def _holds(literal: str) -> ColumnElement[bool]:
    # on SQLite LIKE takes ASCII letters of either case: more rows than match, which the core then leaves out
    return workitems.c.search_json.contains(orjson.dumps(literal).decode()[1:-1], autoescape=True)
