"""Giving back the room of deleted and replaced instances, a while after they went (ADR 0210)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wetread.core.ports.access import Access, AccessEntry, AccessTrail
from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Database
from wetread.core.ports.objects import Erasable

_PAGE: Final = 500
_OPERATOR: Final = "operator"
_ACTION: Final = "wetread index reclaim"


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """``erased`` records and the bytes that this freed; ``kept``: others share their object."""

    erased: int
    kept: int
    freed_bytes: int


def reclaim(
    database: Database, archive: Archive, objects: Erasable, trail: AccessTrail, *, until: float, now: float
) -> Reclaimed:
    """Erase the records that died before *until* (Unix seconds); each tenant's audit trail says how many.

    What says that a record is dead was synced with the bytes that took its place, or with its deletion, so a crash or
    the loss of the database brings nothing back that would be missed.
    """
    erased = kept = freed = 0
    after = ("", "")
    while True:
        with database.read() as tx:
            page = archive.erasable(tx, until=until, after=after, limit=_PAGE)
        if not page:
            return Reclaimed(erased, kept, freed)
        after = page[-1]
        done = objects.erase([locator for _, locator in page])
        gone = set(done.locators)
        with database.write() as tx:
            erased_here = [one for one in page if one[1] in gone]
            archive.erased(tx, erased_here, at=now)
            trail.append(tx, _told(erased_here, now))
        erased += len(gone)
        kept += len(page) - len(gone)
        freed += done.freed_bytes


def _told(records: Iterable[tuple[str, str]], now: float) -> list[AccessEntry]:
    """Return one entry per tenant of (tenant, locator)."""
    by_tenant = Counter(tenant for tenant, _ in records)
    return [
        AccessEntry(0, Access(tenant, _OPERATOR, _ACTION, "", "200", ""), now, now, count, "", "")
        for tenant, count in sorted(by_tenant.items())
    ]
