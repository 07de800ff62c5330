"""The contract of the event log on the real database: nothing lost, nothing twice, whoever writes."""

from __future__ import annotations

import threading
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.worklist_world import NOON, World

from wetread.adapters.index.turnarounds import BOUNDS, histograms
from wetread.core import tracing
from wetread.core.events import Event, EventType
from wetread.core.ports import Subscription
from wetread.detection.spans import SpanRecorder

WRITERS, EACH = 50, 6


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    return World.at(tmp_path)


def read(world: World, cursor: int, tenant: str = "default", **options: object) -> list[Event]:
    with world.database.read() as tx:
        return world.events.after(tx, tenant, cursor, **options)  # type: ignore[arg-type]


def test_an_event_comes_back_as_it_was_appended(world: World) -> None:
    event = Event("e1", EventType.RESULT_READY, "default", "1.2", NOON, {"state": "positive"}, {"received": NOON - 3})
    with world.database.write() as tx:
        assert world.events.append(tx, event)
    (found,) = read(world, 0)
    assert (found.id, found.type, found.subject, found.data, found.stamps) == (
        "e1", EventType.RESULT_READY, "1.2", {"state": "positive"}, {"received": NOON - 3},
    )  # fmt: skip
    with world.database.read() as tx:
        assert world.events.get(tx, "default", "e1") == found
        assert world.events.latest(tx) == found.cursor > 0


def test_an_event_keeps_its_trace_beside_its_data(world: World) -> None:
    request = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    other = request.replace("0af7", "1af7")
    tracing.install(SpanRecorder())
    try:
        with tracing.continued(request), world.database.write() as tx:
            world.events.append(tx, Event("e1", EventType.STUDY_RECEIVED, "default", "1.2", NOON, {"n": 1}))
            world.events.append(tx, Event("e2", EventType.STUDY_CHANGED, "default", "1.2", NOON, trace=other))
    finally:
        tracing.install(None)
    with world.database.write() as tx:
        world.events.append(tx, Event("e3", EventType.STUDY_STABLE, "default", "1.2", NOON))
    assert [(e.trace, e.data) for e in read(world, 0)] == [(request, {"n": 1}), (other, {}), (None, {})]


def test_several_at_once_are_appended_in_order_and_told_like_one(world: World) -> None:
    def finished(name: str, study: str, **data: object) -> Event:
        return Event(name, EventType.TASK_FINISHED, "default", study, NOON, data)

    receiver = Subscription("default", "s1", "http://r.example/", (EventType.TASK_FINISHED,), (), False, True, 0.0)
    with world.database.write() as tx:
        world.subscriptions.put(tx, receiver)
        world.events.append_all(tx, "default", [])
        world.events.append(tx, finished("e2", "1.2"))
        several = [
            finished("e3", "1.3"),
            finished("e2", "1.2"),
            finished("e1", "1.1"),
            finished("e4", "1.4", shadow=True),
        ]
        world.events.append_all(tx, "default", several)
    assert [e.id for e in read(world, 0)] == ["e2", "e3", "e1", "e4"]
    told = [entry.arguments["event_id"] for entry in world.work.take()]
    assert sorted(told) == ["e1", "e2", "e3"], "each once; nobody hears of shadow work"


def test_turnaround_is_counted_with_the_event_and_rolls_back_with_it(world: World) -> None:
    def ready(number: int, seconds: float) -> Event:
        stamps = {"received": NOON - seconds}
        return Event(f"r{number}", EventType.RESULT_READY, "default", "1.2", NOON, {"preliminary": False}, stamps)

    with world.database.write() as tx:
        for number, seconds in enumerate((3.0, 4.0, 3.0, 9000.0)):
            assert world.events.append(tx, ready(number, seconds))
        assert not world.events.append(tx, ready(0, 3.0))

    def change() -> None:
        with world.database.write() as tx:
            world.events.append(tx, ready(9, 3.0))
            raise RuntimeError("change failed")

    with pytest.raises(RuntimeError, match="change failed"):
        change()
    with world.database.read() as tx:
        [(labels, counts, seconds)] = histograms(tx.connection)  # type: ignore[attr-defined]
    assert labels == ("result", "", "other", "none")
    assert {BOUNDS[i]: n for i, n in enumerate(counts) if n} == {5.0: 3, 14400.0: 1}
    assert seconds == 9010.0


