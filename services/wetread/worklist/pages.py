"""The worklist page at ``/`` and the page of one study: rendered here, kept live by the event stream, no build step."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FunctionLoader, StrictUndefined

from wetread.core.errors import InvalidInput, NotFound
from wetread.core.identifiers import check_uid
from wetread.core.ports import Transaction, WorklistFilter, WorklistItem
from wetread.core.priority import Priority
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import StudyAiState
from wetread.worklist.ages import age_text, due_text, offset_text
from wetread.worklist.ports import WorklistPorts, actor_of, tenant_of
from wetread.worklist.standing import standings
from wetread.worklist.study_view import study_view, thumbnail
from wetread.worklist.views import SOURCE_WORDS, SUMMARY_WORDS, Row, finding_notes, row

PAGE: Final = 50
MAX_ROWS: Final = 200

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Nothing but our own files runs or loads; a study list is never kept in a cache."""

_STATIC: Final = {
    "worklist.css": "text/css; charset=utf-8",
    "worklist.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}


def router(ports: WorklistPorts) -> APIRouter:
    """Return the routes of the pages."""
    pages = APIRouter(include_in_schema=False)

    def show(request: Request, template: str, **values: Any) -> HTMLResponse:
        return page_answer(template, now=ports.clock.now(), base_url=str(request.base_url), **values)

    def listing(request: Request, template: str, q: str, priority: str, state: str, limit: int) -> HTMLResponse:
        wanted = _filter(q, priority, state)
        tenant, now = tenant_of(request), ports.clock.now()
        with ports.database.read() as tx:
            page = ports.worklist.page(tx, tenant, now=now, wanted=wanted, limit=min(limit, MAX_ROWS))
            counts = ports.worklist.counts(tx, tenant)
            rows = _rows(ports, tx, tenant, page.items)
        more = page.next is not None
        chosen = {"q": q, "priority": priority, "state": state}
        return show(
            request, template, rows=rows, counts=counts, more=more, limit=limit, chosen=chosen, max_rows=MAX_ROWS
        )

    @pages.get("/")
    def worklist(
        request: Request, *, q: str = "", priority: str = "", state: str = "", limit: Annotated[int, Query(ge=1)] = PAGE
    ) -> HTMLResponse:
        return listing(request, "worklist.html", q[:64], priority, state, limit)

    @pages.get("/fragments/worklist")
    def fragment(
        request: Request, *, q: str = "", priority: str = "", state: str = "", limit: Annotated[int, Query(ge=1)] = PAGE
    ) -> HTMLResponse:
        return listing(request, "_list.html", q[:64], priority, state, limit)

    @pages.get("/studies/{study_uid}")
    def study(request: Request, study_uid: str) -> HTMLResponse:
        try:
            uid = check_uid(study_uid)
            with ports.database.read() as tx:
                view = study_view(ports, tx, tenant_of(request), uid)
        except (NotFound, InvalidInput):
            answer = show(request, "missing.html")
            answer.status_code = 404
            return answer
        return show(request, "study.html", view=view, me=actor_of(request))

    @pages.get("/studies/{study_uid}/thumbnail")
    def study_thumbnail(request: Request, study_uid: str) -> Response:
        with ports.database.read() as tx:
            url = thumbnail(ports, tx, tenant_of(request), check_uid(study_uid))
        if url is None:
            return Response(status_code=204)
        return RedirectResponse(f"{url}?viewport=256,512", status_code=307, headers={"Cache-Control": "no-store"})

    pages.add_api_route("/static/{name}", static, methods=["GET"])
    return pages


def static(name: str) -> Response:
    """Serve one of the pages' own files."""
    if name not in _STATIC:
        msg = "no such file"
        raise NotFound(msg)
    headers = {"Cache-Control": "public, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(static_bytes(name), media_type=_STATIC[name], headers=headers)


def page_answer(template: str, **values: Any) -> HTMLResponse:
    """Render a template into an answer that may run and load nothing but our own files."""
    return HTMLResponse(_templates().get_template(template).render(**values), headers=SECURITY_HEADERS)


def _rows(ports: WorklistPorts, tx: Transaction, tenant: str, items: tuple[WorklistItem, ...]) -> list[Row]:
    titles = {name: info.manifest.title for name, info in ports.detectors().items()}
    rows = []
    for item in items:
        found = item.ai_state in {StudyAiState.POSITIVE, StudyAiState.MEASURED}
        notes = finding_notes(standings(ports, tx, tenant, item.study_uid)) if found else {}
        rows.append(row(item, titles, notes))
    return rows


def _filter(q: str, priority: str, state: str) -> WorklistFilter:
    try:
        return WorklistFilter(
            priority=Priority(priority) if priority else None,
            state=StudyAiState(state) if state else None,
            text=q.strip(),
        )
    except ValueError as error:
        msg = "no such priority or state"
        raise InvalidInput(msg) from error


@cache
def static_bytes(name: str) -> bytes:
    """Return one of the package's own static files."""
    return (files("wetread.worklist") / "static" / name).read_bytes()


def _static_url(name: str) -> str:
    """Return a URL that changes with the file, so that caches never serve an old one."""
    return f"/static/{name}?v={hashlib.sha256(static_bytes(name)).hexdigest()[:12]}"


@cache
def _templates() -> Environment:
    def load(name: str) -> str:
        return (files("wetread.worklist") / "templates" / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        static_url=_static_url,
        ruo=RUO_STATEMENT,
        age_text=age_text,
        due_text=due_text,
        offset_text=offset_text,
        priorities=tuple(Priority),
        summaries=SUMMARY_WORDS,
        source_words=SOURCE_WORDS,
    )
    return environment
