"""How a worker hears that something was committed: cheaply enough to ask a hundred times a second, or by being told.

SQLite: ``PRAGMA data_version`` reads one counter of the shared memory and takes no lock. PostgreSQL: ``LISTEN``; the
work queue notifies in the transaction that enqueues.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import make_url

from wetread.core.errors import Unavailable
from wetread.core.ports.work import QueueSignal

CHANNEL: Final = "wetread_queue"
_TICK_SECONDS: Final = 0.01


@contextmanager
def queue_signal(url: str) -> Iterator[QueueSignal]:
    """Open the change signal of the database at a SQLAlchemy URL."""
    place = make_url(url)
    if place.get_backend_name() == "sqlite":
        file = f"file:{quote(place.database or '')}?mode=ro"
        connection = sqlite3.connect(file, uri=True, check_same_thread=False)
        try:
            yield CommitCounter(connection)
        finally:
            connection.close()
        return
    import psycopg

    plain = place.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        yield Listener(listener)


class CommitCounter:
    """QueueSignal on SQLite's commit counter."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = -1

    def wait(self, seconds: float) -> bool:
        """Wait until anything was committed by another connection, at most so long. Raises Unavailable."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                msg = "the database does not answer"
                raise Unavailable(msg) from error
            if version != self._seen:
                self._seen = version
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(_TICK_SECONDS, remaining))


class Listener:
    """QueueSignal on PostgreSQL's notifications."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def wait(self, seconds: float) -> bool:
        """Wait until work was enqueued, at most so long."""
        told = list(self._connection.notifies(timeout=max(seconds, 0.001), stop_after=1))
        return bool(told)
