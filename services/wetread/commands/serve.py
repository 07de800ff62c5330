"""``wetread serve NAME...``: run named services in this process, or in several that share a port."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack

from wetread.adapters.telemetry.logs import configure_logging
from wetread.core.errors import ConfigurationError
from wetread.core.lifeline import PARENT_VARIABLE, die_with_parent
from wetread.core.service import Service
from wetread.registry import SERVICES, WEB
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
    if set(names) <= set(WEB):
        _leave_out_decoders()
    from wetread.bootstrap.crew import crew_size

    size = crew_size(settings, names)
    if size > 1:
        from wetread.commands.crew import run_crew

        return run_crew(names, settings, size, fd=fd)
    from wetread.bootstrap.house import open_house
    from wetread.bootstrap.server import run_web

    with open_house(settings, names) as house:
        try:
            services = house.services(names)
        except ConfigurationError as error:
            print(f"wetread: {error.detail}", file=sys.stderr)
            return 2
        if any(service.http is not None for service in services):
            run_web(house.application(services), settings, house.stopping, fd=fd)
            return 0
        return asyncio.run(_run_until_terminated(services))


def _leave_out_decoders() -> None:
    """Keep GDCM out of this process, and its 20 MB: frames are decoded in processes of their own (ADR 0206).

    pydicom imports every decoder it finds. A name that is None in ``sys.modules`` is not found.
    """
    sys.modules.setdefault("gdcm", None)  # type: ignore[arg-type]


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
