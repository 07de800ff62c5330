"""The gateway on PostgreSQL and S3 against the embedded profile, in one run; and two gateways against one.

``make bench BENCH=profiles ARGS="--studies 12 --slices 40"``. Real processes (``wetread serve gateway``), a real
PostgreSQL with durable commits, moto as the S3 server. One web process per gateway in every profile, as in a pod, so
that rows differ by their stores alone; ``embedded default`` has as many as ``wetread up`` takes. moto is one Python
process: rates with it are the double's as much as ours; CPU time is told apart by who used it, waits of the database by
what was waited for, and the thing that was nearest to its limit is named.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from dicomweb.connection import Connection
from dicomweb.instances import Place, Template
from dicomweb.load import STOW_TYPE, multipart
from stress_hour.images import body_ct

from profiles.contention import Contention, Spent
from profiles.gateways import Gateway, environment, gateways
from wetread.testing.servers.moto import moto
from wetread.testing.servers.postgres import postgres

ROWS: Final = ("embedded", "embedded default", "postgres", "s3", "postgres+s3", "postgres x2", "postgres+s3 x2")
_STORED: Final = 'Accept: multipart/related; type="application/dicom"; transfer-syntax=*\r\n'
_JSON: Final = "Accept: application/dicom+json\r\n"
_SEARCHES: Final = 20


@dataclass(frozen=True, slots=True)
class Figures:
    """One round of one row. Rates in instances a second; ``spent``: of storing."""

    stored: float
    first_read: float
    second_read: float
    search_ms: float
    instances: int
    spent: Spent

    @property
    def gateway_ms(self) -> float:
        """CPU of all gateways per stored instance, in ms."""
        return 1e3 * sum(cpu for name, cpu in self.spent.cpu.items() if name.startswith("gateway")) / self.instances


def main(arguments: Sequence[str]) -> int:
    """Measure all rows in interleaved rounds and print them."""
    parser = argparse.ArgumentParser(prog="profiles", description=__doc__)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    given = parser.parse_args(arguments)
    print(
        f"{given.rounds} interleaved rounds of {given.studies} studies x {given.slices} CT slices of 0.53 MB, "
        f"one study per request, {given.connections} connections"
    )
    found: dict[str, list[Figures]] = {}
    template = Template(body_ct())
    with ExitStack() as stack:
        database, s3 = stack.enter_context(postgres(durable=True)), stack.enter_context(moto())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wetread-profiles-")))
        for round_ in range(given.rounds):
            for number, name in enumerate(given.rows):
                place = folder / f"{round_}-{number}"
                settings = environment(name, place, database, s3)
                run = 1000 + 100 * round_ + number
                studies = [
                    [Place(run, study, 1, slice_ + 1) for slice_ in range(given.slices)]
                    for study in range(given.studies)
                ]
                others = {"PostgreSQL": database.pid, "S3 double": s3.pid}
                with gateways(settings, place, 2 if name.endswith("x2") else 1) as running:
                    watch = Contention(running, others, settings.get("WETREAD_DATABASE_URL"))
                    found.setdefault(name, []).append(_measure(running, template, studies, given.connections, watch))
    print("\n".join(lines(found)))
    return 0


def lines(found: Mapping[str, Sequence[Figures]]) -> list[str]:
    """Return the tables: rates, CPU by who used it, waits of the database, what was nearest to its limit."""
    base = next(iter(found.values()))
    text = [
        "",
        f"medians; in brackets the ratio to {next(iter(found))}",
        "| profile | stored /s | gateway CPU ms per instance | first read /s | second read /s | search ms |",
        "|---|---|---|---|---|---|",
    ]
    names = ("stored", "gateway_ms", "first_read", "second_read", "search_ms")
    for name, rounds in found.items():
        pairs = [(_median(rounds, key), _median(base, key)) for key in names]
        cells = [f"{value:.1f} ({value / reference:.2f})" for value, reference in pairs]
        text.append(f"| {name} | {' | '.join(cells)} |")
    text += [
        "",
        "while storing, the round with the median rate: cores in use; share of the time for which the writers' turn",
        "was held; sessions that waited for it, and for the disk of the log, on average; what was nearest its limit",
        "| profile | gateways | PostgreSQL | S3 double | sender | others | turn held | wait for it | for disk | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    text += [f"| {name} | {_contention(rounds)} |" for name, rounds in found.items()]
    for one, two in (("postgres", "postgres x2"), ("postgres+s3", "postgres+s3 x2")):
        if one in found and two in found:
            ratio = _median(found[two], "stored") / _median(found[one], "stored")
            verdict = "met" if ratio >= 1.6 else "MISSED"
            limit, share = _middle(found[two]).spent.nearest
            text.append(
                f"two gateways over one, {one}: {ratio:.2f} (goal 1.6 where cores allow: {verdict}; all share "
                f"{os.cpu_count()} cores, database, S3 double and sender too; nearest its limit: {limit}, {share:.0%})"
            )
    return text


def _median(rounds: Sequence[Figures], name: str) -> float:
    return median(getattr(figures, name) for figures in rounds)


def _middle(rounds: Sequence[Figures]) -> Figures:
    return sorted(rounds, key=lambda figures: figures.stored)[(len(rounds) - 1) // 2]


def _contention(rounds: Sequence[Figures]) -> str:
    spent = _middle(rounds).spent
    each = "+".join(f"{cores:.2f}" for name, cores in spent.cores.items() if name.startswith("gateway"))
    cores = [f"{spent.cores.get(name, 0.0):.2f}" for name in ("PostgreSQL", "S3 double", "sender")]
    cores.append(f"{spent.others:.2f}")
    waits = ["-"] * 3 if spent.turn is None else [f"{spent.turn:.0%}", f"{spent.waits:.2f}", f"{spent.flushes:.2f}"]
    name, share = spent.nearest
    return " | ".join([each, *cores, *waits, f"{name}, {share:.0%}"])


def _measure(
    running: Sequence[Gateway],
    template: Template,
    studies: Sequence[Sequence[Place]],
    connections: int,
    watch: Contention,
) -> Figures:
    bodies = [multipart([template] * len(places), places) for places in studies]
    total = sum(len(places) for places in studies)

    def store(connection: Connection, number: int) -> None:
        answer = connection.post("/dicom-web/studies", STOW_TYPE, *bodies[number])
        if answer.status != 200 or b"00081198" in answer.body:
            msg = f"storing was answered with {answer.status}"
            raise RuntimeError(msg)

    def read(connection: Connection, number: int) -> None:
        answer = connection.get(f"/dicom-web/studies/{studies[number][0].study_uid}", _STORED)
        if answer.status != 200 or answer.size < len(studies[number]) * template.size:
            msg = f"reading was answered with {answer.status} and {answer.size} bytes"
            raise RuntimeError(msg)

    with watch:
        seconds = _spread(running, store, len(studies), connections)
    first, second = (_spread(running, read, len(studies), connections) for _ in range(2))
    with Connection(running[0].port) as connection:
        asked = [f"/dicom-web/studies?StudyInstanceUID={places[0].study_uid}" for places in studies]
        times = [connection.get(asked[number % len(asked)], _JSON).seconds for number in range(_SEARCHES)]
    return Figures(total / seconds, total / first, total / second, median(times) * 1e3, total, watch.spent)


def _spread(running: Sequence[Gateway], work: Callable[[Connection, int], None], count: int, connections: int) -> float:
    """Do *work* for each number over *connections*, which are dealt to the gateways in turn; return the seconds."""
    numbers, lock = iter(range(count)), threading.Lock()

    def run(gateway: Gateway) -> None:
        with Connection(gateway.port) as connection:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                work(connection, number)

    with ThreadPoolExecutor(connections) as pool:
        began = time.perf_counter()
        for done in [pool.submit(run, running[at % len(running)]) for at in range(connections)]:
            done.result()
        return time.perf_counter() - began
