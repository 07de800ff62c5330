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
from dataclasses import dataclass

from wetread.core.errors import Unavailable
from wetread.core.ports.ingest import InstanceOutcome
from wetread.gateway.ingest import Batch, GroupIngest, Transfer
from wetread.gateway.prepare import Part, Prepared

_RETRY_SECONDS = 2.0


class Committer:
    """Two threads: one parses parts as they arrive, one commits groups. ``open`` before use, ``close`` after."""

    def __init__(self, ingest: GroupIngest) -> None:
        self._ingest = ingest
        self._settings = ingest.settings
        self._queue: queue.SimpleQueue[_Queued | None] = queue.SimpleQueue()
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
        self, parts: Sequence[Part | Sequence[Part]], transfer: Transfer, study_uid: str | None
    ) -> Future[list[Prepared]]:
        """Parse parts, each whole or in pieces, beside the event loop."""
        if self._parser is None:
            msg = "the gateway is not ready to store"
            raise Unavailable(msg)
        return self._parser.submit(self._prepare, parts, transfer, study_uid)

    def _prepare(
        self, parts: Sequence[Part | Sequence[Part]], transfer: Transfer, study_uid: str | None
    ) -> list[Prepared]:
        return [self._ingest.prepare(part, transfer, study_uid=study_uid) for part in parts]

    def commit(
        self, transfer: Transfer, parts: Sequence[Future[list[Prepared]] | Prepared], *, last: bool
    ) -> asyncio.Future[list[InstanceOutcome]]:
        """Queue parts, some of them still being parsed; done with their outcomes when all is durable."""
        if self._thread is None:
            msg = "the gateway is not ready to store"
            raise Unavailable(msg)
        done: Future[list[InstanceOutcome]] = Future()
        done.set_running_or_notify_cancel()  # what is queued is committed, also when its request has gone
        self._queue.put(_Queued(transfer, parts, last, done))
        return asyncio.wrap_future(done)

    def _run(self) -> None:
        carried: _Queued | None = None
        while True:
            item = carried or self._queue.get()
            carried = None
            if item is None:
                return
            group = self._parsed(item)
            count, size = sum(len(batch.parts) for batch, _ in group), sum(_size(batch) for batch, _ in group)
            while group and count < self._settings.group_instances and size < self._settings.group_bytes:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                if not following.ready or any(following.transfer is batch.transfer for batch, _ in group):
                    carried = following
                    break
                for batch, done in self._parsed(following):
                    count += len(batch.parts)
                    size += _size(batch)
                    group.append((batch, done))
            if group:
                self._commit(group)

    def _parsed(self, item: _Queued) -> list[tuple[Batch, Future[list[InstanceOutcome]]]]:
        """Return the batch of an item, once it is parsed; nothing when parsing broke down, which its request learns."""
        try:
            parts = [part for one in item.parts for part in ([one] if isinstance(one, Prepared) else one.result())]
        except Exception as error:  # noqa: BLE001 - the waiting request has to learn of it
            item.done.set_exception(error)
            return []
        return [(Batch(item.transfer, parts, item.last), item.done)]

    def _commit(self, group: list[tuple[Batch, Future[list[InstanceOutcome]]]]) -> None:
        try:
            self._ingest.commit([batch for batch, _ in group])
        except Exception as error:  # noqa: BLE001 - every waiting request has to learn of it
            for _, done in group:
                done.set_exception(error)
            return
        for batch, done in group:
            done.set_result(batch.outcomes)


@dataclass(frozen=True, slots=True)
class _Queued:
    """Parts of one transfer on their way to a group."""

    transfer: Transfer
    parts: Sequence[Future[list[Prepared]] | Prepared]
    last: bool
    done: Future[list[InstanceOutcome]]

    @property
    def ready(self) -> bool:
        """True when nobody has to wait for the parser."""
        return all(isinstance(part, Prepared) or part.done() for part in self.parts)


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
