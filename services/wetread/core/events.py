"""Event types and the event value (CloudEvents 1.0 names) that ride in the transaction of the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    """Every event that wetread emits. Each is documented in docs/events.md (tested)."""

    STUDY_RECEIVED = "study.received"
    STUDY_CHANGED = "study.changed"
    STUDY_STABLE = "study.stable"
    TASK_QUEUED = "task.queued"
    TASK_STARTED = "task.started"
    TASK_FINISHED = "task.finished"
    TASK_FAILED = "task.failed"
    TASK_DEAD = "task.dead"
    TASK_RETRIED = "task.retried"
    TASK_STALLED = "task.stalled"
    TASK_DISCARDED = "task.discarded"
    RESULT_READY = "result.ready"
    RESULT_SUPERSEDED = "result.superseded"
    FINDING_POSITIVE = "finding.positive"
    FINDING_RETRACTED = "finding.retracted"
    FINDING_ACKNOWLEDGED = "finding.acknowledged"
    FINDING_ESCALATED = "finding.escalated"
    FINDING_ACCEPTED = "finding.accepted"
    FINDING_REJECTED = "finding.rejected"
    FINDING_EDITED = "finding.edited"
    STUDY_ASSIGNED = "worklist.assigned"
    STUDY_RELEASED = "worklist.released"
    STUDY_READ = "worklist.completed"
    BREAKER_OPENED = "worklist.breaker_opened"
    BREAKER_CLOSED = "worklist.breaker_closed"
    PRIORITY_CHANGED = "worklist.priority_changed"
    DELIVERY_DEAD = "delivery.dead"


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``id`` is deterministic where the cause is, so a repeated cause is one event.

    ``subject`` is the Study Instance UID (data for the API, never for a log line); ``data`` holds JSON values only.
    ``stamps`` are Unix seconds of the stages known so far: received (last STOW byte), committed, evaluated, started,
    inferred, stored, sent.
    """

    id: str
    type: EventType
    tenant: str
    subject: str
    time: float
    data: Mapping[str, Any] = field(default_factory=dict)
    stamps: Mapping[str, float] = field(default_factory=dict)
    cursor: int = 0
    """Position in the tenant's stream; 0 until written."""
    trace: str | None = None
    """The trace that it belongs to (a W3C traceparent); None: traces were off."""
