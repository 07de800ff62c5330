"""Errors as answers: RFC 9457 problem objects with their headers."""

from __future__ import annotations

import math
from typing import Final

from fastapi.responses import JSONResponse

from wetread.core.errors import NotAuthenticated, QuotaExceeded, WetreadError

PROBLEM: Final = "application/problem+json"
_RETRY_SECONDS: Final = 5.0


def problem_response(error: WetreadError, instance: str) -> JSONResponse:
    """Return the RFC 9457 answer of an error; ``instance`` is the path, never the query (it may hold patient data)."""
    headers = {"Cache-Control": "no-store", **error.headers}
    if isinstance(error, NotAuthenticated):
        headers.setdefault("WWW-Authenticate", 'Bearer realm="wetread"')
    if error.http_status in {429, 503, 507} and not isinstance(error, QuotaExceeded):
        wait = getattr(error, "retry_after", None) or _RETRY_SECONDS
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    return JSONResponse(error.problem(instance), error.http_status, headers, media_type=PROBLEM)
