"""Processes that run together: one that dies is started again, all end together."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_GRACE_SECONDS = 20.0
BACKOFF_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Pause before the n-th restart of a process that does not stay up."""
STEADY_SECONDS = 30.0


@dataclass
class Child:
    """One supervised process."""

    names: Sequence[str]
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    started: float
    deaths: int = 0
    restart_at: float | None = None


@dataclass
class Processes:
    """Child processes under one supervisor."""

    children: list[Child] = field(default_factory=list)

    def add(self, names: Sequence[str], start: Callable[[], subprocess.Popen[bytes]]) -> Child:
        """Start a process and watch it from now on."""
        child = Child(names, start, start(), time.monotonic())
        self.children.append(child)
        return child

    def watch(self) -> None:
        """Restart what died, once. Called again and again."""
        now = time.monotonic()
        for child in self.children:
            if child.restart_at is not None:
                if now >= child.restart_at:
                    child.restart_at = None
                    child.started = now
                    child.process = child.start()
            elif child.process.poll() is not None:
                child.deaths = 0 if now - child.started > STEADY_SECONDS else child.deaths + 1
                child.restart_at = now + BACKOFF_SECONDS[min(child.deaths, len(BACKOFF_SECONDS) - 1)]

    def end(self) -> None:
        """End the processes: politely, then not."""
        for child in self.children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.1, deadline - time.monotonic()))
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()
