"""The list as the database gives it: order, completeness, paging, filters, summary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from tests.worklist_world import TENANT, World

from wetread.adapters.index.tables import results
from wetread.core.errors import InvalidInput, NotFound
from wetread.core.events import EventType
from wetread.core.ports import WorklistFilter, WorklistItem
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.reading_order import Band
from wetread.core.states import AiState, StudyAiState


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    return World.at(tmp_path)


def page(
    world: World, limit: int = 50, cursor: str | None = None, **wanted: object
) -> tuple[list[WorklistItem], str | None]:
    with world.database.read() as tx:
        found = world.worklist.page(
            tx,
            TENANT,
            now=world.clock.now(),
            wanted=WorklistFilter(**wanted),
            limit=limit,
            cursor=cursor,  # type: ignore[arg-type]
        )
    return list(found.items), found.next


def uids(world: World, **options: object) -> list[str]:
    return [item.study_uid for item in page(world, **options)[0]]  # type: ignore[arg-type]


def raise_to(world: World, uid: str, source: str, priority: Priority = Priority.STAT) -> bool:
    with world.database.write() as tx:
        return world.order.raise_to(
            tx, TENANT, uid, Reason(source, "because", priority, world.clock.now(), detector="ich")
        )


def test_time_critical_first_then_the_others_by_arrival(world: World) -> None:
    world.study("1.1", minutes_ago=20)
    world.study("1.2", minutes_ago=5, priority=Priority.STAT)
    world.study("1.3", minutes_ago=10, priority=Priority.URGENT)
    world.study("1.4", minutes_ago=2)
    world.study("1.5", minutes_ago=8, priority=Priority.STAT)
    assert uids(world) == ["1.5", "1.2", "1.1", "1.3", "1.4"]


def test_every_third_place_belongs_to_the_oldest_overdue_study(world: World) -> None:
    for number in range(5):
        world.study(f"1.{number}", minutes_ago=10 - number, priority=Priority.STAT)
    world.study("2.1", minutes_ago=70)
    world.study("2.2", minutes_ago=90)
    assert uids(world) == ["1.0", "1.1", "2.2", "1.2", "1.3", "2.1", "1.4"]


def test_a_finding_moves_a_study_up_and_the_event_rides_along(world: World) -> None:
    world.study("1.1", minutes_ago=20)
    world.study("1.2", minutes_ago=10)
    assert raise_to(world, "1.2", "ai")
    assert uids(world) == ["1.2", "1.1"]
    (top, _other), _next = page(world)
    assert (top.priority, top.band, top.due_at) == (Priority.STAT, Band.FLAGGED, top.received_at + 300)
    assert [reason.source for reason in top.reasons] == ["order", "ai"]
    with world.database.read() as tx:
        (event,) = world.events.after(tx, TENANT, 0)
    assert event.type is EventType.PRIORITY_CHANGED
    assert (event.data["previous"], event.data["priority"]) == ("routine", "stat")


def test_nothing_lowers_a_study_and_a_repeated_reason_is_one(world: World) -> None:
    world.study("1.1", priority=Priority.STAT)
    assert not raise_to(world, "1.1", "manual", Priority.BATCH)
    assert not raise_to(world, "1.1", "manual", Priority.BATCH)
    ((item,), _next) = page(world)
    assert item.priority is Priority.STAT
    assert item.band is Band.FIRM
    assert len(item.reasons) == 2
    with world.database.read() as tx:
        assert world.order.priority(tx, TENANT, "1.1") == (Priority.STAT, item.received_at + 300)
        assert world.order.priority(tx, TENANT, "9.9") is None


def test_raising_what_is_not_listed_is_an_error(world: World) -> None:
    with pytest.raises(NotFound):
        raise_to(world, "1.1", "ai")


def test_registering_again_only_raises(world: World) -> None:
    world.study("1.1", priority=Priority.URGENT)
    with world.database.write() as tx:
        world.order.register(tx, TENANT, "1.1", arrival=0.0, reason=Reason("rule", "late rule", Priority.ROUTINE, 1.0))
    ((item,), _next) = page(world)
    assert item.priority is Priority.URGENT
    assert item.received_at > 0


def test_an_old_study_is_not_passed_by_a_flag_beyond_the_bound(world: World) -> None:
    world.study("1.1", minutes_ago=300)
    world.study("1.2", minutes_ago=10)
    raise_to(world, "1.2", "ai")
    assert uids(world) == ["1.1", "1.2"]
    raise_to(world, "1.2", "manual")
    assert uids(world) == ["1.2", "1.1"]


def test_a_study_that_nobody_registered_is_listed_all_the_same(world: World) -> None:
    world.study("1.1", minutes_ago=20)
    world.study("1.2", minutes_ago=30, priority=None)
    world.study("1.3", minutes_ago=100, priority=None)
    assert uids(world) == ["1.3", "1.2", "1.1"]
    ((old, *_rest), _next) = page(world)
    assert (old.priority, old.band, old.reasons) == (Priority.ROUTINE, Band.OVERDUE, ())
    with world.database.read() as tx:
        assert world.worklist.counts(tx, TENANT) == {**dict.fromkeys(Priority, 0), Priority.ROUTINE: 3}
        assert world.worklist.item(tx, TENANT, "1.3", now=world.clock.now()) == old


def test_tenants_are_apart(world: World) -> None:
    world.study("1.1", tenant="other")
    world.study("1.2", tenant="other", priority=None)
    assert uids(world) == []
    with world.database.read() as tx, pytest.raises(NotFound):
        world.worklist.item(tx, TENANT, "1.1", now=0)


def test_pages_continue_where_the_last_one_ended_while_the_clock_runs(world: World) -> None:
    for number in range(23):
        priority = [Priority.STAT, Priority.ROUTINE, None][number % 3]
        world.study(f"1.{number}", minutes_ago=50 + number * 2, priority=priority)
    whole = uids(world)
    listed, cursor = page(world, limit=4)
    while cursor is not None:
        world.clock.at += 240  # studies become overdue between the pages; the traversal keeps its clock
        more, cursor = page(world, limit=4, cursor=cursor)
        listed += more
    assert [item.study_uid for item in listed] == whole
    assert len(whole) == 23


def test_a_raise_between_pages_neither_skips_nor_repeats_the_others(world: World) -> None:
    for number in range(12):
        world.study(f"1.{number:02d}", minutes_ago=40 - number)
    first, cursor = page(world, limit=4)
    raise_to(world, "1.06", "ai")
    world.study("1.99", minutes_ago=0)
    second, last = page(world, limit=50, cursor=cursor)
    assert last is None
    listed = [item.study_uid for item in first + second]
    assert len(listed) == len(set(listed))
    assert set(listed) == {f"1.{number:02d}" for number in range(12)} | {"1.99"}


@pytest.mark.parametrize("cursor", ["x", "e30", "W10", "WzEsMix7ImEiOjF9XQ", "é"])
def test_a_foreign_cursor_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        page(world, cursor=cursor)


def test_filters(world: World) -> None:
    world.study("1.1", name="MÜLLER^ANNA", patient_id="A-77", description="CT HEAD", priority=Priority.STAT)
    world.study("1.2", name="DOE^JOHN", patient_id="B_1", description="MR KNEE", modality="MR")
    world.study("1.3", name="DOE^JANE", patient_id="BX1", description="100% CT", priority=None)
    assert uids(world, priority=Priority.STAT) == ["1.1"]
    assert uids(world, priority=Priority.ROUTINE) == ["1.2", "1.3"]
    assert uids(world, modality="mr") == ["1.2"]
    assert uids(world, text="doe j") == ["1.2", "1.3"]
    assert uids(world, text="a-77") == ["1.1"]
    assert uids(world, text="B_1") == ["1.2"], "a wildcard of SQL is a letter here"
    assert uids(world, text="100%") == ["1.3"]
    assert uids(world, text="doe", modality="CT") == ["1.3"]


@pytest.fixture(scope="module")
def filling_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World.at(tmp_path_factory.mktemp("states"))
    yield world
    world.database.close()


@given(st.lists(st.tuples(st.sampled_from(AiState), st.booleans()), max_size=5), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_filter_by_state_finds_exactly_what_the_summary_says(
    filling_world: World, states: list[tuple[AiState, bool]], looked_at: bool
) -> None:
    """One more study per example; the ones before stay."""
    world, uid = filling_world, f"1.{len(page(filling_world, limit=500)[0]) + 1}"
    world.study(uid, looked_at=looked_at)
    for number, (state, shadow) in enumerate(states):
        world.task(uid, f"d{number}", state, reason="timeout", shadow=shadow)
    [item] = [item for item in page(world, limit=500)[0] if item.study_uid == uid]
    for summary in StudyAiState:
        assert (uid in uids(world, state=summary, limit=500)) == (summary is item.ai_state)


def test_a_study_not_evaluated_is_pending_and_one_without_a_detector_is_not_applicable(world: World) -> None:
    world.study("1.1", minutes_ago=2, looked_at=False)
    world.study("1.2", minutes_ago=1, looked_at=True)
    assert [item.ai_state for item in page(world)[0]] == [StudyAiState.PENDING, StudyAiState.NOT_APPLICABLE]


def test_our_own_result_series_do_not_change_what_a_study_is(world: World) -> None:
    world.study("1.1", slices=30)
    with world.database.write() as tx:
        world._series(tx, TENANT, "1.1", "1.1.9", "SR", 1, 0.0, own_result=True)
        world._series(tx, TENANT, "1.1", "1.1.5", "PT", 4, 0.0, own_result=False)
    ((item,), _next) = page(world)
    assert (item.modality, item.instances) == ("CT/PT", 34)
    assert uids(world, modality="SR") == []


def test_the_picture_of_a_study_is_the_middle_of_its_largest_series(world: World) -> None:
    world.study("1.1", slices=5)
    world.study("1.2", modality="SR", slices=1)
    with world.database.read() as tx:
        image = world.worklist.source_image(tx, TENANT, "1.1")
        assert image is not None
        assert (image.series_uid, image.sop_instance_uid) == ("1.1.1", "1.1.1.3")
        assert world.worklist.source_image(tx, TENANT, "1.2") is None
        with pytest.raises(NotFound):
            world.worklist.source_image(tx, TENANT, "9.9")


def test_what_is_still_to_come_is_known_without_composing_the_answer(world: World) -> None:
    def unanswered(uid: str) -> bool:
        with world.database.read() as tx:
            return world.worklist.unanswered(tx, TENANT, uid)

    world.study("1.2.3", looked_at=False)
    assert unanswered("1.2.3")  # no rules have looked at it
    world.task("1.2.3", "shadow", AiState.RUNNING, shadow=True)
    assert not unanswered("1.2.3")  # readers never wait for a shadow
    world.task("1.2.3", "ich", AiState.RUNNING)
    assert unanswered("1.2.3")
    world.task("1.2.3", "ich", AiState.FAILED, reason="timeout")
    assert not unanswered("1.2.3")
    world.study("1.2.4", looked_at=True)
    assert not unanswered("1.2.4")
    world.study("1.2.5", looked_at=False)
    with world.database.write() as tx:  # an index made anew: results, but no tasks
        tx.connection.execute(
            insert(results).values(
                tenant=TENANT, result_key="key", study_uid="1.2.5", detector="ich", created_at=0.0, result_json="{}"
            )
        )
    assert not unanswered("1.2.5")
    with pytest.raises(NotFound):
        unanswered("1.2.6")
