"""Engines by URL scheme: how each database is opened, how a writer becomes the only one, what its errors mean.

Writers of one deployment take turns on both databases (ADR 1201), so that a row that was read inside a write
transaction is still the newest one when it is written, and numbers are given out in the order of their commits.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError

from wetread.adapters.index.statement import run_text
from wetread.core.errors import ConfigurationError, StorageFull, Unavailable, WetreadError

SCHEMA: Final = "wetread"
"""Schema of our tables on PostgreSQL; DBOS keeps its own, ``dbos``, in the same database."""

_WRITERS: Final = 0x77657472  # "wetr"
_MIGRATION: Final = 0x6D696772  # "migr"
_LOCK_MILLISECONDS: Final = 30_000
_FIRST_PAUSE_SECONDS: Final = 0.000_1
_LONGEST_PAUSE_SECONDS: Final = 0.005
"""Between two looks at SQLite's write lock."""
_MOST_READERS: Final = 16
_MOST_WRITERS: Final = 8
"""Kept connections of one process; the pool below has room for more. Whoever comes beyond that waits for one."""
_FROZEN_MILLISECONDS: Final = 15_000
"""A writer that stopped in the middle of a transaction (frozen machine, lost network) is cut off after so long."""


class Driver(Protocol):
    """What ``SqlDatabase`` needs to know of one kind of database."""

    @property
    def url(self) -> str:
        """URL for DBOS, which keeps its tables in the same database."""

    @property
    def keeps(self) -> bool:
        """Whether transactions run on ``KeptConnections``."""

    def open(self) -> Engine:
        """Make the engine; connects on first use."""

    def reader(self, engine: Engine) -> Engine:
        """Return the engine of read-only snapshots."""

    def lock_writers(self, connection: Connection) -> None:
        """Wait until no other write transaction is open; held to the end of this one."""

    def make_durable(self, connection: Connection) -> None:
        """Return when the transaction that this connection has just committed survives a loss of power."""

    def lock_migration(self, connection: Connection) -> None:
        """Wait until no other process migrates; held to the end of the transaction."""

    def translated(self, error: DBAPIError) -> WetreadError | None:
        """Return the typed form of a driver error; None: it is a defect of ours and stays as it is."""


