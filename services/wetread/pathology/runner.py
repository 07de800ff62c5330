"""``SlideRunner``: a process per slide that can be killed, and that goes on from its parts when it is asked again."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

from wetread.core.errors import ComputationFailed, ConfigurationError, NotFound, Unavailable
from wetread.core.findings import ResultSet
from wetread.core.identifiers import digest
from wetread.core.lifeline import PARENT_VARIABLE
from wetread.core.ports.inference import DetectorInfo, Report, RunOutcome, RunRequest
from wetread.core.run_identity import result_key, run_record
from wetread.pathology.study import SlideChooser
from wetread.pathology.tile_model import InstalledTileModel, detector_info

KEPT_SECONDS: Final = 7 * 86_400.0
"""How long parts of a run that nobody took up again are kept."""
_LOOK_SECONDS: Final = 0.5


class Meter(Protocol):
    """Counts what runs do."""

    def advanced(self, counts: Mapping[str, float]) -> None:
        """Take the counts of a run since the last call: tiles, chunks, seconds per stage, bytes."""

    def ended(self, outcome: str, seconds: float) -> None:
        """Take how a run ended (a state, or the reason of a failure) and how long it took."""


@dataclass(frozen=True, slots=True)
class SlideProcesses:
    """How slides are run. ``module`` is started with ``python -m`` and gets a pipe; ``folder`` keeps finished parts."""

    module: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    at_once: int = 1


class SlideRunner(SlideChooser):
    """``DetectorRunner`` of tile models. Building it opens nothing; ``close`` ends every run."""

    def __init__(
        self,
        models: Mapping[str, InstalledTileModel],
        processes: SlideProcesses,
        *,
        engine: str,
        encoder_version: str,
        meter: Meter,
    ) -> None:
        super().__init__({name: detector_info(model) for name, model in models.items()})
        self._processes, self._engine, self._encoder_version = processes, engine, encoder_version
        self._meter = meter
        self._threads: ThreadPoolExecutor | None = None
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Do nothing: what tile models ask of headers is loaded with this module."""

    def start(self) -> None:
        """Forget parts that nobody came back for; take runs from now on."""
        with self._lock:
            if self._threads is None:
                # One thread waits for one process and starts it: the parent-death signal follows the starting thread.
                self._threads = ThreadPoolExecutor(self._processes.at_once, thread_name_prefix="slides")
        forget_before(self._processes.folder, time.time() - KEPT_SECONDS)

    def close(self) -> None:
        """End all runs; their parts stay. May be called twice."""
        with self._lock:
            threads, self._threads = self._threads, None
            calls = list(self._calls)
        for call in calls:
            call.kill()
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)

    def names(self) -> Sequence[str]:
        """Return the names of the tile models."""
        return tuple(self.detectors())

    def result_key(self, request: RunRequest) -> str:
        """Return the identity of the run's result. Raises NotFound or ConfigurationError."""
        info = self._info(request.detector)
        return result_key(
            request, info, _parameters(info, request), engine=self._engine, encoder_version=self._encoder_version
        )

    async def run(
        self, request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        """Run to a result set; cancelling this call kills the run, whose parts stay.

        Raises ComputationFailed (timeout, crashed, model_unavailable, or why the run stopped) or Unavailable.
        """
        info = self._info(request.detector)
        if request.version != info.version:
            detail = f"{request.detector} {request.version} is not installed, {info.version} is"
            raise ComputationFailed("model_unavailable", detail)
        seconds = info.manifest.resources.timeout_s if timeout_seconds is None else timeout_seconds
        call = _Call(self._order(request, info), self._processes, seconds, report, self._meter)
        with self._lock:
            if self._threads is None:
                raise ComputationFailed("model_unavailable", "the slide service is not running")
            self._calls.add(call)
            future: Future[dict[str, Any]] = self._threads.submit(call.carry_out)
        try:
            answer = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            call.kill()
            raise
        finally:
            with self._lock:
                self._calls.discard(call)
        return RunOutcome(ResultSet.model_validate(answer))

    def _order(self, request: RunRequest, info: DetectorInfo) -> dict[str, Any]:
        parameters = _parameters(info, request)
        run = run_record(request, info, parameters, engine=self._engine, encoder_version=self._encoder_version)
        return {
            "run": run.model_dump(mode="json"),
            "levels": [(i.ref.locator, i.ref.length) for i in request.instances],
            "parameters": parameters,
            "folder": str(self._processes.folder / digest("tenant", request.tenant)[:16] / run.result_key),
        }

    def _info(self, name: str) -> DetectorInfo:
        found = self.detectors().get(name)
        if found is None:
            raise NotFound(f"no tile model is called {name!r}")
        return found


def _parameters(info: DetectorInfo, request: RunRequest) -> dict[str, Any]:
    known = info.manifest.parameters
    unknown = sorted(set(request.parameters) - set(known))
    if unknown:
        raise ConfigurationError(f"{info.name} has no parameter {', '.join(unknown)}")
    return {**known, **request.parameters}


def forget_before(folder: Path, moment: float) -> None:
    """Delete the folders of runs (``tenant/run``) that nothing was written to since *moment* (Unix seconds)."""
    for run in folder.glob("*/*"):
        newest = max((path.stat().st_mtime for path in (run, *run.glob("parts/*")) if path.exists()), default=0.0)
        if newest < moment:
            shutil.rmtree(run, ignore_errors=True)


class _Call:
    """One run: its process, its deadline, and whoever may want to end it from another thread."""

    def __init__(
        self, order: Mapping[str, Any], processes: SlideProcesses, seconds: float, report: Report | None, meter: Meter
    ) -> None:
        self._order, self._processes, self._seconds = order, processes, seconds
        self._report, self._meter = report, meter
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._percent = 0

    def kill(self) -> None:
        """End the process now, or keep it from starting."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def carry_out(self) -> dict[str, Any]:
        """Start the process, follow it to its answer. Raises ComputationFailed, Unavailable."""
        began = time.monotonic()
        outcome = "crashed"
        pipe = self._start()
        try:
            answer = self._follow(pipe, began + self._seconds)
            outcome = str(answer["state"])
        except ComputationFailed as error:
            outcome = error.reason
            raise
        except Unavailable:
            outcome = "unavailable"
            raise
        else:
            return answer
        finally:
            pipe.close()
            self.kill()
            if self._process is not None:
                self._process.wait()
            self._meter.ended(outcome, time.monotonic() - began)

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", self._processes.module, "--pipe", str(theirs.fileno())]
        path = os.pathsep.join(part for part in sys.path if part)
        environment = {
            **os.environ,
            **self._processes.environment,
            "PYTHONPATH": path,
            PARENT_VARIABLE: str(os.getpid()),
        }
        with theirs, self._lock:
            if self._killed:
                ours.close()
                raise ComputationFailed("crashed", "the run was cancelled")
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),)
            )
        pipe = Connection(ours.detach())
        pipe.send_bytes(json.dumps(self._order).encode())
        return pipe

    def _follow(self, pipe: Connection, deadline: float) -> dict[str, Any]:
        try:
            while time.monotonic() < deadline:
                if not pipe.poll(min(_LOOK_SECONDS, max(deadline - time.monotonic(), 0.0))):
                    continue
                message = json.loads(pipe.recv_bytes())
                if "progress" in message:
                    self._advance(message["progress"])
                elif "failed" in message:
                    if message["transient"]:
                        raise Unavailable(message["detail"])
                    raise ComputationFailed(message["failed"], message["detail"])
                else:
                    return dict(message["result"])
        except (EOFError, OSError) as error:
            if self._killed:
                raise ComputationFailed("crashed", "the run was ended; finished parts are kept") from error
            # Whatever ended it (the machine ran out of memory, an operator): the next attempt goes on from the parts.
            raise Unavailable("the slide process ended; finished parts are kept") from error
        raise ComputationFailed("timeout", f"no result within {self._seconds:g} s; finished parts are kept")

    def _advance(self, counts: Mapping[str, float]) -> None:
        self._meter.advanced({name: value - self._last.get(name, 0.0) for name, value in counts.items()})
        self._last = dict(counts)
        percent = int(100 * counts["finished"] / max(counts["total"], 1))
        if self._report is not None and percent > self._percent:
            self._percent = percent
            self._report(percent)
