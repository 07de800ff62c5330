"""The version of our tables: a new database is made at the newest, an older one is led there step by step.

Steps only expand (a new nullable or defaulted column, a new table, a new index), so that the release before still
runs on the schema of the next one and a roll-back needs no step down (ADR 1202).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Connection, Engine, Float, Table, func, inspect, select, text
from sqlalchemy.schema import CreateIndex, CreateSchema

from wetread.adapters.index.columns import Integer
from wetread.adapters.index.engines import SCHEMA
from wetread.adapters.index.tables import metadata
from wetread.core.errors import ConfigurationError

schema_versions = Table(
    "schema_versions",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Step:
    """What leads from the version before to ``version``: statements by dialect name, or ``any`` for all."""

    version: int
    statements: Mapping[str, Sequence[str]]


FIRST: Final = 1
"""The version of databases from before versions were written down, and of the tables they hold."""

STEPS: Final[tuple[Step, ...]] = ()
"""In order of version. A new table or index needs no step: what is missing is created."""


def newest(steps: Sequence[Step] = STEPS) -> int:
    """Return the version that this release wants."""
    return steps[-1].version if steps else FIRST


def migrate(engine: Engine, lock: Callable[[Connection], None], steps: Sequence[Step] = STEPS) -> None:
    """Bring the tables to the newest version in one transaction; idempotent, also under concurrent callers."""
    with engine.begin() as connection:
        lock(connection)
        if connection.dialect.name == "postgresql":
            connection.execute(CreateSchema(SCHEMA, if_not_exists=True))
        there = _version(connection)
        for step in steps:
            if there is not None and step.version > there:
                _apply(connection, step)
        metadata.create_all(connection)
        if there is not None:
            _create_missing_indexes(connection)
        if there is None or there < newest(steps):
            connection.execute(schema_versions.insert().values(version=newest(steps), applied_at=time.time()))


def verify(engine: Engine, steps: Sequence[Step] = STEPS) -> None:
    """Raise ConfigurationError when the schema is older than this release or tables are missing.

    A newer schema is right: the release after this one has migrated already (expand, then contract).
    """
    with engine.connect() as connection:
        there = _version(connection)
        missing = sorted(metadata.tables.keys() - set(inspect(connection).get_table_names()))
    if there is None or there < newest(steps) or missing:
        found = f"the database schema is at version {there or 0}{', with tables missing' if missing else ''}"
        msg = f"{found}; this release needs {newest(steps)}: run wetread db migrate"
        raise ConfigurationError(msg)


def _version(connection: Connection) -> int | None:
    """Return the version that is there; None for an empty database."""
    names = set(inspect(connection).get_table_names())
    if schema_versions.name in names:
        found = connection.execute(select(func.max(schema_versions.c.version))).scalar()
        if found is not None:
            return int(found)
    return FIRST if "studies" in names else None


def _apply(connection: Connection, step: Step) -> None:
    for dialect, statements in step.statements.items():
        if dialect in {"any", connection.dialect.name}:
            for statement in statements:
                connection.execute(text(statement))


def _create_missing_indexes(connection: Connection) -> None:
    """Create indexes that a release added to tables that are there (``create_all`` looks at tables only)."""
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        there = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in there:
                connection.execute(CreateIndex(index, if_not_exists=True))
