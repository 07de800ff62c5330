"""Which database a test's parts are built on: SQLite files, or databases of a real PostgreSQL (``each_database``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wetread.adapters.index.database import SqlDatabase
from wetread.testing.servers.postgres import Postgres

_server: Postgres | None = None
_opened: list[SqlDatabase] = []


def database_at(path: Path) -> SqlDatabase:
    """Return the database of a file, or of this test's own PostgreSQL database in its place; closed with the test."""
    database = SqlDatabase(_address(path), full_sync=False)
    _opened.append(database)
    return database


def _address(path: Path) -> Path | str:
    """The URL lies beside where the file would be, so that the processes of a test find the same database."""
    note = path.with_suffix(".url")
    if note.exists():
        return note.read_text("utf-8")
    if _server is None:
        return path
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(_server.prepared(), "utf-8")
    return note.read_text("utf-8")


@contextmanager
def on_postgres(server: Postgres) -> Iterator[None]:
    """Build on *server* while the block runs."""
    global _server  # noqa: PLW0603 - the builders of many tests look here
    _server = server
    try:
        yield
    finally:
        _server = None
        close_databases()


def close_databases() -> None:
    """Close what tests have opened."""
    while _opened:
        _opened.pop().close()