class SqliteDriver:
    """One file in WAL mode. ``full_sync``: each commit survives power loss."""

    def __init__(self, path: Path, *, full_sync: bool) -> None:
        self._path = path
        self._synchronous = "FULL" if full_sync else "NORMAL"

    @property
    def url(self) -> str:
        """URL of the file."""
        return f"sqlite:///{self._path}"

    @property
    def keeps(self) -> bool:
        """What SQLAlchemy does around a transaction costs several times what SQLite does for it."""
        return True

    def open(self) -> Engine:
        """Make the engine. Writers take their lock at once (BEGIN IMMEDIATE): no upgrade dead-locks."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            self.url, pool_size=8, max_overflow=24, connect_args={"check_same_thread": False}, hide_parameters=True
        )

        @event.listens_for(engine, "connect")
        def _configure(connection: sqlite3.Connection, _record: object) -> None:
            # SQLAlchemy emits BEGIN itself (below), so that a writer takes its lock at once.
            connection.isolation_level = None
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={self._synchronous}")
            cursor.execute(f"PRAGMA busy_timeout={_LOCK_MILLISECONDS}")
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            mode = connection.get_execution_options().get("wetread_begin", "IMMEDIATE")
            if mode:
                run_text(connection, f"BEGIN {mode}")

        return engine

    def reader(self, engine: Engine) -> Engine:
        """Return an engine whose transactions take no write lock."""
        return engine.execution_options(wetread_begin="DEFERRED")

    def lock_writers(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has done it."""

    def make_durable(self, connection: Connection) -> None:
        """The commit was, as far as its pragma says."""

    def lock_migration(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE has done it."""

    def translated(self, error: DBAPIError) -> WetreadError | None:
        """Translate by message: SQLite's Python driver gives little else."""
        message = str(error.orig)
        if "full" in message:
            return StorageFull("the database's disk is full")
        if "locked" in message or "I/O" in message or "unable to open" in message:
            return Unavailable("the database does not answer")
        return None


class KeptConnections:
    """Connections to SQLite that are open for good, with transactions begun and ended by hand.

    Writers ask for the lock themselves: SQLite's own waiting sleeps for milliseconds between two looks, and a
    transaction of the ingest path takes less than one. Thread-safe.
    """

    def __init__(self, engine: Engine) -> None:
        # SQLAlchemy believes in a transaction of its own as soon as it executes anything; that one does nothing.
        self._engine = engine.execution_options(wetread_begin="")
        self._readers: list[Connection] = []
        self._writers: list[Connection] = []
        self._free = {False: BoundedSemaphore(_MOST_READERS), True: BoundedSemaphore(_MOST_WRITERS)}
        self._closed = False

    def begin(self, *, writing: bool) -> Connection:
        """Return a connection inside a transaction. Raises DBAPIError, and Unavailable when none became free."""
        if not self._free[writing].acquire(timeout=_LOCK_MILLISECONDS / 1000):
            msg = "the database does not answer"
            raise Unavailable(msg)
        try:
            return self._begin(writing=writing)
        except BaseException:
            self._free[writing].release()
            raise

    def _begin(self, *, writing: bool) -> Connection:
        idle = self._writers if writing else self._readers
        try:
            connection = idle.pop()
        except IndexError:
            connection = self._engine.connect()
            if writing:
                run_text(connection, "PRAGMA busy_timeout=0")
        try:
            if writing:
                _take_turn(connection)
            else:
                run_text(connection, "BEGIN DEFERRED")
        except BaseException:
            connection.close()
            raise
        return connection

    def end(self, connection: Connection, *, writing: bool, well: bool) -> None:
        """Commit, or roll back what did not go well, and keep the connection. Raises DBAPIError."""
        try:
            self._end(connection, writing=writing, well=well)
        finally:
            self._free[writing].release()

    def _end(self, connection: Connection, *, writing: bool, well: bool) -> None:
        try:
            if well:
                run_text(connection, "COMMIT")
            elif connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
                run_text(connection, "ROLLBACK")
            if connection.in_transaction():
                connection.rollback()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            (self._writers if writing else self._readers).append(connection)

    def close(self) -> None:
        """Close those that nobody uses; the others are closed when their transaction ends."""
        self._closed = True
        for idle in (self._writers, self._readers):
            while idle:
                idle.pop().close()


def _take_turn(connection: Connection) -> None:
    """Wait for SQLite's write lock, at most as long as any writer waits. Raises DBAPIError."""
    raw: Any = connection.connection.dbapi_connection
    deadline, pause = time.monotonic() + _LOCK_MILLISECONDS / 1000, _FIRST_PAUSE_SECONDS
    while time.monotonic() < deadline:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                break
        else:
            return
        time.sleep(pause)
        pause = min(pause * 1.25, _LONGEST_PAUSE_SECONDS)
    run_text(connection, "BEGIN IMMEDIATE")  # says what is wrong as SQLAlchemy does


class PostgresDriver:
    """PostgreSQL by psycopg 3. Every commit is durable, so ``full_sync`` changes nothing here."""

    def __init__(self, url: str) -> None:
        try:
            self._url = make_url(url).set(drivername="postgresql+psycopg")
        except (ArgumentError, ValueError) as error:
            msg = "the database URL is not of the form postgresql://user:password@host:port/name"
            raise ConfigurationError(msg) from error

    @property
    def url(self) -> str:
        """URL as DBOS takes it. Holds the password: never logged."""
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    @property
    def keeps(self) -> bool:
        """Connections of a pool are looked at before they are used: the server may have dropped them."""
        return False

    def open(self) -> Engine:
        """Make the engine; a connection that the server has dropped is replaced before it is used."""
        options = " ".join(
            (
                f"-c search_path={SCHEMA}",
                f"-c lock_timeout={_LOCK_MILLISECONDS}",
                f"-c idle_in_transaction_session_timeout={_FROZEN_MILLISECONDS}",
            )
        )
        given = self._url.query.get("options")
        return create_engine(
            self._url.difference_update_query(["options"]),
            pool_size=5,
            max_overflow=5,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "options": f"{options} {given}" if given else options,
                "application_name": "wetread",
                "connect_timeout": 10,
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    def reader(self, engine: Engine) -> Engine:
        """Return an engine whose transactions see one snapshot and cannot write."""
        return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    def lock_writers(self, connection: Connection) -> None:
        """Take the writers' advisory lock. READ COMMITTED: what is read after it is the newest state.

        The commit gives the lock up before the disk has it (ADR 1201): ``make_durable`` waits for that.
        """
        run_text(connection, _TAKE_TURN)

    def make_durable(self, connection: Connection) -> None:
        """Wait for the log. A commit that depends on this one comes later in the log, so it cannot be there alone."""
        driver: Any = connection.connection.dbapi_connection
        driver.autocommit = True  # a plain SELECT, not three messages
        try:
            run_text(connection, _FLUSH)
        finally:
            driver.autocommit = False

    def lock_migration(self, connection: Connection) -> None:
        """Take the migrations' advisory lock."""
        connection.execute(_LOCK, {"key": _MIGRATION})

    def translated(self, error: DBAPIError) -> WetreadError | None:
        """Translate by SQLSTATE class; an error without one is a connection that broke or was refused."""
        state = getattr(error.orig, "sqlstate", None)
        if state == "53100":
            return StorageFull("the database's disk is full")
        if state is None and not error.connection_invalidated and not _is_connection_error(error):
            return None
        if state is None or state[:2] in {"08", "53", "57", "58"} or state in _TRY_AGAIN:
            return Unavailable("the database does not answer")
        return None


_LOCK: Final = text("SELECT pg_advisory_xact_lock(:key)")
_TAKE_TURN: Final = f"SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock({_WRITERS})"
_FLUSH: Final = (
    "SELECT pg_logical_emit_message(true, 'wetread', '') WHERE pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()"
)
"""A synchronous commit of nothing: it waits for the log up to itself, together with those of other processes.

Nothing is written when all of the log is on disk already, such as after a transaction that only looked.
"""
_TRY_AGAIN: Final = frozenset({"55P03", "40P01", "40001", "25P03"})
"""Lock not granted in time, dead-lock, serialization failure, cut off while idle in a transaction."""


def _is_connection_error(error: DBAPIError) -> bool:
    return type(error.orig).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}


def driver_for(address: Path | str, *, full_sync: bool) -> Driver:
    """Return the driver of a path (SQLite) or URL (``sqlite:``, ``postgresql:``). Raises ConfigurationError."""
    if isinstance(address, Path):
        return SqliteDriver(address, full_sync=full_sync)
    scheme, found, rest = address.partition("://")
    if found and scheme == "sqlite":
        return SqliteDriver(Path(rest.removeprefix("/")), full_sync=full_sync)
    if found and scheme in {"postgresql", "postgres", "postgresql+psycopg"}:
        return PostgresDriver(f"postgresql://{rest}")
    msg = f"there is no database adapter for {scheme if found else 'this'} URLs: sqlite:// and postgresql:// are known"
    raise ConfigurationError(msg)
