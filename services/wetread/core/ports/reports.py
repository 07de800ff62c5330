"""What reports read: studies with their events, and what is stored."""

from __future__ import annotations

from typing import Protocol

from wetread.core.events import Event
from wetread.core.ports.database import Transaction
from wetread.core.reports import Story


class ReportSource(Protocol):
    """Times are Unix seconds; *since* counts, *until* does not."""

    def stories(self, tx: Transaction, tenant: str, *, since: float, until: float, limit: int) -> list[Story]:
        """Return the studies that were received in the time, at most *limit*, with all their events."""

    def task_events(self, tx: Transaction, tenant: str, *, since: float, until: float) -> list[Event]:
        """Return the events of task runs that ended in the time, and those by which they began, in their order."""

    def received(self, tx: Transaction, tenant: str, *, since: float, until: float) -> int:
        """Return how many studies were received in the time."""

    def byte_seconds(self, tx: Transaction, tenant: str, *, since: float, until: float) -> float:
        """Return bytes times seconds in the time of what is stored now."""
