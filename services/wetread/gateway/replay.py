"""Recovery: index what the object store holds and the index does not (start), or everything anew (rebuild)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from wetread.core.facts import Source
from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Database
from wetread.core.ports.objects import ObjectRef, ObjectStore
from wetread.gateway.deletion import removal_of
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.prepare import Prepared, prepare

_GROUP: Final = 64


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """``records`` of instances were looked at, ``indexed`` of them were new, ``refused`` could not be parsed any more.

    ``removals``: deletions that were done again.
    """

    records: int = 0
    indexed: int = 0
    refused: int = 0
    removals: int = 0


def recover(database: Database, archive: Archive, objects: ObjectStore, ingest: GroupIngest) -> ReplayReport:
    """Index every record behind the high-water marks; their events are sent (again).

    Those are acknowledged instances whose index transaction was lost with the power, and stored ones that were never
    acknowledged. Cheap when there is nothing to do.
    """
    with database.read() as tx:
        marks = archive.marks(tx)
    return _replay(objects, ingest, marks, events=True)


def rebuild(database: Database, archive: Archive, objects: ObjectStore, ingest: GroupIngest) -> ReplayReport:
    """Forget the index and write it anew from the records alone. Sends no events: nothing happened to the studies."""
    with database.write() as tx:
        archive.clear(tx)
    return _replay(objects, ingest, [], events=False)


def _replay(objects: ObjectStore, ingest: GroupIngest, marks: Sequence[str], *, events: bool) -> ReplayReport:
    records = indexed = refused = removed = 0
    for tenant, group in _groups(objects, marks):
        found: list[tuple[Prepared, ObjectRef]] = []
        for stored, ref in group:
            removal = removal_of(stored)
            if removal is not None:
                ingest.replay_removal(tenant, removal, ref)
                removed += 1
                continue
            found.append(
                (
                    prepare(
                        objects.read(ref),
                        received_at=stored["received"],
                        source=Source(**stored["source"]),
                        own_result=stored["own"],
                        limits=ingest.settings.header,
                    ),
                    ref,
                )
            )
        records += len(found)
        refused += sum(part.outcome.failure_reason is not None for part, _ in found)
        if found:
            indexed += ingest.replay(tenant, found, events=events)
    return ReplayReport(records, indexed, refused, removed)


def _groups(objects: ObjectStore, marks: Sequence[str]) -> Iterator[tuple[str, list[tuple[dict[str, Any], ObjectRef]]]]:
    """Cut the records into groups of one tenant each; a deletion is a group of its own, so that order is kept."""
    group: list[tuple[dict[str, Any], ObjectRef]] = []
    current = ""
    for tenant, description, ref in objects.scan(marks):
        stored = orjson.loads(description)
        alone = removal_of(stored) is not None
        if group and (alone or tenant != current or len(group) >= _GROUP):
            yield current, group
            group = []
        current = tenant
        group.append((stored, ref))
        if alone:
            yield current, group
            group = []
    if group:
        yield current, group
