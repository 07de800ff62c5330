"""The worklist query: reading order, studies and tasks read together, a page at a time.

Each band is one seek in an index from where the last page ended; the bands are merged by ``core.reading_order``. So a
page costs the same on ten open studies and on ten thousand.
"""

from __future__ import annotations

from sqlalchemy import exists, func, not_, or_, select

from wetread.adapters.index import worklist_bands as bands
from wetread.adapters.index.claims import taken_by_readers
from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import decisions, instances, reading_order, results, series, studies, tasks
from wetread.adapters.index.worklist_items import assemble
from wetread.core.errors import NotFound
from wetread.core.findings import DOCUMENT_MODALITIES
from wetread.core.ports import ImageReference, Transaction, WorklistFilter, WorklistItem, WorklistPage
from wetread.core.priority import Priority
from wetread.core.reading_order import DEFAULT_GUARD, Band, Guard, Place, sequence
from wetread.core.states import FINAL


class SqlWorklist:
    """``Worklist`` on the index database."""

    def __init__(self, guard: Guard = DEFAULT_GUARD) -> None:
        self._guard = guard

    def page(
        self,
        tx: Transaction,
        tenant: str,
        *,
        now: float,
        wanted: WorklistFilter,
        limit: int,
        cursor: str | None = None,
    ) -> WorklistPage:
        connection = connection_of(tx)
        if cursor:
            position = bands.Position.parse(cursor)
        else:
            position = bands.Position(as_of=now, taken=taken_by_readers(connection, tenant))
        unregistered = bands.count_unregistered(connection, tenant) > 0
        places = {
            band: bands.seek(connection, tenant, band, position, wanted, self._guard, limit + 1, unregistered)
            for band in Band
        }
        taken: list[tuple[Band, Place]] = []
        for band, place, count in sequence(places, guard=self._guard, taken=position.taken):
            if len(taken) == limit:
                break
            taken.append((band, place))
            position = position.past(band, place, count)
        more = sum(len(found) for found in places.values()) > limit
        items = assemble(connection, tenant, taken, now)
        return WorklistPage(items=tuple(items), next=position.text() if more else None)

    def item(self, tx: Transaction, tenant: str, study_uid: str, *, now: float) -> WorklistItem:
        connection = connection_of(tx)
        known = select(studies.c.received_at).where(studies.c.tenant == tenant, studies.c.study_uid == study_uid)
        received_at = connection.execute(known).scalar()
        if received_at is None:
            msg = "no such study"
            raise NotFound(msg)
        band, place = bands.locate(connection, tenant, study_uid, received_at, now, self._guard)
        return assemble(connection, tenant, [(band, place)], now)[0]

    def unanswered(self, tx: Transaction, tenant: str, study_uid: str) -> bool:
        of_study = (
            exists().where(table.c.tenant == tenant, table.c.study_uid == study_uid)
            for table in (tasks, decisions, results)
        )
        at_work = (
            select(tasks.c.detector)
            .where(tasks.c.tenant == tenant, tasks.c.study_uid == study_uid, ~tasks.c.shadow)
            .where(tasks.c.state.not_in(sorted(FINAL)))
            .exists()
        )
        known = select(or_(at_work, not_(or_(*of_study)))).where(
            studies.c.tenant == tenant, studies.c.study_uid == study_uid
        )
        unanswered = connection_of(tx).execute(known).scalar()
        if unanswered is None:
            msg = "no such study"
            raise NotFound(msg)
        return bool(unanswered)

    def counts(self, tx: Transaction, tenant: str) -> dict[Priority, int]:
        connection = connection_of(tx)
        query = (
            select(reading_order.c.priority, func.count())
            .where(reading_order.c.tenant == tenant, reading_order.c.state == "open")
            .group_by(reading_order.c.priority)
        )
        counts = dict.fromkeys(Priority, 0)
        for priority, count in connection.execute(query):
            counts[Priority(priority)] = count
        counts[Priority.ROUTINE] += bands.count_unregistered(connection, tenant)
        return counts

    def source_image(self, tx: Transaction, tenant: str, study_uid: str) -> ImageReference | None:
        connection = connection_of(tx)
        known = select(studies.c.study_uid).where(studies.c.tenant == tenant, studies.c.study_uid == study_uid)
        if connection.execute(known).first() is None:
            msg = "no such study"
            raise NotFound(msg)
        largest = (
            select(series.c.series_uid, series.c.instance_count)
            .where(
                series.c.tenant == tenant,
                series.c.study_uid == study_uid,
                ~series.c.own_result,
                series.c.modality.not_in(DOCUMENT_MODALITIES),
            )
            .order_by(series.c.instance_count.desc(), series.c.series_uid)
            .limit(1)
        )
        found = connection.execute(largest).first()
        if found is None:
            return None
        middle = (
            select(instances.c.sop_uid)
            .where(
                instances.c.tenant == tenant,
                instances.c.study_uid == study_uid,
                instances.c.series_uid == found.series_uid,
            )
            .order_by(instances.c.instance_number, instances.c.sop_uid)
            .limit(1)
            .offset(found.instance_count // 2)
        )
        sop_uid = connection.execute(middle).scalar()
        return None if sop_uid is None else ImageReference(found.series_uid, sop_uid)
