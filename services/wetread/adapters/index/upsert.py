"""Insert-or-replace and insert-or-ignore in the dialect of the connection: SQLite and PostgreSQL share the syntax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def replace_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row, or replace all its columns when the primary key is there."""
    statement = _insert(connection, table).values(**values)
    keys = [column.name for column in table.primary_key]
    changes = {name: statement.excluded[name] for name in values if name not in keys}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))


def add_to_row(connection: Connection, table: Table, key: Mapping[str, Any], amounts: Mapping[str, float]) -> None:
    """Add *amounts* to the columns of the row with this primary key; without one, insert it."""
    statement = _insert(connection, table).values(**key, **amounts)
    sums = {name: table.c[name] + statement.excluded[name] for name in amounts}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=sums))


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row; False when the primary key is there already."""
    keys = [column.name for column in table.primary_key]
    statement = _insert(connection, table).values(**values).on_conflict_do_nothing(index_elements=keys)
    return connection.execute(statement).rowcount > 0


def _insert(connection: Connection, table: Table) -> sqlite.Insert | Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)
