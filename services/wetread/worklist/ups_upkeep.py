"""Upkeep of the UPS worklist while its service runs: restart notices, silent performers, retention."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.concurrency import run_in_threadpool

from wetread.core.identifiers import log_ref
from wetread.core.ups_events import ScpStatus
from wetread.worklist.ups import UpsService

logger = logging.getLogger("wetread.ups")

Silent = Callable[[Sequence[tuple[str, str]]], None]
"""Told of (tenant, workitem UID) whose external performer missed its lease."""


def _no_one(_silent: Sequence[tuple[str, str]]) -> None:
    return None


def tend(service: UpsService, on_silent: Silent = _no_one) -> None:
    """Do one round: flag silent external performers, remove what the retention no longer keeps."""
    now = service.clock.now()
    silent = service.flag_silent(now)
    for tenant, uid in silent:
        logger.warning("an external performer missed its lease", extra={"workitem": log_ref(tenant, uid)})
    if silent:
        on_silent(silent)
    service.prune(now)


@contextlib.asynccontextmanager
async def upkeep(service: UpsService, *, every_s: float = 30.0, on_silent: Silent = _no_one) -> AsyncIterator[None]:
    """Announce RESTARTED, tend the worklist every *every_s* seconds, announce GOING DOWN (PS3.4 CC.2.4.3).

    For the lifespan of the one web process that serves the worklist.
    """
    await run_in_threadpool(service.announce, ScpStatus.RESTARTED)

    async def rounds() -> None:
        while True:
            try:
                await run_in_threadpool(tend, service, on_silent)
            except Exception as error:  # noqa: BLE001 - one failed round must not end all later ones
                # The type only: a database driver puts row values, hence patient data, into its message.
                logger.warning("upkeep of the UPS worklist failed: trying again", extra={"error": type(error).__name__})
            await asyncio.sleep(every_s)

    tending = asyncio.create_task(rounds())
    try:
        yield
    finally:
        tending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tending
        await run_in_threadpool(service.announce, ScpStatus.GOING_DOWN)
