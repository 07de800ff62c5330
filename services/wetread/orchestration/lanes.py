"""The lanes of one worker process: DBOS's queue workers, woken when there is work instead of looking for it all day.

A look costs a write lock and three statements, so lanes that looked 20 times a second took a quarter of a core and each
other's time. Here one watcher waits for the database's change signal and wakes the lanes that have work, at once when
the signal names them; each lane still looks by itself once a second, should a signal be lost. This module is the only
user of DBOS's worker function and of its sweep of delayed work, which are private: the version is pinned,
``tests/contracts`` runs them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import sqlalchemy as sa
from dbos import DBOS
from dbos._dbos import _get_dbos_instance
from dbos._queue import queue_worker_thread

from wetread.core.ports.work import QueueSignal

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 1.0
"""How often a lane looks without being woken."""
_WAITING_SECONDS: Final = 0.05
"""How often a lane is woken while it has work that it did not take: the worker was full, or somebody was faster."""

Signals = Callable[[Iterable[str]], AbstractContextManager[QueueSignal]]


class LaneStop:
    """What a DBOS queue worker waits on, with the face of ``threading.Event``: ended early by ``wake`` and ``set``."""

    def __init__(self, longest: float | None) -> None:
        self._longest = longest
        self._condition = threading.Condition()
        self._stopped = False
        self._woken = False

    def is_set(self) -> bool:
        """Whether the lane is to end."""
        return self._stopped

    def set(self) -> None:
        """End the lane."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def wake(self) -> None:
        """Have the lane look now."""
        with self._condition:
            self._woken = True
            self._condition.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for an end or a wake-up; True: the lane is to end."""
        with self._condition:
            if not self._stopped and not self._woken:
                self._condition.wait(self._longest if self._longest is not None else timeout)
            self._woken = False
            return self._stopped


class Lanes:
    """The queue workers of this process. ``signals`` opens the queues' change signal; None: each looks by itself."""

    def __init__(self, names: Sequence[str], signals: Signals | None) -> None:
        self._signals = signals
        self._stops = {name: LaneStop(None if signals is None else _LOOK_SECONDS) for name in names}
        self._threads: dict[str, threading.Thread] = {}
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start a worker per lane, and the watcher. DBOS must be launched with ``listen_queues([])``."""
        dbos = _get_dbos_instance()
        for name, stop in self._stops.items():
            queue = dbos._sys_db.get_queue(name)  # noqa: SLF001 - see the module's docstring
            thread = threading.Thread(
                target=queue_worker_thread, args=(stop, dbos, queue), name=f"lane-{name}", daemon=True
            )
            thread.start()
            self._threads[name] = thread
        if self._signals is not None:
            self._watcher = threading.Thread(target=self._watch, args=(self._signals,), name="lanes", daemon=True)
            self._watcher.start()

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Take no more work in these lanes (None: in any, and end the watcher)."""
        for name in self._stops if names is None else names:
            self._stops[name].set()
        if names is None:
            self._stopping.set()
            if self._watcher is not None:
                self._watcher.join(timeout=5)
        for name in self._stops if names is None else names:
            if name in self._threads:
                self._threads[name].join(timeout=10)

    def _watch(self, signals: Signals) -> None:
        while not self._stopping.is_set():
            try:
                with signals(self._stops) as signal:
                    self._wake_by(signal)
            except Exception as error:  # the database is away: the lanes look by themselves
                _log.warning("no change signal", extra={"error": type(error).__name__})
                self._stopping.wait(_LOOK_SECONDS)

    def _wake_by(self, signal: QueueSignal) -> None:
        database = _get_dbos_instance()._sys_db  # noqa: SLF001 - see the module's docstring
        look = 0.0  # when to look next, on the monotonic clock
        while not self._stopping.is_set():
            told = signal.wait(max(0.0, look - time.monotonic()))
            if told:
                self._wake(told)
                look = min(look, time.monotonic() + _WAITING_SECONDS)
            if told != frozenset() and time.monotonic() < look:
                continue
            waiting, due = pending(database)
            now = time.time()
            if due is not None and due <= now:
                database.transition_delayed_workflows()
                look = 0.0
                continue
            self._wake(waiting)
            wait = _WAITING_SECONDS if waiting else _LOOK_SECONDS
            if due is not None:
                wait = min(wait, max(0.001, due - now))
            look = time.monotonic() + wait

    def _wake(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._stops:
                self._stops[name].wake()


def pending(database: Any) -> tuple[frozenset[str], float | None]:
    """Return the queues with work that waits, and when the next delayed work is due (Unix seconds)."""
    status = database.tables.workflow_status
    with database.engine.connect() as connection:
        names = connection.execute(sa.select(status.c.queue_name).where(status.c.status == "ENQUEUED").distinct())
        waiting = frozenset(name for name in names.scalars() if name)
        delayed = sa.select(sa.func.min(status.c.delay_until_epoch_ms)).where(status.c.status == "DELAYED")
        due = connection.execute(delayed).scalar()
    return waiting, None if due is None else due / 1000.0


def running_lanes(names: Iterable[str]) -> bool:
    """Return whether this process still runs work of one of these lanes."""
    active = _get_dbos_instance()._active_workflows_set  # noqa: SLF001 - see the module's docstring
    return any(active.count_for_queue(name) for name in names)


def unfinished(names: Iterable[str]) -> bool:
    """Return whether work waits or runs in one of these lanes, here or elsewhere."""
    database = _get_dbos_instance()._sys_db  # noqa: SLF001 - see the module's docstring
    status = database.tables.workflow_status
    query = sa.select(sa.func.count()).where(
        status.c.status.in_(("ENQUEUED", "PENDING")), status.c.queue_name.in_(list(names))
    )
    with database.engine.connect() as connection:
        return bool(connection.execute(query).scalar())


def listen_to_none() -> None:
    """Keep DBOS from starting queue workers of its own; call before ``DBOS.launch``."""
    DBOS.listen_queues([])
