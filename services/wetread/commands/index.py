"""``wetread index``: write the study index anew from the stored instances alone; erase what it holds no more."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from wetread.commands.up import lock_folder, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from wetread.bootstrap.house import House
    from wetread.settings import Settings


_READING_SECONDS: Final = 3600.0
"""No answer is still being read after so long."""


def run_rebuild(*, data: Path | None, verify: bool) -> int:
    """Rebuild, or with ``verify`` only compare a rebuilt index with the one that is there. Returns the exit code."""
    try:
        settings = settings_of(data=data)
    except ValueError as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    if _empty(settings):
        return 2
    try:
        lock = lock_folder(settings.data)
    except OSError:
        print(f"wetread: a server is using {settings.data}; stop it first", file=sys.stderr)
        return 3
    with lock:
        from wetread.bootstrap.house import open_house

        with open_house(settings, ["gateway"]) as house:
            return _verify(house) if verify else _rebuild(house)


def run_reclaim(*, data: Path | None, older_than: str) -> int:
    """Erase what was deleted or replaced so long ago. Returns the exit code."""
    from wetread.core.completeness import parse_duration

    try:
        settings = settings_of(data=data)
        seconds = parse_duration(older_than)
    except ValueError as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    if _empty(settings):
        return 2
    # Readers that began before an instance went may still be reading it.
    try:
        lock = lock_folder(settings.data) if seconds < _READING_SECONDS else nullcontext()
    except OSError:
        print(f"wetread: a server is using {settings.data}; stop it, or leave at least 1h", file=sys.stderr)
        return 3
    with lock:
        from wetread.bootstrap.house import open_house
        from wetread.core.errors import StorageFull, Unavailable
        from wetread.gateway.reclaim import reclaim

        with open_house(settings, ["gateway"]) as house:
            now = house.clock.now()
            try:
                done = reclaim(
                    house.database, house.archive, house.objects, house.access_trail, until=now - seconds, now=now
                )
            except (Unavailable, StorageFull) as error:
                print(f"wetread: {error}", file=sys.stderr)
                return 3
    print(f"{done.erased} records erased, {done.freed_bytes} bytes freed, {done.kept} kept beside what lives")
    return 0


def _empty(settings: Settings) -> bool:
    """Say so when there is no object store."""
    if settings.object_store_url is not None or (settings.data / "segments").is_dir():
        return False
    print(f"wetread: {settings.data} holds no stored instances", file=sys.stderr)
    return True


def _rebuild(house: House) -> int:
    from wetread.gateway.replay import rebuild

    report = rebuild(house.index_database, house.archive, house.objects, house.ingest)
    print(
        f"{report.records} stored instances, {report.indexed} indexed, {report.removals} deletions, "
        f"{report.refused} not readable"
    )
    return 1 if report.refused else 0


def _verify(house: House) -> int:
    """Rebuild into a database beside the real one and compare; the real one is not touched."""
    import tempfile
    from pathlib import Path

    from wetread.adapters.index.database import SqlDatabase
    from wetread.gateway.ingest import GroupIngest
    from wetread.gateway.replay import rebuild

    with tempfile.TemporaryDirectory(dir=house.settings.data, prefix="verify-") as folder:
        database = SqlDatabase(Path(folder) / "index.db", full_sync=False)
        database.create_schema()
        try:
            ingest = GroupIngest(database, house.archive, house.objects, _Silence(), settings=house.ingest.settings)
            rebuild(database, house.archive, house.objects, ingest)
            here, anew = _contents(house.index_database), _contents(database)
        finally:
            database.close()
    wrong = sum(anew.get(key) != value for key, value in here.items()) + len(anew.keys() - here.keys())
    print(f"{len(here)} instances in the index, {len(anew)} when rebuilt, {wrong} differ")
    return 1 if wrong else 0


def _contents(database: Any) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Return what the index says of each instance, by tenant and SOP Instance UID."""
    from sqlalchemy import select

    from wetread.adapters.index.database import connection_of
    from wetread.adapters.index.tables import instances

    columns = instances.c
    query = select(columns.tenant, columns.sop_uid, columns.study_uid, columns.series_uid, columns.content_hash)
    with database.read() as tx:
        return {(row[0], row[1]): tuple(row[2:]) for row in connection_of(tx).execute(query)}


class _Silence:
    """An outbox that nobody hears: a rebuild sends no events."""

    def study_changed(self, tx: object, change: object) -> None:
        """Drop it."""

    def waits(self, tx: object, tenant: str, study_uid: str) -> bool:  # noqa: ARG002 - as the port has it
        """Nothing does."""
        return False

    def transfer_repeated(self, tx: object, tenant: str, study_uid: str, *, received_at: float) -> None:
        """Drop it."""

    def study_removed(self, tx: object, tenant: str, study_uid: str) -> None:
        """Drop it."""
