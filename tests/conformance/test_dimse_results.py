"""Results to DICOM destinations: from the events to a real receiver, through failures, claims and restarts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.dimse_support import Running, edge, write_peers
from tests.gateway_support import instance

from wetread.adapters.index.dicom_sends import SqlResultSends
from wetread.core.events import Event, EventType
from wetread.core.facts import Source
from wetread.core.ports.sends import ResultSend, SendState
from wetread.dimse.results import ATTEMPTS, CLAIM_SECONDS, LONGEST_WAIT, ResultForwarder, wait_after

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@dataclass
class Clock:
    time: float = 1000.0

    def now(self) -> float:
        return self.time


@dataclass
class World:
    """A sender, a receiver, and the forwarder between them."""

    sender: Running
    receiver: Running
    clock: Clock
    events: int = field(default=0)

    def forwarder(self) -> ResultForwarder:
        """Return what a new process would start with."""
        ports = replace(self.sender.edge.ports, clock=self.clock)
        return ResultForwarder(ports, self.sender.edge.book.result_destinations, self.sender.edge.caller, 1.0)

    def result(self, series: str = "1.2.3.1", *, shadow: bool = False, cursor: int | None = None) -> Event:
        self.events += 1
        event = Event(
            id=f"event-{self.events}",
            type=EventType.RESULT_READY,
            tenant="default",
            subject="1.2.3",
            time=self.clock.time,
            data={"shadow": shadow, "stored": [{"modality": "SR", "series_uid": series}]},
            cursor=cursor or self.events,
        )
        self.sender.events.events.append(event)
        return event

    def state(self, event: Event) -> ResultSend | None:
        from sqlalchemy import select

        from wetread.adapters.index.database import connection_of
        from wetread.adapters.index.dicom_sends import _send
        from wetread.adapters.index.tables import dicom_sends

        with self.sender.parts.database.read() as tx:
            row = connection_of(tx).execute(select(dicom_sends).where(dicom_sends.c.event_id == event.id)).first()
        return None if row is None else _send(row)

    def received(self) -> int:
        with self.receiver.parts.database.read() as tx:
            from sqlalchemy import func, select

            from wetread.adapters.index.database import connection_of
            from wetread.adapters.index.tables import instances

            return int(connection_of(tx).execute(select(func.count()).select_from(instances)).scalar() or 0)


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    (folder / "r").mkdir()
    (folder / "s").mkdir()
    with edge(folder / "r", ae_title="PACS") as receiver:
        place = f"host: 127.0.0.1, port: {receiver.port}"
        peers = write_peers(folder / "peers.yaml", ("ae: PACS", place, "results: true"))
        with edge(folder / "s", peers=peers, forward_seconds=3600.0) as sender:
            own = [instance(SOPInstanceUID=f"1.2.3.1.{number}") for number in range(3)]
            sender.parts.ingest.store("default", [instance(SeriesInstanceUID="1.2.3.9")], source=Source())
            sender.parts.ingest.store("default", own, source=Source(), own_result=True)
            yield World(sender, receiver, Clock())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as made:
        yield made


def test_a_result_is_sent_once(world: World) -> None:
    before = world.result()
    forwarder = world.forwarder()
    assert forwarder.step() == 0, "a new destination gets what comes from now on"
    event, shadow = world.result(), world.result(shadow=True)
    assert forwarder.step() == 1
    assert world.received() == 3
    sent = world.state(event)
    assert sent is not None
    assert (sent.state, sent.attempts, sent.series_uids) == (SendState.SENT, 1, ("1.2.3.1",))
    assert world.state(before) is None
    assert world.state(shadow) is None
    assert forwarder.step() == 0
    assert world.forwarder().step() == 0, "nor does the next process send it again"


def test_an_absent_destination_is_tried_again(world: World) -> None:
    forwarder = world.forwarder()
    forwarder.step()
    world.receiver.edge.close()
    event = world.result()
    assert forwarder.step() == 1
    waiting = world.state(event)
    assert waiting is not None
    assert (waiting.state, waiting.attempts, waiting.due_at) == (SendState.PENDING, 1, world.clock.time + 5)
    assert "away" in waiting.last_error
    assert forwarder.step() == 0
    settings = replace(world.receiver.edge.settings, port=world.sender.edge.book.peers[0].port)
    world.receiver.edge.settings = settings
    world.receiver.edge.open()
    world.clock.time += 5
    assert forwarder.step() == 1
    assert world.received() == 3


def test_a_claim_runs_out_when_its_process_is_killed(world: World) -> None:
    dying = world.forwarder()
    dying.step()
    event = world.result()
    dying._collect(dying._destinations[0])
    (claimed,) = dying._claim(dying._destinations[0])  # and then kill -9
    assert claimed.event_id == event.id
    survivor = world.forwarder()
    assert survivor.step() == 0, "it may still be sending"
    world.clock.time += CLAIM_SECONDS
    assert survivor.step() == 1
    assert world.received() == 3


def test_a_refusing_destination_ends_dead_and_a_deleted_result_too(world: World) -> None:
    forwarder = world.forwarder()
    forwarder.step()
    world.receiver.parts.ingest.store(
        "default", [instance(SOPInstanceUID="1.2.3.1.0", StudyDescription="OTHER")], source=Source()
    )
    refused, gone = world.result(), world.result("9.9")
    forwarder.step()
    waiting = world.state(refused)
    assert waiting is not None
    assert "0111" in waiting.last_error
    with world.sender.parts.database.write() as tx:
        SqlResultSends().record(tx, replace(waiting, attempts=ATTEMPTS - 1, due_at=0.0))
    forwarder.step()
    forwarder.step()
    states = [world.state(event) for event in (refused, gone)]
    assert [state.state for state in states if state] == [SendState.DEAD, SendState.DEAD]
    assert world.sender.meter.sends["result", "dead"] == 2


def test_waits_grow_to_ten_minutes_and_end_after_three_days() -> None:
    waits = [wait_after(attempts) for attempts in range(1, ATTEMPTS)]
    assert waits[:4] == [5.0, 10.0, 20.0, 40.0]
    assert max(waits) == LONGEST_WAIT
    assert sum(waits) >= 3 * 86400 * 0.99
    assert wait_after(ATTEMPTS) is None


def test_the_thread_sends_by_itself_and_stops(tmp_path: Path) -> None:
    with world_in(tmp_path) as world:
        forwarder = ResultForwarder(
            world.sender.edge.ports, world.sender.edge.book.result_destinations, world.sender.edge.caller, 0.01
        )
        forwarder.step()
        world.result()
        forwarder.open()
        import time

        deadline = time.monotonic() + 10
        while world.sender.meter.sends["result", "sent"] < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        forwarder.close(5)
        assert world.received() == 3
