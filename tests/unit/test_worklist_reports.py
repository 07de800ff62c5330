"""SLA and usage: equal a recount of the event stream as anybody can read it, by tenant, as JSON and CSV."""

from __future__ import annotations

import csv
import io
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from tests.worklist_app import InProcess, app_of
from tests.worklist_world import NOON, TENANT, World

from wetread.adapters.index.tables import instances, studies
from wetread.core.events import Event, EventType
from wetread.core.reports import PERCENTILES, percentile

STUDIES = 40


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> World:
    """A day of forty studies: some unread, some shadow results, a second tenant with its own."""
    world, chance = World.at(tmp_path), random.Random(7)
    world.clock.at = NOON

    def tell(kind: EventType, uid: str, at: float, tenant: str = TENANT, **data: Any) -> None:
        stamps = {"received": at - 1} if kind is EventType.STUDY_RECEIVED else {}
        event = Event(f"{kind}/{tenant}/{uid}/{at}", kind, tenant, uid, at, data, stamps)
        with world.database.write() as tx:
            world.events.append(tx, event)

    for n in range(STUDIES):
        uid, start = f"1.4.{n}", NOON + n * 60
        world.study(uid, modality=("CT", "MR")[n % 2], looked_at=False)
        with world.database.write() as tx:
            site = ("north", "=cmd()")[n % 7 in {0, 1}]
            where = (studies.c.tenant == TENANT, studies.c.study_uid == uid)
            tx.connection.execute(update(studies).where(*where).values(source_json=f'{{"site": "{site}"}}'))
        tell(EventType.STUDY_RECEIVED, uid, start)
        ends = start + chance.uniform(5, 90)
        tell(EventType.TASK_STARTED, uid, start + 2, detector="ich", version="1.0.0")
        tell(EventType.RESULT_READY, uid, start + 1, detector="pe", shadow=True)
        if n % 5:
            tell(EventType.TASK_FINISHED, uid, ends, detector="ich", version="1.0.0", state="positive")
            tell(EventType.RESULT_READY, uid, ends + 1, detector="ich")
        else:
            tell(EventType.TASK_FAILED, uid, ends, detector="ich", version="1.0.0", state="failed")
        if n % 4 == 1:
            tell(EventType.FINDING_POSITIVE, uid, ends + 2, detector="ich", code="1386000")
            tell(EventType.PRIORITY_CHANGED, uid, ends + 2, priority="stat")
            tell(EventType.FINDING_ACKNOWLEDGED, uid, ends + chance.uniform(10, 400), detector="ich", code="1386000")
        if n % 3:
            tell(EventType.STUDY_READ, uid, start + chance.uniform(100, 5000), priority="routine")
    tell(EventType.STUDY_RECEIVED, "9.9", NOON, tenant="other")
    world.clock.at = NOON + 5 * 3600
    return world


@pytest.fixture
def api(world: World) -> InProcess:
    return InProcess(app_of(world), "http://testserver")


def stream(api: InProcess) -> list[dict[str, Any]]:
    return list(api.get("/api/v1/events?limit=1000").json()["events"])


