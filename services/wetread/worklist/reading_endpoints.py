"""What readers do on the list and with findings: take, put back, finish; acknowledge, accept, reject, edit."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from wetread.core.errors import Unprocessable
from wetread.core.events import Event, EventType
from wetread.core.identifiers import check_uid, digest
from wetread.core.ports import Transaction
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.worklist import schemas
from wetread.worklist.endpoints import item_out
from wetread.worklist.feedback import FindingFeedback
from wetread.worklist.ports import WorklistPorts, actor_of, tenant_of


def router(ports: WorklistPorts) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["worklist"])
    _add_claims(api, ports)
    _add_feedback(api, ports)
    return api


def _add_claims(api: APIRouter, ports: WorklistPorts) -> None:

    @api.post("/worklist/{study_uid}:assign")
    def assign(request: Request, study_uid: str, body: schemas.AssignIn | None = None) -> schemas.WorklistItemOut:
        """Take a study to read it, or give it to somebody. It leaves its place; after an hour it is back there."""
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        body = body or schemas.AssignIn()
        actor = actor_of(request)
        reader = body.reader or actor
        with ports.database.write() as tx:
            _list(ports, tx, tenant, uid, now)
            if ports.claims.assign(tx, tenant, uid, reader, now=now):
                _tell(ports, tx, EventType.STUDY_ASSIGNED, tenant, uid, now, actor, reader, body.reason)
            return item_out(ports.worklist.item(tx, tenant, uid, now=now))

    @api.post("/worklist/{study_uid}:release")
    def release(request: Request, study_uid: str, body: schemas.ReasonIn | None = None) -> schemas.WorklistItemOut:
        """Put a study back into its place. Another reader's study needs a reason."""
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        text = body.reason if body else ""
        actor = actor_of(request)
        with ports.database.write() as tx:
            ports.studies.summary(tx, tenant, uid)
            held = ports.claims.release(tx, tenant, uid, now=now)
            if held.reader != actor and not text:
                code = "reason"
                raise Unprocessable(code, "putting back what another reader holds needs a reason")
            _tell(ports, tx, EventType.STUDY_RELEASED, tenant, uid, now, actor, held.reader, text)
            return item_out(ports.worklist.item(tx, tenant, uid, now=now))

    @api.post("/worklist/{study_uid}:complete")
    def complete(request: Request, study_uid: str, body: schemas.ReasonIn | None = None) -> schemas.WorklistItemOut:
        """Say that a study has been read: it leaves the list, its page stays."""
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        text = body.reason if body else ""
        actor = actor_of(request)
        with ports.database.write() as tx:
            _list(ports, tx, tenant, uid, now)
            held = ports.worklist.item(tx, tenant, uid, now=now).reading
            reader = held.reader if held is not None and text else actor  # finished for somebody: with a reason
            if ports.claims.complete(tx, tenant, uid, reader, now=now):
                _tell(ports, tx, EventType.STUDY_READ, tenant, uid, now, actor, reader, text)
            return item_out(ports.worklist.item(tx, tenant, uid, now=now))


def _add_feedback(api: APIRouter, ports: WorklistPorts) -> None:
    feedback = FindingFeedback(ports.events, ports.results, ports.clock)

    @api.post("/studies/{study_uid}/findings/{finding_id}:acknowledge")
    def acknowledge(request: Request, study_uid: str, finding_id: str) -> schemas.FindingFeedbackOut:
        """Say that a person has seen the finding: nobody else is called any more."""
        tenant, uid = tenant_of(request), check_uid(study_uid)
        with ports.database.write() as tx:
            said = feedback.acknowledge(tx, tenant, uid, finding_id, actor_of(request))
        return _answer(uid, finding_id, said.json())

    def judge(
        request: Request, study_uid: str, finding_id: str, verdict: EventType, reason: str, changes: dict[str, Any]
    ) -> schemas.FindingFeedbackOut:
        tenant, uid, actor = tenant_of(request), check_uid(study_uid), actor_of(request)
        with ports.database.write() as tx:
            said = feedback.judge(tx, tenant, uid, finding_id, actor, verdict, reason=reason, changes=changes)
        return _answer(uid, finding_id, said.json())

    @api.post("/studies/{study_uid}/findings/{finding_id}:accept")
    def accept(
        request: Request, study_uid: str, finding_id: str, body: schemas.VerdictIn | None = None
    ) -> schemas.FindingFeedbackOut:
        """Agree with a finding. Verdicts are kept for the card and for drift; they never move the list."""
        return judge(request, study_uid, finding_id, EventType.FINDING_ACCEPTED, body.reason if body else "", {})

    @api.post("/studies/{study_uid}/findings/{finding_id}:reject")
    def reject(
        request: Request, study_uid: str, finding_id: str, body: schemas.VerdictIn
    ) -> schemas.FindingFeedbackOut:
        """Disagree with a finding, with a reason. The study stays where it is: nothing lowers a study."""
        if not body.reason.strip():
            code = "reason"
            raise Unprocessable(code, "a rejection needs a reason")
        return judge(request, study_uid, finding_id, EventType.FINDING_REJECTED, body.reason, {})

    @api.post("/studies/{study_uid}/findings/{finding_id}:edit")
    def edit(request: Request, study_uid: str, finding_id: str, body: schemas.EditIn) -> schemas.FindingFeedbackOut:
        """Correct a finding, with a reason. The correction is kept beside the recorded result."""
        changes: dict[str, Any] = {}
        if body.laterality is not None:
            changes["laterality"] = body.laterality
        if body.measurements:
            changes["measurements"] = [changed.model_dump() for changed in body.measurements]
        if body.comment:
            changes["comment"] = body.comment
        return judge(request, study_uid, finding_id, EventType.FINDING_EDITED, body.reason, changes)


def _answer(study_uid: str, finding_id: str, said: dict[str, Any]) -> schemas.FindingFeedbackOut:
    return schemas.FindingFeedbackOut(
        study_uid=study_uid, finding_id=finding_id, feedback=schemas.FeedbackOut.model_validate(said)
    )


def _list(ports: WorklistPorts, tx: Transaction, tenant: str, study_uid: str, now: float) -> None:
    """Put a study that nobody has registered yet on the list in its default class. Raises NotFound."""
    arrival = ports.studies.summary(tx, tenant, study_uid).received_at
    if ports.order.priority(tx, tenant, study_uid) is None:
        reason = Reason(source="order", text="not ordered otherwise", priority=Priority.ROUTINE, at=now)
        ports.order.register(tx, tenant, study_uid, arrival=arrival, reason=reason)


def _tell(
    ports: WorklistPorts,
    tx: Transaction,
    kind: EventType,
    tenant: str,
    study_uid: str,
    now: float,
    actor: str,
    reader: str,
    text: str,
) -> None:
    placed = ports.order.priority(tx, tenant, study_uid)
    ports.events.append(
        tx,
        Event(
            id=digest("event", str(kind), tenant, study_uid, actor, reader, now),
            type=kind,
            tenant=tenant,
            subject=study_uid,
            time=now,
            data={
                "reader": reader,
                "actor": actor,
                "text": text,
                "priority": str(placed[0]) if placed else str(Priority.ROUTINE),
            },
        ),
    )
