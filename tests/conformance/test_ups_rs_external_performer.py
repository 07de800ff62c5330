"""The sample external performer (docs/examples) as its own process against a live worklist and the real gateway."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from tests.gateway_support import CODECS
from tests.ups_worklist import TENANT, live, request_dataset, worklist

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.studies import SqlArchive
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.adapters.telemetry.metrics import Metrics
from wetread.bootstrap.web import build_app
from wetread.core.ups_dataset import element
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.service import gateway

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "ups_performer.py"
STUDY, SERIES, SOP = "1.2.826.1", "1.2.826.1.1", "1.2.826.1.1.1"


def ct_instance():
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, SOP
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Phantom^Head", "PH1", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20260101", "0800", "1", "A1"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class NoOrchestration:
    """The study is performed by the sample alone: nothing follows from its storage."""

    def study_changed(self, tx, change):
        assert change.study_uid == STUDY

    def waits(self, tx, tenant, study_uid):
        return False

    def transfer_repeated(self, tx, tenant, study_uid, *, received_at):
        raise AssertionError("nothing waits here")

    def study_removed(self, tx, tenant, study_uid):
        raise AssertionError("nothing is deleted here")


@contextmanager
def site(ups, folder):
    """Serve worklist and gateway on one address, with one CT instance stored over STOW-RS."""
    index = SqlDatabase(folder / "wetread.db", full_sync=False)
    archive, objects = SqlArchive(), SegmentStore(folder / "segments", shard="web")
    services = [
        gateway(index, archive, objects, GroupIngest(index, archive, objects, NoOrchestration()), CODECS),
        ups.service,
    ]
    app = build_app(services, checks={}, metrics=Metrics(ups.database))
    with live(app) as address:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + ct_instance() + b"\r\n--b--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=b'
        stored = httpx.post(f"http://{address}/dicom-web/studies", content=body, headers={"Content-Type": kind})
        assert stored.status_code == 200, stored.text
        yield address
    objects.close()
    index.close()


def run(address, *more):
    return subprocess.run(
        [sys.executable, str(SCRIPT), f"http://{address}/dicom-web", "--label", "sample", *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NO_PROXY": "*", "no_proxy": "*"},
    )


def task(ups, uid, sop=SOP):
    reference = {"00081150": element("UI", CTImageStorage), "00081155": element("UI", sop)}
    inputs = {
        "00081199": element("SQ", reference),
        "0020000D": element("UI", STUDY),
        "0020000E": element("UI", SERIES),
    }
    dataset = request_dataset(t00741202=element("LO", "sample"), t00404021=element("SQ", inputs))
    with ups.database.write() as tx:
        assert ups.repository.schedule(tx, TENANT, uid, dataset)


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path) as opened:
        yield opened


def reports(address):
    """Return the SR objects that the gateway gives back for the study."""
    base = f"http://{address}/dicom-web/studies/{STUDY}"
    found = httpx.get(f"{base}/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.88.11").json()
    read = []
    for item in found:
        series, sop = (item[tag]["Value"][0] for tag in ("0020000E", "00080018"))
        answer = httpx.get(f"{base}/series/{series}/instances/{sop}", headers={"Accept": "application/dicom"})
        read.append(pydicom.dcmread(io.BytesIO(answer.content)))
    return read


def test_claims_reads_stores_and_completes(ups, tmp_path):
    task(ups, "1.2.1")
    with site(ups, tmp_path) as address:
        done = run(address)
        idle = run(address)
        (report,) = reports(address)
    assert (done.returncode, done.stdout.strip()) == (0, "performed 1.2.1"), done.stderr
    assert (idle.returncode, idle.stdout.strip()) == (1, "nothing to do")
    workitem = ups.get("1.2.1")
    assert workitem["00741000"]["Value"] == ["COMPLETED"]
    (performed,) = workitem["00741216"]["Value"]
    (output,) = performed["00404033"]["Value"]
    assert report.SOPInstanceUID == output["00081199"]["Value"][0]["00081155"]["Value"][0]
    assert (report.StudyInstanceUID, report.PatientID, report.PatientName) == (STUDY, "PH1", "Phantom^Head")
    texts = [item.TextValue for item in report.ContentSequence]
    assert texts[0].startswith("1 instances, ")
    assert texts[1].startswith("Research use only.")


def test_what_cannot_be_read_ends_canceled_with_a_reason(ups, tmp_path):
    task(ups, "1.2.2", sop="9.9.9")
    with site(ups, tmp_path) as address:
        assert run(address).returncode == 0
        assert reports(address) == []
    workitem = ups.get("1.2.2")
    assert workitem["00741000"]["Value"] == ["CANCELED"]
    assert workitem["00741002"]["Value"][0]["00741006"]["Value"] == ["failed: HTTPStatusError"]


def test_two_performers_racing_do_the_work_once(ups, tmp_path):
    task(ups, "1.2.3")
    with site(ups, tmp_path) as address, ThreadPoolExecutor(2) as pool:
        codes = sorted(result.returncode for result in pool.map(lambda _: run(address), range(2)))
        assert len(reports(address)) == 1
    assert codes == [0, 1]
    assert ups.state("1.2.3") == "COMPLETED"


@pytest.mark.server("dicom3tools")
def test_dciodvfy_finds_no_error_in_what_it_stored(ups, tmp_path):
    task(ups, "1.2.4")
    with site(ups, tmp_path) as address:
        assert run(address).returncode == 0
        (report,) = reports(address)
    report.save_as(tmp_path / "report.dcm")
    checked = subprocess.run(
        ["dciodvfy", "-new", str(tmp_path / "report.dcm")], capture_output=True, text=True, check=False
    )
    assert "BasicTextSR" in checked.stderr + checked.stdout
    assert [line for line in (checked.stderr + checked.stdout).splitlines() if line.startswith("Error")] == []
