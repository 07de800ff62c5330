"""Insert-or-replace and insert-or-ignore in the dialect of the connection: SQLite and PostgreSQL share the syntax.

Statements are made once per table and set of columns: making one costs more than running it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def replace_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace all its columns when the primary key is there."""
    replace_rows(connection, table, [values])


def replace_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """``replace_row`` of several rows, at least one, that name the same columns."""
    statement = _replacing(connection.dialect.name, table, tuple(rows[0]))
    connection.execute(statement, [dict(values) for values in rows])


def add_to_row(connection: Connection, table: Table, key: Mapping[str, Any], amounts: Mapping[str, float]) -> None:
    """Add *amounts* to the columns of the row with this primary key; without one, insert it."""
    statement = _adding(connection.dialect.name, table, tuple(key), tuple(amounts))
    connection.execute(statement, {**key, **amounts})


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row; False when the primary key is there already."""
    return connection.execute(_ignoring(connection.dialect.name, table), dict(values)).rowcount > 0


@cache
def _replacing(dialect: str, table: Table, names: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    keys = [column.name for column in table.primary_key]
    changes = {name: statement.excluded[name] for name in names if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changes)


@cache
def _adding(dialect: str, table: Table, key: tuple[str, ...], amounts: tuple[str, ...]) -> Any:
    statement = _insert(dialect, table)
    sums = {name: table.c[name] + statement.excluded[name] for name in amounts}
    return statement.on_conflict_do_update(index_elements=list(key), set_=sums)


@cache
def _ignoring(dialect: str, table: Table) -> Any:
    unique = [column.name for column in table.primary_key]
    return ignoring(dialect, table, unique).execution_options(preserve_rowcount=True)


def ignoring(dialect: str, table: Table, unique: Sequence[str]) -> Any:
    """Return an insert that does nothing when a row with the same *unique* columns is there."""
    return _insert(dialect, table).on_conflict_do_nothing(index_elements=list(unique))


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
