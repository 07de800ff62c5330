"""The orchestration on a real DBOS, on SQLite and on PostgreSQL: outbox, lanes, crash recovery, poison, latency."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.contracts.dbos_worker import durable_world, signals_of
from tests.orchestration_fakes import STUDY
from tests.orchestration_world import World

from wetread.adapters.telemetry.metrics import DatabaseCollector
from wetread.adapters.workqueue.dbos import DbosWorkQueue, create_queue_schema
from wetread.adapters.workqueue.signals import queue_signal
from wetread.core import tracing
from wetread.core.errors import ConfigurationError
from wetread.core.states import AiState
from wetread.core.workqueue import APPLICATION_VERSION, QUEUES
from wetread.detection.spans import SpanRecorder, finished_spans
from wetread.orchestration.loops import Leases
from wetread.orchestration.service import Orchestration, build

ROOT = Path(__file__).resolve().parents[2]
SLOW_ON_POSTGRES = pytest.mark.parametrize(
    "each_database",
    ["sqlite", pytest.param("postgres", marks=[pytest.mark.server("postgres"), pytest.mark.slow])],
    indirect=True,
)


def with_dbos_tables(tx: Any) -> Any:
    """Return the connection; on PostgreSQL the tables of DBOS are in a schema of their own."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(text("set local search_path = wetread, dbos"))
    return tx.connection


def rows(world: World, query: str) -> list[Any]:
    with world.reads() as tx:
        return list(with_dbos_tables(tx).execute(text(query)))


