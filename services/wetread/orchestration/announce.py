"""The events of the orchestration. Ids follow from their cause, so a repeated cause is one event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wetread.core.events import Event, EventType
from wetread.core.findings import Finding, ResultSet, Score, StoredSeries
from wetread.core.identifiers import digest
from wetread.core.ports.database import Clock, Transaction
from wetread.core.ports.events import EventLog
from wetread.core.ports.work import Task
from wetread.core.ruo import RUO_STATEMENT

Stamps = Mapping[str, float]


class Announcer:
    """Appends events in the caller's transaction."""

    def __init__(self, events: EventLog, clock: Clock) -> None:
        self._events = events
        self._clock = clock

    def study(
        self,
        tx: Transaction,
        kind: EventType,
        tenant: str,
        study_uid: str,
        generation: int,
        data: Mapping[str, Any],
        stamps: Stamps,
    ) -> bool:
        """study.received (once), study.changed and study.stable (once per generation)."""
        cause = () if kind is EventType.STUDY_RECEIVED else (generation,)
        body = {"study_uid": study_uid, "generation": generation, **data}
        return self._events.append(tx, self._event(kind, tenant, study_uid, cause, body, stamps))

    def task(
        self, tx: Transaction, kind: EventType, task: Task, stamps: Stamps, *, cause: str = "", **data: Any
    ) -> bool:
        """task.queued, started, finished, failed, dead: once per run, attempt or *cause*."""
        return self._events.append(tx, self._of_task(kind, task, stamps, cause, data))

    def tasks(self, tx: Transaction, kind: EventType, tasks: Sequence[Task], stamps: Stamps) -> None:
        """``task`` for several tasks of one tenant."""
        if tasks:
            self._events.append_all(tx, tasks[0].tenant, [self._of_task(kind, task, stamps, "", {}) for task in tasks])

    def _of_task(self, kind: EventType, task: Task, stamps: Stamps, cause: str, data: Mapping[str, Any]) -> Event:
        body = {
            "study_uid": task.study_uid,
            "detector": task.detector,
            "version": task.version,
            "state": str(task.state),
            "reason": task.reason,
            "priority": str(task.priority),
            "due_at": task.due_at,
            "shadow": task.shadow,
            "attempt": task.attempt,
            "workitem_uid": task.workitem_uid,
            **data,
        }
        return self._event(kind, task.tenant, task.study_uid, (task.detector, task.runs, cause), body, stamps)

    def finding(
        self,
        tx: Transaction,
        kind: EventType,
        result: ResultSet,
        finding: Finding | None,
        data: Mapping[str, Any],
        stamps: Stamps,
    ) -> bool:
        """finding.positive and finding.retracted: once per result and finding code."""
        code = finding.code.value if finding else ""
        body = {**result_data(result), **_finding_data(finding), **data}
        parts = (result.run.detector, code, result.run.result_key)
        return self._events.append(tx, self._event(kind, result.run.tenant, result.run.study_uid, parts, body, stamps))

    def result_ready(
        self, tx: Transaction, result: ResultSet, stored: tuple[StoredSeries, ...], stamps: Stamps
    ) -> bool:
        """result.ready: once preliminary, once final."""
        objects = [{"modality": s.modality, "series_uid": s.series_uid} for s in stored]
        body = {**result_data(result), "stored": objects}
        parts = (result.run.result_key, result.preliminary)
        return self._events.append(
            tx, self._event(EventType.RESULT_READY, result.run.tenant, result.run.study_uid, parts, body, stamps)
        )

    def superseded(self, tx: Transaction, former: ResultSet, by: ResultSet, stamps: Stamps) -> bool:
        """result.superseded: once per pair of results."""
        body = {**result_data(former), "superseded_by": by.run.result_key}
        parts = (former.run.result_key, by.run.result_key)
        kind = EventType.RESULT_SUPERSEDED
        return self._events.append(tx, self._event(kind, former.run.tenant, former.run.study_uid, parts, body, stamps))

    def _event(
        self,
        kind: EventType,
        tenant: str,
        study_uid: str,
        cause: tuple[Any, ...],
        data: Mapping[str, Any],
        stamps: Stamps,
    ) -> Event:
        return Event(
            id=digest("event", str(kind), tenant, study_uid, *cause),
            type=kind,
            tenant=tenant,
            subject=study_uid,
            time=self._clock.now(),
            data={**data, "ruo": RUO_STATEMENT},
            stamps=dict(stamps),
        )


def result_data(result: ResultSet) -> dict[str, Any]:
    """Return what events say of a result: references, state and scores, never patient data."""
    return {
        "study_uid": result.run.study_uid,
        "detector": result.run.detector,
        "version": result.run.version,
        "result_key": result.run.result_key,
        "model_digest": result.run.model_digest,
        "state": str(result.state),
        "reason": result.reason,
        "preliminary": result.preliminary,
        "shadow": result.run.shadow,
        **_score_data(result.score),
    }


def _score_data(score: Score | None) -> dict[str, Any]:
    return {"score": score.value, "threshold": score.threshold} if score else {"score": None, "threshold": None}


def _finding_data(finding: Finding | None) -> dict[str, Any]:
    if finding is None:
        return {}
    return {
        "finding_id": finding.finding_id,
        "code": finding.code.value,
        "scheme": finding.code.scheme,
        "meaning": finding.code.meaning,
        "types": list(finding.types),
        "volume_ml": finding.volume_ml(),
        **(_score_data(finding.score) if finding.score else {}),
    }
