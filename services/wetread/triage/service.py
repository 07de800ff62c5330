"""Triage as a service: it takes deliveries from the queue ``notify`` and keeps none of them lost; it escalates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from wetread.core.errors import WetreadError
from wetread.core.service import Service
from wetread.triage.delivery import Notifier
from wetread.triage.escalation import Escalator

log = logging.getLogger(__name__)

QUEUES: Final = ("notify",)
SWEEP_SECONDS: Final = 30.0
ESCALATION_SECONDS: Final = 5.0


def build(notifier: Notifier, escalator: Escalator) -> Service:
    """Return the service. The durable workflow ``deliver`` calls ``notifier.deliver`` as its one step."""

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        loops = [
            asyncio.create_task(_every(SWEEP_SECONDS, notifier.sweep, "deliveries")),
            asyncio.create_task(_every(ESCALATION_SECONDS, escalator.sweep, "escalations")),
        ]
        try:
            yield
        finally:
            for loop in loops:
                loop.cancel()
            for loop in loops:
                with suppress(asyncio.CancelledError):
                    await loop

    return Service(name="triage", queues=QUEUES, lifespan=lifespan)


async def _every(seconds: float, sweep: Callable[[], int], what: str) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await asyncio.to_thread(sweep)
        except WetreadError as error:
            log.warning("sweep of %s failed: %s", what, error.title)