def wait_for(read: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := read()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s; last seen {value!r}")
        time.sleep(0.05)
    return value


@pytest.fixture
def world(tmp_path: Path, each_database: str) -> Iterator[World]:
    made = durable_world(tmp_path)
    create_queue_schema(made.database.url)
    yield made
    made.ports.queue.close()  # type: ignore[attr-defined]
    made.close()


@pytest.fixture
def recorder() -> Iterator[SpanRecorder]:
    found = SpanRecorder()
    tracing.install(found)
    yield found
    tracing.install(None)


def in_state(world: World, state: AiState) -> Callable[[], bool]:
    return lambda: (task := world.task()) is not None and task.state is state


def final_results(world: World) -> list[Any]:
    return [e for e in world.log("result.ready") if not e.data["preliminary"]]


def check_lanes(world: World) -> None:
    """No row without a named queue and a priority: the internal queue is served by every process."""
    found = rows(world, "select status, queue_name, priority, application_version from workflow_status")
    for row in found:
        assert row.queue_name in QUEUES or row.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
        assert row.priority > 0
        assert row.application_version == APPLICATION_VERSION
    payloads = rows(
        world,
        "select i.inputs, s.serialization from workflow_input i join workflow_status s using (workflow_uuid)",
    )
    assert len(payloads) == len(found)
    assert {row.serialization for row in payloads} <= {"portable_json"}
    assert all(len(row.inputs) < 10_000 for row in payloads), "references, not data"


def test_the_metrics_count_what_waits(world: World) -> None:
    change = world.index(range(1, 9))
    with world.database.write() as tx:
        world.outbox.study_changed(tx, change)
    families = {family.name: family.samples for family in DatabaseCollector(world.database).collect()}
    [waiting] = rows(world, "select queue_name, status from workflow_status")
    [depth] = families["wetread_queue_depth"]
    assert (depth.labels, depth.value) == ({"queue": waiting.queue_name, "status": waiting.status}, 1)


def test_commit_gives_event_and_work_and_rollback_neither(world: World) -> None:
    change = world.index(range(1, 9))

    def fail_at_the_end() -> None:
        with world.database.write() as tx:
            world.outbox.study_changed(tx, change)
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_at_the_end()
    assert rows(world, "select * from events") == []
    assert rows(world, "select * from workflow_status") == []
    with world.database.write() as tx:
        world.outbox.study_changed(tx, change)
        world.outbox.study_changed(tx, change)
    assert [r.type for r in rows(world, "select type from events order by cursor")] == [
        "study.received",
        "study.changed",
    ]
    [work] = rows(world, "select * from workflow_status")
    assert (work.name, work.queue_name, work.status) == ("evaluate_study", "control", "ENQUEUED")
    assert STUDY not in work.workflow_uuid
    check_lanes(world)


def test_the_queue_takes_only_named_lanes(world: World) -> None:
    queue = world.ports.queue
    with pytest.raises(ConfigurationError), world.database.write() as tx:
        queue.enqueue(tx, workflow="x", workflow_id="1", queue="_dbos_internal_queue", due=1e9, arguments={})


def test_who_takes_work_of_a_queue_hears_of_it_and_of_no_other(world: World, each_database: str) -> None:
    def enqueue(queue: str, number: int, delay: float | None = None) -> None:
        with world.database.write() as tx:
            world.ports.queue.enqueue(
                tx, workflow="x", workflow_id=str(number), queue=queue, due=1e9, arguments={}, delay_seconds=delay
            )

    def heard() -> frozenset[str] | None:
        return signal.wait(5.0)

    with queue_signal(world.database.url, ["control", "evidence"]) as signal:
        signal.wait(0)
        enqueue("notify", 1)
        named = each_database == "postgres"
        assert signal.wait(0.05) == (None if named else frozenset())
        enqueue("control", 2)
        assert heard() == (frozenset({"control"}) if named else frozenset())
        enqueue("evidence", 3, delay=60.0)
        assert heard() == frozenset(), "not to be taken now, but somebody has to know when"
        assert signal.wait(0.01) is None


def test_earliest_due_is_first_and_never_zero(world: World) -> None:
    with world.database.write() as tx:
        for name, due in (("late", 1_700_000_900.0), ("early", 1_700_000_100.0), ("ancient", 0.0)):
            world.ports.queue.enqueue(tx, workflow="x", workflow_id=name, queue="control", due=due, arguments={})
    order = rows(world, "select workflow_uuid, priority from workflow_status order by priority")
    assert [r.workflow_uuid for r in order] == ["ancient", "early", "late"]
    assert order[0].priority == 1


def test_one_place_enqueues() -> None:
    """A workflow enqueued without a priority overtakes everything: nobody but the wrapper may enqueue."""
    pattern = re.compile(r"\w*enqueue_in_transaction|start_workflow|enqueue_workflow|\.enqueue_async|Debouncer\w*\(")
    services = ROOT / "services" / "wetread"
    users = {str(p.relative_to(services)) for p in services.rglob("*.py") if pattern.search(p.read_text())}
    assert users == {"adapters/workqueue/dbos.py"}


@pytest.mark.timeout(120)
@SLOW_ON_POSTGRES
def test_studies_run_through_real_queues(world: World, each_database: str, capsys: pytest.CaptureFixture[str]) -> None:
    def through() -> None:
        world.deliver(range(1, 9), transfer_end=True)
        wait_for(in_state(world, AiState.POSITIVE))
        wait_for(lambda: final_results(world))
        for number in range(4, 24):
            world.deliver(range(1, 9), study=f"1.2.{number}", series=f"1.2.{number}.1", transfer_end=True)
            time.sleep(0.25)
        wait_for(lambda: len(world.log("task.started")) == 21)
        wait_for(lambda: len(final_results(world)) == 21)

    async def main() -> None:
        service = build(Orchestration(world.ports, world.rules, world.database.url, signals=signals_of(world)))
        assert service.name == "orchestration"
        async with service.lifespan():
            await asyncio.to_thread(through)

    asyncio.run(main())
    starts = sorted(e.stamps["started"] - e.stamps["committed"] for e in world.log("task.started"))
    told = sorted(e.time - e.stamps["received"] for e in world.log("finding.positive"))
    with capsys.disabled():
        print(
            f"\ncommit -> task start, {each_database}, N={len(starts)}: p50 {starts[len(starts) // 2] * 1000:.0f} ms, "
            f"p95 {starts[int(len(starts) * 0.95)] * 1000:.0f} ms; commit -> finding.positive p50 "
            f"{told[len(told) // 2] * 1000:.0f} ms (inference takes no time here)"
        )
    assert len(world.log("finding.positive")) == 21
    check_lanes(world)
    if each_database == "sqlite":
        assert rows(world, "pragma journal_mode")[0][0] == "wal"


@pytest.mark.timeout(120)
def test_woken_lanes_start_delayed_work_on_time_and_a_stopping_worker_still_writes_the_report(world: World) -> None:
    def enqueue(name: str, delay: float | None) -> None:
        with world.database.write() as tx:
            arguments = {"tenant": "default", "study_uid": "9", "generation": 1, "signal": "commit"}
            world.ports.queue.enqueue(
                tx,
                workflow="evaluate_study",
                workflow_id=name,
                queue="control",
                due=1.8e9,
                arguments=arguments,
                delay_seconds=delay,
            )

    def done(name: str) -> bool:
        query = f"select status from workflow_status where workflow_uuid = '{name}'"
        return rows(world, query)[0].status == "SUCCESS"

    def work() -> None:
        enqueue("now", None)
        wait_for(lambda: done("now"))
        begun = time.monotonic()
        enqueue("later", 0.4)
        wait_for(lambda: done("later"))
        waited = time.monotonic() - begun
        assert 0.4 <= waited < 5, "a sweep once a second is not what starts it"
        world.deliver(range(1, 9), transfer_end=True)
        wait_for(lambda: world.log("task.started"))

    async def main() -> None:
        signals = signals_of(world)
        service = build(Orchestration(world.ports, world.rules, world.database.url, drain_seconds=20, signals=signals))
        async with service.lifespan():
            await asyncio.to_thread(work)

    asyncio.run(main())
    ready = [event.data["preliminary"] for event in world.log("result.ready")]
    assert ready in ([True], [True, False], [False]), "the report did not wait for the next start"
    left = rows(world, "select queue_name from workflow_status where status in ('ENQUEUED', 'PENDING')")
    assert {row.queue_name for row in left} <= {"control"}, "at most a quiet timer that rang meanwhile"


class Worker:
    """One worker process at a time on the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, mode: str) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contracts.dbos_worker", str(self.folder), mode],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}"},
        )
        return self.process

    def started(self) -> int:
        return len(list(self.folder.glob("started-*")))

    def stop(self) -> None:
        (self.folder / "stop").touch()
        if self.process is not None:
            self.process.wait(30)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(10)


@pytest.mark.timeout(120)
def test_kill_in_mid_inference_finishes_once(world: World, worker: Worker) -> None:
    world.deliver(range(1, 9), transfer_end=True)
    process = worker.start("slow")
    wait_for(lambda: worker.started() == 1)
    assert world.task().state is AiState.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    worker.start("ready")
    wait_for(in_state(world, AiState.POSITIVE))
    wait_for(lambda: final_results(world))
    worker.stop()
    assert worker.started() == 2
    assert world.task().attempt == 2
    assert len(world.log("finding.positive")) == 1
    assert len(final_results(world)) == 1
    assert len(rows(world, "select * from results")) == 1
    check_lanes(world)


@pytest.mark.timeout(180)
@SLOW_ON_POSTGRES
def test_a_poison_task_dies_and_says_so(world: World, worker: Worker) -> None:
    world.deliver(range(1, 9), transfer_end=True)
    kills = 0
    while not in_state(world, AiState.FAILED)():
        ended = worker.start("poison").poll
        wait_for(lambda poll=ended: poll() is not None or in_state(world, AiState.FAILED)())
        kills += ended() == -signal.SIGKILL
        assert kills <= 3, "one start and, with one recovery allowed, no more than two others"
    worker.stop()
    task = world.task()
    assert task.reason == "dead_letter"
    assert task.run_id is None
    assert world.log("task.dead")
    [dead] = rows(world, "select status from workflow_status where name = 'run_task'")
    assert dead.status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED"


@pytest.mark.timeout(60)
def test_work_of_a_dead_executor_is_taken_over_once(world: World, recorder: SpanRecorder) -> None:
    """Recovery at start-up covers only the same executor id: others' work needs the take-over loop.

    It goes on in the trace that it was queued in, and everything that follows from it, too.
    """
    request = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with tracing.continued(request):
        world.deliver(range(1, 9), transfer_end=True)
    with world.database.write() as tx:
        world.ports.executors.beat(tx, "dead-pod", "orchestration", now=time.time() - 100, lease_seconds=30)
        with_dbos_tables(tx).execute(text("update workflow_status set status = 'PENDING', executor_id = 'dead-pod'"))

    async def main() -> None:
        service = build(Orchestration(world.ports, world.rules, world.database.url, signals=signals_of(world)))
        async with service.lifespan():
            await asyncio.to_thread(wait_for, in_state(world, AiState.POSITIVE))

    asyncio.run(main())
    spans = {span.name: span for span in finished_spans({"spans": recorder.take()})}
    assert {tracing.ids(span.traceparent)[0] for span in spans.values()} == {tracing.ids(request)[0]}
    assert spans["evaluate_study"].parent == request
    for child, parent in (
        ("run_task", "decide"),
        ("infer", "run_task"),
        ("detect", "infer"),
        ("worklist.raise", "infer"),
    ):
        assert spans[child].parent == spans[parent].traceparent
    assert STUDY not in repr(spans)
    with world.reads() as tx:
        assert world.ports.executors.expired(tx, now=time.time()) == []
    second: list[list[str]] = []

    def note(executors: list[str]) -> int:
        second.append(executors)
        return 0

    Leases(world.ports, "worker", note).take_over_expired()
    assert second == [], "nothing is left to take over"
    with world.database.write() as tx:
        assert not world.ports.executors.lead(tx, "other", now=time.time(), lease_seconds=30)
        assert world.ports.executors.lead(tx, "other", now=time.time() + 60, lease_seconds=30)


def test_superseded_runs_are_cancelled(world: World) -> None:
    queue = world.ports.queue
    assert isinstance(queue, DbosWorkQueue)
    with world.database.write() as tx:
        queue.enqueue(
            tx, workflow="run_task", workflow_id="a", queue="detector.cpu", due=1e9, arguments={"run_id": "a"}
        )
    control = world.ports.control
    control.cancel(["a", "unknown"])
    assert control.end_states(["a", "unknown"]) == {"a": "CANCELLED"}
    [dead] = control.dead(("run_task",), since=time.time() - 60)
    assert (dead.workflow_id, dead.arguments) == ("a", {"run_id": "a"})
    assert control.dead(("run_task",), since=time.time() + 60) == []
    assert control.end_states([]) == {}


def test_the_schema_can_be_created_twice(world: World) -> None:
    create_queue_schema(world.database.url)
    assert {r.name for r in rows(world, "select name from queues")} == set(QUEUES)
