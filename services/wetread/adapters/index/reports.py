"""The reading side of reports on the index database."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import orjson
from sqlalchemy import Select, case, func, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.event_rows import event_of
from wetread.adapters.index.tables import events, instances, series, studies
from wetread.core.events import Event, EventType
from wetread.core.ports import Transaction
from wetread.core.reports import Story

_ENDS: Final = (str(EventType.TASK_FINISHED), str(EventType.TASK_FAILED))


class SqlReports:
    """``ReportSource`` on the tables of events, studies and instances."""

    def stories(self, tx: Transaction, tenant: str, *, since: float, until: float, limit: int) -> list[Story]:
        connection = connection_of(tx)
        chosen = _received(tenant, since, until).order_by(events.c.time, events.c.subject).limit(limit)
        subjects = list(connection.execute(chosen).scalars())
        wanted = chosen.subquery()
        told: dict[str, list[Event]] = defaultdict(list)
        rows = connection.execute(
            select(events)
            .where(events.c.tenant == tenant, events.c.subject.in_(select(wanted.c.subject)))
            .order_by(events.c.cursor)
        )
        for row in rows:
            story = told[row.subject]
            if story or row.type == EventType.STUDY_RECEIVED:
                story.append(event_of(row))
        sites = {
            row.study_uid: str(orjson.loads(row.source_json).get("site") or "")
            for row in connection.execute(
                select(studies.c.study_uid, studies.c.source_json).where(
                    studies.c.tenant == tenant, studies.c.study_uid.in_(select(wanted.c.subject))
                )
            )
        }
        modalities: dict[str, set[str]] = defaultdict(set)
        for row in connection.execute(
            select(series.c.study_uid, series.c.modality).where(
                series.c.tenant == tenant, ~series.c.own_result, series.c.study_uid.in_(select(wanted.c.subject))
            )
        ):
            modalities[row.study_uid].add(row.modality)
        return [
            Story(uid, sites.get(uid, ""), "/".join(sorted(modalities[uid] - {""})), tuple(told[uid]))
            for uid in subjects
        ]

    def task_events(self, tx: Transaction, tenant: str, *, since: float, until: float) -> list[Event]:
        ended = (
            select(events.c.subject)
            .where(
                events.c.tenant == tenant,
                events.c.type.in_(_ENDS),
                events.c.time >= since,
                events.c.time < until,
            )
            .distinct()
        )
        query = select(events).where(
            events.c.tenant == tenant,
            events.c.type.in_((*_ENDS, str(EventType.TASK_STARTED))),
            events.c.subject.in_(ended),
            events.c.time < until,
        )
        rows = connection_of(tx).execute(query.order_by(events.c.cursor))
        # What ended before the time is of the report before.
        return [event_of(row) for row in rows if row.type not in _ENDS or row.time >= since]

    def received(self, tx: Transaction, tenant: str, *, since: float, until: float) -> int:
        query = select(func.count()).select_from(_received(tenant, since, until).subquery())
        return int(connection_of(tx).execute(query).scalar() or 0)

    def byte_seconds(self, tx: Transaction, tenant: str, *, since: float, until: float) -> float:
        held = instances.c
        begin = case((held.received_at > since, held.received_at), else_=since)
        query = select(func.sum(held.length * (until - begin))).where(held.tenant == tenant, held.received_at < until)
        return float(connection_of(tx).execute(query).scalar() or 0.0)


def _received(tenant: str, since: float, until: float) -> Select[Any]:
    return select(events.c.subject).where(
        events.c.tenant == tenant,
        events.c.type == str(EventType.STUDY_RECEIVED),
        events.c.time >= since,
        events.c.time < until,
    )
