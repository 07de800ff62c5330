"""Statements on the driver's cursor: the same rows, defaults and errors as through SQLAlchemy, no values in errors."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam, create_engine, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from wetread.adapters.index.statement import DriverStatement, run_text

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("name", String, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("kind", String, nullable=False, default="plain"),
)
INSERT = DriverStatement(insert(things), columns=("name", "count"))
GROW = DriverStatement(
    update(things)
    .where(things.c.name == bindparam("of"))
    .values(count=things.c.count + bindparam("more"))
    .returning(things.c.count)
)
RENAME = DriverStatement(update(things).where(things.c.kind == "plain").values(name=bindparam("to")))
ALL = DriverStatement(select(things.c.name, things.c.count, things.c.kind).order_by(things.c.name))


def test_rows_counts_and_defaults() -> None:
    with create_engine("sqlite://").connect() as connection:
        metadata.create_all(connection)
        INSERT.many(connection, [{"name": "b", "count": 1}, {"name": "a", "count": 2}])
        assert GROW.first(connection, {"of": "a", "more": 5}) == (7,)
        assert GROW.first(connection, {"of": "nobody", "more": 5}) is None
        assert ALL.all(connection, {}) == [("a", 7, "plain"), ("b", 1, "plain")]
        kinds = connection.execute(select(things.c.kind)).scalars().all()
        assert kinds == ["plain", "plain"]


def test_errors_are_sqlalchemys_and_hold_no_values() -> None:
    with create_engine("sqlite://").connect() as connection:
        metadata.create_all(connection)
        INSERT.many(connection, [{"name": "Doe^Jane", "count": 1}, {"name": "other", "count": 1}])
        with pytest.raises(IntegrityError) as many:
            INSERT.many(connection, [{"name": "Doe^Jane", "count": 1}])
        with pytest.raises(IntegrityError) as one:
            RENAME.count(connection, {"to": "Doe^Jane"})
        assert "Doe" not in str(many.value) + str(one.value)
        with pytest.raises(OperationalError):
            run_text(connection, "BEGIN NONSENSE")
