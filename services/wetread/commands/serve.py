"""``wetread serve NAME...``: run named services in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from wetread.adapters.telemetry.logs import configure_logging
from wetread.core.lifeline import PARENT_VARIABLE, die_with_parent
from wetread.registry import SERVICES
from wetread.settings import Settings


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
        services = house.services(names)
        if any(service.http is not None for service in services):
            return _serve_http(house.application(services), settings, fd)
        return asyncio.run(_run_until_terminated(services))


def _serve_http(app: object, settings: Settings, fd: int | None) -> int:
    import uvicorn

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.host,
        port=settings.port,
        fd=fd,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        access_log=False,  # query strings hold patient data
        log_config=None,
        server_header=False,
        date_header=True,
        timeout_graceful_shutdown=10,
        proxy_headers=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
    uvicorn.Server(config).run()
    return 0


async def _run_until_terminated(services: Sequence[object]) -> int:
    from contextlib import AsyncExitStack

    from wetread.core.service import Service

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        for service in services:
            assert isinstance(service, Service)
            await stack.enter_async_context(service.lifespan())
        await stopped.wait()
    return 0
