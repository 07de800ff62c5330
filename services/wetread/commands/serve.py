"""``wetread serve NAME...``: run named services in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import FrameType
from typing import TYPE_CHECKING

from wetread.adapters.telemetry.logs import configure_logging
from wetread.core.errors import ConfigurationError
from wetread.core.lifeline import PARENT_VARIABLE, die_with_parent
from wetread.core.service import Service
from wetread.registry import SERVICES
from wetread.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def run_serve(names: Sequence[str], *, fd: int | None) -> int:
    """Serve until SIGTERM. Services with an HTTP face get a web server, others a plain event loop."""
    unknown = [name for name in names if name not in SERVICES]
    if unknown:
        print(f"wetread: unknown service {unknown[0]}; known: {', '.join(SERVICES)}", file=sys.stderr)
        return 2
    try:
        settings = Settings()
    except ValueError as error:
        print(f"wetread: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log_level)
    if PARENT_VARIABLE in os.environ:
        die_with_parent(int(os.environ[PARENT_VARIABLE]))
    from wetread.bootstrap.house import open_house

    with open_house(settings, names) as house:
        try:
            services = house.services(names)
        except ConfigurationError as error:
            print(f"wetread: {error.detail}", file=sys.stderr)
            return 2
        if any(service.http is not None for service in services):
            return _serve_http(house.application(services), settings, fd, house.stopping)
        return asyncio.run(_run_until_terminated(services))


def _serve_http(app: ASGIApp, settings: Settings, fd: int | None, stopping: threading.Event) -> int:
    import uvicorn

    from wetread.bootstrap.http_protocol import GuardedHttpProtocol

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        fd=fd,
        loop="uvloop",
        http=GuardedHttpProtocol,
        ws="websockets-sansio",
        ws_ping_interval=30,
        access_log=False,  # query strings hold patient data
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=10,
        proxy_headers=False,
        h11_max_incomplete_event_size=64 * 1024,
    )

    class StoppingServer(uvicorn.Server):
        """Tells open event streams to end before the server waits for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            stopping.set()
            super().handle_exit(sig, frame)

    StoppingServer(config).run()
    return 0


async def _run_until_terminated(services: Sequence[Service]) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(service.lifespan())
        await stopped.wait()
    return 0
