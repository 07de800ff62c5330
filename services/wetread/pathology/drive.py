"""The driver: chunks to a pool through a bounded window; retries, bisection of what kills workers, a deadline.

Refilled before results are looked at, so workers never wait; never more than ``window`` chunks per worker are out, so
neither memory nor lost work grows with the slide.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from wetread.core.ports.taskpool import TaskOutcome, TaskPool
from wetread.pathology.chunk import POISON, Chunk, ChunkResult
from wetread.pathology.errors import RunStopped

WINDOW: Final = 3
MAX_DEATHS: Final = 10
"""Tiles that killed workers after which the run gives up: then it is not the tiles."""
MAX_FAILED_SHARE: Final = 0.01
_QUIET_SECONDS: Final = 120.0
_QUIET_FACTOR: Final = 20
_POLL_SECONDS: Final = 1.0
_STOPPERS: Final = frozenset({"slide-changed", "conflict", "storage-full", "configuration", "unavailable"})
"""Errors that no other worker would answer differently: the run stops and can be resumed."""
_STOPPING_REASONS: Final = frozenset({"model_unavailable"})
"""... and of failed computations those with these reasons."""


@dataclass
class Progress:
    """Counts so far. ``seconds``: read, infer, measure, write, summed over workers."""

    total: int
    resumed: int = 0
    done: int = 0
    failed: int = 0
    chunks: int = 0
    recomputed: int = 0
    """Chunks given out a second time."""
    deaths: int = 0
    quarantined: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=lambda: [0.0] * 4)

    @property
    def finished(self) -> int:
        """Tiles with a row, found or made."""
        return self.resumed + self.done + self.failed


@dataclass(frozen=True, slots=True)
class _Order:
    chunk: Chunk
    attempt: int


class Driver:
    """Runs chunks to their end over one pool. ``quarantine`` writes the row of a tile that no worker survives."""

    def __init__(
        self,
        pool: TaskPool,
        quarantine: Callable[[Chunk, str], None],
        *,
        window: int = WINDOW,
        quiet_seconds: float = _QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[Progress], None] = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool, self._quarantine, self._window = pool, quarantine, window
        self._quiet, self._clock, self._report, self._cancelled = quiet_seconds, clock, report, cancelled
        self._orders: dict[int, _Order] = {}
        self._given: dict[int, float] = {}
        self._waiting: deque[_Order] = deque()
        self._times: deque[float] = deque(maxlen=64)
        self._next = 0

    def run(self, chunks: Sequence[Chunk], progress: Progress) -> None:
        """Run all chunks. Raises RunStopped: no progress, cancelled, too many deaths, or an error that stops all."""
        self._waiting.extend(_Order(chunk, 1) for chunk in chunks)
        last = self._clock()
        while self._waiting or self._orders:
            if self._cancelled():
                raise RunStopped("cancelled", "the run was cancelled; finished parts are kept")
            self._refill()
            for outcome in self._pool.wait(_POLL_SECONDS):
                last = self._clock()
                self._refill(room_for=1)
                self._take(outcome, progress)
                self._report(progress)
            if self._clock() - last > self._deadline():
                raise RunStopped("no_progress", self._standstill())

    def _refill(self, room_for: int = 0) -> None:
        while self._waiting and len(self._orders) - room_for < self._window * self._pool.workers:
            order = self._waiting.popleft()
            number, self._next = self._next, self._next + 1
            self._orders[number] = order
            self._given[number] = self._clock()
            self._pool.submit(number, order.chunk)

    def _take(self, outcome: TaskOutcome, progress: Progress) -> None:
        order = self._orders.pop(outcome.task_id)
        self._times.append(self._clock() - self._given.pop(outcome.task_id))
        progress.chunks += 1
        if outcome.ok:
            result: ChunkResult = outcome.value
            progress.done += result.done
            progress.failed += result.failed
            progress.seconds = [a + b for a, b in zip(progress.seconds, result.seconds, strict=True)]
            return
        if outcome.slug in _STOPPERS:
            raise RunStopped(outcome.slug.replace("-", "_"), outcome.detail)
        if outcome.reason in _STOPPING_REASONS:
            raise RunStopped(outcome.reason, outcome.detail)
        progress.deaths += outcome.lost
        self._again(order, outcome, progress)

    def _again(self, order: _Order, outcome: TaskOutcome, progress: Progress) -> None:
        """Once more on whichever worker is free; then in halves, down to the tile that does it."""
        progress.recomputed += 1
        if order.attempt == 1:
            self._waiting.appendleft(_Order(order.chunk, 2))
        elif order.chunk.count > 1:
            # Halves get one attempt each: the chunk has had its second chance.
            self._waiting.extendleft(_Order(half, 2) for half in reversed(order.chunk.halves()))
        else:
            reason = POISON if outcome.lost else outcome.detail
            self._quarantine(order.chunk, reason)
            progress.failed += 1
            progress.quarantined.append(order.chunk.first)
            limit = max(MAX_DEATHS, int(progress.total * MAX_FAILED_SHARE))
            if len(progress.quarantined) > limit:
                raise RunStopped(
                    "too_many_failures", f"{len(progress.quarantined)} tiles could not be computed, the last: {reason}"
                )

    def _deadline(self) -> float:
        usual = median(self._times) if self._times else 0.0
        return max(self._quiet, _QUIET_FACTOR * usual)

    def _standstill(self) -> str:
        pending = sorted(order.chunk.first for order in self._orders.values())
        return f"no chunk finished in time; waiting for chunks {pending[:8]}; {self._pool.describe()}"


def chunks_of(corners: Sequence[Sequence[int]] | object, missing: Sequence[int], size: int) -> list[Chunk]:
    """Return the *missing* tiles of a plan as chunks of at most *size* consecutive tiles."""
    import numpy as np

    places = np.asarray(corners, dtype=np.int32).reshape(-1, 2)
    wanted = np.asarray(missing, dtype=np.int64)
    made: list[Chunk] = []
    for run in np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1):
        for start in range(0, len(run), size):
            piece = run[start : start + size]
            made.append(Chunk(int(piece[0]), places[piece]))
    return made
