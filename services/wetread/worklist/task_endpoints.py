"""Tasks for operators: what runs, what is dead and why, and another try for what ended without an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request

from wetread.core.errors import Conflict, NotFound
from wetread.core.events import Event, EventType
from wetread.core.identifiers import check_uid, digest
from wetread.core.instants import iso_utc
from wetread.core.ports import Task, Transaction
from wetread.core.priority import Priority, due_at
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import RETRYABLE, AiState
from wetread.core.workqueue import EVALUATE
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of
from wetread.worklist.timeline import moment

DEAD_REASON: Final = "dead_letter"


def router(ports: WorklistPorts) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["tasks"])

    @api.get("/tasks")
    def list_tasks(
        request: Request,
        *,
        state: Annotated[
            AiState | Literal["dead"] | None, Query(description="an AI state; dead: failed after the last attempt")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> schemas.TasksOut:
        """Tasks of all studies, latest change first."""
        dead = state == "dead"
        wanted = [AiState.FAILED] if dead else [AiState(state)] if state else []
        reason = DEAD_REASON if dead else None
        with ports.database.read() as tx:
            found = ports.tasks.search(tx, tenant_of(request), wanted, reason=reason, limit=limit)
        return schemas.TasksOut(tasks=[_row(task) for task in found])

    @api.get("/tasks/{study_uid}/{detector}")
    def get_task(request: Request, study_uid: str, detector: str) -> schemas.TaskDetailOut:
        """One task with its events: every attempt, and what ended it."""
        tenant, uid = tenant_of(request), check_uid(study_uid)
        with ports.database.read() as tx:
            return _detail(tx, _found(tx, tenant, uid, detector))

    @api.post("/tasks/{study_uid}/{detector}:retry", status_code=202)
    def retry_task(
        request: Request, study_uid: str, detector: str, body: schemas.RetryIn | None = None
    ) -> schemas.TaskDetailOut:
        """Try again what failed, could not be processed or was cancelled: a new evaluation, a new run, a new workitem.

        The rules of today decide; an input that the same detector has answered before is not read again.
        """
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        with ports.database.write() as tx:
            former = _found(tx, tenant, uid, detector)
            if former.state not in RETRYABLE:
                msg = f"the task is {former.state}: only failed, not processable and cancelled tasks can be retried"
                raise Conflict(msg)
            _reopen(tx, former, now, body.reason if body else "")
            return _detail(tx, _found(tx, tenant, uid, detector))

    def _found(tx: Transaction, tenant: str, study_uid: str, detector: str) -> Task:
        task = ports.tasks.get(tx, tenant, study_uid, detector)
        if task is None:
            msg = "no such task"
            raise NotFound(msg)
        return task

    def _detail(tx: Transaction, task: Task) -> schemas.TaskDetailOut:
        received = ports.studies.summary(tx, task.tenant, task.study_uid).received_at
        events = ports.events.of_study(tx, task.tenant, task.study_uid, limit=1000)
        own = [moment(event, received) for event in events if event.data.get("detector") == task.detector]
        return schemas.TaskDetailOut(**_row(task).model_dump(), events=own)

    def _reopen(tx: Transaction, former: Task, now: float, text: str) -> None:
        """Row, event and queued evaluation change together; without an input digest the evaluation starts afresh."""
        reopened = replace(
            former,
            state=AiState.AWAITING_IMAGES,
            reason=None,
            detail="retried by hand",
            input_digest=None,
            run_id=None,
            workitem_uid=None,
            early=False,
            progress=0,
            updated_at=now,
        )
        ports.tasks.put(tx, reopened)
        number = ports.events.latest(tx)  # grows with every retry, so no two share an id even at one instant
        ports.events.append(tx, _retried(former, number, now, text))
        generation = ports.studies.summary(tx, former.tenant, former.study_uid).generation
        signal = f"request:retry:{former.detector}:{number}"
        ports.work.enqueue(
            tx,
            workflow=EVALUATE,
            workflow_id=digest(EVALUATE, former.tenant, former.study_uid, generation, signal),
            queue="control",
            due=due_at(now, Priority.STAT),
            arguments={
                "tenant": former.tenant,
                "study_uid": former.study_uid,
                "generation": generation,
                "signal": signal,
                "stamps": {},
            },
        )

    return api


def _retried(former: Task, number: int, now: float, text: str) -> Event:
    kind = EventType.TASK_RETRIED
    return Event(
        id=digest("event", str(kind), former.tenant, former.study_uid, former.detector, number),
        type=kind,
        tenant=former.tenant,
        subject=former.study_uid,
        time=now,
        data={
            "study_uid": former.study_uid,
            "detector": former.detector,
            "version": former.version,
            "state": str(former.state),
            "reason": former.reason,
            "shadow": former.shadow,
            "text": text,
            "ruo": RUO_STATEMENT,
        },
    )


def _row(task: Task) -> schemas.TaskRowOut:
    return schemas.TaskRowOut(
        study_uid=task.study_uid,
        detector=task.detector,
        version=task.version,
        state=task.state,
        reason=task.reason,
        detail=task.detail,
        dead=task.state is AiState.FAILED and task.reason == DEAD_REASON,
        retryable=task.state in RETRYABLE,
        shadow=task.shadow,
        workflow=task.workflow,
        priority=task.priority,
        due_at=iso_utc(task.due_at) if task.due_at else None,
        attempt=task.attempt,
        runs=task.runs,
        progress=task.progress,
        workitem_uid=task.workitem_uid,
        input_digest=task.input_digest,
        result_key=task.result_key,
        updated_at=iso_utc(task.updated_at),
    )
