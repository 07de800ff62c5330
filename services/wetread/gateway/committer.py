"""Group commit for many concurrent requests: one thread commits, whatever waits meanwhile is the next group.

Nobody waits for a window to fill: with one connection a group is one request's parts, under load groups grow by
themselves while the previous one is being synced.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from wetread.core.errors import Unavailable
from wetread.gateway.ingest import Batch, GroupIngest, Transfer
from wetread.gateway.prepare import Part, Prepared

_RETRY_SECONDS = 2.0


class Committer:
    """Two threads: one parses parts as they arrive, one commits groups. ``open`` before use, ``close`` after."""

    def __init__(self, ingest: GroupIngest) -> None:
        self._ingest = ingest
        self._settings = ingest.settings
        self._queue: queue.SimpleQueue[tuple[Batch, Future[None]] | None] = queue.SimpleQueue()
        self._parser: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None
        self.budget = InFlight(self._settings.in_flight_bytes)

    def open(self) -> None:
        """Start the threads."""
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="stow-parse")
        self._thread = threading.Thread(target=self._run, name="stow-commit", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what is queued and stop."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
        if self._parser is not None:
            self._parser.shutdown()
            self._parser = None

    def prepare(
        self, part: Part | Sequence[Part], transfer: Transfer, study_uid: str | None
    ) -> asyncio.Future[Prepared]:
        """Parse a part beside the event loop."""
        if self._parser is None:
            msg = "the gateway is not ready to store"
            raise Unavailable(msg)
        future = self._parser.submit(self._ingest.prepare, part, transfer, study_uid=study_uid)
        return asyncio.wrap_future(future)

    def commit(self, batch: Batch) -> asyncio.Future[None]:
        """Queue a batch; done when it is durable and its outcomes are set."""
        if self._thread is None:
            msg = "the gateway is not ready to store"
            raise Unavailable(msg)
        done: Future[None] = Future()
        self._queue.put((batch, done))
        return asyncio.wrap_future(done)

    def _run(self) -> None:
        carried: tuple[Batch, Future[None]] | None = None
        while True:
            item = carried or self._queue.get()
            carried = None
            if item is None:
                return
            group = [item]
            count, size = len(item[0].parts), _size(item[0])
            while count < self._settings.group_instances and size < self._settings.group_bytes:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                count += len(following[0].parts)
                size += _size(following[0])
                if any(following[0].transfer is member[0].transfer for member in group):
                    carried = following
                    break
                group.append(following)
            self._commit(group)

    def _commit(self, group: list[tuple[Batch, Future[None]]]) -> None:
        try:
            self._ingest.commit([batch for batch, _ in group])
        except Exception as error:  # noqa: BLE001 - every waiting request has to learn of it
            for _, done in group:
                done.set_exception(error)
            return
        for _, done in group:
            done.set_result(None)


def _size(batch: Batch) -> int:
    return sum(part.size for part in batch.parts)


class InFlight:
    """Bytes received and not yet durable, over all requests of one event loop.

    ``wait`` holds a request back before it begins a new part; a part that has begun is always read to its end, so
    requests cannot dead-lock on each other's halves.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.bytes = 0
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, count: int) -> None:
        """Count received bytes."""
        self.bytes += count

    def release(self, count: int) -> None:
        """Uncount bytes that are durable or dropped."""
        self.bytes -= count
        if self.bytes < self._limit:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until a new part may begin. Raises Unavailable when that takes longer than *seconds*."""
        if self.bytes < self._limit:
            return
        try:
            async with asyncio.timeout(seconds):
                while self.bytes >= self._limit:
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        except TimeoutError as error:
            msg = "more is coming in than can be stored"
            raise Unavailable(msg, retry_after=_RETRY_SECONDS) from error
