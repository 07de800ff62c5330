"""The end of the event stream: one poller per process wakes everyone who waits for something new.

Events are written by several processes into one database, so the database is asked; streams never ask it themselves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from wetread.core.errors import WetreadError

POLL_SECONDS: Final = 0.1


class EventTail:
    """``latest`` reads the newest cursor of all tenants. Nobody waiting: nothing is read."""

    def __init__(
        self, latest: Callable[[], int], stopping: threading.Event, *, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self._read = latest
        self._stopping = stopping
        self._poll_seconds = poll_seconds
        self._latest = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._ended = False

    @property
    def closed(self) -> bool:
        """Whether streams must end."""
        return self._ended or self._stopping.is_set()

    async def wait_beyond(self, seen: int, timeout_seconds: float) -> bool:
        """Wait until the stream may hold more than *seen*, or ends; False: nothing came in time."""
        if self.closed or self._latest > seen:
            return True
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._latest <= seen and not self.closed:
                    await waiter
                    self._waiters.discard(waiter)
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll while entered; on exit wake everyone for good."""
        self._ended = False
        polling = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            polling.cancel()
            with suppress(asyncio.CancelledError):
                await polling
            self._ended = True
            self._wake()

    async def _poll(self) -> None:
        while True:
            if self._stopping.is_set():
                self._wake()
            elif self._waiters:
                await self._look()
            await asyncio.sleep(self._poll_seconds)

    async def _look(self) -> None:
        try:
            latest = await asyncio.to_thread(self._read)
        except WetreadError:
            return  # the database is busy: the next look will tell
        if latest != self._latest:
            self._latest = latest
            self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
