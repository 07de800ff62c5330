"""Evaluations of studies that are still arriving: the first at once, the rest together, none lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.databases import database_at
from tests.orchestration_fakes import STUDY, TENANT, FakeClock
from tests.orchestration_world import World

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.held import SqlHeldEvaluations
from wetread.core import tracing
from wetread.core.errors import Unavailable
from wetread.core.ports.orchestration import HeldEvaluation
from wetread.core.states import AiState
from wetread.core.workqueue import EVALUATE
from wetread.orchestration.held import ABANDONED_SECONDS, HeldEvaluations
from wetread.orchestration.outbox import DurableOutbox


@pytest.fixture
def database(tmp_path: Path, each_database: str) -> Iterator[SqlDatabase]:
    made = database_at(tmp_path / "t.db")
    made.create_schema()
    yield made
    made.close()


def test_a_study_has_one_held_evaluation_the_newest_and_as_old_as_the_first(database: SqlDatabase) -> None:
    held = SqlHeldEvaluations()
    later = HeldEvaluation(TENANT, STUDY, 7.0, {"generation": 3}, trace="00-1-2-01")
    with database.write() as tx:
        held.put(tx, HeldEvaluation(TENANT, STUDY, 5.0, {"generation": 2}), now=10.0)
        held.put(tx, later, now=12.0)
        held.put(tx, replace(later, tenant="other"), now=11.0)
        held.put(tx, replace(later, study_uid="9.9"), now=13.0)
    with database.write() as tx:
        assert held.take(tx, until=9.9, limit=10) == []
        assert held.take(tx, until=10.0, limit=10) == [later]
        assert held.take(tx, until=20.0, limit=1) == [replace(later, tenant="other")]
        assert held.take(tx, until=20.0, limit=10) == [replace(later, study_uid="9.9")]
        assert held.take(tx, until=20.0, limit=10) == []


def test_what_is_held_in_a_transaction_that_fails_is_not_held(database: SqlDatabase) -> None:
    held = SqlHeldEvaluations()

    def fails() -> None:
        with database.write() as tx:
            held.put(tx, HeldEvaluation(TENANT, STUDY, 5.0, {}), now=10.0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with database.write() as tx:
        assert held.take(tx, until=99.0, limit=10) == []


class Paced:
    """A world whose outbox holds evaluations; ``now`` is the monotonic clock. Nothing is released by itself."""

    def __init__(self, world: World) -> None:
        self.world, self.now = world, 100.0
        self.held = HeldEvaluations(
            world.database, SqlHeldEvaluations(), world.queue, world.clock, seconds=3600.0, monotonic=lambda: self.now
        )
        world.outbox = DurableOutbox(world.ports.events, world.reading, world.queue, world.clock, self.held)

    def queued(self) -> list[tuple[int, str]]:
        """Generation and signal of the evaluations in the queue."""
        items = [item.arguments for item in self.world.queue.items.values() if item.workflow == EVALUATE]
        return [(arguments["generation"], arguments["signal"]) for arguments in items]


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[Paced]:
    world = World(tmp_path)
    made = Paced(world)
    yield made
    made.held.close()
    world.close()


def test_the_first_commit_is_queued_at_once_and_those_close_behind_it_become_one(paced: Paced) -> None:
    for number in range(1, 7):
        paced.world.deliver([number], transfer_end=number == 6)
    assert paced.queued() == [(1, "commit")]
    assert paced.held.release() == 1
    assert paced.queued() == [(1, "commit"), (6, "transfer_end")]
    assert paced.held.release() == 0


def test_images_that_come_later_are_queued_at_once_again(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.now += 3600
    paced.world.deliver([2])
    assert paced.queued() == [(1, "commit"), (2, "commit")]


def test_what_was_released_counts_as_queued_just_now(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.world.deliver([2])
    paced.now += 3600
    paced.held.release()
    paced.world.deliver([3])
    assert paced.queued() == [(1, "commit"), (2, "commit")]


def test_a_held_evaluation_goes_on_in_the_trace_of_its_images(paced: Paced, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        def adopt(self, spans: object) -> None: ...

    monkeypatch.setattr(tracing, "_installed", Listener())
    traces: list[str | None] = []
    enqueue = paced.world.queue.enqueue
    monkeypatch.setattr(
        paced.world.queue, "enqueue", lambda *a, **k: (traces.append(tracing.current()), enqueue(*a, **k))
    )
    for number in (1, 2, 3):
        with tracing.continued(f"00-{number:032x}-{number:016x}-01"):
            paced.world.deliver([number])
    paced.held.release()
    assert traces == [f"00-{number:032x}-{number:016x}-01" for number in (1, 3)]


def test_other_studies_do_not_wait(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.world.deliver([1], study="9.9", series="9.9.1")
    assert len(paced.queued()) == 2


def test_the_end_of_an_association_does_not_wait(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.world.deliver([], transfer_end=True)
    assert paced.queued() == [(1, "commit"), (2, "transfer_end")]


def test_a_held_evaluation_decides_as_a_queued_one_would(paced: Paced) -> None:
    world = paced.world
    for number in range(1, 9):
        world.deliver([number])
        world.drain()
    world.deliver([9], transfer_end=True)
    paced.held.release()
    world.settle()
    assert world.task().state is AiState.POSITIVE
    assert len(world.current()) == 1


def test_a_dead_process_leaves_its_rows_to_the_others(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.world.deliver([2])
    other = HeldEvaluations(paced.world.database, SqlHeldEvaluations(), paced.world.queue, paced.world.clock)
    other.release_abandoned()
    assert paced.queued() == [(1, "commit")], "its process may be alive"
    paced.world.clock.time += ABANDONED_SECONDS
    other.release_abandoned()
    assert paced.queued() == [(1, "commit"), (2, "commit")]


def test_closing_queues_what_is_held(paced: Paced) -> None:
    paced.world.deliver([1])
    paced.world.deliver([2])
    paced.held.close()
    assert paced.queued() == [(1, "commit"), (2, "commit")]


def test_thousands_of_studies_are_not_remembered_for_ever(paced: Paced) -> None:
    with paced.world.database.write() as tx:
        for number in range(3000):
            paced.now += 10
            paced.held.submit(tx, _evaluation(f"1.{number}"))
    assert len(paced.held._queued) <= 1000


class Stuttering:
    """A database that does not answer the first two times."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self.refused = 0

    def write(self) -> Any:
        if self.refused < 2:
            self.refused += 1
            raise Unavailable("the database does not answer")
        return self._database.write()


