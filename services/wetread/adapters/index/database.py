"""The database of a deployment by URL: SQLite file or PostgreSQL, for index, events, work and DBOS tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from wetread.adapters.index import migrations
from wetread.adapters.index.engines import Driver, KeptConnections, driver_for


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
    """SQLite or PostgreSQL through SQLAlchemy Core.

    ``address``: a path (SQLite) or a URL. ``full_sync``: commits on SQLite survive power loss without a segment to
    replay; the ingest path may use False because its rows can be rebuilt from synced segments. Raises
    ConfigurationError for a scheme without adapter.
    """

    def __init__(self, address: Path | str, *, full_sync: bool = True) -> None:
        self._driver = driver_for(address, full_sync=full_sync)
        self._engine: Engine | None = None
        self._reading: Engine | None = None
        self._connections: KeptConnections | None = None
        self._opening = Lock()

    @property
    def url(self) -> str:
        """URL of the same database for DBOS; may hold a password."""
        return self._driver.url

    @property
    def engine(self) -> Engine:
        """The engine; connects on first use."""
        with self._opening:  # two threads at once would open two pools, and lose one
            if self._engine is None:
                self._engine = self._driver.open()
            return self._engine

    @property
    def schema_version(self) -> int:
        """Version of the tables that this release wants."""
        return migrations.newest()

    def create_schema(self) -> None:
        """Create or migrate our tables; idempotent, one process at a time. Raises Unavailable."""
        with self._translated():
            migrations.migrate(self.engine, self._driver.lock_migration)

    def verify_schema(self) -> None:
        """Raise ConfigurationError when the tables are missing or older than this release."""
        with self._translated():
            migrations.verify(self.engine)

    def write(self) -> AbstractContextManager[SqlTransaction]:
        """Open a write transaction; writers take turns: no upgrade dead-locks, no lost updates.

        Durable when the block has ended, not before: on PostgreSQL the next writer need not wait for the disk.
        """
        kept = self._kept()
        return self._write() if kept is None else _KeptTransaction(self._driver, kept, writing=True)

    def read(self) -> AbstractContextManager[SqlTransaction]:
        """Open a read-only snapshot."""
        kept = self._kept()
        return self._read() if kept is None else _KeptTransaction(self._driver, kept, writing=False)

    def _kept(self) -> KeptConnections | None:
        if self._connections is None and self._driver.keeps:
            engine = self.engine
            with self._opening:
                self._connections = self._connections or KeptConnections(engine)
        return self._connections

    @contextmanager
    def _write(self) -> Iterator[SqlTransaction]:
        with self._translated(), self.engine.connect() as connection:
            with connection.begin():
                self._driver.lock_writers(connection)
                yield SqlTransaction(connection)
            self._driver.make_durable(connection)

    @contextmanager
    def _read(self) -> Iterator[SqlTransaction]:
        if self._reading is None:
            self._reading = self._driver.reader(self.engine)
        with self._translated(), self._reading.connect() as connection, connection.begin():
            yield SqlTransaction(connection)

    def close(self) -> None:
        """Close all connections."""
        kept, self._connections = self._connections, None
        if kept is not None:
            kept.close()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = self._reading = None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            typed = self._driver.translated(error)
            if typed is None:
                raise
            raise typed from error


class _KeptTransaction:
    """A transaction on a kept connection: what ``write`` and ``read`` return where there are such connections."""

    __slots__ = ("_connection", "_driver", "_kept", "_writing")

    def __init__(self, driver: Driver, kept: KeptConnections, *, writing: bool) -> None:
        self._driver = driver
        self._kept = kept
        self._writing = writing

    def __enter__(self) -> SqlTransaction:
        try:
            self._connection = self._kept.begin(writing=self._writing)
        except DBAPIError as error:
            raise self._typed(error) from error
        return SqlTransaction(self._connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._kept.end(self._connection, writing=self._writing, well=error is None)
        except DBAPIError as late:
            raise self._typed(late) from late
        if isinstance(error, DBAPIError) and (typed := self._driver.translated(error)) is not None:
            raise typed from error

    def _typed(self, error: DBAPIError) -> Exception:
        return self._driver.translated(error) or error
