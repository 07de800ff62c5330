"""MONAI's stress hour and the load report, cut down, against real servers: nothing lost, nothing silent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT

from wetread.commands.capacity_costs import load_costs

pytestmark = pytest.mark.stores("embedded", reason="the benchmarks bring their own server; of clusters: BENCH=cluster")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "loadtest/run.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compressed_stress_hour_loses_nothing_and_says_everything(tmp_path: Path) -> None:
    options = ["--compress", "20", "--ct-slices", "32", "--delete-checked", "--folder", str(tmp_path)]
    done = bench("stress_hour", *options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "transactions 337," in done.stdout
    assert "LOST 0   SILENT 0   turned away for good 0" in done.stdout
    assert "ich: not_applicable(modality) 292" in done.stdout  # 180 RF, 75 US, 37 MR
    assert "studies deleted after the check: 337" in done.stdout
    assert "detector runs 31," in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.server("postgres")
@pytest.mark.timeout(1800)
def test_load_report_is_written_by_one_command(tmp_path: Path) -> None:
    out, short = tmp_path / "report", ["--step-minutes", "0.5", "--start", "6", "--factor", "4", "--goal", "20"]
    short += [
        "--slices",
        "32",
        "--soak-minutes",
        "0.5",
        "--isolation-rounds",
        "1",
        "--mix-seconds",
        "2",
        "--heads",
        "1",
    ]
    done = bench("report", "--out", str(out), "--folder", str(tmp_path), *short)
    assert done.returncode in {0, 1}, done.stdout[-3000:] + done.stderr[-2000:]  # 1: a busy machine, a wrong prediction
    page = (out / "report.md").read_text()
    assert "Bottleneck: " in page
    assert "CUT: CT of 32 slices" in page
    assert load_costs(out / "unit-costs.json").detectors["ich"].wall > 0
    steps = json.loads((out / "records.json").read_text())
    assert steps[0]["turnaround"]["RF"]
    assert {path.name for path in out.glob("*.png")} == {
        "turnaround.png",
        "busy.png",
        "isolation.png",
        "memory.png",
    }
    assert "LOST 0   SILENT 0" in page
