"""Events out of the system and the reading order of the worklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wetread.core.events import Event
from wetread.core.ports.database import Transaction
from wetread.core.priority import Priority


class EventLog(Protocol):
    """Append-only event stream per tenant with a cursor; at-least-once to readers, de-duplicated by id."""

    def append(self, tx: Transaction, event: Event) -> bool:
        """Append in the given transaction, fan out to subscriptions. False: the id was known."""

    def append_all(self, tx: Transaction, tenant: str, several: Sequence[Event]) -> None:
        """``append`` of several events of one tenant, in their order, with far fewer statements."""

    def after(
        self, tx: Transaction, tenant: str, cursor: int, *, limit: int = 100, types: Sequence[str] | None = None
    ) -> list[Event]:
        """Return events after *cursor* in commit order."""

    def get(self, tx: Transaction, tenant: str, event_id: str) -> Event | None:
        """Return an event by id, or None."""

    def of_study(
        self, tx: Transaction, tenant: str, study_uid: str, *, limit: int = 200, types: Sequence[str] | None = None
    ) -> list[Event]:
        """Return the latest events of a study (of *types*, None: all), oldest first."""

    def told(self, tx: Transaction, types: Sequence[str], *, since: float) -> list[Event]:
        """Return the events of *types* of all tenants from *since* (Unix seconds) on, in commit order."""

    def latest(self, tx: Transaction) -> int:
        """Return the cursor of the newest event of all tenants; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a study stands where it stands."""

    source: str
    """order, rule, ai or manual."""
    text: str
    priority: Priority
    at: float
    detector: str | None = None
    finding_id: str | None = None


class ReadingOrder(Protocol):
    """Priority class, due time and reasons of each study. AI and rules may only raise."""

    def register(self, tx: Transaction, tenant: str, study_uid: str, *, arrival: float, reason: Reason) -> None:
        """Put a study on the worklist with its first class, or raise it when already there."""

    def raise_to(
        self, tx: Transaction, tenant: str, study_uid: str, reason: Reason, stamps: Mapping[str, float] = ...
    ) -> bool:
        """Raise the class; True when it changed. The reason is kept either way. Never lowers.

        *stamps*: of the event that says so.
        """

    def priority(self, tx: Transaction, tenant: str, study_uid: str) -> tuple[Priority, float] | None:
        """Return (class, due time), or None for a study that is not listed."""


class WebhookSender(Protocol):
    """One signed HTTP POST. Raises Unavailable for what may be retried, Gone for 410, ComputationFailed otherwise."""

    def check(self, url: str) -> None:
        """Raise Unprocessable (``code`` url or address_not_allowed) for a URL that no delivery would ever reach."""

    def send(self, url: str, secrets: Sequence[str], event_id: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Deliver and return the HTTP status (2xx)."""


JsonObject = Mapping[str, Any]
