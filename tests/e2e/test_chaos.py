"""Chaos: studies arrive while processes are killed -9 at random. No study is lost, silent, or answered twice.

``make test-slow`` runs it on SQLite and files, and on PostgreSQL, S3 and Triton, where the database is killed, too.
``WETREAD_CHAOS_STUDIES`` and ``WETREAD_CHAOS_KILLS`` make it shorter or longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text
from tests.e2e.conftest import wait_for
from tests.e2e.stores import use_stores

from wetread.commands.local_server import local_server
from wetread.commands.up import Supervisor
from wetread.core.states import FINAL, READ
from wetread.orchestration.loops import LEASE_SECONDS
from wetread.registry import WORKER
from wetread.testing.servers.postgres import Postgres, postgres
from wetread.testing.servers.process import free_port
from wetread.testing.small_studies import STOW_HEADERS, SmallStudy, small_study, write_house

STUDIES = int(os.environ.get("WETREAD_CHAOS_STUDIES", "200"))
KILLS = int(os.environ.get("WETREAD_CHAOS_KILLS", "100"))
SEED = int(os.environ.get("WETREAD_CHAOS_SEED", "1"))
LANES = {"alpha": "stat", "beta": "urgent", "gamma": "routine"}
DATABASE_KILLS = 4
RECOVERY_SECONDS = LEASE_SECONDS + 10


class RestartingPostgres:
    """A durable PostgreSQL that can be killed -9 and started again on the same data and address."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._port = free_port()
        self._running = contextlib.ExitStack()
        self.server = self._start()

    def _start(self) -> Postgres:
        return self._running.enter_context(postgres(durable=True, port=self._port, data=self._data))

    def restart(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        time.sleep(0.5)
        with contextlib.suppress(Exception):
            self._running.close()
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._running = contextlib.ExitStack()
        self.server = self._start()

    def close(self) -> None:
        self._running.close()


@dataclass
class Chaos:
    """One server under fire."""

    server: Supervisor
    studies: list[SmallStudy]
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    kills: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    postgres: RestartingPostgres | None = None
    database_url: str = ""

    def ask(self, path: str, **arguments: Any) -> httpx.Response:
        """GET until the server answers: a web process that was just killed comes back."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(self.server.url + path, timeout=30, **arguments)
                if answer.status_code < 500:
                    return answer
            assert time.monotonic() < deadline, f"no answer to {path}"
            time.sleep(0.1)

    def send(self, pause: float) -> None:
        """Send all studies in turn, each until it is acknowledged, as a modality does."""
        for study in self.studies:
            time.sleep(self.dice.expovariate(1 / pause))
            while study.study_uid not in self.acknowledged:
                with contextlib.suppress(httpx.TransportError):
                    answer = httpx.post(
                        f"{self.server.url}/dicom-web/studies", content=study.body(), headers=STOW_HEADERS, timeout=30
                    )
                    if answer.status_code == 200:
                        self.acknowledged.add(study.study_uid)
                        break
                time.sleep(0.1)

    def kill_one(self) -> None:
        """Kill the web process, the worker, or one of the worker's own children."""
        child = self.dice.choice(self.server.children)
        pid, name = child.process.pid, "worker" if child.names == WORKER else "web"
        if name == "worker" and self.dice.random() < 0.25:
            below = list(children_of(pid))
            if below:
                pid, name = self.dice.choice(below), "detector process"
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills[name] += 1


def children_of(pid: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    yield int(entry.name)


BOTH = "each profile in turn; in the cluster's the database is killed, too"
PROFILES = [
    pytest.param("embedded", marks=pytest.mark.stores("embedded", reason=BOTH)),
    pytest.param(
        "cluster", marks=[pytest.mark.stores("cluster", reason=BOTH), pytest.mark.server("postgres", "moto", "triton")]
    ),
]


@pytest.fixture(params=PROFILES)
def chaos(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chaos]:
    database, url = None, f"sqlite:///{tmp_path / 'data' / 'wetread.db'}"
    environment = write_house(tmp_path / "house", LANES)
    use_stores(request, monkeypatch)
    if request.param == "cluster":  # a database of its own, which can be killed
        folder = Path(tempfile.mkdtemp(prefix="wetread-chaos-"))  # its owner must be able to reach it
        folder.chmod(0o755)
        database = RestartingPostgres(folder / "data")
        url = database.server.fresh()
        environment["WETREAD_DATABASE_URL"] = url
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names = sorted(LANES)
    studies = [
        small_study(SEED * 10_000 + n, bright=n % 2 == 0, description=names[n % len(names)]) for n in range(STUDIES)
    ]
    try:
        with local_server(tmp_path / "data") as server:
            yield Chaos(server, studies, postgres=database, database_url=url)
    finally:
        if database is not None:
            database.close()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_no_study_is_lost_silent_or_answered_twice(chaos: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    begun = time.monotonic()
    sender = threading.Thread(target=chaos.send, args=(KILLS * 2.5 / STUDIES,))
    sender.start()
    while chaos.kills.total() < KILLS:
        time.sleep(chaos.dice.uniform(0.2, 5.0))
        chaos.kill_one()
        if chaos.postgres is not None and chaos.kills.total() % (KILLS // DATABASE_KILLS) == 0:
            chaos.postgres.restart()
            chaos.kills["database"] += 1
    last_kill = time.monotonic()
    before = moves(chaos)
    waiting = len(chaos.acknowledged) < STUDIES or not all(settled(chaos, s) for s in chaos.studies)
    if waiting:  # with work left or still to come, it goes on within the lease and ten seconds
        wait_for(lambda: moves(chaos) > before, bool, seconds=RECOVERY_SECONDS)
    recovered = time.monotonic() - last_kill
    sender.join(600)
    assert chaos.acknowledged == {s.study_uid for s in chaos.studies}
    for study in chaos.studies:
        wait_for(lambda one=study: settled(chaos, one), bool, seconds=300)
    all_done = time.monotonic() - last_kill
    states = check(chaos)
    with capsys.disabled():
        print(
            f"\n{STUDIES} studies, kills {dict(chaos.kills)}, seed {SEED}: {dict(states)}; work went on "
            f"{recovered:.1f} s after the last kill, all done after {all_done:.1f} s; {time.monotonic() - begun:.0f} s"
        )


def moves(chaos: Chaos) -> int:
    """How often a task has moved so far."""
    return len(events(chaos, "task.started,task.finished,result.ready"))


def events(chaos: Chaos, types: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = 0
    while True:
        page = chaos.ask("/api/v1/events", params={"after": cursor, "limit": 1000, "types": types}).json()
        if not page["events"]:
            return found
        found += page["events"]
        cursor = page["next"]


def settled(chaos: Chaos, study: SmallStudy) -> bool:
    """Every detector has a final state, and the pair that was wanted its report and an ended workitem."""
    answer = chaos.ask(f"/api/v1/studies/{study.study_uid}/findings")
    if answer.status_code != 200:
        return False
    wanted = [r for r in answer.json()["results"] if r["state"] != "not_applicable"]
    return (
        len(wanted) == 1
        and wanted[0]["state"] in FINAL
        and all(step["00741000"]["Value"][0] in {"COMPLETED", "CANCELED"} for step in workitems(chaos, study))
    )


def workitems(chaos: Chaos, study: SmallStudy) -> list[dict[str, Any]]:
    params = {"StudyInstanceUID": study.study_uid, "includefield": "all"}
    return list(chaos.ask("/dicom-web/workitems", params=params).json())


def check(chaos: Chaos) -> Counter[str]:
    states: Counter[str] = Counter()
    for number, study in enumerate(chaos.studies):
        results = chaos.ask(f"/api/v1/studies/{study.study_uid}/findings").json()["results"]
        [result] = [r for r in results if r["state"] != "not_applicable"]
        state = result["state"] if result["state"] in READ else f"{result['state']}({result['reason']})"
        states[state] += 1
        assert all(r["reason"] for r in results if r["state"] not in READ), "an untyped end"
        if result["state"] in READ:
            assert result["state"] == ("positive" if number % 2 == 0 else "negative")
        series = chaos.ask(f"/dicom-web/studies/{study.study_uid}/series").json()
        modalities = Counter(item["00080060"]["Value"][0] for item in series)
        assert modalities["SR"] == 1, f"{modalities['SR']} reports of a study that is {state}"
        held = chaos.ask(f"/dicom-web/studies/{study.study_uid}/instances", params={"Modality": "CT"}).json()
        assert len(held) == len(study.sop_uids), "every acknowledged instance, once"
        for step in workitems(chaos, study):
            if step["00741000"]["Value"] == ["CANCELED"]:
                [progress] = step["00741002"]["Value"]
                assert progress["0074100E"]["Value"], "a workitem without the reason of its end"
    told = events(chaos, "finding.positive,result.ready,task.finished,task.failed")
    ids = [event["id"] for event in told]
    assert len(ids) == len(set(ids))
    positives = Counter(e["subject"] for e in told if e["type"] == "finding.positive")
    assert set(positives.values()) <= {1}, "told twice"
    # What a crash left half told is indexed at the next start and may be read early: then it is ready before and after.
    ready = Counter((e["data"]["result_key"], e["data"]["preliminary"]) for e in told if e["type"] == "result.ready")
    assert set(ready.values()) <= {1}, "a result that became ready twice"
    plain = chaos.postgres is None
    engine = create_engine(chaos.database_url.replace("postgresql://", "postgresql+psycopg://"))
    table = "workflow_status" if plain else "dbos.workflow_status"
    with engine.connect() as connection:
        query = f"SELECT name, status FROM {table} WHERE status IN ('PENDING', 'ENQUEUED')"
        wait_for(lambda: connection.execute(text(query)).all(), lambda rows: rows == [], seconds=30)
        strays = f"SELECT count(*) FROM {table} WHERE queue_name IS NULL OR queue_name LIKE '_dbos%'"
        assert connection.execute(text(strays)).scalar() == 0
    engine.dispose()
    return states
