"""A whole site on one machine: the processes of ``testing.cluster`` on PostgreSQL, S3 and Triton, and its promises.

For the end-to-end test and the benchmark ``cluster``. A promise that is not kept is a ``SiteFaultError``.
"""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from wetread.adapters.inference.triton_repository import render
from wetread.adapters.objectstore.s3_administration import BucketAdministration
from wetread.adapters.objectstore.s3_bucket import BucketAddress
from wetread.bootstrap.house import workflow_folder
from wetread.bootstrap.networks import installed_networks
from wetread.commands.dicom_folder import FileStudy
from wetread.commands.send import batches, multipart_body
from wetread.core.states import FINAL, READ
from wetread.settings import Settings
from wetread.testing.cluster import SERVICES, Cluster, cluster
from wetread.testing.servers.moto import moto
from wetread.testing.servers.postgres import postgres
from wetread.testing.small_studies import SmallStudy, write_house

LANES: Final = {"alpha": "stat", "beta": "urgent", "gamma": "routine"}
SETTLE_SECONDS: Final = 400.0
DETECTOR_PROCESS: Final = "detector process"
"""The child of the detection process that runs the detectors."""

_buckets = itertools.count()


class SiteFaultError(AssertionError):
    """The site broke a promise."""


@dataclass
class Fire:
    """What happened while processes were killed. Seconds until each was ready again, by name."""

    killed: dict[str, float] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    repeated: int = 0
    """Requests that a sender had to repeat."""
    seconds: float = 0.0

    def __str__(self) -> str:
        back = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.killed.items())
        return (
            f"{len(self.acknowledged)} studies in {self.seconds:.0f} s, {self.repeated} requests repeated; "
            f"killed -9 and ready again: {back}"
        )


