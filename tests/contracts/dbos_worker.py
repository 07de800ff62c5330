"""A worker process for crash tests: the real orchestration service on a real SQLite file, with scripted detectors.

Run as ``python -m tests.contracts.dbos_worker FOLDER MODE``. Modes: ``slow`` (the first inference hangs), ``ready``,
``poison`` (inference kills the process).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.orchestration_fakes import FakeClock, FakeWorkitems
from tests.orchestration_world import World

from wetread.adapters.index.results import SqlResults
from wetread.adapters.workqueue.dbos import DbosRunControl, DbosWorkQueue
from wetread.adapters.workqueue.signals import queue_signal
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.ports.inference import Report, RunOutcome, RunRequest
from wetread.orchestration.lanes import Signals
from wetread.orchestration.outbox import DurableOutbox
from wetread.orchestration.ports import Rules
from wetread.orchestration.service import Orchestration, build

QUICK = CompletenessPolicy(default=Timing(quiet_series=0.3, quiet_study=0.6))


class SystemClock:
    def now(self) -> float:
        return time.time()


class LastingWorkitems(FakeWorkitems):
    """A workitem that this process has not seen was scheduled by the one before it."""

    def start(self, tx: Any, tenant: str, uid: str) -> None:
        self._known(uid)
        super().start(tx, tenant, uid)

    def update(self, tx: Any, tenant: str, uid: str, attributes: Mapping[str, Any]) -> None:
        self._known(uid)
        super().update(tx, tenant, uid, attributes)

    def finish(self, tx: Any, tenant: str, uid: str, *, completed: bool, attributes: Mapping[str, Any]) -> None:
        self._known(uid)
        super().finish(tx, tenant, uid, completed=completed, attributes=attributes)

    def _known(self, uid: str) -> None:
        self.items.setdefault(uid, {"state": "SCHEDULED", "dataset": {}})
        self.history.setdefault(uid, ["SCHEDULED"])


def durable_world(folder: Path) -> World:
    """A world whose clock, queue and run control are real."""
    world = World(folder, policy=QUICK)
    world.clock = SystemClock()  # type: ignore[assignment]
    queue = DbosWorkQueue(world.database.url)
    world.workitems = LastingWorkitems()
    world.ports = replace(
        world.ports,
        clock=world.clock,
        queue=queue,
        control=DbosRunControl(queue),
        workitems=world.workitems,
        results=SqlResults(world.clock),
    )
    world.rules = Rules(world.rules.workflows, QUICK, early_settle_seconds=0.0)
    world.outbox = DurableOutbox(world.ports.events, world.reading, queue, world.clock)
    world.runner._clock = FakeClock()
    return world


def signals_of(world: World) -> Signals:
    """Return what wakes the lanes of a world."""
    return partial(queue_signal, world.database.url)


def note_start(folder: Path) -> None:
    number = len(list(folder.glob("started-*")))
    (folder / f"started-{number}").touch()


def scripted(world: World, folder: Path, mode: str) -> None:
    """Make inference note that it started, and then hang, kill the process or answer."""
    answer = world.runner.run

    async def run(
        request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        note_start(folder)
        if mode == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "slow":
            await asyncio.sleep(60)
        return await answer(request, timeout_seconds=timeout_seconds, report=report)

    world.runner.run = run  # type: ignore[method-assign]


def wait_for_stop(folder: Path) -> None:
    while not (folder / "stop").exists():
        time.sleep(0.05)


async def serve(folder: Path, mode: str) -> None:
    world = durable_world(folder)
    world.index(range(1, 9))
    scripted(world, folder, mode)
    recovery = 1 if mode == "poison" else 5
    service = build(
        Orchestration(
            world.ports,
            world.rules,
            world.database.url,
            max_recovery_attempts=recovery,
            signals=signals_of(world),
        )
    )
    async with service.lifespan():
        await asyncio.to_thread(wait_for_stop, folder)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
