"""The sample external performer (docs/examples) as its own process against a live worklist.

WADO-RS and STOW-RS are served here by the smallest peer that speaks them, so that what the sample stores can be read
back with pydicom whatever the state of the gateway.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydicom
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from tests.ups_worklist import TENANT, live, request_dataset, worklist

from wetread.bootstrap.web import Shell
from wetread.core.ups_dataset import element

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
    return dataset, buffer.getvalue()


class Images:
    """Enough WADO-RS and STOW-RS for one instance in and any instance out."""

    def __init__(self):
        self.dataset, self.data = ct_instance()
        self.stored = []
        self.router = APIRouter(prefix="/dicom-web")
        instance = f"/studies/{STUDY}/series/{SERIES}/instances/{SOP}"

        @self.router.get(instance)
        def retrieve():
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + self.data + b"\r\n--b--"
            return Response(body, media_type='multipart/related; type="application/dicom"; boundary=b')

        @self.router.get(f"{instance}/metadata")
        def metadata():
            return JSONResponse([self.dataset.to_json_dict()], media_type="application/dicom+json")

        @self.router.post(f"/studies/{STUDY}")
        async def store(request: Request):
            boundary = re.search(r"boundary=(\S+)", request.headers["content-type"])[1].encode()
            part = (await request.body()).split(b"--" + boundary)[1]
            self.stored.append(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
            return JSONResponse({}, media_type="application/dicom+json")


def site(ups):
    """Return an application with the worklist and the images, behind the real shell."""
    images = Images()
    app: FastAPI = ups.app._app
    app.include_router(images.router)
    assert isinstance(ups.app, Shell)
    return images


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


def test_claims_reads_stores_and_completes(ups):
    images = site(ups)
    task(ups, "1.2.1")
    with live(ups.app) as address:
        done = run(address)
        idle = run(address)
    assert (done.returncode, done.stdout.strip()) == (0, "performed 1.2.1"), done.stderr
    assert (idle.returncode, idle.stdout.strip()) == (1, "nothing to do")
    workitem = ups.get("1.2.1")
    assert workitem["00741000"]["Value"] == ["COMPLETED"]
    (performed,) = workitem["00741216"]["Value"]
    (output,) = performed["00404033"]["Value"]
    (data,) = images.stored
    report = pydicom.dcmread(io.BytesIO(data))
    assert report.SOPInstanceUID == output["00081199"]["Value"][0]["00081155"]["Value"][0]
    assert (report.StudyInstanceUID, report.PatientID, report.PatientName) == (STUDY, "PH1", "Phantom^Head")
    texts = [item.TextValue for item in report.ContentSequence]
    assert texts[0] == f"1 instances, {len(images.data)} bytes"
    assert texts[1].startswith("Research use only.")


def test_what_cannot_be_read_ends_canceled_with_a_reason(ups):
    site(ups)
    task(ups, "1.2.2", sop="9.9.9")
    with live(ups.app) as address:
        assert run(address).returncode == 0
    workitem = ups.get("1.2.2")
    assert workitem["00741000"]["Value"] == ["CANCELED"]
    assert workitem["00741002"]["Value"][0]["00741006"]["Value"] == ["failed: HTTPStatusError"]


def test_two_performers_racing_do_the_work_once(ups):
    images = site(ups)
    task(ups, "1.2.3")
    with live(ups.app) as address, ThreadPoolExecutor(2) as pool:
        codes = sorted(result.returncode for result in pool.map(lambda _: run(address), range(2)))
    assert codes == [0, 1]
    assert len(images.stored) == 1
    assert ups.state("1.2.3") == "COMPLETED"
