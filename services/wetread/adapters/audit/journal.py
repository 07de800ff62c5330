"""Takes note of accesses in memory and writes them in batches: a request pays microseconds, not a transaction.

What a kill takes along: the accesses of the last ``flush_seconds``, plus what a database that does not answer holds up.
Equal accesses within a batch become one entry with a count: a viewer that fetches 500 frames of a study is a few rows.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from wetread.core.ports.access import Access, AccessEntry, AccessTrail
from wetread.core.ports.database import Database

logger = logging.getLogger("wetread.audit")

FLUSH_SECONDS: Final = 0.5
_OPEN_ENTRIES: Final = 50_000
"""Different accesses that may wait for the database; further ones are counted as lost."""
_EXPIRE_EVERY_SECONDS: Final = 3600.0
_EXPIRE_AT_A_TIME: Final = 5000


class AccessJournal:
    """``AccessLog`` over a trail. ``open`` starts the writer, ``close`` writes what is left and stops it.

    ``retention_seconds``: how long entries are kept (None: for ever). ``lost``: told how many could not be kept.
    """

    def __init__(
        self,
        database: Database,
        trail: AccessTrail,
        *,
        retention_seconds: float | None = None,
        flush_seconds: float = FLUSH_SECONDS,
        clock: Callable[[], float] = time.time,
        lost: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._database = database
        self._trail = trail
        self._retention = retention_seconds
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._tell_lost = lost
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._waiting: dict[Access, list[float | int | str]] = {}
        self._thread: threading.Thread | None = None
        self._expired_at = 0.0

    def note(self, access: Access, *, at: float, request_id: str = "") -> None:
        """Take note of one access."""
        with self._lock:
            known = self._waiting.get(access)
            if known is not None:
                known[1] = at
                known[2] += 1  # type: ignore[operator]
                return
            full = len(self._waiting) >= _OPEN_ENTRIES
            if not full:
                self._waiting[access] = [at, at, 1, request_id]
        if full:
            self._tell_lost(1)
        elif not self._some.is_set():
            self._some.set()

    def open(self) -> None:
        """Start the writer."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what is left and stop."""
        if self._thread is not None:
            self._stopping.set()
            self._some.set()
            self._thread.join()
            self._thread = None
        self.flush()

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Open for the length of a service's life."""
        self.open()
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    def flush(self) -> None:
        """Write what is waiting; it goes on waiting when the database does not take it."""
        with self._lock:
            batch, self._waiting = self._waiting, {}
        if not batch:
            return
        entries = [
            AccessEntry(0, access, float(first), float(last), int(count), str(request_id), "")
            for access, (first, last, count, request_id) in batch.items()
        ]
        try:
            with self._database.write() as tx:
                self._trail.append(tx, entries)
        except Exception as error:  # noqa: BLE001 - no fault of the database may stop the writer
            # The type only: a driver puts row values into its message.
            logger.error("the audit trail cannot be written: trying again", extra={"error": type(error).__name__})  # noqa: TRY400
            self._put_back(batch)

    def _put_back(self, batch: dict[Access, list[float | int | str]]) -> None:
        with self._lock:
            later, self._waiting = self._waiting, batch
            lost = 0
            for access, values in later.items():
                known = batch.get(access)
                if known is not None:
                    known[1] = values[1]
                    known[2] += values[2]  # type: ignore[operator]
                elif len(batch) < _OPEN_ENTRIES:
                    batch[access] = values
                else:
                    lost += int(values[2])
        if lost:
            self._tell_lost(lost)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._some.wait(_EXPIRE_EVERY_SECONDS)
            self._stopping.wait(self._flush_seconds)
            self._some.clear()
            self.flush()
            with self._lock:
                if self._waiting:
                    self._some.set()
            self._expire()

    def _expire(self) -> None:
        now = self._clock()
        if self._retention is None or now - self._expired_at < _EXPIRE_EVERY_SECONDS:
            return
        self._expired_at = now
        try:
            removed = _EXPIRE_AT_A_TIME
            while removed == _EXPIRE_AT_A_TIME and not self._stopping.is_set():
                with self._database.write() as tx:
                    removed = self._trail.expire(tx, now - self._retention, limit=_EXPIRE_AT_A_TIME)
        except Exception as error:  # noqa: BLE001 - tried again in an hour
            logger.error("old audit entries cannot be removed", extra={"error": type(error).__name__})  # noqa: TRY400
