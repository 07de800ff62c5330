"""The application: the services' routers, errors as problem objects, health and metrics; the shell is around it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from wetread import __version__
from wetread.adapters.telemetry.metrics import CONTENT_TYPE, Metrics
from wetread.bootstrap.cors import Cors, CorsPolicy
from wetread.bootstrap.forwarded import TrustedNetworks
from wetread.bootstrap.problems import PROBLEM, problem_response
from wetread.bootstrap.proxies import Proxies
from wetread.bootstrap.shell import Guards, Shell
from wetread.core.errors import InvalidInput, Unavailable, WetreadError
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.service import Service

logger = logging.getLogger("wetread.web")

_NO_NATIVE_TELEMETRY: Final[Any] = {
    "tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False
}  # fmt: skip
"""FastAPI's own spans hold paths and queries, its log records texts of exceptions: UIDs and names. Ours do not."""

ReadinessChecks = Mapping[str, Callable[[], None]]
"""Named checks; one that raises makes ``/readyz`` red."""


def build_app(
    services: Sequence[Service],
    *,
    checks: ReadinessChecks,
    metrics: Metrics,
    guards: Guards = Guards(),  # noqa: B008 - frozen
    cors: CorsPolicy = CorsPolicy(),  # noqa: B008 - frozen
    proxies: TrustedNetworks | None = None,
) -> ASGIApp:
    """Return the ASGI application that serves the HTTP faces of *services*.

    ``proxies``: networks of the reverse proxies that are believed; None: there are none.
    """

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
        telemetry=_NO_NATIVE_TELEMETRY,
    )
    _add_error_handlers(app)
    _add_operations(app, checks, metrics)
    for service in services:
        if service.http is not None:
            app.include_router(service.http)
    served = Cors(Shell(app, app.routes, guards, metrics, error_response), cors)
    return served if proxies is None else Proxies(served, proxies)


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
    async def handle(request: Request, error: Exception) -> Response:
        return error_response(request, error)[0]

    for kind in (WetreadError, RequestValidationError, HTTPException, Exception):
        app.exception_handler(kind)(handle)


def error_response(request: Request, error: Exception) -> tuple[Response, bool]:
    """Return the answer of an error, logged if it is ours; True: nobody foresaw it."""
    path = request.url.path
    match error:
        case WetreadError():
            if error.http_status >= 500:
                logger.error("request failed", extra={"slug": error.slug, "request_id": request.state.request_id})
            return problem_response(error, path), False
        case RequestValidationError():
            places = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return problem_response(InvalidInput(places), path), False
        case HTTPException():
            body = {"type": "about:blank", "title": error.detail, "status": error.status_code, "instance": path}
            headers = {"Cache-Control": "no-store", **(error.headers or {})}
            return JSONResponse(body, error.status_code, headers, media_type=PROBLEM), False
    logger.error("unexpected error", exc_info=error, extra={"request_id": request.state.request_id})
    return problem_response(WetreadError(), path), True


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
