"""How answers leave: base URL, JSON with gzip, entity tags, warnings (PS3.18 8.3-8.7, RFC 9110)."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import orjson
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response

from wetread.core.dicomweb.media_types import DICOM_JSON, MediaType, parse_accept
from wetread.core.dicomweb.strict import check_strict
from wetread.gateway.settings import GatewaySettings

_GZIP_FROM: Final = 1024
"""Bodies below this size do not gain from gzip."""

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via")

_BULK: Final = frozenset({"frames", "bulkdata", "pixeldata"})
"""Segments of a path that ask for values rather than for objects."""

DATA_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "private, no-cache"}


def base_url(request: Request, settings: GatewaySettings) -> str:
    """Return the absolute URL of the DICOMweb base path as the client sees it.

    From the configuration, else from this request's Host; what trusted proxies say of it stands in the scope already.
    The Python client sends its Host without the port: a request that no proxy has forwarded gets the port that it
    arrived at.
    """
    if settings.public_base_url:
        return settings.public_base_url.rstrip("/") + settings.base_path
    scope, headers = request.scope, request.headers
    forwarded = any(name in headers for name in _FORWARDED)
    server = tuple(scope.get("server") or ())
    prefix: str = scope.get("app_root_path", "")
    return _origin(scope["scheme"], headers.get("host"), server, forwarded) + prefix + settings.base_path


@lru_cache(maxsize=256)
def _origin(scheme: str, host: str | None, server: tuple[Any, ...], forwarded: bool) -> str:
    named = [] if host is None else [(b"host", host.encode("latin-1"))]
    url = URL(scope={"scheme": scheme, "server": server or None, "path": "/", "headers": named})
    found = url.netloc
    if url.port is None and not forwarded:
        port = server[1] if server else None
        if port and port != {"http": 80, "https": 443}.get(scheme):
            found = f"{found}:{port}"
    return f"{url.scheme}://{found}"


def accepted(request: Request, settings: GatewaySettings) -> tuple[MediaType, ...]:
    """Return what the request accepts: of its query, else of its header.

    Raises InvalidInput, NotAcceptable when the settings are strict and the request is not.
    """
    asked = request.query_params.get("accept") if request.scope["query_string"] else None
    header = request.headers.get("accept")
    ranges = parse_accept(header, asked)
    if settings.strict_negotiation:
        path = request.scope["path"].split("/")
        bulk = not _BULK.isdisjoint(path) and path[-1] not in ("rendered", "thumbnail")
        check_strict(header, ranges, bulk=bulk)
    return ranges


def takes_gzip(request: Request) -> bool:
    """Return whether the client accepts a gzip content coding."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, parameters = coding.partition(";")
        if name.strip() in ("gzip", "x-gzip", "*"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def json_response(
    value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None, media_type: str = DICOM_JSON
) -> Response:
    """Return a DICOM JSON answer that is not cached."""
    body = orjson.dumps(value)
    return Response(
        body,
        status,
        {"Content-Type": media_type, "Cache-Control": "no-store"} | dict(headers or {}),
    )


def etag_of(*parts: object) -> str:
    """Return a strong entity tag over *parts*."""
    return '"' + hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + '"'


def not_modified(request: Request, etag: str) -> Response | None:
    """Return 304 when the client holds the tagged representation already."""
    held = request.headers.get("if-none-match")
    if held is None:
        return None
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    if etag in tags or "*" in tags:
        return Response(status_code=304, headers={"ETag": etag, **DATA_HEADERS})
    return None


def data_response(
    request: Request,
    body: bytes,
    *,
    etag: str,
    media_type: str = DICOM_JSON,
    warnings: Sequence[str] = (),
    status: int = 200,
    coding: str = "",
) -> Response:
    """Return cacheable JSON, gzipped when the client takes it and it is worth it. ``coding``: its own."""
    same = not_modified(request, etag)
    if same is not None:
        return same
    headers = {"Content-Type": media_type, "ETag": etag, "Vary": "Accept, Accept-Encoding", **DATA_HEADERS}
    if coding:
        headers["Content-Encoding"] = coding
    elif len(body) >= _GZIP_FROM and takes_gzip(request):
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    response = Response(body, status, headers)
    for warning in warnings:
        response.headers.append("Warning", warning)
    return response


def warning_299(service: str, text: str) -> str:
    """Return a Warning header value (PS3.18 8.3.4.4 and 10.6.3): agent is the service's base URL."""
    return f"299 {service}: {text}"
