"""A pool of persistent workers that run one function, named by import path: inline, processes or Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wetread.core.errors import ConfigurationError

TaskFunction = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """How a worker gets ready: ``build`` ("package.module:function") is called once with ``arguments``.

    It returns the function that runs tasks. Both travel by name and value, so any machine can do it.
    """

    build: str
    arguments: Mapping[str, Any]

    def make(self) -> TaskFunction:
        """Build the task function in this process. Raises ConfigurationError for a name that does not exist."""
        from importlib import import_module

        module, _, name = self.build.partition(":")
        try:
            build = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"no worker function {self.build!r}") from error
        made: TaskFunction = build(dict(self.arguments))
        return made


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """How a task ended: ``value``, or an error by ``slug`` and ``detail``, or ``lost`` with its worker.

    ``reason``: of an error that has one, else empty.
    """

    task_id: int
    value: Any = None
    slug: str = ""
    detail: str = ""
    lost: bool = False
    reason: str = ""

    @property
    def ok(self) -> bool:
        """True when there is a value."""
        return not self.slug and not self.lost


class TaskPool(Protocol):
    """Runs tasks; keeps a few waiting at each worker. A worker that dies takes one task with it, the one it ran."""

    @property
    def workers(self) -> int:
        """How many workers there are."""

    def start(self) -> None:
        """Start the workers. Raises Unavailable when there is no room for them."""

    def submit(self, task_id: int, payload: Any) -> None:
        """Hand over a task; payloads and values are small and picklable."""

    def wait(self, timeout_s: float) -> list[TaskOutcome]:
        """Return what ended, waiting up to *timeout_s* for the first; empty when nothing did.

        Raises ComputationFailed when workers cannot be set up at all.
        """

    def describe(self) -> str:
        """Return the state of the workers in words, for the report of a run that stands still."""

    def close(self) -> None:
        """End the workers; unfinished tasks are dropped. May be called twice."""
