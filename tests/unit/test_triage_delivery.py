"""Deliveries: retried by the schedule, ordered per study, dead in the end, and never silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.worklist_world import TENANT, World

from wetread.core.errors import ComputationFailed, Gone, Unavailable, WetreadError
from wetread.core.events import EventType
from wetread.core.ports import Delivery, DeliveryState, Subscription
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.webhook_signature import generate_secret
from wetread.triage.channels import ChannelDirectory
from wetread.triage.delivery import LOST_AFTER_SECONDS, Notifier, Ports
from wetread.triage.retry_schedule import RETRY_SECONDS


@dataclass
class Receiver:
    """A sender whose receiver answers as told; keeps what was sent."""

    answers: list[WetreadError | None] = field(default_factory=list)
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def check(self, url: str) -> None:
        pass

    def send(self, url: str, secrets: Sequence[str], event_id: str, body: bytes, headers: Mapping[str, str]) -> int:
        assert secrets
        assert headers["content-type"] == "application/cloudevents+json"
        self.sent.append((event_id, orjson.loads(body)))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        return 204


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    world = World.at(tmp_path)
    world.study("1.1", name="SECRET^NAME", patient_id="SECRET-ID")
    world.study("1.2")
    world.work.take()
    return world


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def notifier(world: World, receiver: Receiver) -> Notifier:
    return Notifier(
        Ports(
            database=world.database,
            clock=world.clock,
            events=world.events,
            deliveries=world.deliveries,
            subscriptions=world.subscriptions,
            studies=world.studies,  # type: ignore[arg-type]  # summaries only
            webhooks=receiver,
            channels=ChannelDirectory(lambda _tenant: {}),
            sink=receiver,  # type: ignore[arg-type]  # no channel leads to it
            mailer=None,
            public_url="http://reading.example/",
        )
    )


def subscribe(world: World, name: str = "s1", *, types: tuple[EventType, ...] = (), **options: Any) -> Subscription:
    values = {"include_patient": False, "active": True, **options}
    subscription = Subscription(
        tenant=TENANT,
        id=name,
        url="http://r.example/",
        types=types,
        secrets=(generate_secret(),),
        created_at=0.0,
        **values,
    )
    with world.database.write() as tx:
        world.subscriptions.put(tx, subscription)
    return subscription


def run(world: World, notifier: Notifier) -> list[str]:
    """Run what is queued once, at its time, as the durable queue would."""
    outcomes = []
    for entry in sorted(world.work.take(), key=lambda entry: entry.due):
        assert (entry.workflow, entry.queue) == ("deliver", "notify")
        world.clock.at += entry.delay_seconds or 0
        outcomes.append(notifier.deliver(**entry.arguments))
    return outcomes


def delivery(world: World, event_id: str, name: str = "s1") -> Delivery:
    with world.database.read() as tx:
        found = world.deliveries.get(tx, TENANT, event_id, name)
    assert found is not None
    return found


def dead_letters(world: World) -> list[Mapping[str, Any]]:
    with world.database.read() as tx:
        return [event.data for event in world.events.after(tx, TENANT, 0, types=[EventType.DELIVERY_DEAD])]


def test_an_event_is_delivered_with_the_least_data(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    world.event(
        EventType.FINDING_POSITIVE, "1.1", id="e1", detector="ich", state="positive", score=0.937,
        text="Mrs SECRET fell",
        code="1386000", volume_ml=23.4, threshold=0.61,
        finding={"code": "1386000", "scheme": "SCT", "meaning": "Intracranial hemorrhage", "note": "SECRET"},
    )  # fmt: skip
    assert run(world, notifier) == ["sent"]
    ((event_id, body),) = receiver.sent
    assert event_id == body["id"] == "e1"
    assert (body["specversion"], body["type"], body["subject"]) == ("1.0", "finding.positive", "1.1")
    data = body["data"]
    assert data["score_band"] == "0.9-1.0"
    assert data.keys() & {"score", "threshold", "volume_ml", "text"} == set()
    assert data["code"] == "1386000"
    assert data["finding"] == {"code": "1386000", "scheme": "SCT", "meaning": "Intracranial hemorrhage"}
    assert data["link"] == "http://reading.example/studies/1.1"
    assert data["ruo"] == RUO_STATEMENT
    assert data["stamps"]["sent"].endswith("Z")
    assert "SECRET" not in orjson.dumps(body).decode()
    assert delivery(world, "e1").state is DeliveryState.SENT


def test_patient_data_only_where_the_subscription_asks(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world, include_patient=True)
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    world.event(EventType.RESULT_READY, "9.9", id="of a deleted study")
    run(world, notifier)
    patients = {event_id: body["data"]["patient"] for event_id, body in receiver.sent}
    assert patients == {"e1": {"id": "SECRET-ID", "name": "SECRET^NAME"}, "of a deleted study": {}}


def test_only_wanted_types_active_receivers_and_never_shadow_results(world: World, notifier: Notifier) -> None:
    subscribe(world, "wants", types=(EventType.FINDING_POSITIVE,))
    subscribe(world, "inactive", active=False)
    world.event(EventType.STUDY_RECEIVED, "1.1", id="e1")
    world.event(EventType.FINDING_POSITIVE, "1.1", id="e2", shadow=True)
    world.event(EventType.FINDING_POSITIVE, "1.1", id="e3", shadow=False)
    assert [entry.arguments["event_id"] for entry in world.work.take()] == ["e3"]


def test_failures_follow_the_schedule_to_a_dead_letter(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    receiver.answers = [Unavailable("the receiver answered 500")] * 99
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    outcomes, times = [], []
    while world.work.entries:
        outcomes += run(world, notifier)
        times.append(world.clock.now())
    assert outcomes == ["retry"] * len(RETRY_SECONDS) + ["dead"]
    waits = [late - early for early, late in pairwise(times)]
    assert all(step <= wait <= 1.1 * step + 0.01 for step, wait in zip(RETRY_SECONDS, waits, strict=True))
    assert {event_id for event_id, _body in receiver.sent} == {"e1"}, "every attempt carries the same webhook id"
    ended = delivery(world, "e1")
    assert (ended.state, ended.attempts) == (DeliveryState.DEAD, len(RETRY_SECONDS) + 1)
    assert ended.last_error == "the receiver answered 500"
    (letter,) = dead_letters(world)
    assert (letter["event_id"], letter["reason"]) == ("e1", "retries_exhausted")


def test_the_receiver_may_ask_for_time(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    receiver.answers = [Unavailable("busy", retry_after=777.0)]
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    assert run(world, notifier) == ["retry"]
    assert [entry.delay_seconds for entry in world.work.entries] == [777.0]
    assert run(world, notifier) == ["sent"]


def test_a_refused_address_is_dead_at_once(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    receiver.answers = [ComputationFailed("address_not_allowed", "private")]
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    assert run(world, notifier) == ["dead"]
    assert dead_letters(world)[0]["reason"] == "address_not_allowed"


def test_gone_unsubscribes_and_gives_up_what_was_waiting(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    receiver.answers = [Gone("410")]
    for number in range(3):
        world.event(EventType.RESULT_READY, "1.1", id=f"e{number}")
    assert run(world, notifier) == ["dead"]
    assert run(world, notifier) == []
    assert {delivery(world, f"e{number}").state for number in range(3)} == {DeliveryState.DEAD}
    with world.database.read() as tx:
        assert not world.subscriptions.get(tx, TENANT, "s1").active
    world.event(EventType.RESULT_READY, "1.1", id="later")
    assert world.work.entries == []


def test_the_order_per_study_is_kept_and_studies_do_not_wait_for_each_other(
    world: World, notifier: Notifier, receiver: Receiver
) -> None:
    subscribe(world)
    receiver.answers = [Unavailable("down")]
    for name, uid in (("a1", "1.1"), ("a2", "1.1"), ("b1", "1.2"), ("a3", "1.1")):
        world.event(EventType.RESULT_READY, uid, id=name)
    assert [entry.arguments["event_id"] for entry in world.work.entries] == ["a1", "b1"]
    while world.work.entries:
        run(world, notifier)
    assert [event_id for event_id, _body in receiver.sent] == ["a1", "b1", "a1", "a2", "a3"]


def test_a_dead_letter_does_not_stop_the_events_behind_it(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    receiver.answers = [ComputationFailed("url", "no")]
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    world.event(EventType.RESULT_READY, "1.1", id="e2")
    assert run(world, notifier) == ["dead"]
    assert run(world, notifier) == ["sent"]


def test_dead_letters_are_in_the_stream_and_never_notified(
    world: World, notifier: Notifier, receiver: Receiver
) -> None:
    subscribe(world, "s1")
    subscribe(world, "s2")
    receiver.answers = [ComputationFailed("url", "no")] * 2
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    run(world, notifier)
    assert world.work.entries == []
    assert len(dead_letters(world)) == 2


def test_a_repeated_message_sends_nothing_twice(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    (entry,) = world.work.take()
    assert notifier.deliver(**entry.arguments) == "sent"
    assert notifier.deliver(**entry.arguments) == "done"
    assert notifier.deliver(TENANT, "unknown", "s1") == "done"
    assert len(receiver.sent) == 1


def test_twins_of_one_step_record_one_outcome(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    (entry,) = world.work.take()
    plain_send = receiver.send

    def send_while_a_twin_finishes(*args: Any) -> int:
        receiver.send = plain_send  # type: ignore[method-assign]
        assert notifier.deliver(**entry.arguments) == "sent"
        raise Unavailable("and this one failed")

    receiver.send = send_while_a_twin_finishes  # type: ignore[method-assign]
    assert notifier.deliver(**entry.arguments) == "done"
    assert delivery(world, "e1").state is DeliveryState.SENT
    assert world.work.entries == []


def test_deleting_a_subscription_ends_its_deliveries(world: World, notifier: Notifier, receiver: Receiver) -> None:
    subscribe(world)
    world.event(EventType.RESULT_READY, "1.1", id="e1")
    with world.database.write() as tx:
        world.subscriptions.delete(tx, TENANT, "s1", now=1.0)
    assert run(world, notifier) == ["done"]
    assert receiver.sent == []
    assert delivery(world, "e1").last_error == "subscription deleted"


def test_a_lost_workflow_is_queued_again_and_a_waiting_retry_is_not(
    world: World, notifier: Notifier, receiver: Receiver
) -> None:
    subscribe(world)
    world.event(EventType.RESULT_READY, "1.1", id="lost")
    world.work.take()  # its process was killed once too often
    receiver.answers = [Unavailable("down", retry_after=9000.0)]
    world.event(EventType.RESULT_READY, "1.2", id="retried")
    run(world, notifier)
    (retry,) = world.work.take()
    assert notifier.sweep() == 0
    world.clock.at += LOST_AFTER_SECONDS + 1
    assert notifier.sweep() == 1
    assert notifier.sweep() == 0
    assert run(world, notifier) == ["sent"]
    assert [event_id for event_id, _body in receiver.sent] == ["retried", "lost"]
    assert retry.delay_seconds == 9000.0
