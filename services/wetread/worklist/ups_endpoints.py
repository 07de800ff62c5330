"""UPS-RS over HTTP: the routes of PS3.18 chapter 11 under ``/dicom-web``, and the event channel."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response, WebSocket
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from wetread.core.errors import NotAuthenticated, NotFound, WorkitemStateError
from wetread.core.ports.database import Clock, Database
from wetread.core.ports.ups import UpsRepository
from wetread.core.ups import WARNING_TEXT, UpsStatus
from wetread.core.ups_attributes import SEARCH_RETURNS
from wetread.core.ups_dataset import TRANSACTION_UID
from wetread.worklist.ups import UpsHooks, UpsService, UpsSettings
from wetread.worklist.ups_channel import EventChannel
from wetread.worklist.ups_requests import (
    DICOM_JSON,
    ae_title,
    check_accept,
    read_body,
    read_search,
    read_subscription,
    uid_parameter,
)

BASE = "/dicom-web"

AetCheck = Callable[[HTTPConnection, str], bool]
"""Whether the caller's credential may use an AE title."""


def any_aet(_connection: HTTPConnection, _aet: str) -> bool:
    """Accept every AE title: for deployments whose credentials carry none."""
    return True


def tenant_of(connection: HTTPConnection) -> str:
    """Return the tenant that the shell took from the credential. Raises NotAuthenticated."""
    tenant = getattr(connection.state, "tenant", None)
    if not isinstance(tenant, str):
        raise NotAuthenticated
    return tenant


def base_url(request: HTTPConnection, settings: UpsSettings) -> str:
    """Return the absolute URL of the DICOMweb service: configured, else as the client reached us."""
    return (settings.public_base_url or str(request.base_url)).rstrip("/") + BASE


def build_router(
    *,
    database: Database,
    repository: UpsRepository,
    clock: Clock,
    settings: UpsSettings | None = None,
    hooks: UpsHooks | None = None,
    allowed_aet: AetCheck = any_aet,
) -> APIRouter:
    """Return the router of UPS-RS. The shell in front sets ``request.state.tenant`` and renders errors."""
    policy = settings or UpsSettings()
    service = UpsService(database, repository, clock, policy, hooks or UpsHooks())
    router = APIRouter(prefix=BASE, tags=["UPS-RS"], route_class=_warning_route(policy))
    _add_workitems(router, service)
    _add_subscriptions(router, service, allowed_aet)
    channel = EventChannel(service)
    aliases = APIRouter(tags=["UPS-RS"])

    async def subscriber(websocket: WebSocket, aet: str) -> None:
        await channel.serve(websocket, aet, tenant_of, allowed_aet)

    for path in (f"{BASE}/subscribers/{{aet}}", f"{BASE}/ws/subscribers/{{aet}}", "/ws/subscribers/{aet}"):
        aliases.add_api_websocket_route(path, subscriber)
    aliases.include_router(router)
    return aliases


def _warning_route(settings: UpsSettings) -> type[APIRoute]:
    """Return a route class that gives refusals of the state machine their Warning header (PS3.18 11.7.3.2)."""

    class WarningRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def with_warning(request: Request) -> Response:
                try:
                    return await handle(request)
                except WorkitemStateError as error:
                    error.headers["Warning"] = f"299 {base_url(request, settings)}: {error.detail}"
                    raise

            return with_warning

    return WarningRoute


def _answer(
    request: Request, service: UpsService, status: int, warnings: Iterable[UpsStatus | str] = (), body: Any = None
) -> Response:
    content = None if body is None else orjson.dumps(body)
    response = Response(content, status)
    if content is not None:
        # Set by hand: a charset parameter would make dicomweb clients drop the body.
        response.headers["Content-Type"] = DICOM_JSON
        response.headers["Cache-Control"] = "private, no-cache"
    for warning in warnings:
        text = WARNING_TEXT[warning] if isinstance(warning, UpsStatus) else warning
        response.headers.append("Warning", f"299 {base_url(request, service.settings)}: {text}")
    return response


