"""``wetread db``: the tables of the database, led to this release or looked at."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from wetread.settings import Settings

if TYPE_CHECKING:
    from wetread.adapters.index.database import SqlDatabase


def run_migrate() -> int:
    """Create or migrate all tables, ours and those of the durable queues. Returns the exit code."""
    from wetread.adapters.workqueue.dbos import create_queue_schema

    def migrate(database: SqlDatabase) -> str:
        database.create_schema()
        create_queue_schema(database.url)
        return _verified(database)

    return _with_database(migrate)


def run_verify() -> int:
    """Say whether the tables are those of this release. Returns the exit code."""
    return _with_database(_verified)


def run_backup_done() -> int:
    """Note that a backup was taken just now. Returns the exit code."""
    from wetread.adapters.index.upkeep import BACKUP, SqlUpkeep

    now = time.time()

    def note(database: SqlDatabase) -> str:
        _verified(database)
        with database.write() as tx:
            SqlUpkeep().end(tx, BACKUP, begun=now, ended=now)
        return "the backup is noted"

    return _with_database(note)


def _verified(database: SqlDatabase) -> str:
    database.verify_schema()
    return f"the database schema is at version {database.schema_version}"


def _with_database(act: Callable[[SqlDatabase], str]) -> int:
    """Print what *act* says of the configured database, or why it cannot; 1 wrong tables, 2 settings, 3 unreachable."""
    from wetread.adapters.index.database import SqlDatabase
    from wetread.core.errors import ConfigurationError, Unavailable

    try:
        database = SqlDatabase(Settings().database)
    except (ValueError, ConfigurationError) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    try:
        said = act(database)
    except (ConfigurationError, Unavailable) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 3 if isinstance(error, Unavailable) else 1
    finally:
        database.close()
    print(said)
    return 0
