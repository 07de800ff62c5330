"""Spawned processes with one pipe each, supervised here: a dead worker costs the task it ran, never the pool.

``ProcessPoolExecutor`` breaks as a whole when a worker dies, and ``multiprocessing.Pool`` waits for ever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Final

from wetread.adapters.taskpool.outcome import outcome_of
from wetread.core.errors import ComputationFailed
from wetread.core.lifeline import die_with_parent
from wetread.core.ports.taskpool import TaskOutcome, WorkerSetup

_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_START_ATTEMPTS: Final = 3
_READY: Final = "ready"
_CLOSE_SECONDS: Final = 2.0


def _serve(connection: Connection, setup: WorkerSetup) -> None:
    """Run tasks until the pipe closes: the parent went away or wants no more."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    try:
        function = setup.make()
    except Exception as error:  # noqa: BLE001 - told to the parent, who decides
        connection.send(TaskOutcome(-1, slug="setup", detail=getattr(error, "detail", type(error).__name__)))
        return
    connection.send(_READY)
    with suppress(EOFError, OSError):
        while True:
            task_id, payload = connection.recv()
            connection.send(outcome_of(function, task_id, payload))


@dataclass(eq=False)
class _Worker:
    process: Any
    connection: Connection
    tasks: deque[tuple[int, Any]] = field(default_factory=deque)
    """Handed over and not answered, oldest first: the first one is running."""
    ready: bool = False


class ProcessPool:
    """``TaskPool`` of *workers* processes of this machine."""

    def __init__(self, setup: WorkerSetup, workers: int) -> None:
        self._setup, self._count = setup, workers
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    @property
    def workers(self) -> int:
        """How many workers there are."""
        return self._count

    def start(self) -> None:
        """Start all processes; they get ready in the background."""
        self._workers = [self._spawn() for _ in range(self._count)]

    def submit(self, task_id: int, payload: Any) -> None:
        """Hand the task to the worker with the fewest."""
        self._give(min(self._workers, key=lambda worker: len(worker.tasks)), task_id, payload)

    def wait(self, timeout_s: float) -> list[TaskOutcome]:
        """Return what ended."""
        doors: dict[Any, _Worker] = {}
        for worker in self._workers:
            doors[worker.connection] = worker
            doors[worker.process.sentinel] = worker
        ended: list[TaskOutcome] = []
        for worker in dict.fromkeys(doors[door] for door in wait(list(doors), timeout_s)):
            ended += self._hear(worker)
        return ended

    def pids(self) -> list[int]:
        """Return the process ids of the workers (operations, tests)."""
        return [worker.process.pid for worker in self._workers]

    def describe(self) -> str:
        """Return the state in words."""
        states = (
            f"{'alive' if worker.process.is_alive() else 'dead'} with {len(worker.tasks)} tasks"
            for worker in self._workers
        )
        return f"{self._count} processes: {'; '.join(states)}"

    def close(self) -> None:
        """End the processes: asked by closing their pipe, killed when they do not listen."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_CLOSE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers = []

    def _spawn(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, self._setup), daemon=True)
        # One thread per worker: cores are shared out by the number of workers, and libraries read this when imported.
        before = {name: os.environ.get(name) for name in _THREAD_LIMITS}
        os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))
        try:
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        there.close()
        return _Worker(process, here)

    def _give(self, worker: _Worker, task_id: int, payload: Any) -> None:
        worker.tasks.append((task_id, payload))
        # A broken pipe is seen again as a closed one by ``wait``.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.connection.send((task_id, payload))

    def _hear(self, worker: _Worker) -> list[TaskOutcome]:
        ended: list[TaskOutcome] = []
        try:
            while worker.connection.poll():
                message = worker.connection.recv()
                if message == _READY:
                    worker.ready = True
                    self._failed_starts = 0
                elif message.slug == "setup":
                    raise ComputationFailed("model_unavailable", f"a worker could not start: {message.detail}")
                else:
                    worker.tasks.popleft()
                    ended.append(message)
        except (EOFError, OSError):
            return [*ended, *self._bury(worker)]
        return ended if worker.process.is_alive() else [*ended, *self._bury(worker)]

    def _bury(self, worker: _Worker) -> list[TaskOutcome]:
        """Replace a dead worker. What it ran is lost; what waited behind goes to its successor."""
        worker.connection.close()
        worker.process.kill()
        worker.process.join()
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _START_ATTEMPTS:
                raise ComputationFailed("crashed", "workers die before they are ready")
        successor = self._workers[self._workers.index(worker)] = self._spawn()
        lost: list[TaskOutcome] = []
        if worker.ready and worker.tasks:
            lost.append(TaskOutcome(worker.tasks.popleft()[0], lost=True, detail="the worker process died"))
        for task_id, payload in worker.tasks:
            self._give(successor, task_id, payload)
        return lost