def _add_workitems(router: APIRouter, service: UpsService) -> None:
    settings = service.settings

    @router.post("/workitems", status_code=201, summary="Create a workitem (RAD-80, PS3.18 11.4)")
    async def create(request: Request) -> Response:
        uid = uid_parameter(request.url.query, "workitem", "AffectedSOPInstanceUID")
        body = await read_body(request, settings.max_body_bytes)
        outcome = await run_in_threadpool(service.create, tenant_of(request), uid, body)
        response = _answer(request, service, 201, outcome.warnings)
        response.headers["Location"] = f"{base_url(request, settings)}/workitems/{outcome.uid}"
        return response

    async def search(request: Request) -> Response:
        check_accept(request, strict=settings.strict_negotiation)
        asked = read_search(request.url.query)
        page = await run_in_threadpool(
            service.search, tenant_of(request), asked.keys, limit=asked.limit, offset=asked.offset
        )
        warnings = list(asked.warnings)
        if page.remaining:
            count = f"{page.remaining}" if page.counted else f"at least {page.remaining}"
            warnings.append(f"There are {count} additional results that can be requested")
        shown = [
            dataset
            if asked.include is None
            else {tag: value for tag, value in dataset.items() if tag in SEARCH_RETURNS or tag in asked.include}
            for dataset in page.datasets
        ]
        return _answer(request, service, 200, warnings, shown)

    async def retrieve(request: Request, uid: str) -> Response:
        check_accept(request, strict=settings.strict_negotiation)
        dataset = await run_in_threadpool(service.retrieve, tenant_of(request), uid)
        return _answer(request, service, 200, body=[dataset])

    router.add_api_route("/workitems", search, methods=["GET"], summary="Search workitems (RAD-81, PS3.18 11.9)")
    router.add_api_route(
        "/workitems/{uid}", retrieve, methods=["GET"], summary="Retrieve a workitem (RAD-83, PS3.18 11.5)"
    )
    for path, endpoint in (("/workitems", search), ("/workitems/{uid}", retrieve)):
        router.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)

    @router.post("/workitems/{uid}", summary="Update a workitem (RAD-84, PS3.18 11.6)")
    async def update(request: Request, uid: str) -> Response:
        lock = uid_parameter(request.url.query, "transaction-uid", "transaction", TRANSACTION_UID)
        body = await read_body(request, settings.max_body_bytes)
        outcome = await run_in_threadpool(service.update, tenant_of(request), uid, lock, body)
        return _answer(request, service, 200, outcome.warnings)

    @router.put("/workitems/{uid}/state", summary="Claim, complete or cancel (RAD-82, RAD-85, PS3.18 11.7)")
    async def change_state(request: Request, uid: str) -> Response:
        body = await read_body(request, settings.max_body_bytes)
        outcome = await run_in_threadpool(service.change_state, tenant_of(request), uid, body)
        return _answer(request, service, 200, outcome.warnings)

    @router.post("/workitems/{uid}/cancelrequest", status_code=202, summary="Request cancellation (RAD-88, 11.8)")
    async def request_cancel(request: Request, uid: str) -> Response:
        body = await read_body(request, settings.max_body_bytes, optional=True)
        aet = str(getattr(request.state, "ae_title", settings.ae_title))
        outcome = await run_in_threadpool(service.request_cancel, tenant_of(request), uid, body, aet)
        return _answer(request, service, 202, outcome.warnings)


def _add_subscriptions(router: APIRouter, service: UpsService, allowed_aet: AetCheck) -> None:
    path = "/workitems/{uid}/subscribers/{aet}"

    def known(request: Request, aet: str) -> str:
        title = ae_title(aet)
        if not allowed_aet(request, title):
            msg = "the receiving AE title is unknown"
            raise NotFound(msg, dicom_status=UpsStatus.RECEIVING_AE_UNKNOWN)
        return title

    @router.post(path, status_code=201, summary="Subscribe (RAD-86, PS3.18 11.10)")
    async def subscribe(request: Request, uid: str, aet: str) -> Response:
        title = known(request, aet)
        lock, keys = read_subscription(request.url.query)
        outcome = await run_in_threadpool(service.subscribe, tenant_of(request), uid, title, lock=lock, keys=keys)
        response = _answer(request, service, 201, outcome.warnings)
        channel = base_url(request, service.settings).replace("http", "ws", 1)
        response.headers["Content-Location"] = f"{channel}/subscribers/{title}"
        return response

    @router.delete(path, summary="Unsubscribe (PS3.18 11.11)")
    async def unsubscribe(request: Request, uid: str, aet: str) -> Response:
        await run_in_threadpool(service.unsubscribe, tenant_of(request), uid, known(request, aet))
        return _answer(request, service, 200)

    @router.post(path + "/suspend", summary="Suspend a worklist subscription (PS3.18 11.12)")
    async def suspend(request: Request, uid: str, aet: str) -> Response:
        await run_in_threadpool(service.suspend, tenant_of(request), uid, known(request, aet))
        return _answer(request, service, 200)