def test_its_thread_queues_what_is_held_and_survives_a_database_that_does_not_answer(tmp_path: Path) -> None:
    database = database_at(tmp_path / "t.db")
    database.create_schema()
    arrived, stuttering = threading.Event(), Stuttering(database)

    class Queue:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def enqueue(self, _tx: Any, *, arguments: Any, **_: Any) -> None:
            self.seen.append(arguments["signal"])
            if len(self.seen) == 2:
                arrived.set()

    queue = Queue()
    held = HeldEvaluations(stuttering, SqlHeldEvaluations(), queue, FakeClock(), seconds=0.01, monotonic=lambda: 1.0)  # type: ignore[arg-type]
    with database.write() as tx:
        held.submit(tx, _evaluation(STUDY))
        held.submit(tx, _evaluation(STUDY, "transfer_end"))
    assert arrived.wait(30)
    held.close()
    assert (queue.seen, stuttering.refused) == (["commit", "transfer_end"], 2)
    with database.write() as tx:
        assert SqlHeldEvaluations().take(tx, until=1e12, limit=1) == []
    database.close()


def _evaluation(study: str, signal: str = "commit") -> HeldEvaluation:
    arguments = {"tenant": TENANT, "study_uid": study, "generation": 1, "signal": signal, "stamps": {}}
    return HeldEvaluation(TENANT, study, 1.0, arguments)
