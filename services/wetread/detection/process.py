"""One worker process seen from its parent: start, greet, order, kill."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from wetread.core import tracing
from wetread.core.errors import ComputationFailed, Unavailable
from wetread.detection.spans import finished_spans

_THREAD_LIMITS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
START_SECONDS: Final = 60.0
"""Longest time for imports and warm-up."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How to start a worker process."""

    ports: str
    """``module:function`` that makes the ``WorkerPorts`` inside the process."""
    detectors: str = ""
    bundled: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    threads: int = 2


class ProcessEnded(ComputationFailed):
    """The process of a run ended by itself, or somebody else ended it."""

    def __init__(self, detail: str, reason: str = "crashed") -> None:
        super().__init__(reason, detail)


class WorkerProcess:
    """A running worker. Not shared between threads, except ``kill``."""

    def __init__(self, spec: WorkerSpec) -> None:
        ours, theirs = socket.socketpair()
        lifeline_read, lifeline_write = os.pipe()
        command = [sys.executable, "-m", "wetread.detection.worker", "--pipe", str(theirs.fileno())]
        command += ["--lifeline", str(lifeline_read), "--ports", spec.ports, "--detectors", spec.detectors]
        if spec.bundled is not None:
            command += ["--bundled", str(spec.bundled)]
        path = os.pathsep.join(part for part in sys.path if part)
        environment = {**os.environ, "PYTHONPATH": path, **dict.fromkeys(_THREAD_LIMITS, str(spec.threads))}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command,
                env={**environment, **spec.environment},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline_read),
            )
        except BaseException:
            os.close(lifeline_write)
            ours.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline_read)
        self._lifeline = lifeline_write
        self._pipe = Connection(ours.detach())
        self._greeted = False
        self.killed_for = ""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def greet(self, engine: str) -> None:
        """Wait until the worker is warm. Raises ComputationFailed("model_unavailable")."""
        if self._greeted:
            return
        try:
            hello = self._receive(START_SECONDS, on_silence="model_unavailable")
        except ProcessEnded as error:
            raise ProcessEnded(error.detail, "model_unavailable") from error
        if "error" in hello:
            self.close()
            raise ComputationFailed("model_unavailable", hello["error"])
        if hello["engine"] != engine:
            self.close()
            detail = f"the worker's engine is {hello['engine']}, not {engine}"
            raise ComputationFailed("model_unavailable", detail)
        self._greeted = True

    def order(self, message: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Have one run done and return the answer.

        Raises ComputationFailed (timeout, crashed, out_of_memory, model_unavailable, or the reason it was killed
        for; ProcessEnded when nobody here killed it) or Unavailable (a store was down: try again).
        """
        try:
            self._pipe.send_bytes(json.dumps(message).encode())
        except OSError as error:
            self.close()
            raise self._ended("the worker process is gone") from error
        answer = self._receive(timeout_seconds, on_silence="timeout")
        tracing.adopt(finished_spans(answer))
        if "failed" in answer:
            if answer.get("transient"):
                raise Unavailable(answer["detail"])
            raise ComputationFailed(answer["failed"], answer["detail"])
        return answer

    def kill(self, reason: str) -> None:
        """End the process at once; a run in flight fails with *reason*."""
        self.killed_for = self.killed_for or reason
        self._process.kill()

    def close(self) -> None:
        """End the process and release everything. May be called twice."""
        self._pipe.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self.alive:
            self._process.kill()
        self._process.wait()

    def _receive(self, seconds: float, *, on_silence: str) -> dict[str, Any]:
        try:
            if not self._pipe.poll(seconds):
                self.close()
                raise ComputationFailed(on_silence, f"no answer within {seconds:g} s")
            answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError) as error:
            self.close()
            raise self._ended("the worker process ended") from error
        return answer

    def _ended(self, detail: str) -> ComputationFailed:
        return ComputationFailed(self.killed_for, detail) if self.killed_for else ProcessEnded(detail)
