"""Turnaround: last STOW byte to verified webhook for a 324-slice phantom head CT, over real HTTP on this machine.

The receiver stamps arrival on the same clock that stamps the last byte sent. Each study has UIDs and a patient of its
own, so nothing is recognised; a few phantoms with bleeds are rendered and sent in turn, because rendering takes longer
than reading. A study whose detector says negative is timed by its ``result.ready`` instead and counted apart. The first
study is reported apart as cold. Published figures of others are on other hardware and other work, so no ratio is
computed against them.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import httpx

from wetread.commands.dicom_folder import scan_folder
from wetread.commands.local_server import local_server
from wetread.commands.receiver import WebhookReceiver
from wetread.commands.send import Sender
from wetread.testing.phantoms import thin_phantom, write_dicom

STAGES = ("received", "committed", "evaluated", "started", "inferred", "sent")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="turnaround", description=__doc__)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--phantoms", type=int, default=3)
    parser.add_argument("--slices", type=int, default=324)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connections", type=int, default=2)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="wetread-bench-") as scratch:
        return _run(options, Path(scratch))


def _run(options: argparse.Namespace, scratch: Path) -> int:
    seconds: list[float] = []
    transfer: list[float] = []
    stages: list[dict[str, float]] = []
    outcomes: dict[str, int] = {}
    pause = random.Random(options.seed)
    first = 2_910_000 + options.seed * 1000
    phantoms = [thin_phantom(seed=first + number, slices=options.slices) for number in range(options.phantoms)]
    with local_server(scratch / "data") as server, WebhookReceiver() as receiver, httpx.Client(timeout=60) as client:
        answer = client.post(
            f"{server.url}/api/v1/subscriptions",
            json={"url": receiver.url, "types": ["finding.positive", "result.ready"]},
        )
        answer.raise_for_status()
        receiver.secret = answer.json()["secrets"][0]
        for number in range(options.studies):
            folder = scratch / f"study-{number}"
            phantom = phantoms[number % len(phantoms)]
            write_dicom(phantom, folder, seed=first + number, slices=range(min(options.slices, len(phantom.volume))))
            study = scan_folder(folder).studies[0]
            time.sleep(pause.uniform(0, 0.5))
            sender = Sender(server.url, connections=options.connections)
            begun = time.time()
            report = sender.send(study, resume=False)
            sender.close()
            told = receiver.first(study.study_uid, frozenset({"finding.positive", "result.ready"}), timeout=120)
            if told is None or report.failures:
                print(f"study {number}: NO NOTIFICATION ({len(report.failures)} refused)")
                return 1
            kind = told.event["type"]
            outcomes[kind] = outcomes.get(kind, 0) + 1
            seconds.append(told.at - report.last_byte_at)
            transfer.append(report.last_byte_at - begun)
            stamps = told.event["data"].get("stamps", {})
            stages.append({stage: datetime.fromisoformat(at).timestamp() for stage, at in stamps.items()})
            print(
                f"study {number}: {report.sent} instances, {study.size / 1e6:.0f} MB, sent in {transfer[-1]:.2f} s, "
                f"{kind} after {seconds[-1]:.2f} s",
                flush=True,
            )
            for instance in study.instances:
                instance.path.unlink()
    warm = seconds[1:] or seconds
    print(
        f"phantom head CT, {options.slices} slices of 512 x 512, N = {len(seconds)} "
        f"studies of {options.phantoms} phantoms, seed {options.seed}; {outcomes}"
    )
    print(f"cold (first study): {seconds[0]:.2f} s")
    print(f"last STOW byte -> webhook, warm: p50 {percentile(warm, 0.5):.2f} s, p95 {percentile(warm, 0.95):.2f} s")
    print(f"transfer of a study: median {statistics.median(transfer):.2f} s")
    for before, after in itertools.pairwise(STAGES):
        spans = [s[after] - s[before] for s in stages[1:] if before in s and after in s]
        if spans:
            print(f"  {before:>10} -> {after:<10} median {statistics.median(spans):.2f} s")
    print("goal: p50 <= 5 s, p95 <= 15 s")
    return 0
