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
from wetread.gateway.discarding import discarded_of
from wetread.gateway.ingest import Found, GroupIngest
from wetread.gateway.prepare import prepare
from wetread.gateway.settling import REPLACES

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
    return _Pass(objects, ingest, settling=True).run(marks)


def rebuild(database: Database, archive: Archive, objects: ObjectStore, ingest: GroupIngest) -> ReplayReport:
    """Forget the index and write it anew from the records alone. Sends no events: nothing happened to the studies.

    What a crash left behind is settled first, by the index that there was.
    """
    with database.read() as tx:
        there = bool(archive.marks(tx))
    if there:
        recover(database, archive, objects, ingest)
    with database.write() as tx:
        archive.clear(tx)
    return _Pass(objects, ingest, settling=False).run([])


_Stored = tuple[dict[str, Any], ObjectRef]
"""Description and address of a record."""


class _Pass:
    """One way through the records. ``settling``: what is stored and nobody was told of is settled for good, and told.

    A record is contested when its instance is held by another and nothing read so far says which of them counts: the
    other one may have been discarded, or replaced by one that comes later. The marks then wait until the end.
    """

    def __init__(self, objects: ObjectStore, ingest: GroupIngest, *, settling: bool) -> None:
        self._objects = objects
        self._ingest = ingest
        self._settling = settling
        self._contested: dict[str, list[_Stored]] = {}
        self._passed: dict[str, str] = {}
        """Newest locators that the marks have not moved to."""
        self._records = self._indexed = self._refused = self._removals = 0

    def run(self, marks: Sequence[str]) -> ReplayReport:
        """Replay what lies behind *marks*."""
        for tenant, group in _groups(self._objects, marks):
            removal, lost = removal_of(group[0][0]), discarded_of(group[0][0])
            moving, ref = not self._contested, group[0][1]
            if removal is not None:
                self._ingest.replay_removal(tenant, removal, ref, move=moving)
                self._removals += 1
            elif lost is not None:
                self._ingest.replay_discard(tenant, lost, ref, move=moving)
            else:
                self._records += len(group)
                self._contested.setdefault(tenant, []).extend(self._replay(tenant, group, move=moving, first=True))
            self._contested = {name: members for name, members in self._contested.items() if members}
            if self._contested:
                self._passed.update({one.locator.rpartition(":")[0]: one.locator for _, one in group})
        for tenant, members in self._contested.items():
            self._decide(tenant, members)
        if self._passed:
            self._ingest.move_marks(list(self._passed.values()))
        return ReplayReport(self._records, self._indexed, self._refused, self._removals)

    def _replay(self, tenant: str, group: Sequence[_Stored], *, move: bool, first: bool = False) -> list[_Stored]:
        """Index a group and return what is contested of it."""
        found = [
            Found(
                prepare(
                    self._objects.read(ref),
                    received_at=stored["received"],
                    source=Source(**stored["source"]),
                    own_result=stored["own"],
                    limits=self._ingest.settings.header,
                ),
                ref,
                stored.get(REPLACES),
            )
            for stored, ref in group
        ]
        if first:
            self._refused += sum(one.part.outcome.failure_reason is not None for one in found)
        done = self._ingest.replay(tenant, found, events=self._settling, move=move)
        self._indexed += done.indexed
        return [group[position] for position in done.contested]

    def _decide(self, tenant: str, contested: list[_Stored]) -> None:
        """All is read: index what has come to stand, and put the rest aside."""
        left = -1
        while contested and len(contested) != left:
            left = len(contested)
            contested = [
                one
                for at in range(0, left, _GROUP)
                for one in self._replay(tenant, contested[at : at + _GROUP], move=False)
            ]
        if contested and self._settling:
            named = [(self._uid(stored, ref), ref.locator) for stored, ref in contested]
            self._ingest.discard(tenant, named)

    def _uid(self, stored: dict[str, Any], ref: ObjectRef) -> str:
        part = prepare(
            self._objects.read(ref),
            received_at=stored["received"],
            source=Source(),
            limits=self._ingest.settings.header,
        )
        return part.sop_uid


def _groups(objects: ObjectStore, marks: Sequence[str]) -> Iterator[tuple[str, list[tuple[dict[str, Any], ObjectRef]]]]:
    """Cut the records into groups of one tenant each.

    Deletions and losses are groups of their own, so that order is kept.
    """
    group: list[tuple[dict[str, Any], ObjectRef]] = []
    current = ""
    for tenant, description, ref in objects.scan(marks):
        stored = orjson.loads(description)
        alone = removal_of(stored) is not None or discarded_of(stored) is not None
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
