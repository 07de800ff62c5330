"""The page ``/slides/{study}``: each slide of a study with its map and marks, in dicom-microscopy-viewer.

The viewer is part of the OHIF package that ``wetread viewer install`` fetches; nothing of it is part of this project.
Without it the page shows the picture of the result and says how to get the viewer.
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from wetread.core.errors import NotFound
from wetread.core.identifiers import check_uid
from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology.ports import SlidePorts, tenant_of
from wetread.pathology.study import MODALITY

_VIEWER: Final = "dicom-microscopy-viewer/dicomMicroscopyViewer.min.js"
_STATIC: Final = {"slide.js": "text/javascript; charset=utf-8", "slide.css": "text/css; charset=utf-8"}
_HEADERS: Final = {
    # The viewer compiles WebAssembly decoders and styles in the page, and runs decoders in workers of its own files.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'unsafe-eval' blob:; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
        "connect-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def pages(ports: SlidePorts) -> APIRouter:
    """Routes of the page and its own files."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/slides/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise NotFound("no such file")
        return Response(_static(name), media_type=_STATIC[name], headers={"X-Content-Type-Options": "nosniff"})

    @routes.get("/slides/{study_uid}")
    def page(request: Request, study_uid: str) -> HTMLResponse:
        study = check_uid(study_uid)
        with ports.database.read() as tx:
            series = ports.studies.facts(tx, tenant_of(request), study).series
        if not any(s.modality == MODALITY for s in series):
            raise NotFound("the study has no slides")
        installed = (ports.viewer / _VIEWER).is_file()
        text = _static("slide.html").decode()
        text = text.replace("{study}", escape(study, quote=True)).replace("{statement}", escape(RUO_STATEMENT))
        script = f'<script src="/viewer/{_VIEWER}" defer></script>' if installed else ""
        return HTMLResponse(text.replace("<!--viewer-->", script), headers=_HEADERS)

    return routes


@cache
def _static(name: str) -> bytes:
    return (files("wetread.pathology") / "static" / name).read_bytes()
