"""The UPS-RS side of the workitem table: everything the worklist service needs beside `WorkitemRepository`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from wetread.core.ports.database import Transaction
from wetread.core.ports.workitems import WorkitemRepository
from wetread.core.ups import UpsState
from wetread.core.ups_events import UpsEvent
from wetread.core.ups_matching import Key


class Performer(StrEnum):
    """Who holds the lock of a workitem."""

    NOBODY = ""
    OURS = "ours"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class UpsRow:
    """A workitem as stored. ``dataset`` is DICOM JSON and never holds the Transaction UID."""

    tenant: str
    uid: str
    state: UpsState
    dataset: Mapping[str, Any]
    transaction_hash: str | None
    performer: Performer
    ours: bool
    """Scheduled by our own orchestration, not by a client."""
    claimed_at: float | None
    updated_at: float


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Datasets of one page and how many more there are; ``counted`` is False where counting stopped early."""

    datasets: Sequence[Mapping[str, Any]]
    remaining: int
    counted: bool


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """One event for one subscriber; ``cursor`` rises in commit order."""

    cursor: int
    tenant: str
    aet: str
    workitem_uid: str
    type: int
    attributes: Mapping[str, Any]


class UpsRepository(WorkitemRepository, Protocol):
    """Workitems, their subscriptions and their event log. Every change writes its events in its own transaction."""

    def insert(self, tx: Transaction, tenant: str, uid: str, dataset: Mapping[str, Any], *, ours: bool) -> bool:
        """Create a SCHEDULED workitem; False: the UID is (or was) taken."""

    def load(self, tx: Transaction, tenant: str, uid: str) -> UpsRow:
        """Return a workitem. Raises NotFound (C307), Gone when it was removed after completion."""

    def claim(self, tx: Transaction, row: UpsRow, transaction_hash: str, performer: Performer) -> UpsRow | None:
        """SCHEDULED -> IN PROGRESS as one compare-and-set; None: somebody else was first."""

    def save(self, tx: Transaction, row: UpsRow, dataset: Mapping[str, Any]) -> None:
        """Write a changed dataset with its state. Raises Unavailable when the row changed since *row* was read."""

    def tell(self, tx: Transaction, tenant: str, uid: str, event: UpsEvent) -> int:
        """Queue an event for everybody who is subscribed to the workitem; return to how many."""

    def search(
        self, tx: Transaction, tenant: str, keys: Sequence[Key], *, limit: int, offset: int, count_to: int
    ) -> SearchPage:
        """Return matching workitems: priority, start time, age. Counts at most *count_to* beyond the page."""

    def subscribe(self, tx: Transaction, tenant: str, uid: str, aet: str, *, lock: bool, keys: Sequence[Key]) -> None:
        """Subscribe to a workitem, to all (well-known UID) or to those that match *keys* (PS3.4 table CC.2.3-2)."""

    def unsubscribe(self, tx: Transaction, tenant: str, uid: str, aet: str) -> None:
        """End a subscription; the global one ends all of the AE's. Nothing to end is no error."""

    def suspend(self, tx: Transaction, tenant: str, uid: str, aet: str) -> None:
        """Stop subscribing to new workitems; the existing subscriptions stay."""

    def subscribers(self, tx: Transaction, tenant: str, uid: str) -> dict[str, bool]:
        """Return AE title -> deletion lock of a workitem."""

    def announce(self, tx: Transaction, event: UpsEvent) -> int:
        """Queue an event of the provider itself for every subscribed AE of every tenant; return to how many."""

    def events_after(
        self, tx: Transaction, tenant: str, aet: str, cursor: int, *, limit: int, not_before: float
    ) -> list[QueuedEvent]:
        """Return an AE's events after *cursor*, in order, less those older than *not_before*."""

    def new_for(self, tx: Transaction, cursor: int) -> tuple[int, set[tuple[str, str]]]:
        """Return the newest cursor and the (tenant, AE) pairs that have events after *cursor*."""

    def delivered_up_to(self, tx: Transaction, tenant: str, aet: str) -> int:
        """Return the cursor up to which an AE has received its events."""

    def mark_delivered(self, tx: Transaction, tenant: str, aet: str, cursor: int) -> None:
        """Remember that an AE received everything up to *cursor*; never moves backwards."""

    def flag_silent(self, tx: Transaction, before: float) -> list[tuple[str, str]]:
        """Flag IN PROGRESS items of external performers not updated since *before*; return the newly flagged."""

    def prune(self, tx: Transaction, *, finished_before: float, locked_after: float, events_before: float) -> int:
        """Remove old finished workitems without a living deletion lock (they become Gone) and old events."""
