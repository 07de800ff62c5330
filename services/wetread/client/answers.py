"""From an HTTP answer to a value or to the same typed error that the server raised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx

from wetread.core.errors import (
    Conflict,
    Forbidden,
    Gone,
    InvalidInput,
    NotAcceptable,
    NotAuthenticated,
    NotFound,
    PayloadTooLarge,
    StorageFull,
    Unavailable,
    Unprocessable,
    UnsupportedMediaType,
    WetreadError,
    WorkitemStateError,
)

_BY_STATUS: Final[dict[int, Callable[[str], WetreadError]]] = {
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    406: NotAcceptable,
    409: Conflict,
    410: Gone,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    507: StorageFull,
}
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
_WORKITEM_STATE: Final = "urn:wetread:problem:workitem-state"


def checked(response: httpx.Response) -> httpx.Response:
    """Return a successful answer. Raises the WetreadError that the problem object (RFC 9457) stands for."""
    if response.is_success:
        return response
    raise error_of(response)


def error_of(response: httpx.Response) -> WetreadError:
    """Return the error of an answer: type, detail and DICOM status as the server gave them."""
    problem = _problem(response)
    status = response.status_code
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP {status}")
    code = _hex(problem.get("dicom_status"))
    if problem.get("type") == _WORKITEM_STATE and code is not None:
        return WorkitemStateError(detail, dicom_status=code, http_status=status)
    if status in _TRY_AGAIN:
        return Unavailable(detail, retry_after=_seconds(response.headers.get("retry-after")))
    if status == 422:
        return Unprocessable(str(problem.get("code") or "unprocessable"), detail)
    kind = _BY_STATUS.get(status, InvalidInput if 400 <= status < 500 else WetreadError)
    error = kind(detail)
    error.dicom_status = code
    return error


def unreachable(error: httpx.TransportError) -> Unavailable:
    """Return the error of a server that does not answer."""
    return Unavailable(f"the server does not answer: {type(error).__name__}")


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _hex(value: Any) -> int | None:
    try:
        return int(str(value), 16)
    except ValueError:
        return None


def _seconds(value: str | None) -> float | None:
    try:
        return float(value) if value is not None else None
    except ValueError:  # an HTTP date: the caller's own pace serves
        return None
