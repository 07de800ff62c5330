"""What a study costs, by component: ``make bench BENCH=unit_costs ARGS="--out FILE"`` writes the calculator's input.

Studies of three shapes (one small image, 64 small images, 64 CT slices of 0.53 MB) are stored and fetched one after the
other on an otherwise idle server; the costs per study, per instance and per megabyte solve the three equations. Head CT
phantoms and body CTs of the stress hour are read one at a time. What an idle server uses is taken off. The database's
figures come from a second server on PostgreSQL with durable commits. Nothing here is a throughput: rates are predicted
from these costs, and measured apart (``BENCH=report``).
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from dicomweb.connection import Connection
from dicomweb.instances import Place, Template
from dicomweb.load import store
from run import machine
from stress_hour import images, mix
from stress_hour.checking import retrieve
from stress_hour.following import seconds
from stress_hour.images import body_ct
from stress_hour.running import READY_SECONDS
from stress_hour.watching import Watch, descendants

from wetread.client import Client
from wetread.client.models import Findings
from wetread.commands.capacity_costs import PerStudy, UnitCosts
from wetread.commands.capacity_model import Load
from wetread.commands.local_server import local_server
from wetread.commands.up import Supervisor
from wetread.core.states import FINAL, READ, AiState
from wetread.testing.servers.postgres import postgres

_RUN: Final = 800
_IDLE_SECONDS: Final = 10.0
_STABLE_SECONDS: Final = 180.0
"""Studies become complete after 10 s of silence, and that is part of their cost: a cell ends with the last one."""
_LOOKS_PER_SECOND: Final = 100


@dataclass(frozen=True, slots=True)
class Cell:
    """*studies* of *instances* copies of one image."""

    template: Template
    studies: int
    instances: int

    @property
    def equation(self) -> tuple[float, float, float]:
        """Studies, instances and megabytes of the whole cell."""
        count = self.studies * self.instances
        return float(self.studies), float(count), count * self.template.size / 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """``costs``: the server's. ``sender``: CPU seconds of this bench's own side, to store and fetch a study once.

    ``deletion``: the gateway's CPU seconds to delete one, as the load report does with studies it has checked.
    ``asking``: its CPU seconds to say once what became of a study and of its workitems, which the load report asks.
    ``idle``: cores that a server without work uses, by role of its processes.
    """

    costs: UnitCosts
    sender: PerStudy
    deletion: PerStudy
    asking: float
    idle: Mapping[str, float]

    def gateway(self, load: Load) -> float:
        """Return the gateway's CPU seconds for a study that the load report stores, fetches, asks for and deletes."""
        return load.gateway + self.deletion.of(load.instances, load.megabytes) + self.asking


def main(arguments: Sequence[str]) -> int:
    """Measure, print and, if wanted, write the file."""
    parser = argparse.ArgumentParser(prog="unit_costs", description=__doc__)
    parser.add_argument("--heads", type=int, default=4, help="head and as many body CTs that are read one at a time")
    parser.add_argument("--slices", type=int, default=324, help="slices of a CT")
    parser.add_argument("--repeat", type=int, default=3, help="times the number of studies of every cell")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="write the JSON file here")
    options = parser.parse_args(arguments)
    found = measure(options.folder, heads=options.heads, slices=options.slices, repeat=options.repeat)
    text = json.dumps(found.costs.model_dump(by_alias=True), indent=1) + "\n"
    print(text)
    print(f"sender's own CPU per study: {found.sender.model_dump()}")
    print(f"gateway CPU to delete a study: {found.deletion.model_dump()}")
    print(f"gateway CPU to ask for the findings and workitems of a study: {found.asking:.4f}")
    print("cores of an idle server: " + ", ".join(f"{role} {cores:.3f}" for role, cores in found.idle.items()))
    if options.out:
        options.out.write_text(text, "utf-8")
    return 0


