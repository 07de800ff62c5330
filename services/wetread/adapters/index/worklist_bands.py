"""The bands of the reading order as seeks: where a page begins, and what comes next in each band."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import orjson
from sqlalchemy import CompoundSelect, Connection, Select, and_, case, exists, func, not_, or_, select, true, tuple_

from wetread.adapters.index.tables import decisions, reading_claims, reading_order, series, studies, tasks
from wetread.core.errors import InvalidInput
from wetread.core.ports import WorklistFilter
from wetread.core.priority import Priority, due_at
from wetread.core.reading_order import Band, Guard, Place, band_of
from wetread.core.states import AiState, StudyAiState, summarise

Key = tuple[float, str]

UNREGISTERED_CLASS: Final = Priority.ROUTINE
"""Class of a study that nobody has put on the list yet: it is listed all the same."""

_BY_DUE: Final = frozenset({Band.FIRM, Band.FLAGGED})
_SUMMARIES: Final = tuple(StudyAiState)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a traversal stands: its clock, the last study taken from each band, and the guard's counter."""

    as_of: float
    taken: int = 0
    last: dict[Band, Key] = field(default_factory=dict)

    def past(self, band: Band, place: Place, taken: int) -> Self:
        """Return the position after taking *place* from *band*."""
        key = (place.due_at if band in _BY_DUE else place.arrival, place.study_uid)
        return replace(self, taken=taken, last={**self.last, band: key})

    def text(self) -> str:
        """Return the position as an opaque cursor."""
        body = orjson.dumps([self.as_of, self.taken, {str(band): key for band, key in self.last.items()}])
        return base64.urlsafe_b64encode(body).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of a cursor. Raises InvalidInput."""
        try:
            body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            as_of, taken, last = orjson.loads(body)
            keys = {Band(band): (float(key[0]), str(key[1])) for band, key in last.items()}
            return cls(as_of=float(as_of), taken=int(taken), last=keys)
        except (binascii.Error, ValueError, TypeError, AttributeError, IndexError) as error:
            msg = "the cursor is not one of this list"
            raise InvalidInput(msg) from error


def seek(
    connection: Connection,
    tenant: str,
    band: Band,
    position: Position,
    wanted: WorklistFilter,
    guard: Guard,
    limit: int,
    unregistered: bool = False,
) -> list[Place]:
    """Return up to *limit* studies of a band after the position, in the band's order."""
    found = _registered(connection, tenant, band, position, wanted, guard, limit)
    if unregistered and band in {Band.OVERDUE, Band.NORMAL} and wanted.priority in {None, UNREGISTERED_CLASS}:
        found += _unregistered(connection, tenant, band, position, wanted, guard, limit)
        found.sort(key=lambda place: (place.arrival, place.study_uid))
    return found[:limit]


def locate(
    connection: Connection, tenant: str, study_uid: str, received_at: float, now: float, guard: Guard
) -> tuple[Band, Place]:
    """Return the band and place of one study."""
    query = select(reading_order).where(reading_order.c.tenant == tenant, reading_order.c.study_uid == study_uid)
    row = connection.execute(query).first()
    if row is None:
        place = _default_place(study_uid, received_at)
        return band_of(UNREGISTERED_CLASS, UNREGISTERED_CLASS, now - received_at, guard), place
    band = band_of(Priority(row.priority), Priority(row.firm_priority), now - row.arrival, guard)
    if connection.execute(assigned(tenant, now).where(reading_claims.c.study_uid == study_uid)).first() is not None:
        band = Band.ASSIGNED
    return band, Place(study_uid, row.arrival, row.due_at)


def assigned(tenant: str, now: float) -> Select[Any]:
    """Return the query of the studies that a reader has taken and still holds."""
    claim = reading_claims.c
    return select(claim.study_uid).where(claim.tenant == tenant, claim.ended_at.is_(None), claim.lapses_at > now)


def count_unregistered(connection: Connection, tenant: str) -> int:
    """Return how many studies nobody has put on the list yet: normally none."""
    return int(connection.execute(select(func.count()).select_from(_unlisted(tenant).subquery())).scalar() or 0)


def _unlisted(tenant: str) -> CompoundSelect[str]:
    """Return the query of studies without a place. EXCEPT merges two covering indexes: cheaper than NOT EXISTS."""
    known = select(studies.c.study_uid).where(studies.c.tenant == tenant)
    return known.except_(select(reading_order.c.study_uid).where(reading_order.c.tenant == tenant))