def test_the_same_id_again_is_one_event(world: World) -> None:
    event = Event("e1", EventType.STUDY_RECEIVED, "default", "1.2", NOON)
    with world.database.write() as tx:
        assert world.events.append(tx, event)
        assert not world.events.append(tx, event)
    assert len(read(world, 0)) == 1


def test_an_event_rolls_back_with_its_change(world: World) -> None:
    def change() -> None:
        with world.database.write() as tx:
            world.events.append(tx, Event("e1", EventType.STUDY_RECEIVED, "default", "1.2", NOON))
            raise RuntimeError("change failed")

    with pytest.raises(RuntimeError, match="change failed"):
        change()
    assert read(world, 0) == []


def test_tenants_do_not_see_each_other(world: World) -> None:
    world.event(EventType.STUDY_RECEIVED, "1.2", tenant="a", id="same")
    world.event(EventType.STUDY_RECEIVED, "1.2", tenant="b", id="same")
    assert [event.tenant for event in read(world, 0, "a")] == ["a"]
    with world.database.read() as tx:
        assert world.events.get(tx, "c", "same") is None
        assert [event.tenant for event in world.events.of_study(tx, "b", "1.2")] == ["b"]


def test_filtering_by_type_and_limiting(world: World) -> None:
    for number in range(6):
        kind = EventType.TASK_QUEUED if number % 2 else EventType.TASK_STARTED
        world.event(kind, f"1.{number}")
    queued = read(world, 0, types=[EventType.TASK_QUEUED])
    assert [event.subject for event in queued] == ["1.1", "1.3", "1.5"]
    assert [event.subject for event in read(world, queued[0].cursor, limit=2)] == ["1.2", "1.3"]


def test_a_cursor_is_never_given_out_again_after_retention(world: World) -> None:
    world.event(EventType.STUDY_RECEIVED, "1.1")
    (first,) = read(world, 0)
    with world.database.write() as tx:
        tx.connection.exec_driver_sql("DELETE FROM events")
    world.event(EventType.STUDY_RECEIVED, "1.2")
    assert [event.subject for event in read(world, first.cursor)] == ["1.2"]


def test_a_reader_among_fifty_writers_loses_nothing_and_sees_nothing_twice(world: World) -> None:
    done = threading.Event()
    seen: list[Event] = []

    def follow() -> None:
        cursor = 0
        while True:
            last_round = done.is_set()
            batch = read(world, cursor, limit=7)
            seen.extend(batch)
            cursor = batch[-1].cursor if batch else cursor
            if last_round and not batch:
                return

    def write(writer: int) -> None:
        for number in range(EACH):
            with world.database.write() as tx:
                for part in range(2):
                    event = Event(f"{writer}/{number}/{part}", EventType.STUDY_CHANGED, "default", f"1.{writer}", NOON)
                    world.events.append(tx, event)

    reader = threading.Thread(target=follow)
    reader.start()
    try:
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(write, range(WRITERS)))
    finally:
        done.set()
        reader.join(60)
    assert not reader.is_alive()
    assert len(seen) == len({event.id for event in seen}) == WRITERS * EACH * 2
    assert [event.cursor for event in seen] == sorted(event.cursor for event in seen)
    per_study = defaultdict(list)
    for event in seen:
        per_study[event.subject].append(tuple(int(part) for part in event.id.split("/"))[1:])
    assert all(order == sorted(order) for order in per_study.values())
