"""The reading order as rows: class, due time and reasons of each study. Nothing here can lower a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import orjson
from sqlalchemy import Row, insert, select, update

from wetread.adapters.index.breakers import SqlBreaker
from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import reading_order
from wetread.core.errors import NotFound
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest
from wetread.core.instants import iso_utc
from wetread.core.ports import EventLog, Transaction
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority, due_at, most_urgent

_NO_STAMPS: Final[Mapping[str, float]] = {}
_SUSPENDED: Final = "does not move the study: this detector flags more than its card predicts"


class SqlReadingOrder:
    """``ReadingOrder`` on the index database. A raised class and its event ride in the same transaction."""

    def __init__(self, events: EventLog, breaker: SqlBreaker | None = None) -> None:
        self._events = events
        self._breaker = breaker

    def register(self, tx: Transaction, tenant: str, study_uid: str, *, arrival: float, reason: Reason) -> None:
        if self._row(tx, tenant, study_uid) is not None:
            self.raise_to(tx, tenant, study_uid, reason)
            return
        connection_of(tx).execute(
            insert(reading_order).values(
                tenant=tenant,
                study_uid=study_uid,
                priority=str(reason.priority),
                firm_priority=str(_firm(Priority.BATCH, reason)),
                arrival=arrival,
                due_at=due_at(arrival, reason.priority),
                reasons_json=_dump([reason]),
                state="open",
                updated_at=reason.at,
            )
        )

    def raise_to(
        self, tx: Transaction, tenant: str, study_uid: str, reason: Reason, stamps: Mapping[str, float] = _NO_STAMPS
    ) -> bool:
        row = self._row(tx, tenant, study_uid)
        if row is None:
            msg = "the study is not on the worklist"
            raise NotFound(msg)
        old = Priority(row.priority)
        suspended = self._suspended(tx, tenant, study_uid, reason)
        if suspended:
            reason = replace(reason, text=f"{reason.text} ({_SUSPENDED})")
        new = old if suspended else most_urgent(old, reason.priority)
        reasons = reasons_of(row.reasons_json)
        if not any(_same(reason, known) for known in reasons):
            reasons.append(reason)
        due = min(row.due_at, due_at(row.arrival, new))
        connection_of(tx).execute(
            update(reading_order)
            .where(reading_order.c.tenant == tenant, reading_order.c.study_uid == study_uid)
            .values(
                priority=str(new),
                firm_priority=str(_firm(Priority(row.firm_priority), reason)),
                due_at=due,
                reasons_json=_dump(reasons),
                updated_at=reason.at,
            )
        )
        if new is old:
            return False
        # A class is reached once (it never falls), so the event's id is a function of it: the same function that the
        # orchestration uses for its events, so that one raise is one event whoever tells of it.
        event = Event(
            id=digest("event", str(EventType.PRIORITY_CHANGED), tenant, study_uid, str(new)),
            type=EventType.PRIORITY_CHANGED,
            tenant=tenant,
            subject=study_uid,
            time=reason.at,
            data={
                "priority": str(new),
                "previous": str(old),
                "due_at": iso_utc(due),
                "source": reason.source,
                "detector": reason.detector,
                "text": reason.text,
            },
            stamps=dict(stamps),
        )
        self._events.append(tx, event)
        return True

    def _suspended(self, tx: Transaction, tenant: str, study_uid: str, reason: Reason) -> bool:
        """Whether this is a flag of a detector whose breaker is open: it is shown, and moves nothing."""
        if self._breaker is None or reason.source != "ai" or reason.detector is None:
            return False
        return self._breaker.is_open(tx, tenant, reason.detector, study_uid=study_uid, now=reason.at)

    def priority(self, tx: Transaction, tenant: str, study_uid: str) -> tuple[Priority, float] | None:
        row = self._row(tx, tenant, study_uid)
        return None if row is None else (Priority(row.priority), row.due_at)

    def _row(self, tx: Transaction, tenant: str, study_uid: str) -> Row[Any] | None:
        query = select(reading_order).where(reading_order.c.tenant == tenant, reading_order.c.study_uid == study_uid)
        return connection_of(tx).execute(query).first()


def reasons_of(text: str) -> list[Reason]:
    """Return the reasons of a ``reasons_json`` value, oldest first."""
    return [Reason(**{**entry, "priority": Priority(entry["priority"])}) for entry in orjson.loads(text)]


def _dump(reasons: list[Reason]) -> str:
    return orjson.dumps([asdict(reason) for reason in reasons]).decode()


def _same(one: Reason, other: Reason) -> bool:
    """Whether two reasons differ in nothing but their time: a message that came twice."""
    return replace(one, at=0.0) == replace(other, at=0.0)


def _firm(firm: Priority, reason: Reason) -> Priority:
    """Return the class that orders, rules and people give, AI findings left out."""
    return firm if reason.source == "ai" else most_urgent(firm, reason.priority)
