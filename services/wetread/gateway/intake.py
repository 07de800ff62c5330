"""The ``Intake`` port: single instances from many associations, committed in groups by the threads that wait for them.

Nobody waits for a group to fill. Whoever holds the turn commits everything that is waiting; with one sender a group is
one instance, with many it grows by itself while the previous one is being synced (as in ``gateway.committer``).
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from wetread.core import tracing
from wetread.core.facts import Source
from wetread.core.ports.archive import Archive
from wetread.core.ports.database import Database
from wetread.core.ports.ingest import InstanceOutcome
from wetread.core.ports.objects import ObjectStore
from wetread.gateway import reasons
from wetread.gateway.ingest import Batch, GroupIngest, Transfer
from wetread.gateway.prepare import Part, Prepared
from wetread.gateway.replay import recover


class GroupIntake:
    """Thread-safe; one per process."""

    def __init__(self, database: Database, archive: Archive, objects: ObjectStore, ingest: GroupIngest) -> None:
        self._database = database
        self._archive = archive
        self._objects = objects
        self._ingest = ingest
        self._waiting: deque[_Waiting] = deque()
        self._turn = threading.Lock()

    def recover(self) -> None:
        """Index what a crash left behind; see the port."""
        recover(self._database, self._archive, self._objects, self._ingest)

    def begin(self, tenant: str, source: Source) -> _Association:
        """Begin a transfer."""
        return _Association(self, Transfer(tenant, source))

    def prepare(self, part: Part, transfer: Transfer) -> Prepared:
        """Parse and validate one part."""
        return self._ingest.prepare(part, transfer)

    def commit(self, batch: Batch) -> None:
        """Commit *batch*, and with it whatever else waits; return when it is durable.

        Raises what the ingest cannot put into an outcome.
        """
        mine = _Waiting(batch)
        self._waiting.append(mine)
        while not mine.done:
            with self._turn:
                if not mine.done:
                    self._commit_some()
        if mine.error is not None:
            raise mine.error

    def _commit_some(self) -> None:
        """Commit one group of what waits. Only the holder of the turn takes from the queue."""
        limits = self._ingest.settings
        group: list[_Waiting] = []
        count = size = 0
        while self._waiting and count < limits.group_instances and size < limits.group_bytes:
            taken = self._waiting.popleft()
            group.append(taken)
            count += len(taken.batch.parts)
            size += sum(part.size for part in taken.batch.parts)
        try:
            self._ingest.commit([taken.batch for taken in group])
        except Exception as error:  # noqa: BLE001 - every waiting association has to learn of it
            for taken in group:
                taken.error = error
        for taken in group:
            taken.done = True


@dataclass(slots=True)
class _Waiting:
    """A batch in the queue; ``done`` and ``error`` are written by whoever commits it, under the turn."""

    batch: Batch
    done: bool = False
    error: Exception | None = None


class _Association:
    """``IncomingTransfer`` of one association."""

    def __init__(self, intake: GroupIntake, transfer: Transfer) -> None:
        self._intake = intake
        self._transfer = transfer
        self._span = tracing.start("association", kind="server")
        if self._span is not None:
            transfer.trace = self._span.traceparent

    def store(
        self, part: bytes | memoryview, *, sop_class_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> InstanceOutcome:
        """Store one part; see the port."""
        ready = self._intake.prepare(part, self._transfer)
        outcome = ready.outcome
        if outcome.failure_reason is None and (
            sop_class_uid not in (None, outcome.sop_class_uid)
            or sop_instance_uid not in (None, outcome.sop_instance_uid)
        ):
            return replace(
                outcome,
                failure_reason=reasons.ATTRIBUTE_MISSING,
                warning_reason=None,
                comment="the data set is not of the class or instance that the request names",
            )
        if outcome.failure_reason is not None:
            return outcome
        batch = Batch(self._transfer, [ready], last=False)
        self._intake.commit(batch)
        return batch.outcomes[0]

    def end(self) -> None:
        """Tell the studies that nothing follows."""
        try:
            if self._transfer.changed or self._transfer.repeated:
                self._intake.commit(Batch(self._transfer, [], last=True))
        finally:
            if self._span is not None:
                self._span.end()
