"""What ends a run without our code: each case becomes a typed state, and nothing is handled twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.orchestration_fakes import STUDY, TENANT
from tests.orchestration_world import World

from wetread.core.ports.orchestration import DeadWork
from wetread.core.states import AiState
from wetread.core.workqueue import COMPOSE, EVALUATE, QUIET
from wetread.orchestration.loops import Leases, Outcomes, Periodic


class EndedControl:
    """RunControl that reports what a test says."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.graves: list[DeadWork] = []
        self.asked_since: list[float] = []

    def cancel(self, workflow_ids: Sequence[str]) -> None:
        raise AssertionError("the outcomes loop cancels nothing")

    def end_states(self, workflow_ids: Sequence[str]) -> Mapping[str, str]:
        return {i: s for i, s in self.states.items() if i in workflow_ids}

    def dead(self, names: Sequence[str], *, since: float) -> Sequence[DeadWork]:
        self.asked_since.append(since)
        return self.graves


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def control() -> EndedControl:
    return EndedControl()


def outcomes(world: World, control: EndedControl) -> Outcomes:
    ports = replace(world.ports, control=control)
    return Outcomes(ports, world.rules, world.evaluator, world.execution, world.composition)


def queued(world: World) -> str:
    """Bring a study to a queued run and return the run's id."""
    world.deliver(range(1, 9), transfer_end=True)
    item = world.queue.ready()[0]
    item.done = True
    world.execute(item)
    run_id = world.task().run_id
    assert run_id is not None
    return run_id


@pytest.mark.parametrize(
    ("state", "reason", "dead"),
    [
        ("CANCELLED", "timeout", False),
        ("ERROR", "crashed", False),
        ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", "dead_letter", True),
    ],
)
def test_a_run_that_ended_outside_our_code_is_failed(
    world: World, control: EndedControl, state: str, reason: str, dead: bool
) -> None:
    control.states[queued(world)] = state
    loop = outcomes(world, control)
    loop.check()
    loop.check()
    task = world.task()
    assert (task.state, task.reason, task.run_id) == (AiState.FAILED, reason, None)
    assert len(world.log("task.failed")) == 1
    assert bool(world.log("task.dead")) is dead
    world.settle()  # the report says that it failed, then the workitem ends
    assert world.workitems.items[task.workitem_uid]["state"] == "CANCELED"


def test_a_run_that_is_still_at_work_is_left_alone(world: World, control: EndedControl) -> None:
    queued(world)
    outcomes(world, control).check()
    assert world.task().state is AiState.QUEUED


def test_success_without_an_outcome_is_given_time_first(world: World, control: EndedControl) -> None:
    control.states[queued(world)] = "SUCCESS"
    loop = outcomes(world, control)
    loop.check()
    assert world.task().state is AiState.QUEUED
    world.clock.time += 11
    loop.check()
    assert (world.task().state, world.task().reason) == (AiState.FAILED, "crashed")


def evaluation(generation: int) -> DeadWork:
    arguments = {"tenant": TENANT, "study_uid": STUDY, "generation": generation, "signal": "commit", "stamps": {}}
    return DeadWork("e", EVALUATE, "MAX_RECOVERY_ATTEMPTS_EXCEEDED", arguments)


def test_a_dead_evaluation_fails_every_detector_that_nobody_decided(world: World, control: EndedControl) -> None:
    world.deliver(range(1, 9), transfer_end=True)
    control.graves = [evaluation(1)]
    loop = outcomes(world, control)
    loop.check()
    loop.check()
    assert (world.task().state, world.task().reason) == (AiState.FAILED, "dead_letter")
    assert len(world.log("task.dead")) == 1


def test_a_dead_evaluation_that_another_one_replaced_changes_nothing(world: World, control: EndedControl) -> None:
    queued(world)
    control.graves = [
        evaluation(1),
        evaluation(0),
        replace(evaluation(1), arguments=evaluation(1).arguments | {"study_uid": "9"}),
    ]
    outcomes(world, control).check()
    assert world.task().state is AiState.QUEUED


def test_a_dead_quiet_timer_is_set_again(world: World, control: EndedControl) -> None:
    world.deliver([1, 2], transfer_end=True)
    world.drain()
    with world.reads() as tx:
        watch = world.ports.watches.get(tx, TENANT, STUDY)
    assert watch is not None
    for item in world.queue.items.values():
        item.done = True
    arguments = {"tenant": TENANT, "study_uid": STUDY, "sequence": watch.sequence}
    control.graves = [DeadWork("q", QUIET, "ERROR", arguments)]
    loop = outcomes(world, control)
    loop.check()
    loop.check()
    world.settle()
    assert world.task().state is AiState.NOT_PROCESSABLE


def test_a_dead_report_is_visible_and_the_finding_stands(world: World, control: EndedControl) -> None:
    world.deliver(range(1, 9), transfer_end=True)
    while world.queue.ready() and world.queue.ready()[0].workflow != COMPOSE:
        world.step()
    key = world.task().result_key
    control.graves = [DeadWork("c", COMPOSE, "ERROR", {"tenant": TENANT, "result_key": key, "stamps": {}})]
    outcomes(world, control).check()
    [dead] = world.log("task.dead")
    assert dead.data["stage"] == "evidence"
    assert world.task().state is AiState.PRELIMINARY_POSITIVE


def test_the_loop_looks_back_a_day_once_and_then_only_a_little(world: World, control: EndedControl) -> None:
    loop = outcomes(world, control)
    loop.check()
    world.clock.time += 2
    loop.check()
    first, second = control.asked_since
    assert world.clock.time - first > 23 * 3600
    assert world.clock.time - second < 60


def test_leases_expire_and_only_one_leads(world: World) -> None:
    taken: list[list[str]] = []

    def take(executors: list[str]) -> int:
        taken.append(executors)
        return 1

    alive, other = Leases(world.ports, "a", take), Leases(world.ports, "b", take)
    alive.beat()
    other.beat()
    alive.take_over_expired()
    other.take_over_expired()
    assert taken == []
    world.clock.time += 29
    alive.beat()
    alive.take_over_expired()
    world.clock.time += 2
    other.take_over_expired()
    assert taken == [], "a leads, b does not act"
    alive.take_over_expired()
    assert taken == [["b"]]
    alive.take_over_expired()
    assert taken == [["b"]], "taken over once"


def test_a_periodic_survives_an_error() -> None:
    calls = threading.Semaphore(0)

    def failing() -> None:
        calls.release()
        raise RuntimeError("first")

    loop = Periodic("test", failing, 0.001)
    loop.start()
    for _ in range(3):
        assert calls.acquire(timeout=5)
    loop.stop()
    Periodic("never started", failing, 1).stop()
