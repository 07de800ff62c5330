"""Search of the UPS worklist: the data base narrows and orders, the matching rules of the core decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, func, select

from wetread.adapters.index.tables import workitems
from wetread.core.ports.ups import SearchPage
from wetread.core.ups_attributes import LABEL, PRIORITY, SOP_INSTANCE, STATE
from wetread.core.ups_matching import STUDY, Key, matches

_COLUMNS = {
    (STATE,): workitems.c.state,
    (PRIORITY,): workitems.c.priority,
    (LABEL,): workitems.c.label,
    ("00100020",): workitems.c.patient_id,
}
_ORDER = (workitems.c.priority_rank, workitems.c.scheduled_start, workitems.c.created_at, workitems.c.uid)


def search(
    connection: Connection, tenant: str, keys: Sequence[Key], *, limit: int, offset: int, count_to: int
) -> SearchPage:
    """Return one page in reading order (priority, start, age, UID); see `UpsRepository.search`."""
    wanted = [key for key in keys if not key.universal]
    conditions = [workitems.c.tenant == tenant, *(condition for key in wanted for condition in _conditions(key))]
    left = [key for key in wanted if not _decided(key)]
    query = select(workitems.c.dataset_json).where(*conditions).order_by(*_ORDER)
    if not left:
        rows = connection.execute(query.limit(limit).offset(offset)).all()
        total = connection.scalar(select(func.count()).select_from(workitems).where(*conditions)) or 0
        datasets = [orjson.loads(row.dataset_json) for row in rows]
        return SearchPage(datasets, max(total - offset - len(datasets), 0), counted=True)
    found: list[Mapping[str, Any]] = []
    seen = 0
    result = connection.execute(query.execution_options(yield_per=200))
    for row in result:
        dataset = orjson.loads(row.dataset_json)
        if not matches(dataset, left):
            continue
        seen += 1
        if seen > offset and len(found) < limit:
            found.append(dataset)
        if seen >= offset + limit + count_to:
            result.close()
            return SearchPage(found, seen - offset - len(found), counted=False)
    return SearchPage(found, max(seen - offset - len(found), 0), counted=True)


def _decided(key: Key) -> bool:
    """Whether the conditions of `_conditions` say exactly what the key says."""
    return key.path in {(SOP_INSTANCE,), (STUDY,)} or (key.exact and key.path in _COLUMNS)


def _conditions(key: Key) -> list[ColumnElement[bool]]:
    if key.path in {(SOP_INSTANCE,), (STUDY,)}:
        column = workitems.c.uid if key.path == (SOP_INSTANCE,) else workitems.c.study_uid
        return [column.in_(re.split(r"[,\\]", key.value))]
    if key.exact and key.path in _COLUMNS:
        return [_COLUMNS[key.path] == key.value]
    if key.exact:
        # Any dataset that matches holds this very JSON string: a cheap way to skip the others unread.
        return [workitems.c.dataset_json.contains(orjson.dumps(key.value).decode(), autoescape=True)]
    return []
