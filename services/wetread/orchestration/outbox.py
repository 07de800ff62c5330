"""What rides in the ingest transaction: the events of a change, the study's place on the worklist, its evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wetread.core import tracing
from wetread.core.errors import NotFound
from wetread.core.events import EventType
from wetread.core.identifiers import digest
from wetread.core.ports.database import Clock, Transaction
from wetread.core.ports.events import EventLog, ReadingOrder, Reason
from wetread.core.ports.ingest import StudyChange
from wetread.core.ports.orchestration import DecisionRepository, HeldEvaluation
from wetread.core.ports.studies import StudyIndex
from wetread.core.ports.work import WorkQueue
from wetread.core.priority import Priority, due_at
from wetread.core.workqueue import EVALUATE, OPERATE
from wetread.orchestration.announce import Announcer
from wetread.orchestration.held import HeldEvaluations

_ENDED: Final = frozenset({"transfer_end", "quiet_study", "max_wait"})
"""Signals after which the end of a transfer says nothing new."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """What is known of studies that may still be arriving."""

    studies: StudyIndex
    decisions: DecisionRepository


class DurableOutbox:
    """Outbox over event log, reading order and durable queue; all three commit or roll back with the index rows.

    ``held``: spares studies that are still arriving an evaluation per commit (None: each is queued). The end of an
    association brings no images and never waits. ``arrivals``: for transfers that are repeated after a crash (None: the
    study waits until it is quiet).
    """

    def __init__(
        self,
        events: EventLog,
        reading: ReadingOrder,
        queue: WorkQueue,
        clock: Clock,
        held: HeldEvaluations | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._events = events
        self._announce = Announcer(events, clock)
        self._reading = reading
        self._queue = queue
        self._clock = clock
        self._held = held
        self._arrivals = arrivals

    def study_changed(self, tx: Transaction, change: StudyChange) -> None:
        """Record the change and enqueue its evaluation, earliest due first among evaluations."""
        now = self._clock.now()
        stamps = {"received": change.received_at, **change.stamps, "committed": now}
        data = {
            "new_instances": change.new_instances,
            "replaced_instances": change.replaced_instances,
            "transfer_end": change.transfer_end,
        }
        if change.first:
            reason = Reason("order", "received", Priority.ROUTINE, now)
            self._reading.register(tx, change.tenant, change.study_uid, arrival=change.received_at, reason=reason)
            kind = EventType.STUDY_RECEIVED
            self._announce.study(tx, kind, change.tenant, change.study_uid, change.generation, data, stamps)
        kind = EventType.STUDY_CHANGED
        self._announce.study(tx, kind, change.tenant, change.study_uid, change.generation, data, stamps)
        signal = "transfer_end" if change.transfer_end else "commit"
        due = due_at(change.received_at, Priority.STAT)
        arguments = {
            "tenant": change.tenant,
            "study_uid": change.study_uid,
            "generation": change.generation,
            "signal": signal,
            "stamps": stamps,
        }
        if self._held is not None and (change.new_instances or change.replaced_instances):
            self._held.submit(tx, HeldEvaluation(change.tenant, change.study_uid, due, arguments, tracing.current()))
            return
        self._queue.enqueue(
            tx,
            workflow=EVALUATE,
            workflow_id=digest(EVALUATE, change.tenant, change.study_uid, change.generation, signal),
            queue="control",
            due=due,
            arguments=arguments,
        )

    def waits(self, tx: Transaction, tenant: str, study_uid: str) -> bool:
        """Return whether nothing has told that the study's present generation is all of it."""
        if self._arrivals is None:
            return False
        try:
            generation = self._arrivals.studies.summary(tx, tenant, study_uid).generation
        except NotFound:
            return False
        seen = self._arrivals.decisions.signals(tx, tenant, study_uid, generation)
        return not any(signal.split(":", 1)[0] in _ENDED for signal in seen)

    def transfer_repeated(self, tx: Transaction, tenant: str, study_uid: str, *, received_at: float) -> None:
        """Enqueue the evaluation that the end of the first transfer would have brought, once per generation."""
        if self._arrivals is None:
            return
        now = self._clock.now()
        generation = self._arrivals.studies.summary(tx, tenant, study_uid).generation
        self._queue.enqueue(
            tx,
            workflow=EVALUATE,
            workflow_id=digest(EVALUATE, tenant, study_uid, generation, "transfer_end"),
            queue="control",
            due=due_at(received_at, Priority.STAT),
            arguments={
                "tenant": tenant,
                "study_uid": study_uid,
                "generation": generation,
                "signal": "transfer_end",
                "stamps": {"received": received_at, "committed": now},
            },
        )

    def study_removed(self, tx: Transaction, tenant: str, study_uid: str) -> None:
        """Enqueue the stop of what runs on a deleted study, or the evaluation of what is left."""
        now = self._clock.now()
        self._queue.enqueue(
            tx,
            workflow=OPERATE,
            workflow_id=digest(OPERATE, tenant, study_uid, "removed", self._events.latest(tx), now),
            queue="control",
            due=due_at(now, Priority.STAT),
            arguments={
                "tenant": tenant,
                "study_uid": study_uid,
                "detector": "",
                "verb": "removed",
                "text": "",
                "reason": "deleted",
            },
        )
