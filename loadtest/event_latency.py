"""Event to task start on an idle system, for every lane of detectors, over real HTTP between two processes.

Small studies (8 slices of 8 x 8, toy detector) are stored one at a time with random pauses, each once the report of the
last one is filed: the system is idle. The stamps of the events say when the transaction of the images was committed
and when the task began, on one clock. Also: how long a raised class takes to show in the worklist and in a UPS query,
and what the processes cost when nothing happens.

``--database sqlite``: the embedded profile, two processes. ``postgres``: the same two on a real PostgreSQL with durable
commits. ``cluster``: PostgreSQL and S3 (moto), each service a process of its own, two gateways, a pool for STAT work.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from wetread.commands.local_server import local_server
from wetread.commands.processes import Processes
from wetread.testing.cluster_site import cluster_site
from wetread.testing.servers.postgres import postgres
from wetread.testing.small_studies import STOW_HEADERS, SmallStudy, small_study, write_house

LANES = {"alpha": "stat", "beta": "urgent", "gamma": "batch"}
BUSY = "delta"
"""A detector that hangs: what comes after it waits."""
GOAL_MS, SHOWN_GOAL_S, IDLE_GOAL = 100, 1.0, 0.025
"""Idle: cores per process."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="event_latency", description=__doc__)
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--raises", type=int, default=10)
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=("sqlite", "postgres", "cluster"), default="sqlite")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="wetread-bench-") as scratch,
        _site(Path(scratch), options.database) as (client, processes),
    ):
        return _run(processes, client, options)


@contextmanager
def _site(folder: Path, database: str) -> Iterator[tuple[httpx.Client, Processes]]:
    lanes, behave = LANES | {BUSY: "routine"}, {BUSY: "hang"}
    with ExitStack() as stack:
        if database == "cluster":
            site = stack.enter_context(
                cluster_site(folder, lanes=lanes, behave=behave, bundled=False, with_triton=False, durable=True)
            )
            yield stack.enter_context(site.cluster.client()), site.cluster.processes
            return
        os.environ |= write_house(folder / "house", lanes, behave)
        if database == "postgres":
            os.environ["WETREAD_DATABASE_URL"] = stack.enter_context(postgres(durable=True)).prepared()
        server = stack.enter_context(local_server(folder / "data"))
        yield stack.enter_context(httpx.Client(base_url=server.url, timeout=60)), server.processes


def _run(processes: Processes, client: httpx.Client, options: argparse.Namespace) -> int:
    pause = random.Random(options.seed)
    names = sorted(LANES)
    time.sleep(5)  # detectors warm up
    count = len(processes.children)
    print(f"{options.database}, {count} processes: {options.events} small studies over {len(names)} lanes, "
          f"seed {options.seed}")  # fmt: skip
    spans: dict[str, list[float]] = {name: [] for name in names}
    control: list[float] = []
    for number in range(options.events):
        name = names[number % len(names)]
        study = small_study(options.seed * 100_000 + number, description=name)
        _store(client, study)
        client.get(f"/api/v1/studies/{study.study_uid}/findings", params={"wait": "30s"})
        stamps = _started(client, study.study_uid)
        if number >= len(names):  # the first of each lane warms it up
            spans[name].append((stamps["started"] - stamps["committed"]) * 1000)
            control.append((stamps["evaluated"] - stamps["committed"]) * 1000)
        _wait_filed(client, study.study_uid)
        time.sleep(pause.uniform(0.0, 0.3))
    _print("commit -> evaluated (control)", control)
    for name in names:
        _print(f"commit -> task start ({LANES[name]} lane)", spans[name])
    time.sleep(3)
    before = _cpu(processes)
    time.sleep(options.idle_seconds)
    idle = (_cpu(processes) - before) / options.idle_seconds
    print(f"idle: {idle:.3f} cores for {count} processes and their detector processes, "
          f"over {options.idle_seconds:.0f} s")  # fmt: skip
    _store(client, small_study(8_999_999, description=BUSY))
    shown = [_raised(client, small_study(9_000_000 + n, description=BUSY)) for n in range(options.raises)]
    if shown:
        middle, longest = percentile(shown, 0.5), max(shown)
        print(f"raised by hand -> worklist and UPS: N={len(shown)}, p50 {middle:.2f} s, longest {longest:.2f} s")
    worst = max(percentile(values, 0.95) for values in spans.values())
    met = worst <= GOAL_MS and max(shown, default=0.0) <= SHOWN_GOAL_S and idle <= IDLE_GOAL * count
    print(f"goals: p95 <= {GOAL_MS} ms in every lane, shown <= {SHOWN_GOAL_S} s, idle <= {IDLE_GOAL * count:g} cores")
    print("met" if met else "MISSED")
    return 0 if met else 1


def _store(client: httpx.Client, study: SmallStudy) -> None:
    client.post("/dicom-web/studies", content=study.body(), headers=STOW_HEADERS).raise_for_status()


def _events(client: httpx.Client, study_uid: str) -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/studies/{study_uid}/timeline").raise_for_status()
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def _wait_filed(client: httpx.Client, study_uid: str) -> None:
    """Wait until the report is stored."""
    deadline = time.monotonic() + 30
    while not any(event["type"] == "result.ready" for event in _events(client, study_uid)):
        if time.monotonic() > deadline:
            raise RuntimeError("no report within 30 s")
        time.sleep(0.05)


def _started(client: httpx.Client, study_uid: str) -> dict[str, float]:
    stamps = next(e["stamps"] for e in _events(client, study_uid) if e["type"] == "task.started")
    return {stage: datetime.fromisoformat(at).timestamp() for stage, at in stamps.items()}


def _raised(client: httpx.Client, study: SmallStudy) -> float:
    """Store a study whose task waits for a busy lane, raise it, and poll at 20 Hz until both lists show it."""
    _store(client, study)
    query = {"StudyInstanceUID": study.study_uid}
    accept = {"Accept": "application/dicom+json"}
    uid = study.study_uid
    for _ in range(100):
        if client.get("/dicom-web/workitems", params=query, headers=accept).json():
            break
        time.sleep(0.05)
    begun = time.monotonic()
    body = {"priority": "stat", "reason": "bench"}
    client.post(f"/api/v1/worklist/{uid}:raise", json=body).raise_for_status()
    while True:
        items = client.get("/api/v1/worklist", params={"limit": 200, "priority": "stat"}).json()["items"]
        steps = client.get("/dicom-web/workitems", params=query, headers=accept).json()
        listed = any(item["study_uid"] == uid for item in items)
        if listed and steps and all(step["00741200"]["Value"] == ["HIGH"] for step in steps):
            return time.monotonic() - begun
        if time.monotonic() - begun > 10:
            raise RuntimeError("the raised class did not show within 10 s")
        time.sleep(0.05)


def _print(what: str, values: Sequence[float]) -> None:
    middle, high = percentile(values, 0.5), percentile(values, 0.95)
    print(f"{what}: N={len(values)}, p50 {middle:.0f} ms, p95 {high:.0f} ms, longest {max(values):.0f} ms")


def _cpu(processes: Processes) -> float:
    """Return CPU seconds used so far by *processes* and their children."""
    tick = os.sysconf("SC_CLK_TCK")
    roots = {child.process.pid for child in processes.children}
    total = 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(entry.name) in roots or int(fields[1]) in roots:
            total += (int(fields[11]) + int(fields[12])) / tick
    return total
