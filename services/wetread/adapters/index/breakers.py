"""The breaker of each tenant and detector: asked before a flag moves a study, told of when it opens or closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import breakers, tasks
from wetread.adapters.index.upsert import replace_row
from wetread.core.breaker import WINDOW, is_open
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest
from wetread.core.ports import EventLog, Transaction
from wetread.core.states import AiState

_FLAGGED: Final = (AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE)
_ANSWERED: Final = (*_FLAGGED, AiState.NEGATIVE, AiState.INDETERMINATE)


class SqlBreaker:
    """``predicted`` gives the share of studies that a detector's card predicts it flags; None: nothing is known."""

    def __init__(self, events: EventLog, predicted: Callable[[str], float | None]) -> None:
        self._events = events
        self._predicted = predicted

    def is_open(self, tx: Transaction, tenant: str, detector: str, *, study_uid: str, now: float) -> bool:
        """Return whether flags of the detector may not move studies now; a change is told as an event."""
        predicted = self._predicted(detector)
        if predicted is None:
            return False
        connection = connection_of(tx)
        query = (
            select(tasks.c.state)
            .where(
                tasks.c.tenant == tenant,
                tasks.c.detector == detector,
                ~tasks.c.shadow,
                tasks.c.state.in_([str(state) for state in _ANSWERED]),
            )
            .order_by(tasks.c.updated_at.desc(), tasks.c.study_uid)
            .limit(WINDOW)
        )
        flags = [AiState(state) in _FLAGGED for state in connection.execute(query).scalars()]
        opened = is_open(flags, predicted)
        known = connection.execute(
            select(breakers.c.opened_at).where(breakers.c.tenant == tenant, breakers.c.detector == detector)
        ).scalar()
        if opened != (known is not None):
            values = {"tenant": tenant, "detector": detector, "opened_at": now if opened else None}
            replace_row(connection, breakers, values)
            self._tell(tx, tenant, detector, study_uid, now, opened=opened, flags=flags, predicted=predicted)
        return opened

    def _tell(
        self,
        tx: Transaction,
        tenant: str,
        detector: str,
        study_uid: str,
        now: float,
        *,
        opened: bool,
        flags: list[bool],
        predicted: float,
    ) -> None:
        kind = EventType.BREAKER_OPENED if opened else EventType.BREAKER_CLOSED
        self._events.append(
            tx,
            Event(
                id=digest("event", str(kind), tenant, detector, study_uid, now),
                type=kind,
                tenant=tenant,
                subject=study_uid,
                time=now,
                data={
                    "detector": detector,
                    "alarm": opened,
                    "flagged": sum(flags),
                    "studies": len(flags),
                    "predicted_share": round(predicted, 4),
                },
            ),
        )
