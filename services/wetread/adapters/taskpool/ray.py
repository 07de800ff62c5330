"""Ray core actors, one CPU each. The only module that imports Ray (extra ``ray``).

``RAY_ADDRESS`` names a cluster; without it a small local one is started and ended with the pool. Actors are not
restarted and tasks not retried by Ray: the driver does both, so that what kills a worker is seen.

Answers ring a bell instead of being looked for by ``ray.wait``: that saves a third of what a task costs the driver,
which shares the cores of its workers.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Final

from wetread.adapters.taskpool.outcome import outcome_of
from wetread.core.errors import ComputationFailed, ConfigurationError, Unavailable
from wetread.core.ports.taskpool import TaskOutcome, WorkerSetup

_OBJECT_STORE_BYTES: Final = 80 << 20
"""Of a local cluster: results are counts and coordinates, so Ray's minimum is plenty."""
RESERVE_SECONDS: Final = 60.0


class _Runner:
    """The actor: a task function, built once."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._function = setup.make()

    def ready(self) -> bool:
        return True

    def run(self, task_id: int, payload: Any) -> TaskOutcome:
        return outcome_of(self._function, task_id, payload)

    def pid(self) -> int:
        return os.getpid()


@dataclass(eq=False)
class _Actor:
    handle: Any
    bundle: int
    tasks: deque[tuple[Future[TaskOutcome], int, Any]] = field(default_factory=deque)
    """(answer to be, task id, payload), oldest first."""


class RayPool:
    """``TaskPool`` of *workers* actors."""

    def __init__(self, setup: WorkerSetup, workers: int, *, reserve_seconds: float = RESERVE_SECONDS) -> None:
        self._setup, self._count, self._reserve_seconds = setup, workers, reserve_seconds
        self._actors: list[_Actor] = []
        self._bell: SimpleQueue[_Actor] = SimpleQueue()
        self._ray: Any = None
        self._group: Any = None
        self._own = False

    @property
    def workers(self) -> int:
        """How many actors there are."""
        return self._count

    def start(self) -> None:
        """Connect, reserve one CPU per actor, start them. Raises Unavailable (InsufficientResources by slug)."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # New behaviour of Ray that its warning asks for: accelerators are not hidden from CPU actors.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
            from ray.util.placement_group import placement_group
        except ImportError as error:
            raise ConfigurationError("Ray is not installed: pip install 'wetread[ray]'") from error
        self._ray = ray
        if not ray.is_initialized():
            address = os.environ.get("RAY_ADDRESS")
            self._own = True
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                ray.init(
                    num_cpus=self._count,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    _node_ip_address="127.0.0.1",
                )
        self._group = placement_group([{"CPU": 1}] * self._count)
        if not self._group.wait(self._reserve_seconds):
            free = self._ray.available_resources().get("CPU", 0)
            self.close()
            raise Unavailable(f"{self._count} processors wanted, {free:g} are free in the Ray cluster")
        self._actors = [self._spawn(bundle) for bundle in range(self._count)]

    def submit(self, task_id: int, payload: Any) -> None:
        """Hand the task to the actor with the fewest."""
        self._give(min(self._actors, key=lambda actor: len(actor.tasks)), task_id, payload)

    def wait(self, timeout_s: float) -> list[TaskOutcome]:
        """Return what ended."""
        ringing: dict[_Actor, None] = {}
        try:
            ringing[self._bell.get(timeout=timeout_s)] = None
            while True:  # more may be there: take all that are
                ringing[self._bell.get_nowait()] = None
        except Empty:
            return [outcome for actor in ringing for outcome in self._hear(actor)]

    def pids(self) -> list[int]:
        """Return the process ids of the actors (operations, tests)."""
        return [int(pid) for pid in self._ray.get([actor.handle.pid.remote() for actor in self._actors])]

    def describe(self) -> str:
        """Return the state in words."""
        free = self._ray.available_resources().get("CPU", 0) if self._ray is not None else 0
        return f"{self._count} Ray actors with {[len(a.tasks) for a in self._actors]} tasks, {free:g} CPUs free"

    def close(self) -> None:
        """End the actors, and the local cluster if this pool started it. Never touches anybody else's."""
        if self._ray is None:
            return
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors = []
        if self._group is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(self._group)
            self._group = None
        if self._own:
            self._ray.shutdown()
            self._own = False

    def _spawn(self, bundle: int) -> _Actor:
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        kind = self._ray.remote(
            num_cpus=1,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=bundle),
        )(_Runner)
        return _Actor(kind.remote(self._setup), bundle)

    def _give(self, actor: _Actor, task_id: int, payload: Any) -> None:
        answer: Future[TaskOutcome] = actor.handle.run.remote(task_id, payload).future()
        actor.tasks.append((answer, task_id, payload))
        answer.add_done_callback(lambda _: self._bell.put(actor))

    def _hear(self, actor: _Actor) -> list[TaskOutcome]:
        """Take answers in the order of the tasks: an actor runs them one after the other."""
        ended: list[TaskOutcome] = []
        while actor.tasks and actor.tasks[0][0].done():
            answer, task_id, _ = actor.tasks[0]
            try:
                ended.append(answer.result())
            except self._ray.exceptions.RayActorError as error:
                return [*ended, self._bury(actor, task_id, error)]
            actor.tasks.popleft()
        return ended

    def _bury(self, actor: _Actor, task_id: int, error: Exception) -> TaskOutcome:
        """Replace a dead actor. What it ran is lost; what waited behind goes to its successor."""
        if "creation task" in str(error):
            raise ComputationFailed("model_unavailable", "a Ray actor could not start") from error
        actor.tasks.popleft()
        self._ray.kill(actor.handle)  # it may be unreachable only, and must not run on
        successor = self._actors[self._actors.index(actor)] = self._spawn(actor.bundle)
        while actor.tasks:  # and none stays: their answers that still ring are nobody's
            _, waiting, payload = actor.tasks.popleft()
            self._give(successor, waiting, payload)
        return TaskOutcome(task_id, lost=True, detail="the Ray actor died")
