"""Statements of the ingest path: written in SQLAlchemy Core, compiled once per dialect, run on the driver's cursor.

``Connection.execute`` costs 100 to 150 microseconds of Python per statement, ten times what SQLite needs for it, and a
stored instance takes ten statements. Values go to the driver as they are: the columns of these statements are text,
numbers and bytes, which need no conversion on SQLite or PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.base import Executable
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.schema import ScalarElementColumnDefault

Row = Sequence[Any]
Values = Mapping[str, Any]
Parameters = Callable[[Values], Any]


class DriverStatement:
    """One statement. ``columns``: the columns that an insert is given values for."""

    def __init__(self, statement: Executable, columns: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, tuple[str, Parameters]] = {}

    def all(self, connection: Connection, values: Values) -> list[Row]:
        """Run it and return its rows."""
        rows: list[Row] = self._run(connection, values).fetchall()
        return rows

    def first(self, connection: Connection, values: Values) -> Row | None:
        """Run it and return its first row."""
        rows = self.all(connection, values)
        return rows[0] if rows else None

    def count(self, connection: Connection, values: Values) -> int:
        """Run it and return how many rows it changed."""
        return int(self._run(connection, values).rowcount)

    def many(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run it once per row."""
        if len(rows) == 1:
            self._run(connection, rows[0])
            return
        text, parameters = self._text(connection.dialect)
        cursor = connection.connection.cursor()
        try:
            cursor.executemany(text, list(map(parameters, rows)))
        except connection.dialect.loaded_dbapi.Error as error:
            raise _translated(text, error, connection.dialect) from error
        finally:
            cursor.close()

    def _run(self, connection: Connection, values: Values) -> Any:
        """Return the driver's cursor; it is closed when nobody holds it any more."""
        text, parameters = self._text(connection.dialect)
        driver: Any = connection.connection.dbapi_connection
        try:
            return driver.execute(text, parameters(values))
        except connection.dialect.loaded_dbapi.Error as error:
            raise _translated(text, error, connection.dialect) from error

    def _text(self, dialect: Dialect) -> tuple[str, Parameters]:
        """Return SQL, and what makes its parameters of values."""
        known = self._compiled.get(dialect.driver)
        if known is None:
            compiled = self._statement.compile(dialect=dialect, column_keys=self._columns)  # type: ignore[attr-defined]
            assert isinstance(compiled, SQLCompiler)
            order = tuple(compiled.positiontup) if compiled.positional and compiled.positiontup else None
            fixed = {name: value for name, value in compiled.params.items() if value is not None}
            for column in compiled.insert_prefetch:
                if isinstance(column.default, ScalarElementColumnDefault):
                    fixed[column.key] = column.default.arg
            known = self._compiled[dialect.driver] = str(compiled), _parameters(order, fixed)
        return known


def run_text(connection: Connection, text: str) -> None:
    """Run SQL without parameters and results."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(text)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _translated(text, error, connection.dialect) from error
    finally:
        cursor.close()


def _parameters(order: tuple[str, ...] | None, fixed: Values) -> Parameters:
    """Return what puts values, and those that the statement itself has, in *order* (None: by name)."""
    if order is None:
        return lambda values: {**fixed, **values}
    if not fixed and len(order) > 1:
        return itemgetter(*order)
    return lambda values: [values[name] if name in values else fixed[name] for name in order]


def _translated(text: str, error: BaseException, dialect: Dialect) -> BaseException:
    """Return SQLAlchemy's form of a driver's error, without the values (they are patient data)."""
    return DBAPIError.instance(text, None, error, dialect.loaded_dbapi.Error, hide_parameters=True, dialect=dialect)
