"""From places in the reading order to whole list entries: one read per table for a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, func, select

from wetread.adapters.index.claims import readings
from wetread.adapters.index.reading_order import reasons_of
from wetread.adapters.index.tables import decisions, reading_order, series, studies, tasks
from wetread.adapters.index.worklist_bands import UNREGISTERED_CLASS
from wetread.core.ports import WorklistItem, WorklistTask
from wetread.core.priority import Priority
from wetread.core.reading_order import Band, Place
from wetread.core.states import AiState


def assemble(
    connection: Connection, tenant: str, taken: Sequence[tuple[Band, Place]], now: float
) -> list[WorklistItem]:
    """Return the entries of *taken*, in its order. A study deleted in between is left out."""
    uids = [place.study_uid for _band, place in taken]
    shown = (
        studies.c.study_uid,
        studies.c.patient_id,
        studies.c.patient_name,
        studies.c.description,
        studies.c.study_date,
        studies.c.received_at,
    )
    study_rows = {
        row.study_uid: row
        for row in connection.execute(select(*shown).where(studies.c.tenant == tenant, studies.c.study_uid.in_(uids)))
    }
    order_rows = {row.study_uid: row for row in _rows(connection, reading_order, tenant, uids)}
    tasks_of: dict[str, list[WorklistTask]] = defaultdict(list)
    for row in sorted(_rows(connection, tasks, tenant, uids), key=lambda row: row.detector):
        tasks_of[row.study_uid].append(_task(row))
    looked_at = set(
        connection.execute(
            select(decisions.c.study_uid)
            .distinct()
            .where(decisions.c.tenant == tenant, decisions.c.study_uid.in_(uids))
        ).scalars()
    )
    held = readings(connection, tenant, uids, now)
    sources = _source_series(connection, tenant, uids)
    items = []
    for band, place in taken:
        study = study_rows.get(place.study_uid)
        if study is None:
            continue
        order = order_rows.get(place.study_uid)
        items.append(
            WorklistItem(
                study_uid=study.study_uid,
                patient_id=study.patient_id,
                patient_name=study.patient_name,
                modality="/".join(sources[study.study_uid]),
                description=study.description,
                study_date=study.study_date,
                instances=sum(sources[study.study_uid].values()),
                received_at=study.received_at,
                due_at=place.due_at,
                priority=UNREGISTERED_CLASS if order is None else Priority(order.priority),
                band=band,
                reasons=() if order is None else tuple(reasons_of(order.reasons_json)),
                tasks=tuple(tasks_of[study.study_uid]),
                evaluated=study.study_uid in looked_at,
                reading=held.get(study.study_uid),
            )
        )
    return items


def _rows(connection: Connection, table: Table, tenant: str, uids: Sequence[str]) -> Sequence[Row[Any]]:
    return connection.execute(select(table).where(table.c.tenant == tenant, table.c.study_uid.in_(uids))).all()


def _source_series(connection: Connection, tenant: str, uids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return study -> modality -> instances of the source series: our own SR and SEG do not make a CT study mixed."""
    query = (
        select(series.c.study_uid, series.c.modality, func.sum(series.c.instance_count))
        .where(series.c.tenant == tenant, series.c.study_uid.in_(uids), ~series.c.own_result, series.c.modality != "")
        .group_by(series.c.study_uid, series.c.modality)
        .order_by(series.c.study_uid, series.c.modality)
    )
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for study_uid, modality, count in connection.execute(query):
        found[study_uid][modality] = int(count)
    return found


def _task(row: Row[Any]) -> WorklistTask:
    return WorklistTask(
        detector=row.detector,
        version=row.version,
        state=AiState(row.state),
        reason=row.reason,
        shadow=row.shadow,
        attempt=row.attempt,
        progress=row.progress,
        due_at=row.due_at,
        updated_at=row.updated_at,
    )
