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
from wetread.core.ports.archive import Archive, IndexEntry, KnownInstance
from wetread.core.ports.changes import Removal
from wetread.core.ports.database import Database, Transaction
from wetread.core.ports.ingest import IngestReport, InstanceOutcome, Outbox, StudyChange
from wetread.core.ports.objects import ObjectRef, ObjectStore
from wetread.gateway import reasons
from wetread.gateway.commit_spans import CommitSpans
from wetread.gateway.deletion import describe
from wetread.gateway.prepare import Part, Prepared, prepare
from wetread.gateway.settings import IngestSettings


@dataclass(slots=True)
class Transfer:
    """One request or association: what it brings counts as one transfer, whose end is told once per study."""

    tenant: str
    source: Source
    own_result: bool = False
    changed: set[str] = field(default_factory=set)
    """Studies that earlier groups of this transfer added to."""
    trace: str | None = field(default_factory=tracing.current)
    """What it belongs to (traceparent): groups are committed in a thread of their own."""


@dataclass(slots=True)
class Batch:
    """Parts of one transfer that are to be committed together. ``last``: nothing follows."""

    transfer: Transfer
    parts: list[Prepared]
    last: bool
    outcomes: list[InstanceOutcome] = field(default_factory=list)


@dataclass(slots=True)
class _Candidate:
    """A part on its way through a group."""

    batch: Batch
    position: int
    part: Prepared
    ref: ObjectRef | None = None
    twin: bool = False
    """Its duplicate is in the same group: it stands and falls with that."""


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
        return prepare(
            part,
            received_at=self._clock(),
            source=transfer.source,
            study_uid=study_uid,
            own_result=transfer.own_result,
            limits=self.settings.header,
            memory=self._memory,
        )

    def commit(self, batches: Sequence[Batch]) -> None:
        """Store one group; afterwards each batch has one outcome per part. Never raises for what a store can say."""
        with self._lock:
            tenants: dict[str, list[Batch]] = {}
            for batch in batches:
                batch.outcomes = [part.outcome for part in batch.parts]
                tenants.setdefault(batch.transfer.tenant, []).append(batch)
            for tenant, members in tenants.items():
                self._commit_tenant(tenant, members)

    def replay(self, tenant: str, found: Sequence[tuple[Prepared, ObjectRef]], *, events: bool) -> int:
        """Index records whose bytes are already stored; return how many were new (recovery and rebuild)."""
        transfer = Transfer(tenant, Source())
        batch = Batch(transfer, [part for part, _ in found], last=False)
        batch.outcomes = [part.outcome for part in batch.parts]
        fresh = [
            _Candidate(batch, position, part, ref)
            for position, (part, ref) in enumerate(found)
            if part.outcome.failure_reason is None
        ]
        with self._lock, self._database.write() as tx:
            dead = self._archive.dead(tx, tenant, [(c.part.sop_uid, c.ref.locator) for c in fresh if c.ref])
            fresh = [candidate for candidate in fresh if candidate.ref and candidate.ref.locator not in dead]
            fresh = self._unknown(self._archive.known(tx, tenant, [c.part.sop_uid for c in fresh]), fresh)
            self._write(tx, tenant, fresh, [], CommitSpans([]), events=events, replayed=True)
            self._archive.move_marks(tx, [ref.locator for _, ref in found])
        return len(fresh)

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

    def replay_removal(self, tenant: str, removal: Removal, ref: ObjectRef) -> None:
        """Do a recorded removal (again): harmless when it was done."""
        with self._lock, self._database.write() as tx:
            self._archive.remove(tx, tenant, removal, replayed=True)
            self._archive.move_marks(tx, [ref.locator])

    def _commit_tenant(self, tenant: str, batches: list[Batch]) -> None:
        with CommitSpans(batches) as spans:
            self._commit_group(tenant, batches, spans)

    def _commit_group(self, tenant: str, batches: list[Batch], spans: CommitSpans) -> None:
        candidates = [
            _Candidate(batch, position, part)
            for batch in batches
            for position, part in enumerate(batch.parts)
            if part.outcome.failure_reason is None
        ]
        try:
            with self._database.read() as tx:
                known = self._archive.known(tx, tenant, [c.part.sop_uid for c in candidates])
                candidates = self._living(tx, tenant, candidates)
            fresh = self._unknown(known, candidates)
            refs = self._objects.append(tenant, [(c.part.description, c.part.chunks) for c in fresh])
            for candidate, ref in zip(fresh, refs, strict=True):
                candidate.ref = ref
            ended = [batch.transfer for batch in batches if batch.last]
            if fresh or any(transfer.changed for transfer in ended):
                with self._database.write() as tx:
                    # Another process may have indexed the same instance since the look-up.
                    again = self._archive.known(tx, tenant, [c.part.sop_uid for c in fresh])
                    fresh = self._unknown(again, self._living(tx, tenant, fresh))
                    self._write(tx, tenant, fresh, ended, spans, events=True)
                    if refs:
                        self._archive.move_marks(tx, [refs[-1].locator])
        except WetreadError as error:
            spans.fail(type(error).__name__)
            self._fail(candidates, error)
            return
        for candidate in fresh:
            candidate.batch.transfer.changed.add(candidate.part.study_uid)

    def _living(self, tx: Transaction, tenant: str, candidates: list[_Candidate]) -> list[_Candidate]:
        """Refuse results of our own for studies that were deleted meanwhile; return the rest."""
        wanted = {c.part.study_uid for c in candidates if c.part.own_result}
        gone = wanted - self._archive.existing(tx, tenant, sorted(wanted)) if wanted else set()
        for candidate in candidates:
            if candidate.part.own_result and candidate.part.study_uid in gone:
                candidate.batch.outcomes[candidate.position] = replace(
                    candidate.part.outcome, failure_reason=reasons.STUDY_MISMATCH, comment="the study was deleted"
                )
        return [c for c in candidates if not (c.part.own_result and c.part.study_uid in gone)]

    def _unknown(self, known: dict[str, KnownInstance], candidates: list[_Candidate]) -> list[_Candidate]:
        """Settle duplicates (of the index, and within the group) and return the rest."""
        fresh: list[_Candidate] = []
        seen = dict(known)
        for candidate in candidates:
            part = candidate.part
            assert part.facts is not None
            earlier = seen.get(part.sop_uid)
            if earlier is None:
                seen[part.sop_uid] = KnownInstance(part.study_uid, part.series_uid, part.facts.content_hash)
                fresh.append(candidate)
            else:
                candidate.twin = part.sop_uid not in known
                candidate.batch.outcomes[candidate.position] = self._duplicate(candidate, earlier)
        return fresh

    def _duplicate(self, candidate: _Candidate, earlier: KnownInstance) -> InstanceOutcome:
        part, tenant = candidate.part, candidate.batch.transfer.tenant
        assert part.facts is not None
        outcome = part.outcome
        if earlier.content_hash == part.facts.content_hash:
            return replace(outcome, duplicate=True)
        if (earlier.study_uid, earlier.series_uid) != (part.study_uid, part.series_uid):
            return replace(
                outcome,
                failure_reason=reasons.ATTRIBUTE_MISSING,
                warning_reason=None,
                comment="this SOP Instance UID is stored under another study or series",
            )
        if (self.settings.tenants.policy(tenant).duplicates or self.settings.duplicates) == "keep_first":
            return replace(
                outcome,
                warning_reason=reasons.WARNING_DISCARDED,
                comment="this SOP Instance UID is stored with other content, which was kept",
                duplicate=True,
            )
        return replace(
            outcome,
            failure_reason=reasons.CONFLICT,
            warning_reason=None,
            comment="this SOP Instance UID is stored with other content",
        )

    def _write(
        self,
        tx: Transaction,
        tenant: str,
        fresh: list[_Candidate],
        ended: list[Transfer],
        spans: CommitSpans,
        *,
        events: bool,
        replayed: bool = False,
    ) -> None:
        entries: list[IndexEntry] = []
        for candidate in fresh:
            assert candidate.ref is not None
            entries.append(candidate.part.entry(candidate.ref))
        now = self._clock()
        additions = self._archive.add(tx, tenant, entries, at=now, replayed=replayed)
        if not events:
            return
        by_study: dict[str, list[_Candidate]] = {}
        for candidate in fresh:
            by_study.setdefault(candidate.part.study_uid, []).append(candidate)
        ending: dict[str, Transfer] = {}
        for transfer in ended:
            ending.update(dict.fromkeys(transfer.changed, transfer))
        for addition in additions:
            members = by_study[addition.study_uid]
            ends = addition.study_uid in ending or any(member.batch.last for member in members)
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
                new_instances=len(foreign),
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

    def _fail(self, candidates: list[_Candidate], error: WetreadError) -> None:
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
