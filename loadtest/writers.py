"""How many write transactions a deployment makes when 1, 2 and 4 processes want to: ``make bench BENCH=writers``.

Processes like gateways, on one real PostgreSQL with durable commits, each writing rows as an ingest group does. Two
ways in interleaved rounds: the writers' lock given up with the commit, before the disk has it (ADR 1201), and held
until the disk has it. No object store and no HTTP: this is the part that processes cannot share.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from sqlalchemy import text

from wetread.adapters.index import engines
from wetread.adapters.index.database import SqlDatabase
from wetread.testing.servers.postgres import postgres

ROWS = 20
_INSERT = text("INSERT INTO wetread.object_marks (stream, locator) VALUES (:stream, :locator)")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="writers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args(arguments)
    print(f"{given.rounds} interleaved rounds of {given.seconds:g} s, {ROWS} rows per transaction, durable commits")
    rates: dict[tuple[bool, int], list[float]] = {}
    with postgres(durable=True) as server:
        for _ in range(given.rounds):
            for held in (True, False):
                for writers in given.writers:
                    rate = _together(server.prepared(), writers, given.seconds, held=held)
                    rates.setdefault((held, writers), []).append(rate)
    print(
        "lock held over the disk  " + "  ".join(f"{n} writers" for n in given.writers) + "  (transactions per second)"
    )
    for held in (True, False):
        row = [median(rates[held, n]) for n in given.writers]
        print(f"{'yes' if held else 'no':23s}  " + "  ".join(f"{rate:9.1f}" for rate in row)
              + "  over one: " + ", ".join(f"{rate / row[0]:.2f}" for rate in row))  # fmt: skip
    return 0


def _together(url: str, writers: int, seconds: float, *, held: bool) -> float:
    context = multiprocessing.get_context("spawn")
    start, counts = context.Barrier(writers), context.Queue()
    processes = [context.Process(target=_write, args=(url, n, seconds, held, start, counts)) for n in range(writers)]
    for process in processes:
        process.start()
    total = sum(counts.get(timeout=seconds + 120) for _ in processes)
    for process in processes:
        process.join()
    return total / seconds


def _write(url: str, number: int, seconds: float, held: bool, start: Any, counts: Any) -> None:
    if held:  # what a plain durable commit under the lock does
        engines._TAKE_TURN = f"SELECT pg_advisory_xact_lock({engines._WRITERS})"  # noqa: SLF001
        engines.PostgresDriver.make_durable = lambda _self, _connection: None
    database = SqlDatabase(url)
    with database.write():
        pass  # connected
    start.wait()
    count, ends = 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        with database.write() as tx:
            for row in range(ROWS):
                tx.connection.execute(_INSERT, {"stream": f"{number}-{count}-{row}", "locator": "x"})
        count += 1
    database.close()
    counts.put(count)


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
