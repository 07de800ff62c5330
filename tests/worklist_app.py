"""The worklist as an application for tests: tenant, errors and pictures as the rest of the house gives them."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image
from tests.worklist_world import TENANT, World

from wetread.adapters.index.reports import SqlReports
from wetread.adapters.notify.addresses import LOOPBACK, AddressPolicy
from wetread.adapters.notify.webhook import HttpWebhookSender
from wetread.core.errors import WetreadError
from wetread.testing.servers.process import free_port
from wetread.worklist.ports import WorklistPorts
from wetread.worklist.service import build


def ports_of(world: World, stopping: threading.Event | None = None, detectors: Any = dict) -> WorklistPorts:
    return WorklistPorts(
        database=world.database,
        clock=world.clock,
        worklist=world.worklist,
        order=world.order,
        claims=world.claims,
        events=world.events,
        subscriptions=world.subscriptions,
        deliveries=world.deliveries,
        tasks=world.tasks,
        results=world.results,
        studies=world.studies,  # type: ignore[arg-type]  # the page reads summaries only
        work=world.work,
        webhooks=HttpWebhookSender(world.clock, AddressPolicy(LOOPBACK), user_agent="wetread-test"),
        reports=SqlReports(),
        detectors=detectors,
        stopping=stopping or threading.Event(),
    )


def app_of(world: World, stopping: threading.Event | None = None, detectors: Any = dict) -> FastAPI:
    """Return the service in an application; the header ``x-tenant`` plays the credential."""
    service = build(ports_of(world, stopping, detectors))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> Any:
        async with service.lifespan():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def authenticate(request: Request, call_next: Any) -> Any:
        request.state.tenant = request.headers.get("x-tenant", TENANT)
        request.state.client = request.headers.get("x-client", "")
        return await call_next(request)

    @app.exception_handler(WetreadError)
    async def translate(_request: Request, error: WetreadError) -> JSONResponse:
        return JSONResponse(error.problem(), status_code=error.http_status, media_type="application/problem+json")

    app.include_router(service.http)

    @app.get("/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered")
    def rendered(study: str, series: str, instance: str) -> Response:
        return Response(head_picture(overlay=series.endswith(".9")), media_type="image/png")

    return app


class InProcess:
    """A plain client of an application in this process: no socket, no server, no lifespan."""

    def __init__(self, app: FastAPI, base_url: str) -> None:
        self._app, self._base_url = app, base_url

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **options)

        return asyncio.run(ask())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)


def head_picture(*, overlay: bool) -> bytes:
    """Return a drawn head (skull, brain, ventricles), with a bleed outlined when it is an overlay."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    rng = np.random.default_rng(7)
    radius = np.hypot(x / 0.72, y / 0.9)
    picture = np.where(radius < 1, 210.0, 0.0)
    picture[radius < 0.9] = 95
    picture[np.hypot((np.abs(x) - 0.12) / 0.07, (y + 0.05) / 0.22) < 1] = 45
    bleed = np.hypot((x - 0.3) / 0.17, (y - 0.12) / 0.2)
    if overlay:
        picture[bleed < 1] = 165
    picture += rng.normal(0, 7, picture.shape) * (radius < 1)
    rgb = np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if overlay:
        rgb[np.abs(bleed - 1.08) < 0.09] = (255, 90, 70)
    target = io.BytesIO()
    Image.fromarray(rgb).save(target, "PNG")
    return target.getvalue()


@contextmanager
def served(app: FastAPI, stopping: threading.Event | None = None) -> Iterator[str]:
    """Serve on a free loopback port; stops as a real server does: told first, then waited for."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    pause = threading.Event()
    while not server.started and thread.is_alive():
        pause.wait(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        if stopping is not None:
            stopping.set()
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop: a stream kept it alive"
