"""Escalation: every step once and in time, whatever is killed; a person's word ends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.worklist_world import TENANT, World

from wetread.adapters.index.deliveries import SqlDeliveries
from wetread.adapters.index.events import SqlEventLog
from wetread.core.channels import ALARM, Channel, Escalation, EscalationStep
from wetread.core.errors import ConfigurationError
from wetread.core.events import EventType
from wetread.core.priority import Priority
from wetread.core.tenants import TenantFile, Tenants
from wetread.triage.channels import ChannelDirectory
from wetread.triage.escalation import Escalator

POLICY = Escalation(
    steps=(EscalationStep(after_minutes=5, channel="on-call"), EscalationStep(after_minutes=10, channel="head")),
    alarm_after_minutes=20,
)
MAIL = {name: Channel(email=(f"{name}@hospital.example",)) for name in ("stroke-team", "on-call", "head")}
FOUND = {"detector": "ich", "code": "1386000", "finding_id": "f1", "meaning": "haemorrhage", "notify": ["stroke-team"]}


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    world = World.at(tmp_path)
    world.deliveries = SqlDeliveries(world.work, ChannelDirectory(lambda _tenant: MAIL).receivers)
    world.events = SqlEventLog(world.deliveries)
    world.study("1.1", priority=Priority.STAT)
    world.work.take()
    return world


def escalator(world: World, policy: Escalation | None = POLICY) -> Escalator:
    """As each process makes its own: it knows nothing of the ones before."""
    return Escalator(world.database, world.clock, world.events, world.order, lambda _tenant: policy)


def steps(world: World) -> list[tuple[int, str, bool]]:
    with world.database.read() as tx:
        told = world.events.after(tx, TENANT, 0, types=[EventType.FINDING_ESCALATED])
    return [(event.data["step"], event.data["channel"], event.data["alarm"]) for event in told]


def told(world: World) -> list[str]:
    """Return the channels that something was queued for."""
    return [entry.arguments["subscription_id"] for entry in world.work.take()]


def minutes(world: World, by: float) -> None:
    world.clock.at += by * 60


def test_the_chain_runs_to_the_alarm_each_step_once_over_restarts(world: World) -> None:
    world.event(EventType.FINDING_POSITIVE, "1.1", **FOUND)
    assert told(world) == ["channel:stroke-team"]
    seen = []
    for _ in range(25):
        minutes(world, 1)
        for _process in range(2):  # two workers, each new
            escalator(world).sweep()
        seen += told(world)
    assert steps(world) == [(0, "on-call", False), (1, "head", False), (ALARM, "", True)]
    assert seen == ["channel:on-call", "channel:head"]


def test_after_a_long_standstill_everything_due_is_taken_at_once(world: World) -> None:
    world.event(EventType.FINDING_POSITIVE, "1.1", **FOUND)
    minutes(world, 60)
    assert escalator(world).sweep() == 3
    assert escalator(world).sweep() == 0
    assert [step for step, *_ in steps(world)] == [0, 1, ALARM]


@pytest.mark.parametrize("word", [EventType.FINDING_ACKNOWLEDGED, EventType.FINDING_RETRACTED])
def test_a_word_ends_the_chain(world: World, word: EventType) -> None:
    world.event(EventType.FINDING_POSITIVE, "1.1", **FOUND)
    minutes(world, 6)
    escalator(world).sweep()
    world.event(word, "1.1", detector="ich", code="1386000", finding_id="f1", actor="dr-a")
    minutes(world, 60)
    assert escalator(world).sweep() == 0
    assert len(steps(world)) == 1


def test_what_is_taken_back_is_told_to_every_channel_that_heard_of_it(world: World) -> None:
    world.event(EventType.FINDING_POSITIVE, "1.1", **FOUND)
    minutes(world, 6)
    escalator(world).sweep()
    world.work.take()
    event = world.event(EventType.FINDING_RETRACTED, "1.1", detector="ich", code="1386000")
    with world.database.read() as tx:
        heard = [world.deliveries.get(tx, TENANT, event.id, f"channel:{name}") is not None for name in MAIL]
    assert heard == [True, True, False]


def test_only_time_critical_visible_findings_of_tenants_with_a_policy_escalate(world: World) -> None:
    world.study("1.2", priority=Priority.URGENT)
    world.event(EventType.FINDING_POSITIVE, "1.2", **FOUND)
    world.event(EventType.FINDING_POSITIVE, "1.1", shadow=True, **FOUND)
    minutes(world, 60)
    assert escalator(world).sweep() == 0
    world.event(EventType.FINDING_POSITIVE, "1.1", id="seen", **FOUND)
    minutes(world, 60)
    assert escalator(world, None).sweep() == 0
    assert escalator(world).sweep() == 3


@given(st.floats(0, 60 * 60), st.sets(st.sampled_from([0, 1, ALARM])))
def test_due_steps_are_those_whose_time_has_come_and_that_were_not_taken(waited: float, taken: set[int]) -> None:
    due = POLICY.due(waited, taken)
    assert not set(due) & taken
    at = {0: 300, 1: 600, ALARM: 1200}
    assert set(due) | taken >= {step for step, seconds in at.items() if waited >= seconds}
    assert all(waited >= at[step] for step in due)


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": {"a": {}}},
        {"channels": {"a": {"email": ["not an address"]}}},
        {"channels": {"a": {"sink": "file:///etc/passwd"}}},
        {"channels": {"a": {"email": ["x@y.z"], "sink": "http://x"}}},
        {"escalation": {"steps": [{"after_minutes": 5, "channel": "a"}], "alarm_after_minutes": 5}},
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TenantFile.model_validate({"default": wrong})


def test_a_tenants_policy_stands_on_the_default_and_names_what_there_is() -> None:
    file = {"default": {"channels": {"a": {"email": ["x@y.z"]}}}, "tenants": {"north": {}}}
    chain = {"steps": [{"after_minutes": 5, "channel": "a"}], "alarm_after_minutes": 9}
    file["tenants"]["north"] = {"escalation": chain}  # type: ignore[dict-item]
    tenants = Tenants(TenantFile.model_validate(file))
    policy = tenants.policy("north")
    assert policy.escalation is not None
    assert policy.channels["a"].email == ("x@y.z",)
    assert tenants.policy("south").escalation is None
    chain["steps"][0]["channel"] = "nobody"  # type: ignore[index]
    with pytest.raises(ConfigurationError, match="nobody"):
        Tenants(TenantFile.model_validate(file))
