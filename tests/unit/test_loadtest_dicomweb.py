"""The DICOMweb bench: its instances are DICOM, its ratios are what it says, and it runs against a real Orthanc."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pydicom
import pytest
from tests.conftest import ROOT, orthanc_folder

sys.path.insert(0, str(ROOT / "loadtest"))

from dicomweb import report
from dicomweb.instances import Place, Template
from dicomweb.load import stow_body


def test_instances_are_the_template_with_other_identifiers() -> None:
    template, place = Template.ct(16), Place(3, 42, 2, 77)
    body = template.head(place) + bytes(template.pixels)
    data = pydicom.dcmread(io.BytesIO(body))
    assert len(body) == template.size
    assert (data.StudyInstanceUID, data.SeriesInstanceUID) == (place.study_uid, place.series_uid)
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID == place.sop_uid
    assert (data.PatientID, data.InstanceNumber) == (place.patient_id, 77)
    assert len(data.PixelData) == 16 * 16 * 2
    assert data[0x0029, 0x1010].VR == "OB"
    pieces, size = stow_body(template, [place, Place(3, 42, 2, 78)])
    assert sum(map(len, pieces)) == size


def record(server: str, number: int, cell: str, cpu: float, rate: float) -> dict[str, object]:
    names = {"part": "stow", "medium": "tmpfs", "server": server, "round": number, "cell": cell, "count": 1, "bad": 0}
    figures = {"cpu_ms": cpu, "rate": rate, "mb_per_s": 1.0, "p50_ms": 1.0, "p95_ms": 1.0, "client_ms": 0.1}
    return names | figures


def test_ratio_is_the_median_over_rounds_of_the_geometric_mean_over_cells() -> None:
    records = []
    for number, factor in enumerate((0.25, 0.5, 0.3)):
        for cell, base in (("1x1", 4.0), ("100x16", 6.0)):
            records += [record("wetread", number, cell, base * factor, 500), record("default", number, cell, base, 100)]
    rows = report.table(records, 100_000, 4_000)
    assert "| 0.3 | 0.25 - 0.5 | <= 0.5 | <= 0.35 | stretch |" in rows[2]
    assert "| 5 | 5 - 5 | >= 2 | >= 3 | stretch |" in rows[3]
    slow = [one | {"cpu_ms": one["cpu_ms"] * 3} if one["server"] == "wetread" else one for one in records]
    assert "**missed**" in report.table(slow, 100_000, 4_000)[2]


@pytest.mark.slow
@pytest.mark.server("orthanc")
def test_bench_runs_against_orthanc(tmp_path: Path) -> None:
    command = [sys.executable, "loadtest/run.py", "dicomweb", "--quick", "--instances", "16", "--size", "400"]
    folders = ["--memory", str(tmp_path), "--disk", str(tmp_path), "--orthanc", str(orthanc_folder())]
    done = subprocess.run(
        [*command, *folders, "--json", str(tmp_path / "records")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()]
    assert {one["server"] for one in records} == {"wetread", "default"}
    assert not any(one.get("bad") for one in records)
    assert {one["cell"] for one in records if one["part"] == "stow"} >= {"1x1", "100x4"}
