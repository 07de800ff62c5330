"""Claims of readers as rows: who took which study, what it passed, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, insert, select, update

from wetread.adapters.index import worklist_bands as bands
from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import reading_claims, reading_order
from wetread.core.errors import Conflict, NotFound
from wetread.core.ports import Reading, Transaction, WorklistFilter
from wetread.core.reading_order import DEFAULT_GUARD, Band, Guard, passes_overdue, taken_since_overdue

_RELEASED: Final = "released"
_READ: Final = "read"
_LAPSED: Final = "lapsed"
_BATCH: Final = 64


class SqlReadingClaims:
    """``ReadingClaims`` on the index database. Write transactions take turns, so one study has one holder."""

    def __init__(self, guard: Guard = DEFAULT_GUARD) -> None:
        self._guard = guard

    def assign(self, tx: Transaction, tenant: str, study_uid: str, reader: str, *, now: float) -> bool:
        connection = connection_of(tx)
        order = _listed(connection, tenant, study_uid)
        if order.state != "open":
            msg = "the study has been read"
            raise Conflict(msg)
        held = _held(connection, tenant, study_uid, now)
        if held is not None:
            if held.reader != reader:
                msg = "another reader has this study"
                raise Conflict(msg)
            self._set(connection, held.number, lapses_at=now + self._guard.claim_seconds)
            return False
        self._open(connection, tenant, study_uid, order.arrival, reader, now)
        return True

    def release(self, tx: Transaction, tenant: str, study_uid: str, *, now: float) -> Reading:
        connection = connection_of(tx)
        _listed(connection, tenant, study_uid)
        held = _held(connection, tenant, study_uid, now)
        if held is None:
            msg = "no reader has this study"
            raise Conflict(msg)
        self._set(connection, held.number, ended_at=now, outcome=_RELEASED)
        return Reading(held.reader, held.claimed_at)

    def complete(self, tx: Transaction, tenant: str, study_uid: str, reader: str, *, now: float) -> bool:
        connection = connection_of(tx)
        order = _listed(connection, tenant, study_uid)
        if order.state != "open":
            return False
        held = _held(connection, tenant, study_uid, now)
        if held is not None and held.reader != reader:
            msg = "another reader has this study"
            raise Conflict(msg)
        number = self._open(connection, tenant, study_uid, order.arrival, reader, now) if held is None else held.number
        self._set(connection, number, ended_at=now, outcome=_READ)
        connection.execute(
            update(reading_order)
            .where(reading_order.c.tenant == tenant, reading_order.c.study_uid == study_uid)
            .values(state=_READ, updated_at=now)
        )
        return True

    def _open(
        self, connection: Connection, tenant: str, study_uid: str, arrival: float, reader: str, now: float
    ) -> int:
        claim = reading_claims.c
        connection.execute(  # what lapsed has ended: the study is back in its place, and its taking counted
            update(reading_claims)
            .where(claim.tenant == tenant, claim.study_uid == study_uid, claim.ended_at.is_(None))
            .values(ended_at=claim.lapses_at, outcome=_LAPSED)
        )
        band, _place = bands.locate(connection, tenant, study_uid, arrival, now, self._guard)
        overdue = bands.seek(
            connection,
            tenant,
            Band.OVERDUE,
            bands.Position(as_of=now),
            WorklistFilter(),
            self._guard,
            1,
            unregistered=bands.count_unregistered(connection, tenant) > 0,
        )
        values = {
            "tenant": tenant,
            "study_uid": study_uid,
            "reader": reader,
            "band": str(band),
            "passed": passes_overdue(band, overdue_waits=bool(overdue)),
            "claimed_at": now,
            "lapses_at": now + self._guard.claim_seconds,
        }
        made = connection.execute(insert(reading_claims).values(**values).returning(claim.number))
        return int(made.scalar_one())

    def _set(self, connection: Connection, number: int, **values: Any) -> None:
        connection.execute(update(reading_claims).where(reading_claims.c.number == number).values(**values))


def taken_by_readers(connection: Connection, tenant: str) -> int:
    """Return the guard's counter: time-critical studies taken in a row while an overdue one waited.

    What was put back was not read and does not count, on either side.
    """
    return taken_since_overdue(_passed(connection, tenant))


def readings(connection: Connection, tenant: str, uids: Sequence[str], now: float) -> dict[str, Reading]:
    """Return who holds or has read each of the studies."""
    claim = reading_claims.c
    query = (
        select(reading_claims)
        .where(claim.tenant == tenant, claim.study_uid.in_(uids), claim.outcome.in_(("", _READ)))
        .order_by(claim.number)
    )
    return {
        row.study_uid: Reading(row.reader, row.claimed_at, row.ended_at)
        for row in connection.execute(query)
        if row.ended_at is not None or row.lapses_at > now
    }


def _passed(connection: Connection, tenant: str) -> Iterator[bool]:
    claim = reading_claims.c
    before: int | None = None
    while True:
        query = select(claim.number, claim.passed).where(claim.tenant == tenant, claim.outcome != _RELEASED)
        if before is not None:
            query = query.where(claim.number < before)
        rows = connection.execute(query.order_by(claim.number.desc()).limit(_BATCH)).all()
        yield from (bool(row.passed) for row in rows)
        if len(rows) < _BATCH:
            return
        before = rows[-1].number


def _listed(connection: Connection, tenant: str, study_uid: str) -> Row[Any]:
    query = select(reading_order).where(reading_order.c.tenant == tenant, reading_order.c.study_uid == study_uid)
    row = connection.execute(query).first()
    if row is None:
        msg = "the study is not on the worklist"
        raise NotFound(msg)
    return row


def _held(connection: Connection, tenant: str, study_uid: str, now: float) -> Row[Any] | None:
    claim = reading_claims.c
    query = select(reading_claims).where(
        claim.tenant == tenant, claim.study_uid == study_uid, claim.ended_at.is_(None), claim.lapses_at > now
    )
    return connection.execute(query).first()