def measure(folder: Path, *, heads: int, slices: int, repeat: int = 1) -> Measured:
    """Measure everything below *folder*: about three minutes and 1 GB of disk with *repeat* 1."""
    began = time.strftime("%Y-%m-%d"), os.getloadavg()[0]
    cells = [
        Cell(Template(body_ct(24)), 60 * repeat, 1),
        Cell(Template(body_ct(24)), 8 * repeat, 64),
        Cell(Template(body_ct()), 3 * repeat, 64),
    ]
    with tempfile.TemporaryDirectory(prefix="wetread-costs-", dir=folder) as scratch:
        data = Path(scratch) / "data"
        with local_server(data, ready_seconds=READY_SECONDS) as server:
            bench = _Bench(server, data)
            served = bench.served(cells)
            detectors = {
                name: found
                for kind, name in mix.READ_BY.items()
                if (found := bench.detector(name, kind, heads, slices, served["per_study"]))
            }
            runs = {name: found.pop("per_run") for name, found in detectors.items()}
        database = _database(Path(scratch) / "pg", cells[:2])
    costs = UnitCosts.model_validate(
        {
            "schema": "wetread.unit-costs/1",
            "provenance": {
                "command": f"make bench BENCH=unit_costs ARGS='--heads {heads} --slices {slices} --repeat {repeat}'",
                "machine": machine().removeprefix("machine: ").rpartition(", load")[0],
                "date": began[0],
                "load": round(began[1], 1),
            },
            "gateway": {name: served[name] for name in ("store", "read", "loop_share")},
            # What is written for a result is written for head CTs alone: body CTs are declined.
            "orchestration": {"per_study": served["per_study"], "per_run": runs[mix.READ_BY["CT head"]]},
            "detectors": detectors,
            "database": database,
        }
    )
    return Measured(costs, served["sender"], served["deletion"], served["asking"], bench.idle)