def _registered(
    connection: Connection,
    tenant: str,
    band: Band,
    position: Position,
    wanted: WorklistFilter,
    guard: Guard,
    limit: int,
) -> list[Place]:
    order = reading_order.c
    query = select(order.study_uid, order.arrival, order.due_at).where(order.tenant == tenant, order.state == "open")
    held = order.study_uid.in_(assigned(tenant, position.as_of))
    query = query.where(held if band is Band.ASSIGNED else not_(held))
    key: Any = order.arrival
    if band is Band.ASSIGNED:
        pass
    elif band in _BY_DUE:
        firm = order.firm_priority == Priority.STAT
        query = query.where(order.priority == Priority.STAT, firm if band is Band.FIRM else not_(firm))
        key = order.due_at
    else:
        waited = _overdue(band, order.arrival, order.priority, position, guard)
        query = query.where(order.priority != Priority.STAT, waited)
    if wanted.priority is not None:
        query = query.where(order.priority == wanted.priority)
    if wanted.modality or wanted.state or wanted.text:
        joined = and_(studies.c.tenant == order.tenant, studies.c.study_uid == order.study_uid)
        query = query.join_from(reading_order, studies, joined).where(_wanted(wanted))
    query = _after(query, position.last.get(band), key, order.study_uid, limit)
    return [Place(*row) for row in connection.execute(query)]


def _unregistered(
    connection: Connection,
    tenant: str,
    band: Band,
    position: Position,
    wanted: WorklistFilter,
    guard: Guard,
    limit: int,
) -> list[Place]:
    arrival = studies.c.received_at
    query = select(studies.c.study_uid, arrival).where(
        studies.c.tenant == tenant,
        studies.c.study_uid.in_(_unlisted(tenant)),
        _overdue(band, arrival, None, position, guard),
        _wanted(wanted),
    )
    query = _after(query, position.last.get(band), arrival, studies.c.study_uid, limit)
    return [_default_place(row.study_uid, row.received_at) for row in connection.execute(query)]


def _default_place(study_uid: str, received_at: float) -> Place:
    return Place(study_uid, received_at, due_at(received_at, UNREGISTERED_CLASS))


def _after(query: Select[Any], last: Key | None, key: Any, study_uid: Any, limit: int) -> Select[Any]:
    if last is not None:
        query = query.where(tuple_(key, study_uid) > tuple_(*last))
    return query.order_by(key, study_uid).limit(limit)


def _overdue(band: Band, arrival: Any, priority: Any | None, position: Position, guard: Guard) -> Any:
    """Return the condition of the overdue band (or its opposite), written so that an index on arrival serves it."""
    limits = {name: position.as_of - guard.overdue_after(name) for name in Priority if name is not Priority.STAT}
    if priority is None:
        limit: Any = limits[UNREGISTERED_CLASS]
        return arrival <= limit if band is Band.OVERDUE else arrival > limit
    limit = case(limits, value=priority)
    if band is Band.OVERDUE:
        return and_(arrival <= max(limits.values()), arrival <= limit)
    return and_(arrival > min(limits.values()), arrival > limit)


def _wanted(wanted: WorklistFilter) -> Any:
    conditions: list[Any] = [true()]
    if wanted.modality:
        conditions.append(
            exists().where(
                series.c.tenant == studies.c.tenant,
                series.c.study_uid == studies.c.study_uid,
                # The function keeps SQLite on the primary key: its other choice walks every series of the modality.
                func.upper(series.c.modality) == wanted.modality.upper(),
                not_(series.c.own_result),
            )
        )
    if wanted.text:
        name = func.replace(studies.c.patient_name, "^", " ")
        fields = (studies.c.patient_id, name, studies.c.patient_name_folded, studies.c.description)
        conditions.append(or_(*(value.icontains(wanted.text, autoescape=True) for value in fields)))
    if wanted.state is not None:
        conditions.append(_summary_rank() == _SUMMARIES.index(wanted.state))
    return and_(*conditions)


def _summary_rank() -> Any:
    """Return the study's summary as its index in ``StudyAiState``; the same ranking as ``summarise``."""
    ranks = {str(state): _SUMMARIES.index(summarise([state])) for state in AiState}
    same = and_(tasks.c.tenant == studies.c.tenant, tasks.c.study_uid == studies.c.study_uid)
    ranked = (
        select(func.min(case(ranks, value=tasks.c.state)))
        .where(same, not_(tasks.c.shadow))
        .correlate(studies)
        .scalar_subquery()
    )
    looked_at = or_(
        exists().where(same),
        exists().where(decisions.c.tenant == studies.c.tenant, decisions.c.study_uid == studies.c.study_uid),
    )
    nothing = case(
        (looked_at, _SUMMARIES.index(StudyAiState.NOT_APPLICABLE)), else_=_SUMMARIES.index(StudyAiState.PENDING)
    )
    return func.coalesce(ranked, nothing)
