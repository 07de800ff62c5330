"""``wetread db``: the tables of the database, led to this release or looked at."""

from __future__ import annotations

import sys
import time

from wetread.settings import Settings


def run_migrate() -> int:
    """Create or migrate all tables, ours and those of the durable queues. Returns the exit code."""
    return _with_database(change=True)


def run_verify() -> int:
    """Say whether the tables are those of this release. Returns the exit code."""
    return _with_database(change=False)


def run_backup_done() -> int:
    """Note that a backup was taken just now. Returns the exit code."""
    from wetread.adapters.index.database import SqlDatabase
    from wetread.adapters.index.upkeep import BACKUP, SqlUpkeep
    from wetread.core.errors import ConfigurationError, Unavailable

    now = time.time()
    try:
        database = SqlDatabase(Settings().database)
    except (ValueError, ConfigurationError) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    try:
        database.verify_schema()
        with database.write() as tx:
            SqlUpkeep().end(tx, BACKUP, begun=now, ended=now)
    except (ConfigurationError, Unavailable) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 3 if isinstance(error, Unavailable) else 1
    finally:
        database.close()
    print("the backup is noted")
    return 0


def _with_database(*, change: bool) -> int:
    from wetread.adapters.index.database import SqlDatabase
    from wetread.adapters.workqueue.dbos import create_queue_schema
    from wetread.core.errors import ConfigurationError, Unavailable

    try:
        database = SqlDatabase(Settings().database)
    except (ValueError, ConfigurationError) as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    try:
        if change:
            database.create_schema()
            create_queue_schema(database.url)
        database.verify_schema()
    except Unavailable as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 3
    except ConfigurationError as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 1
    finally:
        database.close()
    print(f"the database schema is at version {database.schema_version}")
    return 0
