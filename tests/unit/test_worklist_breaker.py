"""The breaker: binomial against scipy, and flags that are shown but no longer move studies."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from tests.worklist_world import TENANT, World

from wetread.adapters.index.breakers import SqlBreaker
from wetread.adapters.index.reading_order import SqlReadingOrder
from wetread.core.breaker import LEAST, SIGNIFICANCE, is_open, predicted_share, upper_tail
from wetread.core.events import EventType
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.states import AiState

PREDICTED = predicted_share(0.95, 0.9)


@given(st.integers(0, 200), st.integers(0, 200), st.floats(0, 1))
def test_the_tail_is_the_binomial_one(flagged: int, more: int, share: float) -> None:
    studies = flagged + more
    assert upper_tail(flagged, studies, share) == pytest.approx(binom.sf(flagged - 1, studies, share), abs=1e-9)


def test_it_opens_at_the_first_number_that_is_no_chance() -> None:
    limit = next(k for k in range(LEAST + 1) if binom.sf(k - 1, LEAST, PREDICTED) < SIGNIFICANCE)
    assert limit == 27, "as ADR 0512 says"
    for flagged in range(LEAST + 1):
        assert is_open([True] * flagged + [False] * (LEAST - flagged), PREDICTED) is (flagged >= limit)
    assert not is_open([True] * (LEAST - 1), PREDICTED), "too few to say anything"


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    world = World.at(tmp_path)
    known = {"ich": PREDICTED}
    world.order = SqlReadingOrder(world.events, SqlBreaker(world.events, known.get))
    return world


def answer(world: World, first: int, count: int, state: AiState, detector: str = "ich") -> None:
    for n in range(first, first + count):
        world.clock.at += 1
        world.task(f"1.7.{n}", detector, state)


def flag(world: World, uid: str, detector: str = "ich") -> bool:
    world.study(uid)
    world.task(uid, detector, AiState.POSITIVE)
    with world.database.write() as tx:
        return world.order.raise_to(
            tx, TENANT, uid, Reason("ai", "suspected", Priority.STAT, world.clock.now(), detector=detector)
        )


def told(world: World) -> list[str]:
    kinds = [EventType.BREAKER_OPENED, EventType.BREAKER_CLOSED]
    with world.database.read() as tx:
        return [str(event.type) for event in world.events.after(tx, TENANT, 0, types=kinds)]


def test_a_flooding_detector_is_shown_but_moves_nothing_until_it_behaves(world: World) -> None:
    answer(world, 0, 30, AiState.NEGATIVE)
    assert flag(world, "1.1.1"), "well within what the card predicts"
    answer(world, 100, 60, AiState.POSITIVE)
    assert not flag(world, "1.1.2")
    assert not flag(world, "1.1.3")
    with world.database.read() as tx:
        item = world.worklist.item(tx, TENANT, "1.1.2", now=world.clock.now())
        assert world.worklist.item(tx, TENANT, "1.1.1", now=world.clock.now()).priority is Priority.STAT
    assert item.priority is Priority.ROUTINE
    assert "does not move the study" in item.reasons[-1].text
    assert told(world) == ["worklist.breaker_opened"], "once, not per study"
    with world.database.write() as tx:  # people and other detectors are not held
        assert world.order.raise_to(tx, TENANT, "1.1.2", Reason("manual", "call", Priority.URGENT, world.clock.now()))
    assert flag(world, "1.1.4", detector="pe")
    answer(world, 300, 90, AiState.NEGATIVE)
    assert flag(world, "1.1.5")
    assert told(world) == ["worklist.breaker_opened", "worklist.breaker_closed"]


def test_shadow_runs_and_what_has_no_answer_do_not_count(world: World) -> None:
    for n in range(60):
        world.task(f"1.8.{n}", "ich", AiState.POSITIVE, shadow=True)
        world.task(f"1.9.{n}", "ich", AiState.FAILED, reason="crashed")
    assert flag(world, "1.1.1")
