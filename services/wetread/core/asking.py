"""Asking for a run by hand: an evaluation of the study in which a detector is wanted, whether or not a rule matches."""

from __future__ import annotations

from wetread.core.identifiers import digest
from wetread.core.ports.database import Clock, Transaction
from wetread.core.ports.work import WorkQueue
from wetread.core.priority import Priority, due_at
from wetread.core.workqueue import EVALUATE, run_request


def ask_for(
    tx: Transaction, work: WorkQueue, clock: Clock, *, tenant: str, study_uid: str, generation: int, detector: str
) -> None:
    """Queue the evaluation; asking twice for the same images queues one."""
    signal = run_request(detector)
    work.enqueue(
        tx,
        workflow=EVALUATE,
        workflow_id=digest(EVALUATE, tenant, study_uid, generation, signal),
        queue="control",
        due=due_at(clock.now(), Priority.ROUTINE),
        arguments={
            "tenant": tenant,
            "study_uid": study_uid,
            "generation": generation,
            "signal": signal,
            "stamps": {},
        },
    )
