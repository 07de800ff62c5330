"""CT-derived FFR of a study in the archive: ask for it, read the result and its attachments, look at it."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from wetread.core.asking import ask_for
from wetread.core.errors import Conflict, NotFound, Unprocessable
from wetread.core.findings import ResultSet
from wetread.core.identifiers import check_uid
from wetread.core.ports import Transaction
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import RETRYABLE

from .outputs.disclaimer import FFR_DISCLAIMER
from .ports import FfrPorts, tenant_of

DETECTOR: Final = "ffr-ct"
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_STATIC: Final = {
    "ffr.js": "text/javascript; charset=utf-8",
    "ffr.css": "text/css; charset=utf-8",
    "mark.svg": "image/svg+xml",
}


def study_router(ports: FfrPorts) -> APIRouter:
    """Routes under ``/api/v1/studies``; errors are problem+json, with a stable ``code`` for content at fault."""
    routes = APIRouter(prefix="/api/v1/studies", tags=["CT-derived FFR"])

    @routes.post(
        "/{study_uid}/series/{series_uid}/ffr",
        status_code=202,
        summary="Ask for CT-derived FFR of a CT angiogram in the archive",
        description=RUO_STATEMENT,
    )
    def ask(request: Request, response: Response, study_uid: str, series_uid: str) -> dict[str, Any]:
        tenant, study, series = tenant_of(request), check_uid(study_uid), check_uid(series_uid)
        with ports.database.write() as tx:
            facts = ports.studies.facts(tx, tenant, study)
            found = next((s for s in facts.series if s.series_instance_uid == series), None)
            if found is None:
                raise NotFound("the study has no such series")
            if found.modality != "CT":
                raise Unprocessable("not_ct", "send CT images (CT Image Storage)")
            task = ports.tasks.get(tx, tenant, study, DETECTOR)
            if task is not None and task.state in RETRYABLE:
                raise Conflict(f"the task is {task.state}: ask for it again with /api/v1/tasks/.../{DETECTOR}:retry")
            generation = ports.studies.summary(tx, tenant, study).generation
            ask_for(
                tx,
                ports.work,
                ports.clock,
                tenant=tenant,
                study_uid=study,
                generation=generation,
                detector=DETECTOR,
            )
        response.headers["Location"] = f"/api/v1/tasks/{study}/{DETECTOR}"
        return {
            "study_uid": study,
            "series_uid": series,
            "detector": DETECTOR,
            "state": str(task.state) if task else "awaiting_images",
            "workitem_uid": task.workitem_uid if task else None,
            "disclaimer": RUO_STATEMENT,
        }

    @routes.get("/{study_uid}/ffr", summary="The FFR result of a study with its tree", description=RUO_STATEMENT)
    def result(request: Request, study_uid: str) -> dict[str, Any]:
        tenant, study = tenant_of(request), check_uid(study_uid)
        with ports.database.read() as tx:
            found = _found(ports, tx, tenant, study)
        if not found.attachments:
            # A coded refusal: no FFR stands beside it.
            return {
                "state": str(found.state),
                "code": found.reason,
                "detail": found.detail,
                "disclaimer": RUO_STATEMENT,
            }
        documents = {name: json.loads(_bytes(ports, tenant, found, f"{name}.json")) for name in ("ffr", "tree")}
        names = [item.name for item in found.attachments]
        return {"state": str(found.state), "result": documents["ffr"], "tree": documents["tree"], "attachments": names}

    @routes.get("/{study_uid}/ffr/{name}", summary="A document or picture of the FFR result", response_class=Response)
    def attachment(request: Request, study_uid: str, name: str) -> Response:
        tenant, study = tenant_of(request), check_uid(study_uid)
        with ports.database.read() as tx:
            found = _found(ports, tx, tenant, study)
        stored = next((item for item in found.attachments if item.name == name), None)
        if stored is None:
            raise NotFound("the result has no such attachment")
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return Response(ports.artifacts.get(tenant, stored.key), media_type=stored.media_type, headers=headers)

    return routes


def pages(ports: FfrPorts) -> APIRouter:
    """The page ``/ffr/{study}``: the tree in 3D and FFR along the vessel that is clicked."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/ffr/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise NotFound("no such file")
        return Response(_static(name), media_type=_STATIC[name], headers={"X-Content-Type-Options": "nosniff"})

    @routes.get("/ffr/{study_uid}")
    def page(request: Request, study_uid: str) -> HTMLResponse:
        study = check_uid(study_uid)
        with ports.database.read() as tx:
            _found(ports, tx, tenant_of(request), study)
        text = _static("ffr.html").decode()
        text = text.replace("{study}", escape(study, quote=True))
        text = text.replace("{statement}", escape(f"{RUO_STATEMENT} {FFR_DISCLAIMER}"))
        return HTMLResponse(text, headers=_HEADERS)

    return routes


def _found(ports: FfrPorts, tx: Transaction, tenant: str, study: str) -> ResultSet:
    current = (r for r, _ in ports.results.current(tx, tenant, study) if r.run.detector == DETECTOR)
    found = next(current, None)
    if found is None:
        raise NotFound("the study has no FFR result")
    return found


def _bytes(ports: FfrPorts, tenant: str, found: ResultSet, name: str) -> bytes:
    stored = next((item for item in found.attachments if item.name == name), None)
    if stored is None:
        raise NotFound("the result has no such attachment")
    return ports.artifacts.get(tenant, stored.key)


@cache
def _static(name: str) -> bytes:
    return (files("wetread.ffrct") / "static" / name).read_bytes()
