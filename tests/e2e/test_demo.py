"""The command people run first, as they run it: ``wetread demo`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.conftest import shared_folder

from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.core.priority import Priority
from wetread.core.states import FINAL

pytestmark = pytest.mark.stores("embedded", reason="the demo brings its own server, on a folder that it throws away")
ROOT = Path(__file__).resolve().parents[2]
REAL_HEADS = {
    "ge": "head-ct/GE-HiSpeed-head-gantry-tilt.tar.xz",
    "cq500-342": "head-ct-nc/subarachnoid__CQ500_CT_342.tar.xz",
    "cq500-427": "head-ct-nc/intraparenchymal__CQ500_CT_427.tar.xz",
}


def run_demo(*arguments: str) -> tuple[list[dict], subprocess.CompletedProcess[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "wetread", "demo", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "services")},
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done


@pytest.mark.timeout(330)
@pytest.mark.parametrize("heads", [["ge"], pytest.param(["cq500-342", "cq500-427"], marks=pytest.mark.slow)])
def test_real_head_cts_end_in_a_typed_state_with_a_report(heads: list[str], shared: Path, tmp_path: Path) -> None:
    """Behaviour only: scores of three cases measure nothing, and no pass mark hangs on them."""
    names = {}
    for name in heads:
        with tarfile.open(shared / REAL_HEADS[name], "r:xz") as tar:
            tar.extractall(tmp_path / name, filter="data")
        [study] = scan_folder(tmp_path / name).studies
        names[study.study_uid] = (name, len(study.instances))
    rows, done = run_demo("--input", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert {row["study_uid"] for row in rows} == set(names)
    for row in rows:
        name, instances = names[row["study_uid"]]
        [result] = [r for r in row["results"] if r["detector"] == "ich"]
        print(f"{name}: {result['state']} score {result['score']} threshold {result['threshold']} {result['quality']}")
        assert row["instances"] == instances
        assert row["modality"] == "CT"
        assert result["state"] in {"positive", "negative", "indeterminate"}, (name, result)
        assert result["state"] in FINAL
        assert "SR" in {series["modality"] for series in row["stored"]}
        assert Priority(row["priority_before"]).rank >= Priority(row["priority_after"]).rank
        assert row["turnaround_s"] is not None


@pytest.mark.timeout(330)
@pytest.mark.skipif(shared_folder().is_dir(), reason="a real head goes the same way")
def test_a_phantom_ends_in_a_positive_with_a_report(bleed: FileStudy) -> None:
    rows, done = run_demo("--input", str(bleed.instances[0].path.parent))
    assert done.returncode == 0, done.stderr[-3000:]
    [row] = rows
    [result] = [r for r in row["results"] if r["detector"] == "ich"]
    assert (row["study_uid"], result["state"], row["priority_after"]) == (bleed.study_uid, "positive", "stat")
    assert "SR" in {series["modality"] for series in row["stored"]}


@pytest.mark.timeout(120)
def test_a_folder_without_dicom_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not DICOM", encoding="utf-8")
    rows, done = run_demo("--input", str(tmp_path))
    assert (rows, done.returncode) == ([], 2)
    assert "no DICOM files" in done.stderr