class _Bench:
    """Cells on one embedded server."""

    def __init__(self, server: Supervisor, data: Path) -> None:
        self._server = server
        self._data = data
        self._port = int(server.url.rpartition(":")[2])
        self._roots = [child.process.pid for child in server.children]
        self.idle = _idle(self._roots, data)

    def served(self, cells: Sequence[Cell]) -> dict[str, Any]:
        """Return the costs of gateway and orchestration, and the sender's own."""
        loop, whole = 0.0, 0.0
        stored_cpu: list[float] = []
        read_cpu: list[float] = []
        deleted_cpu: list[float] = []
        sender: list[float] = []
        steps: list[float] = []
        asking: list[float] = []
        for number, cell in enumerate(cells):
            studies = _studies(cell, _RUN + number)
            began = time.process_time()
            with Watch(self._roots, self._data) as watch:
                _store_all(self._port, cell.template, studies)
                stored = self._net(watch)
                _await_stable(self._server.url, studies)
                settled = self._net(watch)
            with Watch(self._roots, self._data) as watch:
                self._fetch_all(cell.template, studies)
                fetched = self._net(watch)
            with Watch(self._roots, self._data) as watch:
                self._ask_all(studies)
                asked = self._net(watch)
            with Watch(self._roots, self._data) as watch:
                self._delete_all(studies)
                deleted = self._net(watch)
            sender.append(time.process_time() - began)
            for found, into in ((stored, stored_cpu), (fetched, read_cpu), (deleted, deleted_cpu)):
                into.append(found["web event loop"] + found["web threads"])
            loop += stored["web event loop"] + fetched["web event loop"]
            whole += stored_cpu[-1] + read_cpu[-1]
            steps.append(settled["orchestration"])
            asking.append((asked["web event loop"] + asked["web threads"]) / cell.studies)
        equations = [cell.equation for cell in cells]
        return {
            "store": solved(equations, stored_cpu),
            "read": solved(equations, read_cpu),
            "loop_share": round(loop / whole, 3),
            # Instances count as well (facts of each are looked at), but a study of one shows what a study costs.
            "per_study": round(steps[0] / cells[0].studies, 5),
            "sender": PerStudy.model_validate(solved(equations, sender)),
            "asking": asking[0],  # the cell with most studies
            "deletion": PerStudy.model_validate(solved(equations, deleted_cpu)),
        }

    def detector(self, name: str, kind: str, count: int, slices: int, per_study: float) -> dict[str, Any]:
        """Return what one run of a detector on studies of *kind* costs; nothing when their headers alone decide."""
        transactions = [mix.Transaction(0.0, number, "CT", kind, slices) for number in range(count + 1)]
        made = images.build(transactions, phantoms=1)
        self._read(name, made, transactions[0])  # opens files, warms the session up
        cpu, others, megabytes = [], [], []
        for transaction in transactions[1:]:
            with Watch(self._roots, self._data) as watch:
                megabytes.append(self._read(name, made, transaction))
                used = self._net(watch)
            cpu.append(used["detectors"])
            others.append(used["orchestration"] - per_study)
        inference, state = self._inferred(name, count)
        walls, reports = self._stamps(name, count)
        if not walls:
            return {}
        peak = max(_peak_megabytes(pid) for pid in descendants(self._roots[1]))
        return {
            "wall": round(median(walls), 3),
            "cpu": round(median(cpu), 3),
            "inference": round(median(inference), 3),
            "report": round(median(reports), 3) if reports else 0.0,
            "memory_megabytes": round(peak),
            "result_megabytes": round(median(megabytes), 3),
            "input": f"{kind} of the stress hour, {slices} slices of 512 x 512, N = {count}: {state}",
            "per_run": max(0.0, round(median(others), 4)),
        }

    def _read(self, name: str, made: images.Images, transaction: mix.Transaction) -> float:
        """Store a CT, say that it is complete, wait for its end and its report; return the megabytes of results."""
        run = _RUN + 50 + sorted(mix.READ_BY).index(transaction.kind)
        places, templates = images.places(transaction, run=run), made.of(transaction)
        with Client(self._server.url, timeout_seconds=120) as client, Connection(self._port) as connection:
            for first in range(0, len(places), 64):
                chosen = slice(first, first + 64)
                store(connection, templates[chosen], places[chosen])
            client.manifest(places[0].study_uid, instances=len(places))
            deadline = time.monotonic() + 180
            while not _ended(client.findings(places[0].study_uid), name):
                if time.monotonic() > deadline:
                    msg = "the detector did not answer"
                    raise RuntimeError(msg)
                time.sleep(0.1)
            time.sleep(1.0)
            answer = retrieve(connection, places, templates)
            return answer.other_bytes / 1e6

    def _inferred(self, name: str, last: int) -> tuple[list[float], str]:
        """Return the seconds of inference and the states of the latest runs, from the stored results."""
        path = next(self._data.glob("*.db"))
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT result_json FROM results WHERE detector = ? ORDER BY created_at DESC LIMIT ?", (name, last)
            ).fetchall()
        results = [json.loads(row[0]) for row in rows]
        states = ", ".join(sorted({result["state"] for result in results}))
        return [result["timings"].get("infer", 0.0) for result in results], states

    def _stamps(self, name: str, last: int) -> tuple[list[float], list[float]]:
        """Return for how many seconds the latest runs had their process, and until their report was stored."""
        found: dict[str, dict[str, float]] = {}
        with Client(self._server.url, timeout_seconds=120) as client:
            page = client.events(types=("task.finished", "result.ready"), limit=1000)
            while page.events:
                for event in page.events:
                    if event.data.get("detector") == name:
                        stamps = {stage: seconds(text) for stage, text in event.data["stamps"].items()}
                        found.setdefault(event.subject, {}).update(stamps)
                page = client.events(after=page.next, types=("task.finished", "result.ready"), limit=1000)
        runs = [stamps for stamps in found.values() if {"started", "inferred"} <= stamps.keys()][-last:]
        return (
            [stamps["inferred"] - stamps["started"] for stamps in runs],
            [stamps["stored"] - stamps["inferred"] for stamps in runs if "stored" in stamps],
        )

    def _net(self, watch: Watch) -> dict[str, float]:
        """Return the CPU seconds since the beginning less those of an idle server."""
        usage = watch.now()
        return {role: max(0.0, cpu - self.idle[role] * usage.seconds) for role, cpu in usage.cpu.items()}

    def _fetch_all(self, template: Template, studies: Sequence[Sequence[Place]]) -> None:
        with Connection(self._port) as connection:
            for places in studies:
                if retrieve(connection, places, [template] * len(places)).lost:
                    msg = "a study did not come back as it was sent"
                    raise RuntimeError(msg)

    def _ask_all(self, studies: Sequence[Sequence[Place]]) -> None:
        with Client(self._server.url, timeout_seconds=120) as client:
            for places in studies:
                client.findings(places[0].study_uid)
                client.workitems.search(keys={"StudyInstanceUID": places[0].study_uid}, everything=True)

    def _delete_all(self, studies: Sequence[Sequence[Place]]) -> None:
        with Connection(self._port) as connection:
            for places in studies:
                if connection.delete(f"/dicom-web/studies/{places[0].study_uid}").status != 204:
                    msg = "a study was not deleted"
                    raise RuntimeError(msg)


def _ended(found: Findings, name: str) -> bool:
    """Whether a detector has ended, and its report is stored when it has read the study."""
    return any(
        result.detector == name and result.state in FINAL and (bool(result.stored) or result.state not in READ)
        for result in found.results
    )


def _idle(roots: Sequence[int], data: Path) -> dict[str, float]:
    time.sleep(5.0)  # detectors warm up
    with Watch(roots, data) as watch:
        time.sleep(_IDLE_SECONDS)
        usage = watch.now()
    return {role: cpu / usage.seconds for role, cpu in usage.cpu.items()}


def _studies(cell: Cell, run: int) -> list[list[Place]]:
    return [[Place(run, study, 1, number + 1) for number in range(cell.instances)] for study in range(cell.studies)]


