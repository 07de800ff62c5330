"""wetread's gateway and Orthanc (default and tuned) side by side on this machine: ``make bench BENCH=dicomweb``.

Rounds are interleaved (every cell runs on each server in turn, the order alternates), stores are fresh, both sides
sync before they answer, answers are checked. What counts are ratios within a round; medians over rounds are printed.
The server is the process tree of ``wetread serve gateway``, in as many processes as it comes on this machine, with API
keys, checksums, index, full metadata, change feed, events and queued evaluations; no setting is changed for it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicomweb import ingest, reading, report


def main(arguments: Sequence[str]) -> int:
    """Run the comparison and print its tables. Returns 1 when an answer was bad."""
    parser = argparse.ArgumentParser(prog="dicomweb", description=__doc__)
    parser.add_argument("--orthanc", type=Path, default=Path(".peers/orthanc"), help="folder of .ci/install-orthanc")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--instances", type=int, default=320, help="instances per STOW cell, at least one per connection"
    )
    parser.add_argument("--size", type=int, default=100_000, help="instances in the index for the second searches")
    parser.add_argument("--requests", type=int, default=200, help="requests per reading cell and round")
    parser.add_argument("--quick", action="store_true", help="one round, few instances, Orthanc default only")
    parser.add_argument("--servers", default="wetread,default,tuned", help="which of the three, in order")
    parser.add_argument("--parts", default="stow,read", help="stow, read, or index: searches only")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="folder on tmpfs")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="folder on a real disk")
    parser.add_argument("--json", type=Path, help="write all records to this file, one JSON object per line")
    chosen = parser.parse_args(arguments)
    names = chosen.servers.split(",")
    if chosen.quick:
        names = [name for name in names if name != "tuned"]
        chosen.rounds, chosen.instances = 1, min(chosen.instances, 80)
        chosen.size, chosen.requests = min(chosen.size, reading.SMALL_INDEX), min(chosen.requests, 40)
    orthanc = chosen.orthanc.resolve()
    if set(names) - {"wetread"} and not (orthanc / "orthanc").is_file():
        print(f"Orthanc is not in {orthanc}: .ci/install-orthanc installs it", file=sys.stderr)
        return 2
    # Ended from outside, the servers are stopped and their folders removed as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    records = _measure(chosen, names, orthanc)
    _print(chosen, names, orthanc, records)
    if chosen.json:
        chosen.json.write_text("".join(json.dumps(record) + "\n" for record in records))
    return int(any(record.get("bad") for record in records))


def _measure(chosen: argparse.Namespace, names: list[str], orthanc: Path) -> list[dict[str, Any]]:
    started = time.monotonic()

    def say(record: dict[str, Any]) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {json.dumps(record)}", file=sys.stderr, flush=True)

    records: list[dict[str, Any]] = []
    with (
        tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=chosen.memory) as memory,
        tempfile.TemporaryDirectory(prefix="wetread-bench-", dir=chosen.disk) as disk,
    ):
        if "stow" in chosen.parts:
            records += ingest.rounds(
                names,
                orthanc,
                memory=Path(memory),
                disk=Path(disk),
                count=chosen.rounds,
                instances=chosen.instances,
                largest=400 if chosen.quick else 1600,
                say=say,
            )
        if set(chosen.parts.split(",")) & {"read", "index"}:
            records += reading.run(
                names,
                orthanc,
                base=Path(memory),
                count=chosen.rounds,
                size=chosen.size,
                requests=chosen.requests,
                settle=not chosen.quick and names != ["wetread"],
                retrievals="read" in chosen.parts,
                say=say,
            )
    return records


def _print(chosen: argparse.Namespace, names: list[str], orthanc: Path, records: list[dict[str, Any]]) -> None:
    versions = (orthanc / "versions").read_text().split("\n") if (orthanc / "versions").is_file() else []
    print(f"servers: {', '.join(names)}; {', '.join(filter(None, versions))}; load now {os.getloadavg()[0]:.1f}")
    print(
        f"N: {chosen.rounds} rounds, {chosen.instances} instances of 526 KB per STOW cell "
        f"(100x16: 1600, not with --quick), {chosen.requests} requests per reading cell "
        f"(a quarter for lists, a tenth for series), seed 7"
    )
    for name in names:
        counts = {record["processes"] for record in records if record["server"] == name and "processes" in record}
        if counts:
            print(f"processes of {name}: {', '.join(map(str, sorted(counts)))} (a parent and those it forks count)")
    print(
        "tmpfs and disk: both sides sync (fdatasync) before the answer; index commits are not synced on either side\n"
    )
    print("\n".join(report.table(records, chosen.size, min(reading.SMALL_INDEX, chosen.size))), "\n")
    print("\n".join(report.cells(records)))
