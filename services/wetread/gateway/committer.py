"""Group commit for many concurrent requests: one thread commits, whatever waits meanwhile is the next group.

Nobody waits for a window to fill: with one connection a group is one request's parts, under load groups grow by
themselves while the previous one is being synced.
"""

from __future__ import annotations

import asyncio
import contextlib
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


@dataclass(frozen=True, slots=True)
class Received:
    """Parts, each whole or in pieces, that nobody has parsed yet. ``study_uid``: the study that the URL names."""

    parts: Sequence[Part | Sequence[Part]]
    study_uid: str | None


Pending = Future[list[Prepared]] | Prepared | Received


class Committer:
    """Two threads: one commits groups, one parses parts of requests whose next part is still arriving.

    What a request ends with is parsed by the thread that commits it: a hand-over costs more than it gains there, since
    nothing of that request is left to do meanwhile. ``open`` before use, ``close`` after.
    """

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
        self, transfer: Transfer, parts: Sequence[Pending], *, last: bool
    ) -> asyncio.Future[list[InstanceOutcome]]:
        """Queue parts, some of them still to be parsed; done with their outcomes when all is durable."""
        if self._thread is None:
            msg = "the gateway is not ready to store"
            raise Unavailable(msg)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[InstanceOutcome]] = loop.create_future()
        self._queue.put(_Queued(transfer, parts, last, _Reply(loop, done)))
        return done

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
                for batch, reply in self._parsed(following):
                    count += len(batch.parts)
                    size += _size(batch)
                    group.append((batch, reply))
            if group:
                self._commit(group)

    def _parsed(self, item: _Queued) -> list[tuple[Batch, _Reply]]:
        """Return the batch of an item, once it is parsed; nothing when parsing broke down, which its request learns."""
        parts: list[Prepared] = []
        try:
            for one in item.parts:
                if isinstance(one, Prepared):
                    parts.append(one)
                elif isinstance(one, Received):
                    parts += self._prepare(one.parts, item.transfer, one.study_uid)
                else:
                    parts += one.result()
        except Exception as error:  # noqa: BLE001 - the waiting request has to learn of it
            _answer([(item.reply, error)])
            return []
        return [(Batch(item.transfer, parts, item.last), item.reply)]

    def _commit(self, group: list[tuple[Batch, _Reply]]) -> None:
        try:
            self._ingest.commit([batch for batch, _ in group])
        except Exception as error:  # noqa: BLE001 - every waiting request has to learn of it
            _answer([(reply, error) for _, reply in group])
            return
        _answer([(reply, batch.outcomes) for batch, reply in group])


@dataclass(frozen=True, slots=True)
class _Reply:
    """Where a request waits. It may have gone: what is queued is committed all the same."""

    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[InstanceOutcome]]


_Answer = tuple[_Reply, list[InstanceOutcome] | Exception]


def _answer(answers: list[_Answer]) -> None:
    """Tell the requests of a group, waking their event loop once."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        answers[0][0].loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[_Answer]) -> None:
    for reply, answer in answers:
        if reply.done.done():
            continue
        if isinstance(answer, Exception):
            reply.done.set_exception(answer)
        else:
            reply.done.set_result(answer)


@dataclass(frozen=True, slots=True)
class _Queued:
    """Parts of one transfer on their way to a group."""

    transfer: Transfer
    parts: Sequence[Pending]
    last: bool
    reply: _Reply

    @property
    def ready(self) -> bool:
        """True when nobody has to wait for the parser."""
        return all(not isinstance(part, Future) or part.done() for part in self.parts)


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
