"""The ASGI shell around the services' routers: errors, tenant, request id, health, metrics."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wetread import __version__
from wetread.adapters.auth.api_keys import ApiKeys
from wetread.adapters.telemetry.metrics import CONTENT_TYPE, Metrics
from wetread.bootstrap.cors import Cors, CorsPolicy
from wetread.core.errors import InvalidInput, NotAuthenticated, Unavailable, WetreadError
from wetread.core.identifiers import DEFAULT_TENANT
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.service import Service

logger = logging.getLogger("wetread.web")

PROBLEM = "application/problem+json"
_OPEN_PATHS = ("/livez", "/readyz")

ReadinessChecks = Mapping[str, Callable[[], None]]
"""Named checks; one that raises makes ``/readyz`` red."""


def problem_response(error: WetreadError, instance: str) -> JSONResponse:
    """Return the RFC 9457 answer of an error; ``instance`` is the path, never the query (it may hold patient data)."""
    headers = {"Cache-Control": "no-store", **error.headers}
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="wetread"'
    if error.http_status in {429, 503, 507}:
        headers["Retry-After"] = "5"
    return JSONResponse(error.problem(instance), error.http_status, headers, media_type=PROBLEM)


class Shell:
    """Outermost ASGI layer: request id, tenant from the credential, security headers, request metrics."""

    def __init__(self, app: ASGIApp, *, keys: ApiKeys | None, metrics: Metrics) -> None:
        self.app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})
        scope["state"]["request_id"] = request_id
        try:
            scope["state"]["tenant"], scope["state"]["client"] = self._caller(scope)
        except NotAuthenticated as error:
            if scope["type"] == "http":
                await problem_response(error, scope["path"])(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", [])
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "unmatched")
            self._metrics.requests.labels(route, scope["method"], str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _caller(self, scope: Scope) -> tuple[str, str]:
        """Return the tenant and the name of the credential ("" without one)."""
        if self._keys is None or scope["path"] in _OPEN_PATHS:
            return DEFAULT_TENANT, ""
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        credential = self._keys.authenticate(values[0].decode("latin-1") if values else None)
        return credential.tenant, credential.name


def build_app(
    services: Sequence[Service],
    *,
    checks: ReadinessChecks,
    metrics: Metrics,
    keys: ApiKeys | None = None,
    cors: CorsPolicy = CorsPolicy(),  # noqa: B008 - frozen
) -> ASGIApp:
    """Return the ASGI application that serves the HTTP faces of *services*."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for service in services:
                await stack.enter_async_context(service.lifespan())
            yield

    app = FastAPI(
        title="wetread",
        version=__version__,
        description=RUO_STATEMENT,
        license_info={"name": "Apache-2.0"},
        docs_url=None,  # the interactive page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    _add_error_handlers(app)
    _add_operations(app, checks, metrics)
    for service in services:
        if service.http is not None:
            app.include_router(service.http)
    return Cors(Shell(app, keys=keys, metrics=metrics), cors)


def _add_operations(app: FastAPI, checks: ReadinessChecks, metrics: Metrics) -> None:
    @app.get("/livez", tags=["operations"], summary="The process answers")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["operations"], summary="Every dependency answers")
    def readyz() -> JSONResponse:
        failed: dict[str, str] = {}
        for name, check in checks.items():
            try:
                check()
            except WetreadError as error:
                failed[name] = error.detail
        body: dict[str, Any] = {"status": "unready" if failed else "ok", "checks": dict.fromkeys(checks, "ok") | failed}
        return JSONResponse(body, 503 if failed else 200)

    @app.get("/metrics", tags=["operations"], summary="Prometheus metrics", response_class=PlainTextResponse)
    def scrape() -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(WetreadError)
    async def _wetread(request: Request, error: WetreadError) -> Response:
        if error.http_status >= 500:
            logger.error("request failed", extra={"slug": error.slug, "request_id": request.state.request_id})
        return problem_response(error, request.url.path)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return problem_response(InvalidInput(places), request.url.path)

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        body = {"type": "about:blank", "title": error.detail, "status": error.status_code, "instance": request.url.path}
        return JSONResponse(body, error.status_code, error.headers, media_type=PROBLEM)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        logger.error("unexpected error", exc_info=error, extra={"request_id": request.state.request_id})
        return problem_response(WetreadError(), request.url.path)


def database_check(ping: Callable[[], None]) -> Callable[[], None]:
    """Return a readiness check that turns any driver error into Unavailable."""

    def check() -> None:
        try:
            ping()
        except WetreadError:
            raise
        except Exception as error:
            msg = "the database does not answer"
            raise Unavailable(msg) from error

    return check
