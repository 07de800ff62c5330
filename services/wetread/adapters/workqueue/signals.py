"""How a worker hears that something was committed: cheaply enough to ask a hundred times a second, or by being told.

SQLite: ``PRAGMA data_version`` reads one counter of the shared memory and takes no lock. PostgreSQL: ``LISTEN`` on a
channel per queue; the work queue notifies in the transaction that enqueues, so only those who take that work wake up.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import make_url

from wetread.core.errors import Unavailable
from wetread.core.ports.work import QueueSignal

_CHANNEL: Final = "wetread_queue."
_TICK_SECONDS: Final = 0.01
NOW: Final = ""
LATER: Final = "later"
"""What a notification says: work to take now, or at a time of its own."""


def channel_of(queue: str) -> str:
    """Return the name of the channel of a queue."""
    return f"{_CHANNEL}{queue}"


@contextmanager
def queue_signal(url: str, queues: Iterable[str]) -> Iterator[QueueSignal]:
    """Open the change signal of these queues of the database at a SQLAlchemy URL."""
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
        for queue in queues:
            listener.execute(f'LISTEN "{channel_of(queue)}"')
        yield Listener(listener)


class CommitCounter:
    """QueueSignal on SQLite's commit counter."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._seen = -1

    def wait(self, seconds: float) -> frozenset[str] | None:
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
                return frozenset()
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return None
            time.sleep(min(_TICK_SECONDS, remaining))


class Listener:
    """QueueSignal on PostgreSQL's notifications."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def wait(self, seconds: float) -> frozenset[str] | None:
        """Wait until work was enqueued, at most so long; empty: all that came has a time of its own."""
        told = list(self._connection.notifies(timeout=max(seconds, 0.001), stop_after=1))
        if not told:
            return None
        return frozenset(note.channel.removeprefix(_CHANNEL) for note in told if note.payload == NOW)
