"""The service ``detection``: keeps the worker processes alive while it runs. It has no HTTP face of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from wetread.core.service import Service


class Processes(Protocol):
    """Runners whose processes somebody has to start and end."""

    def start(self) -> None:
        """Start what has to be warm."""

    def close(self) -> None:
        """End every process."""


def build(runner: Processes) -> Service:
    """Return the service. Its lifespan starts the worker processes of *runner*, which warm up in the background."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        runner.start()
        try:
            yield
        finally:
            await asyncio.to_thread(runner.close)

    return Service("detection", lifespan=lifespan)
