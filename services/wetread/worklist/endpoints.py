"""The provider API of the worklist: list, raise, findings, manifest, detectors (``/api/v1``)."""

from __future__ import annotations

import re
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool

from wetread.core.errors import InvalidInput
from wetread.core.identifiers import check_uid, digest
from wetread.core.instants import iso_utc
from wetread.core.ports import DetectorInfo, WorklistFilter, WorklistItem
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import StudyAiState
from wetread.core.tail import EventTail
from wetread.core.workqueue import OPERATE
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of
from wetread.worklist.standing import settled, standings

MAX_PAGE: Final = 200
MAX_WAIT_SECONDS: Final = 60.0


def router(ports: WorklistPorts, tail: EventTail) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["worklist"])

    @api.get("/worklist")
    def list_worklist(
        request: Request,
        *,
        priority: Priority | None = None,
        modality: Annotated[str | None, Query(max_length=16)] = None,
        state: StudyAiState | None = None,
        q: Annotated[str, Query(max_length=64, description="part of patient id, name or description")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        cursor: Annotated[str | None, Query(max_length=2048)] = None,
    ) -> schemas.WorklistOut:
        """Open studies in reading order: time-critical by due time, overdue ones in between, the rest by arrival.

        Pages of one traversal share the clock of the first page. Follow the event stream for changes.
        """
        wanted = WorklistFilter(priority=priority, modality=modality, state=state, text=q)
        with ports.database.read() as tx:
            page = ports.worklist.page(
                tx, tenant_of(request), now=ports.clock.now(), wanted=wanted, limit=limit, cursor=cursor
            )
        return schemas.WorklistOut(items=[item_out(item) for item in page.items], next=page.next)

    @api.post("/worklist/{study_uid}:raise")
    def raise_study(request: Request, study_uid: str, body: schemas.RaiseIn) -> schemas.WorklistItemOut:
        """Raise a study's class by hand, with a reason. Asking for a lower class changes nothing but is kept."""
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        reason = Reason(source="manual", text=body.reason, priority=body.priority, at=now)
        with ports.database.write() as tx:
            arrival = ports.studies.summary(tx, tenant, uid).received_at
            ports.order.register(tx, tenant, uid, arrival=arrival, reason=reason)
            ports.work.enqueue(  # its waiting tasks follow: class, due time, workitem, lane
                tx,
                workflow=OPERATE,
                workflow_id=digest(OPERATE, tenant, uid, "expedite", str(body.priority), now),
                queue="control",
                due=now,
                arguments={
                    "tenant": tenant,
                    "study_uid": uid,
                    "detector": "",
                    "verb": "expedite",
                    "text": "",
                    "reason": "operator",
                },
            )
            return item_out(ports.worklist.item(tx, tenant, uid, now=now))

    @api.get("/studies/{study_uid}/findings")
    async def findings(
        request: Request,
        study_uid: str,
        wait: Annotated[
            str | None, Query(description="long poll (30s): answer when every detector is final, or after this time")
        ] = None,
    ) -> schemas.FindingsOut:
        """Every detector's standing on the study, with findings, scores, model digest and the stored DICOM series."""
        tenant, uid = tenant_of(request), check_uid(study_uid)
        deadline = time.monotonic() + _seconds(wait)
        while True:
            last = deadline <= time.monotonic() or tail.closed
            seen, answer, final = await run_in_threadpool(_findings, ports, tenant, uid, whole=last)
            if final or last:
                return schemas.FindingsOut.model_validate(answer)
            await tail.wait_beyond(seen, deadline - time.monotonic())

    @api.post("/studies/{study_uid}/manifest", status_code=202)
    def manifest(request: Request, study_uid: str, body: schemas.ManifestIn) -> schemas.ManifestOut:
        """Say what the study consists of: it is evaluated now, and complete when the manifest is satisfied."""
        tenant, uid, now = tenant_of(request), check_uid(study_uid), ports.clock.now()
        content = body.model_dump(exclude_none=True)
        with ports.database.write() as tx:
            generation = ports.studies.summary(tx, tenant, uid).generation
            ports.work.enqueue(
                tx,
                workflow="evaluate_study",
                workflow_id=digest("evaluate_study", tenant, uid, generation, "manifest", content),
                queue="control",
                due=now,
                arguments={
                    "tenant": tenant,
                    "study_uid": uid,
                    "generation": generation,
                    "signal": "manifest",
                    "manifest": content,
                },
            )
        return schemas.ManifestOut(study_uid=uid, generation=generation, signal="manifest")

    @api.get("/detectors")
    def detectors() -> schemas.DetectorsOut:
        """Return the installed detectors with their cards' essentials."""
        installed = sorted(ports.detectors().items())
        return schemas.DetectorsOut(detectors=[_detector_out(info) for _name, info in installed])

    return api


def item_out(item: WorklistItem) -> schemas.WorklistItemOut:
    """Return a list entry in the form of the API."""
    return schemas.WorklistItemOut(
        study_uid=item.study_uid,
        patient_id=item.patient_id,
        modality=item.modality,
        description=item.description,
        received_at=iso_utc(item.received_at),
        due_at=iso_utc(item.due_at),
        priority=item.priority,
        band=item.band,
        reading=None
        if item.reading is None
        else schemas.ReadingOut(
            reader=item.reading.reader,
            since=iso_utc(item.reading.since),
            read_at=None if item.reading.read_at is None else iso_utc(item.reading.read_at),
        ),
        reasons=[
            schemas.ReasonOut(
                source=reason.source,
                text=reason.text,
                priority=reason.priority,
                at=iso_utc(reason.at),
                detector=reason.detector,
                finding_id=reason.finding_id,
            )
            for reason in item.reasons
        ],
        ai=schemas.AiOut(
            state=item.ai_state,
            tasks=[
                schemas.TaskOut(
                    detector=task.detector,
                    version=task.version,
                    state=task.state,
                    reason=task.reason,
                    shadow=task.shadow,
                    attempt=task.attempt,
                    progress=task.progress,
                    due_at=iso_utc(task.due_at),
                    updated_at=iso_utc(task.updated_at),
                )
                for task in item.tasks
            ],
        ),
    )


def _findings(ports: WorklistPorts, tenant: str, study_uid: str, *, whole: bool) -> tuple[int, dict[str, Any], bool]:
    """Return the end of the event stream, the answer and whether it is final; not *whole*: none unless it may be."""
    with ports.database.read() as tx:
        seen = ports.events.latest(tx)
        if not whole and ports.worklist.unanswered(tx, tenant, study_uid):
            return seen, {}, False
        item = ports.worklist.item(tx, tenant, study_uid, now=ports.clock.now())
        entries = standings(ports, tx, tenant, study_uid)
    # Rules that looked and want nothing have answered, too.
    final = settled(entries) or (not entries and item.evaluated)
    answer = {"study_uid": study_uid, "state": item.ai_state, "results": entries, "ruo": RUO_STATEMENT}
    return seen, answer, final


def _seconds(wait: str | None) -> float:
    if wait is None:
        return 0.0
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,3})?)s?", wait)
    if match is None:
        msg = "wait is a number of seconds such as 30s"
        raise InvalidInput(msg)
    return min(MAX_WAIT_SECONDS, float(match[1]))


def _detector_out(info: DetectorInfo) -> schemas.DetectorOut:
    manifest, card = info.manifest, info.card
    return schemas.DetectorOut(
        name=info.name,
        version=info.version,
        title=manifest.title,
        intended_use=manifest.intended_use,
        not_for=list(manifest.not_for),
        modality=list(manifest.input.modality),
        findings=[":".join(finding.code) for finding in manifest.findings],
        model_digest=info.model_digest,
        shadow=card.shadow,
        operating_points=[
            schemas.OperatingPointOut.model_validate(point.model_dump()) for point in card.operating_points
        ],
        default_operating_point=card.default_operating_point,
        phantom_evidence_id=card.phantom_evidence_id,
    )
