"""``DetectorRunner``: asks detectors in this process, runs them in worker processes that can be killed."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from wetread.core import tracing
from wetread.core.errors import ComputationFailed, NotFound
from wetread.core.findings import ResultSet
from wetread.core.ports.inference import DetectorInfo, Report, RunOutcome, RunRequest
from wetread.core.run_identity import result_key, run_record
from wetread.detection import registry
from wetread.detection.chooser import InstalledChooser
from wetread.detection.execution import merged_parameters
from wetread.detection.process import ProcessEnded, WorkerProcess, WorkerSpec

logger = logging.getLogger("wetread.detection")


class ProcessDetectorRunner(InstalledChooser):
    """Runs detectors in *processes* warm worker processes.

    Building it reads and checks the detector folders; ``start`` starts the processes, ``close`` ends them. Runs
    queue up when all processes are busy; the time-out counts from the moment a process takes the run.
    """

    def __init__(self, spec: WorkerSpec, *, engine: str, encoder_version: str, processes: int = 1) -> None:
        super().__init__(registry.discover(spec.detectors, bundled=spec.bundled))
        self._spec, self._engine, self._encoder_version = spec, engine, encoder_version
        self._processes = processes
        self._threads: ThreadPoolExecutor | None = None
        # One thread owns one process and starts it: the kernel's parent-death signal follows the starting thread.
        self._own = threading.local()
        self._workers: set[WorkerProcess] = set()
        self._lock = threading.Lock()
        self._closing = False

    def start(self) -> None:
        """Start all worker processes and let them warm up in the background."""
        with self._lock:
            if self._threads is not None:
                return
            self._closing = False
            self._threads = ThreadPoolExecutor(self._processes, thread_name_prefix="detection")
        together = threading.Barrier(self._processes)
        for _ in range(self._processes):
            self._threads.submit(self._prepare, together)

    def close(self) -> None:
        """End all worker processes; runs in flight fail as crashed. May be called twice."""
        with self._lock:
            self._closing = True
            threads, self._threads = self._threads, None
            workers = list(self._workers)
        for worker in workers:
            worker.kill("crashed")
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            remaining, self._workers = self._workers, set()
            self._own = threading.local()
        for worker in remaining:
            worker.close()

    def names(self) -> Sequence[str]:
        """Return the names of installed detectors."""
        return tuple(self._installed)

    def result_key(self, request: RunRequest) -> str:
        """Return the identity of the run's result. Raises NotFound or ConfigurationError."""
        info = self._info(request.detector)
        parameters = merged_parameters(info.manifest, request.parameters)
        return result_key(request, info, parameters, engine=self._engine, encoder_version=self._encoder_version)

    async def run(
        self,
        request: RunRequest,
        *,
        timeout_seconds: float | None = None,
        report: Report | None = None,  # noqa: ARG002 - a volume is read in one go
    ) -> RunOutcome:
        """Run to a result set in a worker process; cancelling this call kills the run.

        Raises ComputationFailed (timeout, crashed, out_of_memory, model_unavailable) or Unavailable (try again).
        """
        info = self._info(request.detector)
        if request.version != info.version:
            detail = f"{request.detector} {request.version} is not installed, {info.version} is"
            raise ComputationFailed("model_unavailable", detail)
        order = self._order(request, info)
        seconds = info.manifest.resources.timeout_s if timeout_seconds is None else timeout_seconds
        with self._lock:
            threads = self._threads
        if threads is None:
            raise ComputationFailed("model_unavailable", "the detection service is not running")
        call = _Call()
        future: Future[dict[str, Any]] = threads.submit(self._run, order, seconds, call)
        try:
            answer = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            call.cancel()
            raise
        return RunOutcome(ResultSet.model_validate(answer["result"]))

    def check(self) -> None:
        """Raise ComputationFailed unless the service runs (readiness)."""
        with self._lock:
            if self._threads is None:
                raise ComputationFailed("model_unavailable", "the detection service is not running")

    def worker_pids(self) -> tuple[int, ...]:
        """Return the process ids of the living workers (for operations and tests)."""
        with self._lock:
            return tuple(worker.pid for worker in self._workers if worker.alive)

    def _order(self, request: RunRequest, info: DetectorInfo) -> dict[str, Any]:
        parameters = merged_parameters(info.manifest, request.parameters)
        run = run_record(request, info, parameters, engine=self._engine, encoder_version=self._encoder_version)
        return {
            "run": run.model_dump(mode="json"),
            "refs": [(i.ref.locator, i.ref.length) for i in request.instances],
            "parameters": parameters,
            "preliminary": request.preliminary,
            "priors": None if request.priors is None else request.priors.model_dump(mode="json"),
            "trace": tracing.current(),
        }

    def _run(self, order: dict[str, Any], seconds: float, call: _Call) -> dict[str, Any]:
        until = time.monotonic() + seconds
        try:
            return self._attempt(order, seconds, call)
        except ProcessEnded:
            # Most often somebody else's doing: the kernel was short of memory. What ends its process by itself does
            # so again, and has then failed.
            logger.warning("a run lost its process; it begins again")
            return self._attempt(order, max(until - time.monotonic(), 0.1), call)

    def _attempt(self, order: dict[str, Any], seconds: float, call: _Call) -> dict[str, Any]:
        worker = self._worker()
        worker.greet(self._engine)
        call.begin(worker)
        try:
            return worker.order(order, seconds)
        finally:
            call.end()
            if not worker.alive:
                # Warm the next one now: the study after a crash should not pay for it.
                self._worker()

    def _prepare(self, together: threading.Barrier) -> None:
        together.wait()
        try:
            self._worker().greet(self._engine)
        except ComputationFailed as error:
            logger.error("a worker process did not become ready: %s", error.detail)  # noqa: TRY400 - no trace needed

    def _worker(self) -> WorkerProcess:
        """Return the living process of this thread, starting one when there is none."""
        worker: WorkerProcess | None = getattr(self._own, "worker", None)
        if worker is not None and worker.alive:
            return worker
        with self._lock:
            if worker is not None:
                self._workers.discard(worker)
            if self._closing:
                raise ComputationFailed("crashed", "the detection service is stopping")
        if worker is not None:
            worker.close()
            logger.warning("a worker process ended; starting another")
        worker = self._own.worker = WorkerProcess(self._spec)
        with self._lock:
            self._workers.add(worker)
        return worker

    def _info(self, name: str) -> DetectorInfo:
        found = self._installed.get(name)
        if found is None:
            raise NotFound(f"no detector is called {name!r}")
        return found.info


class _Call:
    """A run that may be cancelled before or while a worker has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None
        self._cancelled = False

    def begin(self, worker: WorkerProcess) -> None:
        with self._lock:
            if self._cancelled:
                raise ComputationFailed("crashed", "the run was cancelled")
            self._worker = worker

    def end(self) -> None:
        with self._lock:
            self._worker = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._worker is not None:
                self._worker.kill("crashed")
