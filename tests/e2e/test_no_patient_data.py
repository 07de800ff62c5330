"""A study with marked names and UIDs goes through everything: no mark in any log line, metric or notification."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from tests.e2e.conftest import PhantomStudies, wait_for
from typer.testing import CliRunner

from wetread.cli import app
from wetread.commands.dicom_folder import scan_folder
from wetread.commands.local_server import wait_ready
from wetread.commands.send import Sender
from wetread.core.states import FINAL
from wetread.testing.phantoms import BleedType

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_no_mark_in_logs_or_metrics(phantoms: PhantomStudies, tmp_path: Path) -> None:
    source = phantoms.study(2_800_021, bleeds=(BleedType.IPH,), volume_ml=40.0)
    folder = tmp_path / "marked"
    folder.mkdir()
    for number, instance in enumerate(source.instances):
        data = dcmread(instance.path)
        data.PatientName, data.PatientID, data.AccessionNumber = "MARKED^NAME", "MARKED-ID", "MARKED-ACC"
        data.PatientBirthDate = "19700101"
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    (folder / "broken.dcm").write_bytes((folder / "0.dcm").read_bytes()[:2000])
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "wetread", "up", "--port", "0", "--data", str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "services"), "WETREAD_LOG_LEVEL": "debug"},
    )
    assert server.stdout is not None
    try:
        url = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        wait_ready(url)
        [study] = scan_folder(folder).studies
        sender = Sender(url)
        sender.send(study)
        sender.close()
        findings = f"{url}/api/v1/studies/{study.study_uid}/findings"
        wait_for(
            lambda: httpx.get(findings).json()["results"],
            lambda results: (
                bool(results)
                and all(r["state"] == "not_applicable" or (r["state"] in FINAL and r["stored"]) for r in results)
            ),
            seconds=90,
        )
        for path in (
            "/dicom-web/studies?PatientName=MARKED*",
            "/dicom-web/studies?PatientID=MARKED-ID&bogus=MARKED",
            f"/dicom-web/studies/{study.study_uid}/series/1.2.3/metadata",
            "/api/v1/worklist?q=MARKED",
            "/dicom-web/studies/MARKED^NAME/metadata",
            "/dicom-web/workitems/MARKED",
            "/",
        ):
            assert httpx.get(url + path).status_code in {200, 400, 404}
        body = {"Content-Type": "application/dicom"}
        assert httpx.post(f"{url}/dicom-web/studies", content=b"MARKED^NAME", headers=body).status_code == 409
        metrics = httpx.get(f"{url}/metrics").text
        time.sleep(0.5)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)
        server.stdout.close()
        log.close()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert '"logger"' in text, "the log is there"
    for mark in ("MARKED", study.study_uid, *(i.sop_instance_uid for i in study.instances)):
        assert mark not in text
        assert mark not in metrics
    trail = audit_trail(tmp_path / "data")
    assert study.study_uid in trail, "the audit trail tells who has seen which study"
    for mark in ("MARKED", *(i.sop_instance_uid for i in study.instances)):
        assert mark not in trail


def audit_trail(data: Path) -> str:
    """Return everything that the audit trail of a data folder holds."""
    printed = CliRunner().invoke(app, ["audit", "--data", str(data), "--json"])
    assert printed.exit_code == 0
    assert "whole" in CliRunner().invoke(app, ["audit", "verify", "--data", str(data)]).output
    return printed.output
