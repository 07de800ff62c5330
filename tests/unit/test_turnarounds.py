"""Turnaround histograms: counted with the event that ends a clock, once, under few labels, on the real tables."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from prometheus_client.samples import Sample
from sqlalchemy import insert
from tests.worklist_world import World

from wetread.adapters.index.database import SqlDatabase, connection_of
from wetread.adapters.index.tables import results, series, studies
from wetread.adapters.index.turnarounds import BOUNDS, MAX_SITES
from wetread.adapters.telemetry.metrics import Metrics
from wetread.core.codes import CONCEPTS
from wetread.core.events import Event, EventType
from wetread.core.identifiers import digest
from wetread.core.ports import Delivery, DeliveryState, Subscription
from wetread.core.ports.events import Reason
from wetread.core.priority import TARGET_SECONDS, Priority

TENANT, STUDY, RECEIVED = "default", "1.2.3", 1000.0
BLEED = CONCEPTS["intracranial_hemorrhage"].code.value


@pytest.fixture
def world(tmp_path: Path):
    database = SqlDatabase(tmp_path / "db")
    database.create_schema()
    yield World(database)
    database.close()


def put(world: World, study_uid: str = STUDY, *, site: str = "", modality: str = "CT", code: str = BLEED) -> None:
    """Store a study with a source series and a current result."""
    findings = [{"code": {"value": code}, "state": "positive"}] if code else []
    result = {"run": {"series_uid": "1.9"}, "findings": findings}
    with world.database.write() as tx:
        connection = connection_of(tx)
        connection.execute(
            insert(studies).values(
                tenant=TENANT,
                study_uid=study_uid,
                received_at=RECEIVED,
                last_received_at=RECEIVED,
                source_json=orjson.dumps({"site": site}).decode(),
                attributes_json=b"{}",
            )
        )
        connection.execute(
            insert(series).values(
                tenant=TENANT,
                study_uid=study_uid,
                series_uid="1.9",
                modality=modality,
                received_at=RECEIVED,
                attributes_json=b"{}",
            )
        )
        connection.execute(
            insert(results).values(
                tenant=TENANT,
                result_key=f"key {study_uid}",
                study_uid=study_uid,
                detector="ich",
                current=True,
                created_at=RECEIVED,
                result_json=orjson.dumps(result).decode(),
            )
        )


def ready(study_uid: str = STUDY, *, seconds: float, preliminary: bool = False, **more: object) -> Event:
    kind = EventType.RESULT_READY
    return Event(
        id=digest("event", str(kind), TENANT, study_uid, "k", preliminary),
        type=kind,
        tenant=TENANT,
        subject=study_uid,
        time=RECEIVED + seconds,
        data={"detector": "ich", "result_key": "k", "preliminary": preliminary, **more},
        stamps={"received": RECEIVED},
    )


def append(world: World, event: Event) -> bool:
    with world.database.write() as tx:
        return world.events.append(tx, event)


def samples(world: World) -> list[Sample]:
    families = list(Metrics(world.database).registry.collect())
    return next(family.samples for family in families if family.name == "wetread_turnaround_seconds")


def counts(world: World) -> dict[tuple[str, str, str, str], float]:
    return {
        tuple(s.labels[name] for name in ("clock", "site", "modality", "finding")): s.value
        for s in samples(world)
        if s.name.endswith("_count")
    }


def test_the_first_stored_result_counts_once(world: World) -> None:
    put(world)
    early = ready(seconds=20.0, preliminary=True)
    assert append(world, early)
    assert not append(world, early), "the same event again"
    assert append(world, ready(seconds=400.0)), "the final one of a result that was told early"
    assert counts(world) == {("result", "", "CT", "intracranial_hemorrhage"): 1}
    put(world, "1.2.4", code="")
    append(world, ready("1.2.4", seconds=20.001))
    put(world, "1.2.5", code="")
    append(world, ready("1.2.5", seconds=90_000.0))
    none = [s for s in samples(world) if s.labels["finding"] == "none"]
    buckets = {s.labels["le"]: s.value for s in none if s.name.endswith("_bucket")}
    assert (buckets["20.0"], buckets["30.0"], buckets["14400.0"], buckets["+Inf"]) == (0, 1, 1, 2)
    assert next(s.value for s in none if s.name.endswith("_sum")) == pytest.approx(90_020.001)


def test_bounds_are_inclusive_and_hold_the_targets(world: World) -> None:
    put(world)
    append(world, ready(seconds=300.0))
    buckets = {s.labels["le"]: s.value for s in samples(world) if s.name.endswith("_bucket")}
    assert (buckets["120.0"], buckets["300.0"]) == (0, 1)
    assert {TARGET_SECONDS[one] for one in (Priority.STAT, Priority.URGENT, Priority.ROUTINE)} <= set(BOUNDS)
    assert list(BOUNDS) == sorted(BOUNDS)


def test_what_does_not_count(world: World) -> None:
    put(world)
    append(world, ready(seconds=5.0, shadow=True))
    asked = ready("1.2.9", seconds=5.0)
    append(world, Event(asked.id, asked.type, TENANT, "1.2.9", asked.time, asked.data, {"requested": RECEIVED}))
    with world.database.write() as tx:
        world.order.register(tx, TENANT, STUDY, arrival=RECEIVED, reason=reason("order", Priority.ROUTINE))
        world.order.raise_to(tx, TENANT, STUDY, reason("manual", Priority.URGENT), {"received": RECEIVED})
    assert counts(world) == {}


def reason(source: str, priority: Priority) -> Reason:
    return Reason(source, "x", priority, RECEIVED + 42.0, detector="ich" if source == "ai" else None)


def test_raised_and_notified(world: World) -> None:
    put(world, site="North")
    with world.database.write() as tx:
        world.order.register(tx, TENANT, STUDY, arrival=RECEIVED, reason=reason("order", Priority.ROUTINE))
        assert world.order.raise_to(tx, TENANT, STUDY, reason("ai", Priority.STAT), {"received": RECEIVED})
        assert not world.order.raise_to(tx, TENANT, STUDY, reason("ai", Priority.STAT), {"received": RECEIVED})
        world.subscriptions.put(
            tx,
            Subscription(TENANT, "s1", "https://x.example", (), ("s",), False, True, RECEIVED),
        )
    event = Event(
        id="positive",
        type=EventType.FINDING_POSITIVE,
        tenant=TENANT,
        subject=STUDY,
        time=RECEIVED + 42.0,
        data={"detector": "ich", "code": BLEED},
        stamps={"received": RECEIVED},
    )
    append(world, event)
    with world.database.write() as tx:
        delivery = world.deliveries.get(tx, TENANT, "positive", "s1")
        assert isinstance(delivery, Delivery)
        world.deliveries.finish(tx, delivery, DeliveryState.SENT, now=RECEIVED + 43.0)
    of = ("North", "CT", "intracranial_hemorrhage")
    assert counts(world) == {("raised", *of): 1, ("notified", *of): 1}
    sums = {s.labels["clock"]: s.value for s in samples(world) if s.name.endswith("_sum")}
    assert sums == {"raised": 42.0, "notified": 43.0}


def test_labels_are_few_whatever_senders_write(world: World) -> None:
    for number in range(MAX_SITES + 5):
        uid = f"1.3.{number}"
        put(world, uid, site=f"site {number}", modality="DOE^JOHN", code="no such code")
        append(world, ready(uid, seconds=3.0))
    found = counts(world)
    assert {key[2:] for key in found} == {("other", "other")}
    assert len(found) == MAX_SITES + 1
    assert found["result", "other", "other", "other"] == 5
    put(world, "1.4", site="site 0")
    append(world, ready("1.4", seconds=3.0))
    assert counts(world)["result", "site 0", "CT", "intracranial_hemorrhage"] == 1, "a known site keeps its name"
