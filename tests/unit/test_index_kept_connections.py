"""Transactions on kept SQLite connections: all or nothing, one writer at a time, typed errors."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from wetread.adapters.index import engines
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.statement import run_text
from wetread.core.errors import Unavailable


@pytest.fixture
def database(tmp_path: Path):
    opened = SqlDatabase(tmp_path / "x.db")
    with opened.write() as tx:
        tx.connection.execute(text("CREATE TABLE n (value INTEGER PRIMARY KEY)"))
    yield opened
    opened.close()


def values(database: SqlDatabase) -> list[int]:
    with database.read() as tx:
        return list(tx.connection.execute(text("SELECT value FROM n ORDER BY 1")).scalars())


def test_both_ways_of_running_statements_commit_and_roll_back_together(database: SqlDatabase) -> None:
    with database.write() as tx:
        run_text(tx.connection, "INSERT INTO n VALUES (1)")
        tx.connection.execute(text("INSERT INTO n VALUES (2)"))
        with suppress(ZeroDivisionError), tx.connection.begin_nested():
            tx.connection.execute(text("INSERT INTO n VALUES (3)"))
            1 / 0  # noqa: B018
    with suppress(ZeroDivisionError), database.write() as tx:
        tx.connection.execute(text("INSERT INTO n VALUES (4)"))
        run_text(tx.connection, "INSERT INTO n VALUES (5)")
        1 / 0  # noqa: B018
    assert values(database) == [1, 2]
    with database.write() as tx:  # the connection that was rolled back
        run_text(tx.connection, "INSERT INTO n VALUES (6)")
    assert values(database) == [1, 2, 6]


def test_a_reader_keeps_its_snapshot_while_a_writer_commits(database: SqlDatabase) -> None:
    with database.read() as tx:
        count = text("SELECT count(*) FROM n")
        assert tx.connection.execute(count).scalar() == 0
        with database.write() as other:
            run_text(other.connection, "INSERT INTO n VALUES (1)")
        assert tx.connection.execute(count).scalar() == 0
    assert values(database) == [1]


def test_writers_take_turns_and_none_decides_on_an_old_row(database: SqlDatabase) -> None:
    other = SqlDatabase(Path(database.url.removeprefix("sqlite:///")))

    def add(through: SqlDatabase) -> None:
        for _ in range(10):
            with through.write() as tx:
                newest = tx.connection.execute(text("SELECT coalesce(max(value), 0) FROM n")).scalar()
                tx.connection.execute(text("INSERT INTO n VALUES (:value)"), {"value": newest + 1})

    threads = [threading.Thread(target=add, args=(through,)) for through in (database, other, database)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert values(database) == list(range(1, 31))


def test_a_writer_that_waits_too_long_is_told_so(database: SqlDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_LOCK_MILLISECONDS", 20)
    with database.write(), pytest.raises(Unavailable), database.write():
        pytest.fail("two writers at once")
    with database.write() as tx:
        run_text(tx.connection, "INSERT INTO n VALUES (1)")
    assert values(database) == [1]