def _await_stable(url: str, studies: Sequence[Sequence[Place]]) -> None:
    """Wait until every study has become complete and been evaluated as such."""
    awaited, cursor = {places[0].study_uid for places in studies}, 0
    deadline = time.monotonic() + _STABLE_SECONDS
    with Client(url, timeout_seconds=120) as client:
        while awaited:
            if time.monotonic() > deadline:
                msg = f"{len(awaited)} studies did not become complete"
                raise RuntimeError(msg)
            page = client.events(after=cursor, types=("study.stable",), limit=1000)
            awaited -= {event.subject for event in page.events}
            cursor = page.next
            time.sleep(0.5)
    time.sleep(1.0)


def _await_reports(url: str, studies: Sequence[Sequence[Place]]) -> None:
    """Wait until the reports of every study are stored, also those that say why a detector refused it."""
    deadline = time.monotonic() + _STABLE_SECONDS
    with Client(url, timeout_seconds=120) as client:
        for places in studies:
            while not all(
                result.state in FINAL and (bool(result.stored) or result.state is AiState.NOT_APPLICABLE)
                for result in client.findings(places[0].study_uid).results
            ):
                if time.monotonic() > deadline:
                    msg = "a study did not get its reports"
                    raise RuntimeError(msg)
                time.sleep(0.5)


def _store_all(port: int, template: Template, studies: Sequence[Sequence[Place]]) -> None:
    with Connection(port) as connection:
        for places in studies:
            store(connection, [template] * len(places), places)


def solved(equations: Sequence[Sequence[float]], values: Sequence[float]) -> dict[str, float]:
    """Return the costs per study, instance and megabyte that explain *values*, none of them negative.

    *equations*: studies, instances and megabytes of each cell; with two cells nothing is said of megabytes.
    """
    from scipy.optimize import nnls

    matrix = np.array(equations)[:, : len(equations)]
    scale = matrix.max(axis=1, keepdims=True)
    found, _ = nnls(matrix / scale, np.array(values) / scale[:, 0])
    return dict(zip(("study", "instance", "megabyte"), (float(f"{value:.4g}") for value in found), strict=False))


def _database(folder: Path, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Return what PostgreSQL has to do: growth, log, syncs and the writers' turn."""
    before = os.environ.get("WETREAD_DATABASE_URL")
    with postgres(durable=True) as database:
        url = database.fresh()
        os.environ["WETREAD_DATABASE_URL"] = url
        try:
            with local_server(folder, ready_seconds=READY_SECONDS) as server:
                port = int(server.url.rpartition(":")[2])
                time.sleep(5.0)
                idle = _work(url, lambda: time.sleep(_IDLE_SECONDS))
                found = []
                for number, cell in enumerate(cells):
                    studies = _studies(cell, _RUN + 20 + number)

                    def work(cell: Cell = cell, studies: Sequence[Sequence[Place]] = studies) -> None:
                        _store_all(port, cell.template, studies)
                        _await_stable(server.url, studies)
                        _await_reports(server.url, studies)  # or the next cell would pay for them

                    used = _work(url, work)
                    rest = used["seconds"] / idle["seconds"]
                    found.append({name: max(0.0, value - idle[name] * rest) for name, value in used.items()})
        finally:
            os.environ.pop("WETREAD_DATABASE_URL")
            if before is not None:
                os.environ["WETREAD_DATABASE_URL"] = before
    equations = [cell.equation for cell in cells]
    return {name: solved(equations, [one[name] for one in found]) for name in ("size", "log", "syncs", "serial")}


def _work(url: str, work: Callable[[], None]) -> dict[str, float]:
    """Do *work* and return what the database did meanwhile."""
    import psycopg

    looks, held, ended = 0, 0, threading.Event()

    def watch() -> None:
        nonlocal looks, held
        with psycopg.connect(url, autocommit=True) as connection:
            while not ended.wait(1 / _LOOKS_PER_SECOND):
                row = connection.execute(_TURN).fetchone()
                looks += 1
                held += bool(row and row[0])

    with psycopg.connect(url, autocommit=True) as connection:
        before = _counters(connection)
        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        work()
        seconds = time.monotonic() - began
        ended.set()
        watcher.join()
        after = _counters(connection)
    found = {name: after[name] - before[name] for name in after}
    return found | {"seconds": seconds, "serial": held / max(looks, 1) * seconds}


_TURN: Final = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = 2003137650"
)
"""Whether somebody holds the writers' lock: the key of ``adapters.index.engines``, 0x77657472."""


def _counters(connection: Any) -> Mapping[str, float]:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute(
        "SELECT pg_database_size(current_database()), wal_bytes, wal_sync FROM pg_stat_wal"
    ).fetchone()
    return {"size": float(row[0]), "log": float(row[1]), "syncs": float(row[2])}


def _peak_megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")), 0.0)
