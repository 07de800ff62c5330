"""Triage as a service: it takes deliveries from the queue ``notify`` and keeps none of them lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from wetread.core.errors import WetreadError
from wetread.core.service import Service
from wetread.triage.delivery import Notifier

log = logging.getLogger(__name__)

QUEUES: Final = ("notify",)
SWEEP_SECONDS: Final = 30.0


def build(notifier: Notifier) -> Service:
    """Return the service. The durable workflow ``deliver`` calls ``notifier.deliver`` as its one step."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        sweeping = asyncio.create_task(_sweep(notifier))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping

    return Service(name="triage", queues=QUEUES, lifespan=lifespan)


async def _sweep(notifier: Notifier) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await asyncio.to_thread(notifier.sweep)
        except WetreadError as error:
            log.warning("sweep of deliveries failed: %s", error.title)
