"""A study with marked names and UIDs goes through everything: no mark in any log line, metric, trace or notification.

The same study shows that its trace is one: from the sender's request to the notification, across the processes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
from pydicom import dcmread
from tests.e2e.conftest import wait_for
from tests.otlp_receiver import OtlpReceiver, settings_of
from typer.testing import CliRunner

from wetread.cli import app
from wetread.commands.dicom_folder import FileStudy, scan_folder
from wetread.commands.local_server import wait_ready
from wetread.commands.receiver import WebhookReceiver
from wetread.commands.send import multipart_body
from wetread.core.states import FINAL

ROOT = Path(__file__).resolve().parents[2]
OWN = {"WETREAD_LOG_LEVEL": "debug", "WETREAD_QUIET_SERIES": "0.5", "WETREAD_QUIET_STUDY": "1"}
SENDER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("stores")
def test_no_mark_in_logs_metrics_or_traces(bleed: FileStudy, tmp_path: Path) -> None:
    folder = tmp_path / "marked"
    folder.mkdir()
    for number, instance in enumerate(bleed.instances):
        data = dcmread(instance.path)
        data.PatientName, data.PatientID, data.AccessionNumber = "MARKED^NAME", "MARKED-ID", "MARKED-ACC"
        data.PatientBirthDate = "19700101"
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    (folder / "broken.dcm").write_bytes((folder / "0.dcm").read_bytes()[:2000])
    log = (tmp_path / "log").open("wb")
    with OtlpReceiver() as collector, WebhookReceiver() as hook:
        go_through(folder, tmp_path, log, collector, hook)


def go_through(folder: Path, tmp_path: Path, log: IO[bytes], collector: OtlpReceiver, hook: WebhookReceiver) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "wetread", "up", "--port", "0", "--data", str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "services")} | OWN | settings_of(collector),
    )
    assert server.stdout is not None
    try:
        url = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        wait_ready(url)
        [study] = scan_folder(folder).studies
        wanted = {"url": hook.url, "types": ["finding.positive"]}
        hook.secret = httpx.post(f"{url}/api/v1/subscriptions", json=wanted).json()["secrets"][0]
        stored = httpx.post(
            f"{url}/dicom-web/studies",
            content=b"".join(multipart_body(study.instances, "b0")),
            headers={
                "Content-Type": 'multipart/related; type="application/dicom"; boundary=b0',
                "traceparent": SENDER,
            },
            timeout=60,
        )
        assert stored.status_code in {200, 202}
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
        told = hook.first(study.study_uid, frozenset({"finding.positive"}), timeout=60)
        metrics = httpx.get(f"{url}/metrics").text
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(40)
        server.stdout.close()
        log.close()
    text = (tmp_path / "log").read_text(encoding="utf-8")
    assert '"logger"' in text, "the log is there"
    exported = b"".join(collector.bodies)
    for mark in ("MARKED", study.study_uid, *(i.sop_instance_uid for i in study.instances)):
        assert mark not in text
        assert mark not in metrics
        assert mark.encode() not in exported
    assert 'clock="notified"' in metrics
    assert "wetread_audit_broken_links 0.0" in metrics, "the worker has followed the audit trail"
    assert told is not None
    check_trace(collector, hook, told.event)
    trail = audit_trail(tmp_path / "data")
    assert study.study_uid in trail, "the audit trail tells who has seen which study"
    for mark in ("MARKED", *(i.sop_instance_uid for i in study.instances)):
        assert mark not in trail


def check_trace(collector: OtlpReceiver, hook: WebhookReceiver, event: dict[str, Any]) -> None:
    """One trace, the sender's, over the web process, the worker and the detector process; every parent is there."""
    trace_id, sender_span = SENDER.split("-")[1:3]
    spans = collector.trace(trace_id)
    chain = (
        ("POST /dicom-web/studies", "wetread-web"),
        ("ingest.commit", "wetread-web"),
        ("evaluate_study", "wetread-worker"),
        ("run_task", "wetread-worker"),
        ("detect", "wetread-worker"),
        ("detector run", "wetread-worker"),
        ("inference", "wetread-worker"),
        ("worklist.raise", "wetread-worker"),
        ("compose_results", "wetread-worker"),
        ("notify", "wetread-worker"),
    )
    for name, service in chain:
        assert service in {span.service for span in spans[name]}, name
    every = [span for named in spans.values() for span in named]
    known = {span.span_id for span in every}
    [request] = spans["POST /dicom-web/studies"]
    assert request.parent_id == sender_span
    assert {span.parent_id for span in every if span is not request} <= known, "a parent is missing"
    assert len({span.attributes["process.pid"] for span in spans["detector run"]}) == 1
    above = {span.span_id: span for span in every}
    for last in (*spans["notify"], *spans["inference"], *spans["compose_results"]):
        span = last
        while span is not request:
            span = above[span.parent_id]
    told = [span for span in spans["notify"] if span.attributes["wetread.event"] == "finding.positive"]
    assert event["traceparent"].split("-")[1] == trace_id
    assert hook.headers[-1]["traceparent"].split("-")[1:3] == [trace_id, told[-1].span_id]
    assert {"wetread_studies", "wetread_http_requests_total", "wetread_turnaround_seconds"} <= set(collector.metrics)
    assert collector.records, "the log goes to the collector, too"


def audit_trail(data: Path) -> str:
    """Return everything that the audit trail of a data folder holds."""
    printed = CliRunner().invoke(app, ["audit", "--data", str(data), "--json"])
    assert printed.exit_code == 0
    assert "whole" in CliRunner().invoke(app, ["audit", "verify", "--data", str(data)]).output
    return printed.output
