"""The database of the embedded profile: one SQLite file in WAL mode for index, events, work and DBOS tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from wetread.adapters.index.statement import run_text
from wetread.adapters.index.tables import metadata
from wetread.core.errors import StorageFull, Unavailable


@dataclass(frozen=True, slots=True)
class SqlTransaction:
    """A SQLAlchemy connection inside a transaction."""

    connection: Connection


def connection_of(tx: Any) -> Connection:
    """Return the SQLAlchemy connection of a transaction of this adapter."""
    connection = tx.connection
    assert isinstance(connection, Connection)
    return connection


class SqlDatabase:
    """SQLite through SQLAlchemy Core. ``full_sync``: commits survive power loss without a segment to replay.

    The ingest path may use ``full_sync=False`` because its rows can be rebuilt from synced segments.
    """

    def __init__(self, path: Path, *, full_sync: bool = True) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._full_sync = full_sync
        self._engine: Engine | None = None
        self._reading: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine; opens the file on first use."""
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def _open(self) -> Engine:
        engine = create_engine(
            self.url, pool_size=8, max_overflow=24, connect_args={"check_same_thread": False}, hide_parameters=True
        )
        synchronous = "FULL" if self._full_sync else "NORMAL"

        @event.listens_for(engine, "connect")
        def _configure(connection: sqlite3.Connection, _record: object) -> None:
            # SQLAlchemy emits BEGIN itself (below), so that a writer takes its lock at once.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={synchronous}")
            cursor.execute("PRAGMA busy_timeout=30000")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            mode = connection.get_execution_options().get("wetread_begin", "IMMEDIATE")
            run_text(connection, f"BEGIN {mode}")

        return engine

    def create_schema(self) -> None:
        """Create missing tables (idempotent)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        metadata.create_all(self.engine)

    @contextmanager
    def write(self) -> Iterator[SqlTransaction]:
        """Open a write transaction (``BEGIN IMMEDIATE``): no upgrade dead-locks, no lost updates."""
        with _translated(), self.engine.connect() as connection, connection.begin():
            yield SqlTransaction(connection)

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        """Open a read-only snapshot."""
        if self._reading is None:
            self._reading = self.engine.execution_options(wetread_begin="DEFERRED")
        with _translated(), self._reading.connect() as connection, connection.begin():
            yield SqlTransaction(connection)

    def close(self) -> None:
        """Close all connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = self._reading = None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        text = str(error.orig)
        if "full" in text:
            msg = "the database's disk is full"
            raise StorageFull(msg) from error
        if "locked" in text or "I/O" in text or "unable to open" in text:
            msg = "the database does not answer"
            raise Unavailable(msg) from error
        raise
