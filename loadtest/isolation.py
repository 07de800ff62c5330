"""Retrieval while detectors work: ``make bench BENCH=isolation``.

Frames and whole instances of a stored CT are fetched at a steady pace, with idle and with saturated workers, in turn in
one run. Before each saturated window head CTs are stored until several wait for the detector;
nothing is stored while retrieval is measured, so that what is seen is the detectors' part alone. A window counts only
when detectors were busy all through it (CPU and task events say so). The sender shares the cores with the server.
Goal: p95 rises by 20 % at most. To tell what the machine does from what wetread does, a third kind of window has a
neighbour instead of detectors: processes of the same niceness that multiply matrices and know nothing of wetread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomweb.connection import Connection
from dicomweb.instances import Place
from dicomweb.load import store
from stress_hour import images, mix
from stress_hour.running import READY_SECONDS
from stress_hour.summary import percentile
from stress_hour.watching import Watch

from wetread.client import Client
from wetread.commands.local_server import local_server
from wetread.commands.up import Supervisor

GOAL: Final = 1.20
_RESIDENT: Final = 100
_FRAMES: Final = 'Accept: multipart/related; type="application/octet-stream"; transfer-syntax=*\r\n'
_STORED: Final = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*\r\n'
_LONGEST_RUN: Final = 600.0
_NICENESS: Final = 10
"""Of a detector process in the embedded profile."""


@dataclass(slots=True)
class Window:
    """Latencies in seconds by kind of request. ``detector_cores``: CPU seconds of detectors per second."""

    latencies: dict[str, list[float]] = field(default_factory=lambda: {"frame": [], "instance": []})
    detector_cores: float = 0.0
    bad: int = 0


@dataclass(slots=True)
class Isolation:
    """Windows in the order they were taken: idle, with a neighbour and saturated in turn.

    ``dropped``: saturated ones that were not.
    """

    idle: list[Window] = field(default_factory=list)
    beside: list[Window] = field(default_factory=list)
    busy: list[Window] = field(default_factory=list)
    dropped: int = 0

    def ratio(self, kind: str, share: float = 0.95) -> float:
        """Return the percentile with saturated workers over that with idle ones, all windows together."""
        return self._over_idle(self.busy, kind, share)

    def _over_idle(self, windows: Sequence[Window], kind: str, share: float) -> float:
        return percentile(self._all(windows, kind), share) / percentile(self._all(self.idle, kind), share)

    def ratios(self, kind: str, share: float = 0.95) -> list[float]:
        """Return the ratio of each pair of windows."""
        return [
            percentile(busy.latencies[kind], share) / percentile(idle.latencies[kind], share)
            for idle, busy in zip(self.idle, self.busy, strict=False)
        ]

    @property
    def met(self) -> bool:
        """Whether the goal is met, with every answer right."""
        bad = sum(window.bad for window in (*self.idle, *self.beside, *self.busy))
        return bool(self.busy) and not bad and all(self.ratio(kind) <= GOAL for kind in ("frame", "instance"))

    @staticmethod
    def _all(windows: Sequence[Window], kind: str) -> list[float]:
        return [seconds for window in windows for seconds in window.latencies[kind]]

    def lines(self) -> list[str]:
        """Return the table."""
        found = [
            "| | N | idle p50 / p95 ms | neighbour | saturated | p95 ratio (neighbour) | by round |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind in ("frame", "instance"):
            idle, busy = self._all(self.idle, kind), self._all(self.busy, kind)
            if not busy:
                continue
            beside, floor = self._all(self.beside, kind), self._over_idle(self.beside, kind, 0.95)
            ratio, pairs = self.ratio(kind), ", ".join(f"{one:.2f}" for one in self.ratios(kind))
            found.append(
                f"| {kind} | {len(idle)} each | {_ms(idle)} | {_ms(beside)} | {_ms(busy)} "
                f"| **{ratio:.2f}** ({floor:.2f}) | {pairs} |"
            )
        cores = [window.detector_cores for window in self.busy]
        if cores:
            found.append(f"detectors in saturated windows: median {statistics.median(cores):.2f} cores")
        if self.dropped:
            found.append(f"{self.dropped} saturated windows dropped: the queue ran dry within them")
        found.append(f"goal: p95 ratio <= {GOAL:.2f}: {'met' if self.met else 'MISSED'}")
        return found


def main(arguments: Sequence[str]) -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(prog="isolation", description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of three windows")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window")
    parser.add_argument("--studies", type=int, default=6, help="head CTs that wait for the detector in a window")
    parser.add_argument("--slices", type=int, default=32, help="slices of such a head CT")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, each kind half")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args(arguments)
    print(
        f"isolation: {options.rounds} rounds of three windows of {options.seconds:g} s, "
        f"{options.rate:g} requests/s over 2 connections, "
        f"{_RESIDENT} resident CT slices of 0.53 MB, {options.studies} head CTs of {options.slices} slices queued",
        flush=True,
    )
    heads = [mix.Transaction(0.0, 0, "CT", "CT head", options.slices)]
    made = images.build([*heads, RESIDENT_STUDY], phantoms=1)
    with (
        tempfile.TemporaryDirectory(prefix="wetread-isolation-", dir=options.folder) as scratch,
        local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
    ):
        found = measure(
            server,
            Path(scratch),
            made,
            rounds=options.rounds,
            seconds=options.seconds,
            studies=options.studies,
            slices=options.slices,
            rate=options.rate,
        )
    print("\n".join(found.lines()))
    return 0 if found.met else 1


RESIDENT_STUDY: Final = mix.Transaction(0.0, 0, "CT", "CT body", _RESIDENT)
RUN: Final = 900
"""Run number of this bench's identifiers; the resident study has number 0, head CTs count from 1."""


