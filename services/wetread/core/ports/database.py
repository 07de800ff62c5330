"""Transactions and time. The row is the truth: whatever changes together is written in one ``Transaction``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol


class Transaction(Protocol):
    """An open database transaction. Services pass it on and never look inside; adapters use ``connection``."""

    @property
    def connection(self) -> Any:
        """The adapter's own connection object."""


class Database(Protocol):
    """The one database of a deployment (index, events, work and durable queues together)."""

    def write(self) -> AbstractContextManager[Transaction]:
        """Open a write transaction: commits on exit, rolls back on an exception. Durable when it returns."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Open a read-only snapshot."""


class Clock(Protocol):
    """Time as a port, so that tests never sleep."""

    def now(self) -> float:
        """Return Unix seconds, UTC."""
