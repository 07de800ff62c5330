"""Delivery of one event to one webhook receiver: one attempt, and what follows from its outcome."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import orjson

from wetread.core import tracing
from wetread.core.channels import CHANNEL_PREFIX, Channel, SinkMode
from wetread.core.cloudevents import CONTENT_TYPE, notification
from wetread.core.errors import ComputationFailed, Gone, NotFound, Unavailable, WetreadError
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest, log_ref
from wetread.core.ports import (
    Clock,
    Database,
    Deliveries,
    Delivery,
    DeliveryState,
    EventLog,
    StudyIndex,
    Subscription,
    Subscriptions,
    Transaction,
    WebhookSender,
)
from wetread.triage.channels import ChannelDirectory
from wetread.triage.retry_schedule import retry_wait

log = logging.getLogger(__name__)

LOST_AFTER_SECONDS: Final = 120.0
"""A delivery this long past its time has lost its workflow (killed once too often, cancelled): it is queued again."""

_SWEEP_LIMIT: Final = 500


class EventSink(Protocol):
    """A receiver of CloudEvents over HTTP. Raises as ``WebhookSender.send``."""

    def send(self, url: str, mode: SinkMode, event: Mapping[str, Any]) -> int:
        """Deliver one event and return the HTTP status (2xx)."""


class Mailer(Protocol):
    """Raises Unavailable for what may be retried, ComputationFailed otherwise."""

    def send(self, addresses: Sequence[str], event: Mapping[str, Any]) -> None:
        """Send one notification as one mail."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What notification needs from the outside. ``public_url``: where people reach this installation."""

    database: Database
    clock: Clock
    events: EventLog
    deliveries: Deliveries
    subscriptions: Subscriptions
    studies: StudyIndex
    webhooks: WebhookSender
    channels: ChannelDirectory
    sink: EventSink
    mailer: Mailer | None
    public_url: str


@dataclass(frozen=True, slots=True)
class _Prepared:
    delivery: Delivery
    event: Event
    receiver: Subscription | Channel
    content: Mapping[str, Any]


