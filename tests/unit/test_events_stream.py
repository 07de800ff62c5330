"""Server-sent events: resume, order, heartbeat, an end; and the tail that wakes the streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from tests.worklist_world import TENANT, World

from wetread.core.errors import InvalidInput, Unavailable
from wetread.core.event_stream import Page, asks_for_events, live, parse_last_event_id
from wetread.core.events import EventType
from wetread.core.tail import EventTail
from wetread.worklist.event_endpoints import BATCH, page_of, parse_types


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


class Stream:
    """A stream on the real table, and what a browser would make of it."""

    def __init__(self, world: World, start: int | None, *, heartbeat_seconds: float = 5.0) -> None:
        self.stopping = threading.Event()
        self.tail = EventTail(self.latest, self.stopping, poll_seconds=0.001)
        self.world = world
        self.frames: AsyncIterator[bytes] = live(self.read, self.tail, start, heartbeat_seconds=heartbeat_seconds)

    def latest(self) -> int:
        with self.world.database.read() as tx:
            return self.world.events.latest(tx)

    def read(self, cursor: int) -> Page:
        with self.world.database.read() as tx:
            return page_of(self.world.events.after(tx, TENANT, cursor, limit=BATCH), self.world.events.latest(tx))

    async def next(self) -> dict[str, str]:
        text = (await anext(self.frames)).decode()
        assert text.endswith("\n\n")
        return dict(line.split(": ", 1) for line in text.strip().split("\n"))


def test_a_stream_resumes_after_the_last_event_id(world: World) -> None:
    async def story() -> None:
        for number in range(4):
            world.event(EventType.STUDY_RECEIVED, f"1.{number}")
        stream = Stream(world, 2)
        head = await stream.next()
        assert (head["id"], head["retry"]) == ("2", "2000")
        got = [await stream.next() for _ in range(2)]
        assert [(frame["id"], frame["event"]) for frame in got] == [("3", "study.received"), ("4", "study.received")]
        assert [orjson.loads(frame["data"])["subject"] for frame in got] == ["1.2", "1.3"]

    asyncio.run(story())


def test_without_a_cursor_a_stream_starts_now_and_says_where_that_is(world: World) -> None:
    async def story() -> None:
        world.event(EventType.STUDY_RECEIVED, "1.1")
        stream = Stream(world, None)
        assert (await stream.next())["id"] == "1"
        async with stream.tail.running():
            waiting = asyncio.ensure_future(stream.next())
            await asyncio.sleep(0)
            await asyncio.to_thread(world.event, EventType.RESULT_READY, "1.1")
            assert (await waiting)["event"] == "result.ready"

    asyncio.run(story())


def test_a_backlog_longer_than_a_batch_arrives_whole(world: World) -> None:
    async def story() -> None:
        for number in range(BATCH + 5):
            world.event(EventType.STUDY_RECEIVED, f"1.{number}")
        stream = Stream(world, 0)
        await stream.next()
        assert [int((await stream.next())["id"]) for _ in range(BATCH + 5)] == list(range(1, BATCH + 6))

    asyncio.run(story())


def test_events_of_other_tenants_wake_but_never_reach_a_stream(world: World) -> None:
    async def story() -> None:
        stream = Stream(world, 0)
        await stream.next()
        async with stream.tail.running():
            waiting = asyncio.ensure_future(stream.next())
            await asyncio.to_thread(world.event, EventType.STUDY_RECEIVED, "9.9", tenant="other")
            await asyncio.to_thread(world.event, EventType.STUDY_RECEIVED, "1.1")
            assert orjson.loads((await waiting)["data"])["subject"] == "1.1"

    asyncio.run(story())


def test_a_quiet_stream_beats(world: World) -> None:
    async def story() -> None:
        stream = Stream(world, None, heartbeat_seconds=0.01)
        await stream.next()
        async with stream.tail.running():
            assert await anext(stream.frames) == b": heartbeat\n\n"

    asyncio.run(story())


def test_a_stream_beats_also_while_others_are_busy(world: World) -> None:
    """Proxies end what is silent, and its silence would tell that other tenants are at work."""

    async def story() -> None:
        stream = Stream(world, None, heartbeat_seconds=0.01)
        await stream.next()
        looks = iter(range(1, 10**6))
        stream.tail = EventTail(lambda: next(looks), stream.stopping)
        frames = live(lambda _cursor: Page([], 0, -1, more=False), stream.tail, 0, heartbeat_seconds=0.01)
        await anext(frames)
        assert await anext(frames) == b": heartbeat\n\n"

    asyncio.run(story())


def test_who_asks_for_events() -> None:
    for accept in ("text/event-stream", "Text/Event-Stream, */*", "application/json;q=0.5, text/event-stream"):
        assert asks_for_events(accept), accept
    for accept in (None, "", "*/*", "text/*", "application/json, text/event-stream", "text/event-stream;q=0, */*"):
        assert not asks_for_events(accept), accept


def test_last_event_id() -> None:
    assert [parse_last_event_id(text) for text in (None, "", "0", "17")] == [None, None, 0, 17]
    for wrong in ("-1", "1.5", "x", "\u0661", "9" * 19):
        with pytest.raises(InvalidInput):
            parse_last_event_id(wrong)


def test_a_cursor_from_another_data_folder_is_reset(world: World) -> None:
    async def story() -> None:
        world.event(EventType.STUDY_RECEIVED, "1.1")
        stream = Stream(world, 500)
        assert (await stream.next())["event"] == "reset"
        assert (await stream.next())["id"] == "1"

    asyncio.run(story())


@pytest.mark.parametrize("how", ["told", "closed"])
def test_a_stream_ends_when_the_server_stops(world: World, how: str) -> None:
    async def story() -> None:
        stream = Stream(world, None)
        await stream.next()
        async with stream.tail.running():
            waiting = asyncio.ensure_future(stream.next())
            await asyncio.sleep(0.01)
            if how == "told":
                stream.stopping.set()
                with pytest.raises(StopAsyncIteration):
                    await waiting
        if how == "closed":
            with pytest.raises(StopAsyncIteration):
                await waiting

    asyncio.run(story())


def test_a_waiter_that_waits_in_vain_is_told_so() -> None:
    async def story() -> None:
        tail = EventTail(lambda: 7, threading.Event(), poll_seconds=0.001)
        async with tail.running():
            assert await tail.wait_beyond(6, 5)
            assert not await tail.wait_beyond(7, 0.02)

    asyncio.run(story())


def test_the_database_is_asked_only_while_somebody_waits_and_may_be_busy() -> None:
    asked: list[int] = []

    def latest() -> int:
        asked.append(1)
        if len(asked) == 1:
            raise Unavailable("busy")
        return 3

    async def story() -> None:
        tail = EventTail(latest, threading.Event(), poll_seconds=0.001)
        async with tail.running():
            await asyncio.sleep(0.02)
            assert asked == []
            assert await tail.wait_beyond(2, 5)

    asyncio.run(story())
    assert len(asked) >= 2


def test_types() -> None:
    assert parse_types("") is None
    assert parse_types("study.received, result.ready,") == [EventType.STUDY_RECEIVED, EventType.RESULT_READY]
    with pytest.raises(InvalidInput):
        parse_types("study.*")
