"""Deliveries of events to webhook receivers: rows and their places in the durable queue, always changed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, and_, bindparam, insert, select, update

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.event_rows import event_of
from wetread.adapters.index.statement import DriverStatement
from wetread.adapters.index.subscriptions import subscription_of
from wetread.adapters.index.tables import deliveries, events, subscriptions
from wetread.adapters.index.turnarounds import SqlTurnarounds
from wetread.core.channels import CHANNEL_PREFIX
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest
from wetread.core.ports import Delivery, DeliveryState, Subscription, Transaction, WorkQueue

WORKFLOW: Final = "deliver"
QUEUE: Final = "notify"

_ANY_RECEIVER: Final = DriverStatement(
    select(subscriptions.c.id).where(subscriptions.c.tenant == bindparam("of"), subscriptions.c.active).limit(1)
)
"""Of the ingest path: most tenants have none."""


class SqlDeliveries:
    """``Deliveries`` on the index database and the durable queue behind *work*."""

    def __init__(self, work: WorkQueue, channels: Callable[[Event], Sequence[str]] = lambda _event: ()) -> None:
        self._work = work
        self._channels = channels
        self._turnarounds = SqlTurnarounds()

    def open(self, tx: Transaction, tenant: str, events: Sequence[Event]) -> None:
        webhooks = _active(connection_of(tx), tenant)
        for event in events:
            for receiver_id in self._receivers(tx, event, webhooks):
                self._open(tx, event, receiver_id, at=event.time)

    def again(self, tx: Transaction, event: Event, *, now: float) -> int:
        receivers = self._receivers(tx, event, _active(connection_of(tx), event.tenant))
        for receiver_id in receivers:
            known = self.get(tx, event.tenant, event.id, receiver_id)
            if known is None:
                self._open(tx, event, receiver_id, at=now)
            elif known.state is not DeliveryState.PENDING:
                self._set(tx, known, state=DeliveryState.PENDING, attempts=0, last_error="", sent_at=None)
                self.requeue(tx, known, now=now)
        return len(receivers)

    def _receivers(self, tx: Transaction, event: Event, webhooks: Sequence[Subscription]) -> list[str]:
        # A dead letter about one receiver would go to the next dead receiver, and so on for ever: stream only.
        if event.type is EventType.DELIVERY_DEAD or event.data.get("shadow"):
            return []
        channels = list(self._channels(event))
        if event.type is EventType.FINDING_RETRACTED:
            channels += [name for name in self._told(connection_of(tx), event) if name not in channels]
        return [one.id for one in webhooks if not one.types or event.type in one.types] + channels

    def _told(self, connection: Connection, event: Event) -> list[str]:
        """Return the channels that were told of the study's findings: what is taken back is told to them, too."""
        same = and_(deliveries.c.tenant == events.c.tenant, deliveries.c.event_id == events.c.id)
        query = (
            select(deliveries.c.subscription_id)
            .distinct()
            .select_from(events.join(deliveries, same))
            .where(
                events.c.tenant == event.tenant,
                events.c.subject == event.subject,
                events.c.type.in_([str(EventType.FINDING_POSITIVE), str(EventType.FINDING_ESCALATED)]),
                deliveries.c.subscription_id.startswith(CHANNEL_PREFIX),
            )
            .order_by(deliveries.c.subscription_id)
        )
        return list(connection.execute(query).scalars())

    def _open(self, tx: Transaction, event: Event, subscription_id: str, *, at: float) -> None:
        first = self._next_of_study(tx, event.tenant, subscription_id, event.subject) is None
        connection_of(tx).execute(
            insert(deliveries).values(
                tenant=event.tenant,
                subscription_id=subscription_id,
                event_id=event.id,
                state=DeliveryState.PENDING,
                attempts=0,
                last_error="",
                next_attempt_at=at if first else None,
                updated_at=at,
            )
        )
        if first:
            self._enqueue(tx, event.tenant, event.id, subscription_id, at=at)

    def get(self, tx: Transaction, tenant: str, event_id: str, subscription_id: str) -> Delivery | None:
        query = select(deliveries).where(
            deliveries.c.tenant == tenant,
            deliveries.c.subscription_id == subscription_id,
            deliveries.c.event_id == event_id,
        )
        row = connection_of(tx).execute(query).first()
        return None if row is None else _delivery(row)

    def retry(self, tx: Transaction, delivery: Delivery, *, at: float, now: float, error: str) -> None:
        attempts = delivery.attempts + 1
        self._set(tx, delivery, attempts=attempts, last_error=error, next_attempt_at=at, updated_at=now)
        self._enqueue(tx, delivery.tenant, delivery.event_id, delivery.subscription_id, at=at, delay=max(0.0, at - now))

    def finish(self, tx: Transaction, delivery: Delivery, state: DeliveryState, *, now: float, error: str = "") -> None:
        self._set(
            tx,
            delivery,
            state=state,
            attempts=delivery.attempts + 1,
            last_error=error,
            sent_at=now if state is DeliveryState.SENT else None,
            next_attempt_at=None,
            updated_at=now,
        )
        query = select(events).where(events.c.tenant == delivery.tenant, events.c.id == delivery.event_id)
        row = connection_of(tx).execute(query).first()
        if row is None:
            return
        if state is DeliveryState.SENT:
            self._turnarounds.notified(tx, event_of(row), at=now)
        waiting = self._next_of_study(tx, delivery.tenant, delivery.subscription_id, row.subject)
        if waiting is not None:
            self.requeue(tx, waiting, now=now)

    def abandon(self, tx: Transaction, tenant: str, subscription_id: str, *, now: float, error: str) -> int:
        statement = (
            update(deliveries)
            .where(
                deliveries.c.tenant == tenant,
                deliveries.c.subscription_id == subscription_id,
                deliveries.c.state == DeliveryState.PENDING,
            )
            .values(state=DeliveryState.DEAD, last_error=error, next_attempt_at=None, updated_at=now)
        )
        return int(connection_of(tx).execute(statement).rowcount)

    def overdue(self, tx: Transaction, *, before: float, limit: int) -> list[Delivery]:
        query = (
            select(deliveries)
            .where(deliveries.c.state == DeliveryState.PENDING, deliveries.c.next_attempt_at < before)
            .order_by(deliveries.c.next_attempt_at)
            .limit(limit)
        )
        return [_delivery(row) for row in connection_of(tx).execute(query)]

    def requeue(self, tx: Transaction, delivery: Delivery, *, now: float) -> None:
        self._set(tx, delivery, next_attempt_at=now, updated_at=now)
        self._enqueue(tx, delivery.tenant, delivery.event_id, delivery.subscription_id, at=now)

    def of_subscription(
        self, tx: Transaction, tenant: str, subscription_id: str, *, state: DeliveryState | None, limit: int
    ) -> Sequence[Delivery]:
        query = select(deliveries).where(deliveries.c.tenant == tenant, deliveries.c.subscription_id == subscription_id)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        rows = connection_of(tx).execute(query.order_by(deliveries.c.updated_at.desc()).limit(limit))
        return [_delivery(row) for row in rows]

    def _next_of_study(self, tx: Transaction, tenant: str, subscription_id: str, study_uid: str) -> Delivery | None:
        """Return the earliest pending delivery of a study to a subscription."""
        same = and_(deliveries.c.tenant == events.c.tenant, deliveries.c.event_id == events.c.id)
        query = (
            select(deliveries)
            .select_from(events.join(deliveries, same))
            .where(
                events.c.tenant == tenant,
                events.c.subject == study_uid,
                deliveries.c.subscription_id == subscription_id,
                deliveries.c.state == DeliveryState.PENDING,
            )
            .order_by(events.c.cursor)
            .limit(1)
        )
        row = connection_of(tx).execute(query).first()
        return None if row is None else _delivery(row)

    def _set(self, tx: Transaction, delivery: Delivery, **values: Any) -> None:
        connection_of(tx).execute(
            update(deliveries)
            .where(
                deliveries.c.tenant == delivery.tenant,
                deliveries.c.subscription_id == delivery.subscription_id,
                deliveries.c.event_id == delivery.event_id,
            )
            .values(**values)
        )

    def _enqueue(
        self,
        tx: Transaction,
        tenant: str,
        event_id: str,
        subscription_id: str,
        *,
        at: float,
        delay: float | None = None,
    ) -> None:
        self._work.enqueue(
            tx,
            workflow=WORKFLOW,
            # The time is part of the id: each attempt is a run of its own, a repeated enqueue of it is none.
            workflow_id=digest(WORKFLOW, tenant, event_id, subscription_id, at),
            queue=QUEUE,
            due=at,
            arguments={"tenant": tenant, "event_id": event_id, "subscription_id": subscription_id},
            delay_seconds=delay,
        )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        tenant=row.tenant,
        subscription_id=row.subscription_id,
        event_id=row.event_id,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        last_error=row.last_error,
        sent_at=row.sent_at,
        next_attempt_at=row.next_attempt_at,
        updated_at=row.updated_at,
    )


def _active(connection: Connection, tenant: str) -> list[Subscription]:
    if _ANY_RECEIVER.first(connection, {"of": tenant}) is None:
        return []
    query = select(subscriptions).where(subscriptions.c.tenant == tenant, subscriptions.c.active)
    return [subscription_of(row) for row in connection.execute(query)]
