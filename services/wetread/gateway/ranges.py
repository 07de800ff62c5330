"""Range requests: part of one representation (RFC 9110 14; PS3.18 8.6.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wetread.core.errors import InvalidInput
from wetread.gateway.threads import beside

_ONE_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


class RangeNotSatisfiable(InvalidInput):
    """No byte of the representation lies in the asked range (RFC 9110 15.5.17)."""

    status, slug, title = 416, "range-not-satisfiable", "Range not satisfiable"

    def __init__(self, length: int) -> None:
        super().__init__(f"the representation has {length} bytes")
        self.headers = {"Content-Range": f"bytes */{length}", "Accept-Ranges": "bytes"}


def asked_range(request: Request, length: int, etag: str) -> tuple[int, int] | None:
    """Return (first byte, byte count) of the one range asked for; None when the whole is to be sent.

    The whole is sent for several ranges, for a unit or a form that is not understood (RFC 9110 14.2), and when
    ``If-Range`` does not name this very representation. Raises RangeNotSatisfiable.
    """
    value = request.headers.get("range")
    if value is None or request.method != "GET":
        return None
    condition = request.headers.get("if-range")
    # Representations have no date here, so that a date in If-Range never holds; neither does a weak tag.
    if condition is not None and condition.strip() != etag:
        return None
    match = _ONE_RANGE.fullmatch(value)
    if match is None or match[1] == match[2] == "":
        return None
    if match[1]:
        first, last = int(match[1]), int(match[2] or length - 1)
        if match[2] and last < first:
            return None
        if first >= length:
            raise RangeNotSatisfiable(length)
        return first, min(last, length - 1) - first + 1
    suffix = min(int(match[2]), length)
    if suffix == 0:
        raise RangeNotSatisfiable(length)
    return length - suffix, suffix


def part_of(request: Request, body: bytes, headers: Mapping[str, str]) -> Response:
    """Return *body*, or the range of it that is asked for. ``headers`` hold its ``ETag``."""
    wanted = asked_range(request, len(body), headers["ETag"])
    if wanted is None:
        return Response(body, headers={**headers, "Accept-Ranges": "bytes"})
    start, count = wanted
    return _partial(body[start : start + count], start, len(body), headers)


def parts_of(request: Request, pieces: Sequence[bytes], headers: Mapping[str, str]) -> Response:
    """Return the body that *pieces* make, or the range of it that is asked for, without joining what is sent whole."""
    if "range" in request.headers:
        return part_of(request, b"".join(pieces), headers)
    length = sum(len(piece) for piece in pieces)
    return _Pieces(pieces, {**headers, "Accept-Ranges": "bytes", "Content-Length": str(length)})


class _Pieces(Response):
    """A response whose body is sent piece by piece."""

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - of ASGI
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for piece in self._pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self._pieces[-1], "more_body": False})


async def read_part(
    request: Request, length: int, read: Callable[[int, int], bytes], headers: Mapping[str, str]
) -> Response | None:
    """Return the asked range of a representation of known length, reading only its bytes; None: send the whole."""
    wanted = asked_range(request, length, headers["ETag"])
    if wanted is None:
        return None
    return _partial(await beside(read, *wanted), wanted[0], length, headers)


def _partial(data: bytes, start: int, length: int, headers: Mapping[str, str]) -> Response:
    where = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{length}", "Accept-Ranges": "bytes"}
    return Response(data, 206, {**headers, **where})