def at(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def test_the_report_is_what_a_recount_of_the_stream_gives(api: InProcess) -> None:
    answer = api.get("/api/v1/reports/sla?by=class,finding").json()
    by_study: dict[str, list[dict[str, Any]]] = {}
    for event in stream(api):
        by_study.setdefault(event["subject"], []).append(event)
    recount: dict[tuple[str, str], list[float]] = {}
    for events in by_study.values():
        start = datetime.fromisoformat(events[0]["data"]["stamps"]["received"]).timestamp()
        found = [e for e in events if e["type"] == "finding.positive"]
        read = [at(e) - start for e in events if e["type"] == "worklist.completed"]
        recount.setdefault(("stat", "1386000") if found else ("routine", ""), []).extend(read)
    assert {(row["group"]["class"], row["group"]["finding"]) for row in answer["rows"]} == set(recount)
    assert sum(row["studies"] for row in answer["rows"]) == STUDIES
    for row in answer["rows"]:
        reads = sorted(recount[(row["group"]["class"], row["group"]["finding"])])
        clock = row["clocks"]["read"]
        assert clock["studies"] == len(reads)
        assert clock["p50_s"] == pytest.approx(reads[(len(reads) + 1) // 2 - 1], abs=0.002)
        assert clock["p95_s"] == pytest.approx(reads[-(-len(reads) * 95 // 100) - 1], abs=0.002)
    stat = next(row for row in answer["rows"] if row["group"]["class"] == "stat")
    within = sum(seconds <= 300 for seconds in recount[("stat", "1386000")])
    assert stat["in_target"] == pytest.approx(within / stat["studies"]), "unread ones past their target count as missed"
    assert stat["clocks"]["acknowledged"]["studies"] == stat["studies"]


def test_groups_shadow_windows_and_tenants(api: InProcess) -> None:
    rows = api.get("/api/v1/reports/sla?by=site,modality").json()["rows"]
    assert {(row["group"]["site"], row["group"]["modality"]) for row in rows} == {
        ("north", "CT"), ("north", "MR"), ("=cmd()", "CT"), ("=cmd()", "MR"),
    }  # fmt: skip
    (whole,) = api.get("/api/v1/reports/sla").json()["rows"]
    assert whole["clocks"]["ai"]["studies"] == STUDIES - STUDIES // 5, "shadow results are not seen by readers"
    hour = api.get("/api/v1/reports/sla?from=2026-03-01T00:00:00Z&to=2026-03-01T00:10:00Z").json()
    assert [row["studies"] for row in hour["rows"]] == [10]
    (other,) = api.get("/api/v1/reports/sla", headers={"x-tenant": "other"}).json()["rows"]
    assert other["studies"] == 1
    assert api.get("/api/v1/reports/sla?by=patient").status_code == 400
    assert api.get("/api/v1/reports/sla?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z").status_code == 400


def test_csv_is_the_same_report_and_no_cell_is_a_formula(api: InProcess) -> None:
    answer = api.get("/api/v1/reports/sla?by=site&format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    rows = api.get("/api/v1/reports/sla?by=site").json()["rows"]
    assert [int(line["studies"]) for line in lines] == [row["studies"] for row in rows]
    assert [float(line["read_p90_s"]) for line in lines] == [row["clocks"]["read"]["p90_s"] for row in rows]
    assert {line["site"] for line in lines} == {"north", "'=cmd()"}


def test_usage_is_what_a_recount_gives(world: World, api: InProcess) -> None:
    with world.database.write() as tx:
        where = instances.c.sop_uid == "1.4.0.1.1"
        tx.connection.execute(update(instances).where(where).values(length=10**9, received_at=NOON + 3 * 3600))
    begun, seconds, ends = {}, 0.0, {"task.finished": 0, "task.failed": 0}
    for event in stream(api):
        if event["type"] == "task.started":
            begun[event["subject"]] = at(event)
        elif event["type"] in ends:
            ends[event["type"]] += 1
            seconds += at(event) - begun[event["subject"]]
    usage = api.get("/api/v1/usage").json()
    assert usage["studies"] == STUDIES
    assert usage["gb_hours"] == pytest.approx(2.0)
    (model,) = usage["models"]
    assert (model["finished"], model["failed"]) == (ends["task.finished"], ends["task.failed"])
    assert model["seconds"] == pytest.approx(seconds, abs=0.1)
    (line,) = csv.DictReader(io.StringIO(api.get("/api/v1/usage?format=csv").text))
    assert float(line["seconds"]) == model["seconds"]
    nobody = api.get("/api/v1/usage", headers={"x-tenant": "third"}).json()
    assert (nobody["studies"], nobody["models"], nobody["gb_hours"]) == (0, [], 0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_percentiles_are_values_that_occurred_and_in_order(values: list[float]) -> None:
    found = [percentile(values, p) for p in PERCENTILES]
    assert set(found) <= set(values)
    assert found == sorted(found)  # type: ignore[type-var]
    assert sum(v <= found[0] for v in values) * 2 >= len(values)  # type: ignore[operator]