class Notifier:
    """Delivers events. ``deliver`` is the one step of the durable workflow of that name."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def deliver(self, tenant: str, event_id: str, subscription_id: str) -> str:
        """Make one attempt and record it; return ``sent``, ``retry``, ``dead`` or ``done`` (nothing left to do).

        A retry is a new run of the workflow, queued in the transaction that records the failure: nothing sleeps while
        it holds a worker. A step that is repeated after a crash sends the same webhook id again; receivers
        de-duplicate by it. Raises only when the database does not answer.
        """
        prepared = self._prepare(tenant, event_id, subscription_id)
        if prepared is None:
            return "done"
        event = prepared.event
        attributes = {"wetread.event": str(event.type), "wetread.study": log_ref(tenant, event.subject)}
        with tracing.span("notify", kind="client", parent=event.trace, attributes=attributes) as span:
            outcome = self._attempt(prepared, span)
            span.set("wetread.outcome", outcome)
        return outcome

    def _attempt(self, prepared: _Prepared, span: tracing.Scope) -> str:
        try:
            self._send(prepared)
        except WetreadError as error:
            span.fail(type(error).__name__)
            return self._not_sent(prepared, error)
        with self._ports.database.write() as tx:
            current = self._pending(tx, prepared)
            if current is not None:
                self._ports.deliveries.finish(tx, current, DeliveryState.SENT, now=self._ports.clock.now())
        return "sent"

    def _not_sent(self, prepared: _Prepared, error: WetreadError) -> str:
        if isinstance(error, Gone) and isinstance(prepared.receiver, Subscription):
            return self._unsubscribe(prepared, prepared.receiver)
        if isinstance(error, Unavailable):
            return self._failed(prepared, error, retry_after=error.retry_after)
        return self._dead(prepared, error)

    def _send(self, prepared: _Prepared) -> None:
        ports, receiver = self._ports, prepared.receiver
        if isinstance(receiver, Subscription):
            body = orjson.dumps(dict(prepared.content))
            headers = {"content-type": CONTENT_TYPE}
            ports.webhooks.send(receiver.url, receiver.secrets, prepared.event.id, body, headers)
        elif receiver.sink is not None:
            ports.sink.send(receiver.sink, receiver.mode, prepared.content)
        elif ports.mailer is None:
            reason = "no_mail_server"
            raise ComputationFailed(reason, "no mail server is configured")
        else:
            ports.mailer.send(receiver.email, prepared.content)

    def sweep(self) -> int:
        """Queue deliveries again whose workflow was lost; return how many. Harmless to run twice at once."""
        now = self._ports.clock.now()
        with self._ports.database.read() as tx:
            lost = self._ports.deliveries.overdue(tx, before=now - LOST_AFTER_SECONDS, limit=_SWEEP_LIMIT)
        if not lost:
            return 0
        with self._ports.database.write() as tx:
            for delivery in self._ports.deliveries.overdue(tx, before=now - LOST_AFTER_SECONDS, limit=_SWEEP_LIMIT):
                self._ports.deliveries.requeue(tx, delivery, now=now)
        log.warning("queued %d lost deliveries again", len(lost))
        return len(lost)

    def _prepare(self, tenant: str, event_id: str, subscription_id: str) -> _Prepared | None:
        """Return what to send; None when there is nothing to send any more (and then the row says so)."""
        ports = self._ports
        with ports.database.read() as tx:
            delivery = ports.deliveries.get(tx, tenant, event_id, subscription_id)
            if delivery is None or delivery.state is not DeliveryState.PENDING:
                return None
            event = ports.events.get(tx, tenant, event_id)
            receiver = self._receiver(tx, tenant, subscription_id)
            wants_patient = isinstance(receiver, Subscription) and receiver.include_patient
            patient = self._patient(tx, event) if event is not None and wants_patient else None
        if event is None or receiver is None:
            with ports.database.write() as tx:
                error = "the event or the subscription is gone"
                ports.deliveries.finish(tx, delivery, DeliveryState.DEAD, now=ports.clock.now(), error=error)
            return None
        stamped = replace(event, stamps={**event.stamps, "sent": ports.clock.now()})
        content = notification(stamped, public_url=ports.public_url, patient=patient)
        return _Prepared(delivery, event, receiver, content)

    def _receiver(self, tx: Transaction, tenant: str, subscription_id: str) -> Subscription | Channel | None:
        if subscription_id.startswith(CHANNEL_PREFIX):
            return self._ports.channels.channel(tenant, subscription_id)
        try:
            subscription = self._ports.subscriptions.get(tx, tenant, subscription_id)
        except NotFound:
            return None
        return subscription if subscription.active else None

    def _patient(self, tx: Transaction, event: Event) -> dict[str, str]:
        try:
            summary = self._ports.studies.summary(tx, event.tenant, event.subject)
        except NotFound:
            return {}
        return {"id": summary.patient_id, "name": summary.patient_name}

    def _failed(self, prepared: _Prepared, error: WetreadError, *, retry_after: float | None) -> str:
        delivery = prepared.delivery
        now = self._ports.clock.now()
        ids = (delivery.tenant, delivery.event_id, delivery.subscription_id)
        wait = retry_wait(delivery.attempts + 1, *ids, retry_after=retry_after)
        if wait is None:
            return self._dead(prepared, error)
        with self._ports.database.write() as tx:
            current = self._pending(tx, prepared)
            if current is None:
                return "done"
            self._ports.deliveries.retry(tx, current, at=now + wait, now=now, error=error.detail)
        log.warning("delivery %s failed: %s", log_ref(*ids), error.detail)
        return "retry"

    def _dead(self, prepared: _Prepared, error: WetreadError) -> str:
        now = self._ports.clock.now()
        with self._ports.database.write() as tx:
            current = self._pending(tx, prepared)
            if current is None:
                return "done"
            self._ports.deliveries.finish(tx, current, DeliveryState.DEAD, now=now, error=error.detail)
            self._dead_letter(tx, prepared, reason=getattr(error, "reason", "retries_exhausted"), detail=error.detail)
        return "dead"

    def _unsubscribe(self, prepared: _Prepared, subscription: Subscription) -> str:
        now = self._ports.clock.now()
        with self._ports.database.write() as tx:
            self._ports.subscriptions.put(tx, replace(subscription, active=False))
            self._ports.deliveries.abandon(tx, subscription.tenant, subscription.id, now=now, error="unsubscribed: 410")
            self._dead_letter(tx, prepared, reason="gone", detail="the receiver unsubscribed with 410 Gone")
        return "dead"

    def _pending(self, tx: Transaction, prepared: _Prepared) -> Delivery | None:
        """Return the delivery as it is now, None when a twin of this step has already recorded an outcome."""
        was = prepared.delivery
        current = self._ports.deliveries.get(tx, was.tenant, was.event_id, was.subscription_id)
        return current if current == was else None

    def _dead_letter(self, tx: Transaction, prepared: _Prepared, *, reason: str, detail: str) -> None:
        event, receiver_id = prepared.event, prepared.delivery.subscription_id
        self._ports.events.append(
            tx,
            Event(
                id=digest(EventType.DELIVERY_DEAD, event.tenant, event.id, receiver_id),
                type=EventType.DELIVERY_DEAD,
                tenant=event.tenant,
                subject=event.subject,
                time=self._ports.clock.now(),
                data={
                    "subscription": receiver_id,
                    "event_id": event.id,
                    "event_type": str(event.type),
                    "reason": reason,
                    "detail": detail,
                    "attempts": prepared.delivery.attempts + 1,
                },
            ),
        )
        log.error("dead letter %s: %s", log_ref(event.tenant, event.id, receiver_id), reason)
