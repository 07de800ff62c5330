"""Slides of a study in the archive: ask for their analysis, see how far it is, read the result and its documents."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from wetread.core.asking import ask_for
from wetread.core.errors import Conflict, NotFound, Unprocessable
from wetread.core.facts import SeriesFacts
from wetread.core.findings import ResultSet
from wetread.core.identifiers import check_uid
from wetread.core.ports import Task, Transaction
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import RETRYABLE
from wetread.core.workflow import base_detector, pair_name
from wetread.pathology.ports import SlidePorts, tenant_of
from wetread.pathology.study import MODALITY

MODEL: Final = "he-tile"
_RESULT: Final = "result.json"
_PATH: Final = "/{study_uid}/series/{series_uid}/pathology"
Model = Annotated[str, Query(pattern=r"^[a-z][a-z0-9-]{0,62}$", description="Tile model.")]


def router(ports: SlidePorts) -> APIRouter:
    """Routes under ``/api/v1/studies``; errors are problem+json, with a stable ``code`` for content at fault."""
    routes = APIRouter(prefix="/api/v1/studies", tags=["Whole slides"])

    @routes.post(
        _PATH, status_code=202, summary="Ask for the analysis of a slide in the archive", description=RUO_STATEMENT
    )
    def ask(
        request: Request, response: Response, study_uid: str, series_uid: str, model: Model = MODEL
    ) -> dict[str, Any]:
        tenant, study, series = tenant_of(request), check_uid(study_uid), check_uid(series_uid)
        if model not in ports.models:
            raise NotFound(f"no tile model is called {model!r}")
        with ports.database.write() as tx:
            if _series(ports, tx, tenant, study, series).modality != MODALITY:
                raise Unprocessable("not_a_slide", "send VL Whole Slide Microscopy images")
            task = task_of(ports, tx, tenant, study, series, model)
            if task is not None and task.state in RETRYABLE:
                again = f"/api/v1/tasks/.../{task.detector}:retry"
                raise Conflict(f"the task is {task.state}: ask for it again with {again}")
            generation = ports.studies.summary(tx, tenant, study).generation
            ask_for(tx, ports.work, ports.clock, tenant=tenant, study_uid=study, generation=generation, detector=model)
        pair = task.detector if task is not None else pair_name(model, series)
        response.headers["Location"] = f"/api/v1/tasks/{study}/{pair}"
        return {**_state(task, study, series, pair), "disclaimer": RUO_STATEMENT}

    @routes.get("/{study_uid}/pathology", summary="Slides of a study and how far each is", description=RUO_STATEMENT)
    def slides(request: Request, study_uid: str, model: Model = MODEL) -> dict[str, Any]:
        tenant, study = tenant_of(request), check_uid(study_uid)
        with ports.database.read() as tx:
            found = [s.series_instance_uid for s in _slides(ports, tx, tenant, study)]
            tasks = {series: task_of(ports, tx, tenant, study, series, model) for series in found}
        listed = [_state(task, study, s, task.detector if task else pair_name(model, s)) for s, task in tasks.items()]
        return {"study_uid": study, "slides": listed, "disclaimer": RUO_STATEMENT}

    @routes.get(_PATH, summary="Progress and result of a slide", description=RUO_STATEMENT)
    def slide(request: Request, study_uid: str, series_uid: str, model: Model = MODEL) -> dict[str, Any]:
        tenant, study, series = tenant_of(request), check_uid(study_uid), check_uid(series_uid)
        with ports.database.read() as tx:
            _series(ports, tx, tenant, study, series)
            task = task_of(ports, tx, tenant, study, series, model)
            result = result_of(ports, tx, tenant, study, task)
        if task is None:
            raise NotFound("nobody has asked for the analysis of this slide")
        body = {**_state(task, study, series, task.detector), "result": None, "attachments": []}
        if result is not None and result.attachments:
            body["result"] = json.loads(_bytes(ports, tenant, result, _RESULT))
            body["attachments"] = [item.name for item in result.attachments]
        return {**body, "disclaimer": RUO_STATEMENT}

    @routes.get(_PATH + "/{name}", summary="A document or picture of a slide's result", response_class=Response)
    def attachment(request: Request, study_uid: str, series_uid: str, name: str, model: Model = MODEL) -> Response:
        tenant, study, series = tenant_of(request), check_uid(study_uid), check_uid(series_uid)
        with ports.database.read() as tx:
            _series(ports, tx, tenant, study, series)
            result = result_of(ports, tx, tenant, study, task_of(ports, tx, tenant, study, series, model))
        if result is None:
            raise NotFound("the slide has no result")
        stored = next((item for item in result.attachments if item.name == name), None)
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        kind = stored.media_type if stored is not None else None
        return Response(_bytes(ports, tenant, result, name), media_type=kind, headers=headers)

    return routes


def task_of(
    ports: SlidePorts, tx: Transaction, tenant: str, study_uid: str, series_uid: str, model: str
) -> Task | None:
    """Return the task of a slide: of its own in a fan-out, or of the study where a workflow reads one slide."""
    tasks = {t.detector: t for t in ports.tasks.of_study(tx, tenant, study_uid)}
    return tasks.get(pair_name(model, series_uid)) or tasks.get(model)


def result_of(ports: SlidePorts, tx: Transaction, tenant: str, study_uid: str, task: Task | None) -> ResultSet | None:
    """Return the result that stands for a task."""
    if task is None:
        return None
    current = ports.results.current(tx, tenant, study_uid)
    return next((result for result, _ in current if result.run.detector == task.detector), None)


def _slides(ports: SlidePorts, tx: Transaction, tenant: str, study_uid: str) -> list[SeriesFacts]:
    series = ports.studies.facts(tx, tenant, study_uid).series
    return [s for s in series if s.modality == MODALITY and not s.detector_result]


def _series(ports: SlidePorts, tx: Transaction, tenant: str, study_uid: str, series_uid: str) -> SeriesFacts:
    series = ports.studies.facts(tx, tenant, study_uid).series
    found = next((s for s in series if s.series_instance_uid == series_uid), None)
    if found is None:
        raise NotFound("the study has no such series")
    return found


def _state(task: Task | None, study_uid: str, series_uid: str, pair: str) -> dict[str, Any]:
    return {
        "study_uid": study_uid,
        "series_uid": series_uid,
        "detector": pair,
        "model": base_detector(pair),
        "state": str(task.state) if task else "awaiting_images",
        "reason": task.reason if task else None,
        "detail": task.detail if task else "",
        "progress": task.progress if task else 0,
        "workitem_uid": task.workitem_uid if task else None,
    }


def _bytes(ports: SlidePorts, tenant: str, result: ResultSet, name: str) -> bytes:
    stored = next((item for item in result.attachments if item.name == name), None)
    if stored is None:
        raise NotFound("the result has no such attachment")
    return ports.artifacts.get(tenant, stored.key)