def measure(
    server: Supervisor,
    data: Path,
    made: images.Images,
    *,
    rounds: int,
    seconds: float,
    studies: int,
    slices: int,
    rate: float,
) -> Isolation:
    """Take *rounds* of three windows on a running server; *made* has body and head CTs."""
    port = int(server.url.rpartition(":")[2])
    roots = [child.process.pid for child in server.children]
    resident = images.places(RESIDENT_STUDY, run=RUN)
    found = Isolation()
    with Client(server.url, timeout_seconds=120) as client:
        with Connection(port) as connection:
            store(connection, made.of(RESIDENT_STUDY), resident)
        _settle(client, [resident[0].study_uid])
        _window(port, roots, data, resident, 2.0, rate)  # opens files, fills caches
        for number in range(rounds):
            idle = _window(port, roots, data, resident, seconds, rate)
            with _neighbour():
                beside = _window(port, roots, data, resident, seconds, rate)
            first = 1 + number * studies
            queued = [mix.Transaction(0.0, first + at, "CT", "CT head", slices) for at in range(studies)]
            uids = [_head(client, port, made, one) for one in queued]
            _wait_started(client, uids)
            busy = _window(port, roots, data, resident, seconds, rate)
            if any(not client.findings(uid).final for uid in uids):
                found.idle.append(idle)
                found.beside.append(beside)
                found.busy.append(busy)
                print(f"round {number + 1}: {_row(idle, beside, busy)}", flush=True)
            else:
                found.dropped += 1
            _settle(client, uids)
    return found


@contextmanager
def _neighbour() -> Iterator[None]:
    """Keep every core busy with multiplying matrices, at the niceness of a detector process (ADR 0806)."""
    program = "import numpy as np; a = np.ones((512, 512), 'f4')\nwhile True: a @ a"
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = ["nice", "-n", str(_NICENESS), sys.executable, "-c", program]
    processes = [subprocess.Popen(command, env=os.environ | alone) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(1.0)  # the interpreters have started
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _row(*windows: Window) -> str:
    kinds = windows[0].latencies
    return "; ".join(f"{kind} " + " -> ".join(_ms(one.latencies[kind]) for one in windows) + " ms" for kind in kinds)


def _head(client: Client, port: int, made: images.Images, transaction: mix.Transaction) -> str:
    places = images.places(transaction, run=RUN)
    with Connection(port) as connection:
        store(connection, made.of(transaction), places)
    client.manifest(places[0].study_uid, instances=len(places))  # complete: one run each
    return places[0].study_uid


def _wait_started(client: Client, uids: Sequence[str]) -> None:
    """Wait until a detector runs and nothing is being evaluated any more: all studies have become complete."""
    deadline = time.monotonic() + _LONGEST_RUN
    while time.monotonic() < deadline:
        states = [result.state.value for uid in uids for result in client.findings(uid).results]
        if "running" in states and "awaiting_images" not in states:
            return
        time.sleep(0.2)
    msg = "no detector started"
    raise RuntimeError(msg)


def _settle(client: Client, uids: Sequence[str]) -> None:
    deadline = time.monotonic() + _LONGEST_RUN
    while not all(client.findings(uid).final for uid in uids):
        if time.monotonic() > deadline:
            msg = "the queue did not drain"
            raise RuntimeError(msg)
        time.sleep(0.5)
    time.sleep(3.0)  # reports are written after the last outcome


def _window(
    port: int, roots: Sequence[int], data: Path, resident: Sequence[Place], seconds: float, rate: float
) -> Window:
    """Fetch at a steady pace over two connections, one per kind."""
    window = Window()
    failures: list[BaseException] = []

    def work(kind: str) -> None:
        try:
            with Connection(port) as connection:
                _fetch(connection, kind, resident, seconds, rate / 2, window)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    with Watch(roots, data) as watch:
        threads = [threading.Thread(target=work, args=(kind,)) for kind in window.latencies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        usage = watch.now()
    if failures:
        raise failures[0]
    window.detector_cores = usage.cpu["detectors"] / usage.seconds
    return window


def _fetch(
    connection: Connection, kind: str, resident: Sequence[Place], seconds: float, rate: float, window: Window
) -> None:
    """Ask at fixed times; what waits for the answer before it counts from when it should have been sent."""
    begun = free = time.perf_counter()
    for number in range(int(seconds * rate)):
        due = begun + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        place = resident[(number * 37) % len(resident)]
        path = f"/dicom-web/studies/{place.study_uid}/series/{place.series_uid}/instances/{place.sop_uid}"
        wanted, accept = (f"{path}/frames/1", _FRAMES) if kind == "frame" else (path, _STORED)
        answer = connection.get(wanted, accept)
        window.latencies[kind].append(answer.seconds + max(0.0, free - due))
        window.bad += answer.status != 200 or answer.size < 512 * 512 * 2
        free = time.perf_counter()


def _ms(values: Sequence[float]) -> str:
    return f"{percentile(values, 0.5) * 1000:.2f} / {percentile(values, 0.95) * 1000:.2f}"