@dataclass
class Site:
    """A running site and the settings that its processes have in common."""

    cluster: Cluster
    environment: Mapping[str, str]

    def deliver(self, study: FileStudy, report: Fire | None = None) -> None:
        """Send a study as a modality does: each request until it is acknowledged, then what the study consists of."""
        for batch in batches(study.instances):
            self._store(lambda boundary, batch=batch: b"".join(multipart_body(batch, boundary)), report)  # type: ignore[misc]
        self._declare(study.study_uid, [i.sop_instance_uid for i in study.instances], report)

    def deliver_small(self, study: SmallStudy, report: Fire | None = None) -> None:
        """Send a small study in the same way."""
        self._store(study.body, report)
        self._declare(study.study_uid, list(study.sop_uids), report)

    def results(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the results of a study, one per detector; none: it was not evaluated yet."""
        answer = self.cluster.ask(f"/api/v1/studies/{study_uid}/findings")
        return list(answer.json()["results"]) if answer.status_code == 200 else []

    def read(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the results of the detectors that the study was for."""
        return [result for result in self.results(study_uid) if result["state"] != "not_applicable"]

    def workitems(self, study_uid: str) -> list[dict[str, Any]]:
        """Return the UPS workitems of a study."""
        params = {"StudyInstanceUID": study_uid, "includefield": "all"}
        return list(self.cluster.ask("/dicom-web/workitems", params=params).json())

    def instance(self, gateway: str, study_uid: str, sop_uid: str) -> bytes:
        """Return an instance as one gateway gives it back."""
        base = f"{self.cluster.url(gateway)}/dicom-web/studies/{study_uid}"
        [found] = httpx.get(f"{base}/instances", params={"SOPInstanceUID": sop_uid}, timeout=30).json()
        path = f"{base}/series/{found['0020000E']['Value'][0]}/instances/{sop_uid}"
        answer = httpx.get(path, headers={"Accept": "application/dicom; transfer-syntax=*"}, timeout=60)
        return answer.content

    def settled(self, study_uid: str) -> bool:
        """Return whether every detector ended, each read has its report, and every workitem its final state."""
        results = self.results(study_uid)
        return (
            bool(results)
            and all(r["state"] in FINAL and (r["stored"] or r["state"] not in READ) for r in results)
            and all(_state(step) in {"COMPLETED", "CANCELED"} for step in self.workitems(study_uid))
        )

    def wait_settled(self, study_uid: str, seconds: float = SETTLE_SECONDS) -> None:
        """Wait until a study has ended. Raises SiteFaultError."""
        _wait(lambda: self.settled(study_uid), seconds, lambda: f"a study has not ended: {self.results(study_uid)}")

    def check(self, study_uid: str, *, instances: int) -> list[dict[str, Any]]:
        """Return what was read after comparing everything that a client can see of a study. Raises SiteFaultError."""
        results = self.results(study_uid)
        _require(all(r["reason"] for r in results if r["state"] not in READ), f"an end without reason: {results}")
        for step in self.workitems(study_uid):
            if _state(step) == "CANCELED":
                [progress] = step["00741002"]["Value"]
                _require(bool(progress["0074100E"]["Value"]), "a workitem without the reason of its end")
        held = self.cluster.ask(f"/dicom-web/studies/{study_uid}/instances", params={"limit": 5000}).json()
        uids = [item["00080018"]["Value"][0] for item in held]
        _require(len(uids) == len(set(uids)), "an instance twice")
        modalities = Counter(item["00080060"]["Value"][0] for item in held)
        series = {s["series_uid"] for r in results for s in r["stored"]}
        sent = [item for item in held if item["0020000E"]["Value"][0] not in series]
        ready = {e["data"]["result_key"] for e in self.events("result.ready") if e["subject"] == study_uid}
        _require(modalities["SR"] == len(ready), f"{modalities['SR']} reports for {len(ready)} results")
        if len(ready) <= 1:  # an early read has left a report of its own, in series that no result lists any more
            _require(len(sent) == instances, f"{len(sent)} instances of {instances} that were acknowledged")
        return [r for r in results if r["state"] != "not_applicable"]

    def events(self, types: str) -> list[dict[str, Any]]:
        """Return all events of these types."""
        found: list[dict[str, Any]] = []
        cursor = 0
        while True:
            page = self.cluster.ask("/api/v1/events", params={"after": cursor, "limit": 1000, "types": types}).json()
            if not page["events"]:
                return found
            found += page["events"]
            cursor = page["next"]

    def check_events(self) -> None:
        """Raise SiteFaultError when an event came twice, a positive was told twice, or a result became ready twice."""
        told = self.events("finding.positive,result.ready,task.finished,task.failed")
        ids = [event["id"] for event in told]
        _require(len(ids) == len(set(ids)), "an event came twice")
        ready = Counter(
            (e["data"]["result_key"], e["data"]["preliminary"]) for e in told if e["type"] == "result.ready"
        )
        _require(set(ready.values()) <= {1}, "a result became ready twice")
        positives = Counter((e["subject"], e["data"]["result_key"]) for e in told if e["type"] == "finding.positive")
        _require(set(positives.values()) <= {1}, "a finding was told twice")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return rows of the database."""
        import psycopg

        with psycopg.connect(self.environment["WETREAD_DATABASE_URL"]) as connection:
            return connection.execute(query.encode()).fetchall()

    def executors(self) -> dict[str, set[str]]:
        """Return which processes ran each durable workflow."""
        found: dict[str, set[str]] = {}
        for name, executor in self.rows("SELECT DISTINCT name, executor_id FROM dbos.workflow_status"):
            found.setdefault(name, set()).add(executor)
        return found

    def engine_of(self, detector: str) -> str:
        """Return what gave the results of a detector, without versions."""
        query = (
            "SELECT DISTINCT split_part(result_json::json #>> '{run,engine}', ' ', 1) FROM wetread.results"
            f" WHERE result_json::json #>> '{{run,detector}}' = '{detector}'"
        )
        return ",".join(sorted(str(row[0]) for row in self.rows(query)))

    def wait_queue_empty(self) -> None:
        """Wait until no durable work is left, and none of it was ever outside our queues. Raises SiteFaultError."""
        left = "SELECT name, status, executor_id FROM dbos.workflow_status WHERE status IN ('PENDING', 'ENQUEUED')"
        _wait(lambda: not self.rows(left), 60.0, lambda: f"work is left: {self.rows(left)}")
        stray = "SELECT count(*) FROM dbos.workflow_status WHERE queue_name IS NULL OR queue_name LIKE '\\_dbos%'"
        _require(self.rows(stray) == [(0,)], "work outside our queues")

    def under_fire(self, small: Sequence[SmallStudy], heads: Sequence[FileStudy], victims: Sequence[str]) -> Fire:
        """Send studies one after the other and kill -9 each process in turn on the way; returns when both are done."""
        report = Fire()
        began = time.monotonic()
        faults: list[BaseException] = []

        def send() -> None:
            try:
                for number, study in enumerate(small):
                    if heads and number % max(1, len(small) // len(heads)) == 0:
                        index = number // max(1, len(small) // len(heads))
                        for head in heads[index : index + 1]:
                            self.deliver(head, report)
                            report.acknowledged.add(head.study_uid)
                    self.deliver_small(study, report)
                    report.acknowledged.add(study.study_uid)
            except BaseException as error:  # noqa: BLE001 - raised below
                faults.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        total = len(small) + len(heads)
        for number, name in enumerate(victims):
            while sender.is_alive() and len(report.acknowledged) < number * total // len(victims):
                time.sleep(0.02)
            report.killed[name] = self.kill(name)
        sender.join()
        if faults:
            raise faults[0]
        report.seconds = time.monotonic() - began
        return report

    def kill(self, name: str) -> float:
        """Kill -9 a process (or the detection's own child) and return the seconds until it is ready again."""
        began = time.monotonic()
        if name == DETECTOR_PROCESS:
            before = _children(self.cluster.child("detection").process.pid)
            for pid in before:
                _kill(pid)
            _wait(
                lambda: bool(set(_children(self.cluster.child("detection").process.pid)) - set(before)),
                SETTLE_SECONDS,
                lambda: "no detector process came back",
            )
            return time.monotonic() - began
        child = self.cluster.child(name)
        before_pid = child.process.pid
        _kill(before_pid)
        _wait(
            lambda: child.process.pid != before_pid and self._ready(name),
            SETTLE_SECONDS,
            lambda: f"{name} did not come back",
        )
        return time.monotonic() - began

    def _ready(self, name: str) -> bool:
        if name == "triton":
            return self.cluster.models_ready()
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.cluster.url(name)}/readyz", timeout=5).status_code == 200
        return False

    def _store(self, body: Callable[[str], bytes], report: Fire | None) -> None:
        boundary = secrets.token_hex(16)
        headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
        self._until_taken("/dicom-web/studies", report, content=body(boundary), headers=headers)

    def _declare(self, study_uid: str, uids: Sequence[str], report: Fire | None) -> None:
        self._until_taken(f"/api/v1/studies/{study_uid}/manifest", report, json={"sop_instance_uids": list(uids)})

    def _until_taken(self, path: str, report: Fire | None, **arguments: Any) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        with self.cluster.client(timeout=60) as client:
            while time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    answer = client.post(path, **arguments)
                    if answer.is_success:
                        return
                    _require(answer.status_code >= 500, f"{path} was refused: {answer.status_code} {answer.text[:300]}")
                if report is not None:
                    report.repeated += 1
                time.sleep(0.1)
        msg = f"{path} was never acknowledged"
        raise SiteFaultError(msg)


@contextmanager
def cluster_site(
    folder: Path,
    *,
    lanes: Mapping[str, str] = LANES,
    behave: Mapping[str, str] | None = None,
    bundled: bool = True,
    with_triton: bool = True,
    durable: bool = False,
    names: Sequence[str] = tuple(SERVICES),
) -> Iterator[Site]:
    """Start the servers and the processes of a site; *lanes*, *behave*: toy detectors besides the bundled ones.

    ``bundled``: with the bundled workflows and their completeness; without, the end of a transfer counts as complete.
    ``durable``: PostgreSQL syncs its commits, as in production (for figures). ``names``: only these processes.
    """
    with ExitStack() as stack:
        database, s3 = stack.enter_context(postgres(durable=durable)), stack.enter_context(moto())
        environment = dict(s3.environment) | write_house(folder / "house", lanes, behave)
        if bundled:
            workflows = folder / "house" / "workflows"
            (workflows / "completeness.yaml").unlink()  # the bundled workflows wait for what a sender declares
            for file in workflow_folder(Settings()).glob("*.yaml"):
                (workflows / file.name).write_bytes(file.read_bytes())
        bucket = f"s3://wetread-site-{next(_buckets)}/archive"
        with _environment(s3.environment):
            BucketAdministration(BucketAddress.of_url(bucket, endpoint=s3.endpoint)).set_up()
        environment |= {
            "WETREAD_DATABASE_URL": database.prepared(),
            "WETREAD_OBJECT_STORE_URL": bucket,
            "WETREAD_OBJECT_STORE_ENDPOINT": s3.endpoint,
        }
        repository = None
        models: list[str] = []
        if with_triton:
            repository = folder / "repository"
            models = render(installed_networks(environment["WETREAD_DETECTORS"]), repository, "python")
        running = stack.enter_context(
            cluster(folder / "run", environment, repository=repository, models=models, names=names)
        )
        yield Site(running, environment)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _state(step: Mapping[str, Any]) -> str:
    return str(step["00741000"]["Value"][0])


def _require(kept: bool, what: str) -> None:
    if not kept:
        raise SiteFaultError(what)


def _wait(done: Callable[[], bool], seconds: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SiteFaultError(what()[:2000])
        time.sleep(0.2)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found
