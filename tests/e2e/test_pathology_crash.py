"""kill -9 of workers and of the driver at random moments: a resumed run gives the same rows, and loses little."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.pathology_world import bigger, written

pytestmark = [pytest.mark.slow, pytest.mark.server("openslide"), pytest.mark.timeout(3000)]
TRIALS, WORKERS, WINDOW, CHUNK = 24, 2, 3, 32
ROOT = Path(__file__).resolve().parents[2]


def start(slide, out):
    command = [
        sys.executable,
        "-m",
        "wetread",
        "pathology",
        "run",
        str(slide),
        "--out",
        str(out),
        "--no-dicom",
        "--json",
    ]
    command += ["--overlap", "192", "--min-tissue", "0.05", "--workers", str(WORKERS)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "services")}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finished(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output)


def children(pid):
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
            command = (entry.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == pid and "spawn_main" in command:
            found.append(int(entry.parent.name))
    return found


def rows_on_disk(out):
    return sum(int(p.stem.rsplit("-", 1)[1]) for p in out.glob("parts/*/part-*.parquet"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    slide = written(folder, spec=bigger())
    result = finished(start(slide, folder / "whole"))
    assert result["tiles"]["planned"] > 400
    return slide, pq.read_table(folder / "whole" / "tiles.parquet"), result


@pytest.mark.parametrize("trial", range(TRIALS))
def test_killed_at_a_random_moment(tmp_path, reference, trial):
    slide, whole, result = reference
    rng = random.Random(trial)
    out, planned = tmp_path / "o", result["tiles"]["planned"]
    threshold = rng.randrange(0, planned - CHUNK)
    process = start(slide, out)
    while process.poll() is None and rows_on_disk(out) <= threshold:
        time.sleep(0.005)
    time.sleep(rng.random() * 0.05)
    if trial % 2:
        for pid in rng.sample(children(process.pid), k=1) if process.poll() is None and children(process.pid) else []:
            os.kill(pid, signal.SIGKILL)
        told = finished(process)
        assert told["tiles"]["failed"] == 0
    else:
        process.kill()
        process.communicate()
        time.sleep(0.3)  # workers end with their driver
        kept = rows_on_disk(out)
        told = finished(start(slide, out))
        assert told["tiles"]["resumed"] == kept
        assert kept >= threshold
    assert told["tiles"]["done"] == planned
    assert pq.read_table(out / "tiles.parquet").equals(whole)
    parts = [(int(p.stem.split("-")[1]), int(p.stem.split("-")[2])) for p in out.glob("parts/*/part-*.parquet")]
    # Every tile has one row; what ran twice is at most what was in flight.
    assert sum(count for _, count in parts) == planned
    assert not list(out.glob("parts/*/*.tmp")) or trial % 2 == 1
