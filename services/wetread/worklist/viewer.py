"""A real viewer under ``/viewer``: the prebuilt OHIF package, served from our own origin.

Nothing of OHIF is part of this project: ``make viewer`` fills the folder (:mod:`wetread.commands.viewer`). Without it
the page says how to get it.
"""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from wetread.core.errors import NotFound
from wetread.worklist.pages import page_answer, static_bytes

PREFIX: Final = "/viewer"

_INLINE_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_HASHED: Final = re.compile(r"\.bundle\.[0-9a-f]{16}\.js$|^[0-9a-f]{16}\.(?:wasm|woff2)$")
_TYPES: Final = {".wasm": "application/wasm", ".js": "text/javascript", ".webmanifest": "application/manifest+json"}


def router(folder: Path) -> APIRouter:
    """Return the routes of the viewer in *folder*, which may be filled later, or never."""
    viewer = APIRouter(include_in_schema=False)

    @viewer.get(PREFIX)
    def slash() -> RedirectResponse:
        return RedirectResponse(f"{PREFIX}/", status_code=308)

    @viewer.get(f"{PREFIX}/app-config.js")
    def configuration() -> Response:
        return Response(static_bytes("viewer-config.js"), media_type="text/javascript", headers=_NO_STORE)

    @viewer.get(PREFIX + "/{path:path}")
    def file(request: Request, path: str) -> Response:
        index = folder / "index.html"
        if not index.is_file():
            answer = page_answer("no_viewer.html", now=time.time(), base_url=str(request.base_url))
            answer.status_code = 404
            return answer
        wanted = (folder / path).resolve()
        if wanted.is_relative_to(folder.resolve()) and wanted.is_file() and wanted.name != "index.html":
            return _file(wanted, request)
        if Path(path).suffix in {".js", ".css", ".wasm", ".map"}:
            msg = "the viewer has no such file"
            raise NotFound(msg)
        # Every other address is one of the viewer's own pages, which its script shows.
        html, policy = _page(index, index.stat().st_mtime_ns)
        return HTMLResponse(html, headers={**_NO_STORE, "Content-Security-Policy": policy})

    return viewer


_NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def _file(path: Path, request: Request) -> FileResponse:
    headers = {
        "Cache-Control": f"public, max-age={31536000 if _HASHED.search(path.name) else 3600}",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    compressed = Path(f"{path}.gz")
    if "gzip" in request.headers.get("accept-encoding", "") and compressed.is_file():
        return FileResponse(compressed, media_type=kind, headers={**headers, "Content-Encoding": "gzip"})
    return FileResponse(path, media_type=kind, headers=headers)


@lru_cache(maxsize=1)
def _page(index: Path, _changed: int) -> tuple[str, str]:
    """Return the viewer's page and the content security policy that fits it.

    Its scripts are its own files and the inline ones of this very text; its array library and its decoders write
    functions while they run, hence ``unsafe-eval``; decoders are WebAssembly in workers; pictures are made in the page
    (blob, data); PDFs and videos are shown by the browser itself; requests go to our origin only.
    """
    html = index.read_text(encoding="utf-8")
    hashes = sorted({f"'sha256-{_digest(script)}'" for script in _INLINE_SCRIPT.findall(html)})
    policy = (
        f"default-src 'none'; script-src 'self' 'unsafe-eval' {' '.join(hashes)}; worker-src 'self' blob:; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; font-src 'self' data:; "
        "object-src 'self' blob:; frame-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self' blob: data:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html, policy


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
