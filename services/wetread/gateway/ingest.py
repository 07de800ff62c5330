"""Ingest: parts become durable instances, in groups (implements the ``Ingest`` port; ADR 0202).

Order within a group: bytes into the object store and synced; then, in one transaction, index rows, counters and the
outgoing events. Only then is anything acknowledged. A crash between the two leaves records that the index does not
know: they are replayed on start (``gateway.replay``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from wetread.core import tracing
from wetread.core.dicom.header_memory import HeaderMemory
from wetread.core.errors import NotFound, StorageFull, WetreadError
from wetread.core.facts import Source
from wetread.core.ports.archive import Archive, StudyAddition
from wetread.core.ports.changes import Removal
from wetread.core.ports.database import Database, Transaction
from wetread.core.ports.ingest import IngestReport, InstanceOutcome, Outbox, StudyChange
from wetread.core.ports.objects import ObjectRef, ObjectStore
from wetread.gateway import reasons
from wetread.gateway.commit_spans import CommitSpans
from wetread.gateway.deletion import describe
from wetread.gateway.discarding import Record, describe_discarded
from wetread.gateway.prepare import Part, Prepared, prepare
from wetread.gateway.settings import IngestSettings
from wetread.gateway.settling import Candidate, Own, Settlement, settle, settle_replayed
from wetread.gateway.storable import judged


@dataclass(slots=True)
class Transfer:
    """One request or association: what it brings counts as one transfer, whose end is told once per study."""

    tenant: str
    source: Source
    own_result: bool = False
    changed: set[str] = field(default_factory=set)
    """Studies that earlier groups of this transfer added to."""
    repeated: set[str] = field(default_factory=set)
    """Studies of which it brought what was there already."""
    trace: str | None = field(default_factory=tracing.current)
    """What it belongs to (traceparent): groups are committed in a thread of their own."""


@dataclass(slots=True)
class Batch:
    """Parts of one transfer that are to be committed together. ``last``: nothing follows."""

    transfer: Transfer
    parts: list[Prepared]
    last: bool
    outcomes: list[InstanceOutcome] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Found:
    """A stored record, read again. ``replaces``: locator of the record that it says it takes the place of."""

    part: Prepared
    ref: ObjectRef
    replaces: str | None = None


@dataclass(slots=True)
class Replayed:
    """``indexed``: how many records were new. ``contested``: positions of those whose instances others hold."""

    indexed: int = 0
    contested: list[int] = field(default_factory=list)


class GroupIngest:
    """The one way in. Thread-safe; groups of one process are committed one after the other."""

    def __init__(
        self,
        database: Database,
        archive: Archive,
        objects: ObjectStore,
        outbox: Outbox,
        *,
        settings: IngestSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._archive = archive
        self._objects = objects
        self._outbox = outbox
        self.settings = settings or IngestSettings()
        self._clock = clock
        self._lock = threading.Lock()
        self._memory = HeaderMemory(self.settings.header)
        self._choosy = self.settings.tenants.choosy
        self._orphans: dict[str, list[Record]] = {}
        """By tenant: records whose transaction failed. They are put aside before a mark moves past them."""

    def store(
        self,
        tenant: str,
        parts: Iterable[bytes | memoryview],
        *,
        source: Source,
        study_uid: str | None = None,
        own_result: bool = False,
    ) -> IngestReport:
        """Store PS3.10 byte strings; see the port."""
        transfer = Transfer(tenant, source, own_result)
        outcomes: list[InstanceOutcome] = []
        group: list[Prepared] = []
        size = 0
        for part in parts:
            ready = self.prepare(part, transfer, study_uid=study_uid)
            if group and (len(group) >= self.settings.group_instances or size + ready.size > self.settings.group_bytes):
                outcomes += self._store_group(Batch(transfer, group, last=False))
                group, size = [], 0
            group.append(ready)
            size += ready.size
        outcomes += self._store_group(Batch(transfer, group, last=True))
        return IngestReport(tuple(outcomes))

    def _store_group(self, batch: Batch) -> list[InstanceOutcome]:
        self.commit([batch])
        return batch.outcomes

    def prepare(self, part: Part | Sequence[Part], transfer: Transfer, *, study_uid: str | None = None) -> Prepared:
        """Parse and validate one part of *transfer*, whole or in pieces."""
        ready = prepare(
            part,
            received_at=self._clock(),
            source=transfer.source,
            study_uid=study_uid,
            own_result=transfer.own_result,
            limits=self.settings.header,
            memory=self._memory,
        )
        if not self._choosy or transfer.own_result:
            return ready
        rules = self.settings.tenants.policy(transfer.tenant).takes
        return ready if rules is None else judged(ready, rules)

    def commit(self, batches: Sequence[Batch]) -> None:
        """Store one group; afterwards each batch has one outcome per part. Never raises for what a store can say."""
        with self._lock:
            tenants: dict[str, list[Batch]] = {}
            for batch in batches:
                batch.outcomes = [part.outcome for part in batch.parts]
                tenants.setdefault(batch.transfer.tenant, []).append(batch)
            for tenant, members in tenants.items():
                self._commit_tenant(tenant, members)

    def replay(self, tenant: str, found: Sequence[Found], *, events: bool, move: bool = True) -> Replayed:
        """Index records whose bytes are already stored (recovery and rebuild).

        ``move``: the marks move past them, unless some of them are contested.
        """
        batch = Batch(Transfer(tenant, Source()), [one.part for one in found], last=False)
        batch.outcomes = [one.part.outcome for one in found]
        waiting = [
            Candidate(batch, position, one.part, one.ref, replaces=one.replaces)
            for position, one in enumerate(found)
            if one.part.outcome.failure_reason is None
        ]
        result = Replayed()
        with self._lock, self._database.write() as tx:
            dead = self._archive.dead(tx, tenant, [_record(candidate) for candidate in waiting])
            waiting = [candidate for candidate in waiting if _record(candidate)[1] not in dead]
            while waiting:
                known = self._archive.known(tx, tenant, [c.part.sop_uid for c in waiting])
                settled = settle_replayed(known, waiting)
                self._write(tx, tenant, settled, [], CommitSpans([]), events=events, replayed=True)
                result.indexed += len(settled.stored)
                result.contested += [candidate.position for candidate in settled.lost]
                waiting = settled.later
            if move and not result.contested:
                self._archive.move_marks(tx, [one.ref.locator for one in found])
        return result

    def discard(self, tenant: str, lost: Sequence[Record]) -> None:
        """Write down, durably, that records hold no instance (recovery)."""
        with self._lock, self._database.write() as tx:
            self._discard(tx, tenant, lost)

    def replay_discard(self, tenant: str, lost: Sequence[Record], ref: ObjectRef, *, move: bool) -> None:
        """Take note of a recorded loss (again): harmless when it was done."""
        with self._lock, self._database.write() as tx:
            self._archive.discard(tx, tenant, lost, at=self._clock())
            if move:
                self._archive.move_marks(tx, [ref.locator])

    def move_marks(self, locators: Sequence[str]) -> None:
        """Everything up to *locators* has been looked at."""
        with self._lock, self._database.write() as tx:
            self._archive.move_marks(tx, locators)

    def remove(self, tenant: str, choose: Callable[[Transaction], Removal]) -> Removal:
        """Delete what *choose* names, durably: recorded in the object store first, like what is stored.

        Nothing is stored between the choice and the removal. Raises what *choose* raises.
        """
        with self._lock:
            with self._database.read() as tx:
                removal = choose(tx)
            (ref,) = self._objects.append(tenant, [(describe(removal), ())])
            with self._database.write() as tx:
                self._archive.remove(tx, tenant, removal)
                self._archive.move_marks(tx, [ref.locator])
                self._outbox.study_removed(tx, tenant, removal.study_uid)
        return removal

    def replay_removal(self, tenant: str, removal: Removal, ref: ObjectRef, *, move: bool) -> None:
        """Do a recorded removal (again): harmless when it was done."""
        with self._lock, self._database.write() as tx:
            self._archive.remove(tx, tenant, removal, replayed=True)
            if move:
                self._archive.move_marks(tx, [ref.locator])

    def _commit_tenant(self, tenant: str, batches: list[Batch]) -> None:
        with CommitSpans(batches) as spans:
            self._commit_group(tenant, batches, spans)

    def _commit_group(self, tenant: str, batches: list[Batch], spans: CommitSpans) -> None:
        waiting = [
            Candidate(batch, position, part)
            for batch in batches
            for position, part in enumerate(batch.parts)
            if part.outcome.failure_reason is None
        ]
        more = True
        while more:
            waiting = self._commit_round(tenant, batches, waiting, spans)
            more = bool(waiting)

    def _commit_round(
        self, tenant: str, batches: list[Batch], candidates: list[Candidate], spans: CommitSpans
    ) -> list[Candidate]:
        """Commit what can be; return what replaces some of it and comes next."""
        policy = self.settings.tenants.policy(tenant).duplicates or self.settings.duplicates
        mine = candidates
        appended: list[Candidate] = []
        try:
            with self._database.read() as tx:
                known = self._archive.known(tx, tenant, [c.part.sop_uid for c in candidates])
                candidates = self._living(tx, tenant, candidates)
                first = settle(known, candidates, policy, self._own(tx, tenant))
                ended = [batch.transfer for batch in batches if batch.last and not first.later]
                waiting = self._waiting(tx, tenant, ended, first.stored)
            refs = self._objects.append(tenant, [(c.described, c.part.chunks) for c in first.stored])
            for candidate, ref in zip(first.stored, refs, strict=True):
                candidate.ref = ref
            appended = first.stored
            if appended or waiting or any(transfer.changed for transfer in ended):
                with self._database.write() as tx:
                    # Another process may have indexed the same instance since the look-up.
                    again = self._archive.known(tx, tenant, [c.part.sop_uid for c in appended])
                    living = self._living(tx, tenant, appended)
                    settled = first
                    if again or first.replacing or len(living) < len(appended):
                        settled = settle(again, living, policy, self._own(tx, tenant))
                        settled.lost += [c for c in appended if not any(c is other for other in living)]
                        self._give_way(tx, tenant, settled)
                    self._write(tx, tenant, settled, ended, spans, events=True)
                    self._put_aside(tx, tenant, settled)
                    for study_uid, transfer in waiting.items():
                        with spans.of(transfer):
                            self._outbox.transfer_repeated(tx, tenant, study_uid, received_at=self._clock())
                    if refs:
                        self._archive.move_marks(tx, [refs[-1].locator])
                self._orphans.pop(tenant, None)
                for candidate in settled.stored:
                    candidate.batch.transfer.changed.add(candidate.part.study_uid)
        except WetreadError as error:
            self._orphaned(tenant, appended)
            spans.fail(type(error).__name__)
            self._fail(mine, error)
            return []
        except BaseException:
            self._orphaned(tenant, appended)
            raise
        return first.later

    def _waiting(
        self, tx: Transaction, tenant: str, ended: list[Transfer], stored: list[Candidate]
    ) -> dict[str, Transfer]:
        """Return the studies that a transfer has brought once more, and that still wait for the end of the first one.

        A process died between the two (ADR 0202).
        """
        changing = {candidate.part.study_uid for candidate in stored}
        asked = {uid: one for one in ended if one.repeated for uid in one.repeated - one.changed - changing}
        return {uid: transfer for uid, transfer in asked.items() if self._outbox.waits(tx, tenant, uid)}

    def _own(self, tx: Transaction, tenant: str) -> Own:
        return lambda known: self._archive.own_result(tx, tenant, known.study_uid, known.series_uid)

    def _living(self, tx: Transaction, tenant: str, candidates: list[Candidate]) -> list[Candidate]:
        """Refuse results of our own for studies that were deleted meanwhile; return the rest."""
        wanted = {c.part.study_uid for c in candidates if c.part.own_result}
        gone = wanted - self._archive.existing(tx, tenant, sorted(wanted)) if wanted else set()
        for candidate in candidates:
            if candidate.part.own_result and candidate.part.study_uid in gone:
                candidate.batch.outcomes[candidate.position] = replace(
                    candidate.part.outcome, failure_reason=reasons.STUDY_MISMATCH, comment="the study was deleted"
                )
        return [c for c in candidates if not (c.part.own_result and c.part.study_uid in gone)]

    def _give_way(self, tx: Transaction, tenant: str, settled: Settlement) -> None:
        """Drop what a starting neighbour has found meanwhile and put aside: it was in another's way."""
        if not settled.replacing:
            return
        dead = self._archive.dead(tx, tenant, [_record(candidate) for candidate in settled.replacing])
        for candidate in [c for c in settled.replacing if _record(c)[1] in dead]:
            settled.drop(candidate)
            candidate.refuse(reasons.BEING_STORED, "another request stores this instance at the same time")

    def _put_aside(self, tx: Transaction, tenant: str, settled: Settlement) -> None:
        """Settle the records that the marks are about to pass and that the index does not hold (ADR 0209).

        Nothing to do unless another process was faster or a transaction has failed.
        """
        lost = [_record(candidate) for candidate in settled.lost]
        lost += [
            (candidate.part.sop_uid, candidate.displaced)
            for candidate in settled.replacing
            if candidate.displaced is not None and candidate.displaced != candidate.replaces
        ]
        orphans = self._orphans.get(tenant, [])
        if orphans:
            there = self._archive.known(tx, tenant, [uid for uid, _ in orphans])
            lost += [(uid, at) for uid, at in orphans if uid not in there or there[uid].locator != at]
        if lost:
            self._discard(tx, tenant, lost)

    def _discard(self, tx: Transaction, tenant: str, lost: Sequence[Record]) -> None:
        """Record a loss in the object store first, then in the index."""
        self._objects.append(tenant, [(describe_discarded(lost), ())])
        self._archive.discard(tx, tenant, lost, at=self._clock())

    def _orphaned(self, tenant: str, appended: list[Candidate]) -> None:
        """A transaction failed behind these records: nobody was told that they are stored, and they are not."""
        self._orphans.setdefault(tenant, []).extend(_record(candidate) for candidate in appended)

    def _write(
        self,
        tx: Transaction,
        tenant: str,
        settled: Settlement,
        ended: list[Transfer],
        spans: CommitSpans,
        *,
        events: bool,
        replayed: bool = False,
    ) -> None:
        now = self._clock()
        fresh = [candidate.entry for candidate in settled.fresh]
        additions = self._archive.add(tx, tenant, fresh, at=now, replayed=replayed)
        if settled.replacing:
            replaced = self._archive.replace(tx, tenant, [candidate.entry for candidate in settled.replacing], at=now)
            additions = _joined(additions, replaced)
        if not events:
            return
        by_study: dict[str, list[Candidate]] = {}
        for candidate in settled.stored:
            by_study.setdefault(candidate.part.study_uid, []).append(candidate)
        ends_now = {id(transfer) for transfer in ended}
        ending: dict[str, Transfer] = {}
        for transfer in ended:
            ending.update(dict.fromkeys(transfer.changed, transfer))
        for addition in additions:
            members = by_study[addition.study_uid]
            ends = addition.study_uid in ending or any(id(member.batch.transfer) in ends_now for member in members)
            ending.pop(addition.study_uid, None)
            foreign = [member for member in members if not member.part.own_result]
            if not foreign:
                continue
            received = max(member.part.received_at for member in foreign)
            change = StudyChange(
                tenant=tenant,
                study_uid=addition.study_uid,
                generation=addition.generation,
                first=addition.first,
                transfer_end=ends,
                new_instances=sum(member.displaced is None for member in foreign),
                replaced_instances=sum(member.displaced is not None for member in foreign),
                source=foreign[0].part.source,
                received_at=received,
                stamps={"received": received, "committed": now},
            )
            with spans.of(foreign[-1].batch.transfer):
                self._outbox.study_changed(tx, change)
        for study_uid, transfer in ending.items():
            if transfer.own_result:
                continue
            try:
                generation = self._archive.next_generation(tx, tenant, study_uid)
            except NotFound:
                continue  # deleted while the transfer went on
            change = StudyChange(
                tenant=tenant,
                study_uid=study_uid,
                generation=generation,
                first=False,
                transfer_end=True,
                new_instances=0,
                source=transfer.source,
                received_at=now,
                stamps={"received": now, "committed": now},
            )
            with spans.of(transfer):
                self._outbox.study_changed(tx, change)

    def _fail(self, candidates: list[Candidate], error: WetreadError) -> None:
        full = isinstance(error, StorageFull)
        for candidate in candidates:
            outcome = candidate.batch.outcomes[candidate.position]
            if outcome.failure_reason is not None or (outcome.duplicate and not candidate.twin):
                continue
            candidate.batch.outcomes[candidate.position] = replace(
                outcome,
                failure_reason=reasons.OUT_OF_RESOURCES if full else reasons.PROCESSING_FAILURE,
                warning_reason=None,
                comment=error.detail,
                duplicate=False,
            )


def _record(candidate: Candidate) -> Record:
    assert candidate.ref is not None
    return candidate.part.sop_uid, candidate.ref.locator


def _joined(added: Sequence[StudyAddition], replaced: Sequence[StudyAddition]) -> list[StudyAddition]:
    """Return one addition per study: the later generation, and both counts."""
    studies = {one.study_uid: one for one in added}
    for one in replaced:
        before = studies.get(one.study_uid)
        studies[one.study_uid] = (
            one if before is None else replace(one, first=before.first, new_instances=before.new_instances)
        )
    return list(studies.values())
