"""Who is told: subscriptions, and the state of each delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from wetread.core.events import Event, EventType
from wetread.core.ports.database import Transaction


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook receiver. ``types`` empty: every type. ``secrets``: newest first, two while a key rotates."""

    tenant: str
    id: str
    url: str
    types: tuple[EventType, ...]
    secrets: tuple[str, ...]
    include_patient: bool
    active: bool
    created_at: float


class DeliveryState(StrEnum):
    """State of one event on its way to one subscription."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one subscription. ``next_attempt_at`` None: waits for an earlier one of its study."""

    tenant: str
    subscription_id: str
    event_id: str
    state: DeliveryState
    attempts: int
    last_error: str
    sent_at: float | None
    next_attempt_at: float | None
    updated_at: float


class Subscriptions(Protocol):
    """Rows of (tenant, subscription)."""

    def put(self, tx: Transaction, subscription: Subscription) -> None:
        """Insert or replace."""

    def get(self, tx: Transaction, tenant: str, subscription_id: str) -> Subscription:
        """Return a subscription. Raises NotFound."""

    def of_tenant(self, tx: Transaction, tenant: str) -> list[Subscription]:
        """Return all of a tenant, oldest first."""

    def delete(self, tx: Transaction, tenant: str, subscription_id: str, *, now: float) -> None:
        """Delete; what was pending for it is dead. Raises NotFound."""


class Deliveries(Protocol):
    """Rows of (tenant, subscription, event), each with its place in the durable queue.

    The order per study is kept: an event is queued for a subscription only when no earlier one of the same study is
    pending there. Finishing one queues the next, in the same transaction.
    """

    def open(self, tx: Transaction, tenant: str, events: Sequence[Event]) -> None:
        """Fan appended events out to the subscriptions that want them. Shadow results are never notified."""

    def again(self, tx: Transaction, event: Event, *, now: float) -> int:
        """Deliver an event anew to the active subscriptions that want it; returns how many. Receivers know its id."""

    def get(self, tx: Transaction, tenant: str, event_id: str, subscription_id: str) -> Delivery | None:
        """Return a delivery, or None."""

    def retry(self, tx: Transaction, delivery: Delivery, *, at: float, now: float, error: str) -> None:
        """Count a failed attempt and queue the next one for *at*."""

    def finish(self, tx: Transaction, delivery: Delivery, state: DeliveryState, *, now: float, error: str = "") -> None:
        """End in sent or dead, and queue the next one of the same study."""

    def abandon(self, tx: Transaction, tenant: str, subscription_id: str, *, now: float, error: str) -> int:
        """Declare everything pending for a subscription dead; return how many."""

    def overdue(self, tx: Transaction, *, before: float, limit: int) -> list[Delivery]:
        """Return pending deliveries whose attempt should have been made before *before*: their workflow is lost."""

    def requeue(self, tx: Transaction, delivery: Delivery, *, now: float) -> None:
        """Queue a lost delivery again, without counting an attempt."""

    def of_subscription(
        self, tx: Transaction, tenant: str, subscription_id: str, *, state: DeliveryState | None, limit: int
    ) -> Sequence[Delivery]:
        """Return the latest deliveries of a subscription, newest first."""
