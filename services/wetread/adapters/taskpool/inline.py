"""Tasks in this process, one at a time: tests, tools and machines with one core."""

from __future__ import annotations

from collections import deque
from typing import Any

from wetread.adapters.taskpool.outcome import outcome_of
from wetread.core.ports.taskpool import TaskFunction, TaskOutcome, WorkerSetup


class InlinePool:
    """``TaskPool`` without workers."""

    workers = 1

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._function: TaskFunction | None = None
        self._waiting: deque[tuple[int, Any]] = deque()

    def start(self) -> None:
        """Build the task function."""
        self._function = self._setup.make()

    def submit(self, task_id: int, payload: Any) -> None:
        """Queue a task."""
        self._waiting.append((task_id, payload))

    def wait(self, timeout_s: float) -> list[TaskOutcome]:  # noqa: ARG002 - the port's
        """Run the oldest task, however long it takes."""
        if not self._waiting or self._function is None:
            return []
        task_id, payload = self._waiting.popleft()
        return [outcome_of(self._function, task_id, payload)]

    def describe(self) -> str:
        """Return the state in words."""
        return f"inline, {len(self._waiting)} tasks waiting"

    def close(self) -> None:
        """Drop what waits, and close what the function holds."""
        self._waiting.clear()
        closing = getattr(self._function, "close", None)
        if closing is not None:
            closing()
        self._function = None
