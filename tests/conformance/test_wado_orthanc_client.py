"""Orthanc as a DICOMweb client of the gateway: it sends, asks and fetches with its own code (issue: real peers)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, JPEGLSLossless, RLELossless
from tests.conftest import orthanc_folder
from tests.gateway_support import CODECS, Parts, dataset, encoded, serving

from wetread.testing.servers.process import free_port

pytestmark = pytest.mark.server("orthanc")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Parts]]:
    with serving(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, site: tuple[str, Parts]) -> Iterator[httpx.Client]:
    """Yield Orthanc's own REST API; it knows the gateway as the DICOMweb server ``wetread``."""
    folder = tmp_path_factory.mktemp("orthanc")
    port = free_port()
    settings: dict[str, Any] = {
        "Name": "peer",
        "Locale": "C.UTF-8",
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(orthanc_folder() / "dicomweb.so")],
        "DicomWeb": {"Enable": True, "Servers": {"wetread": {"Url": site[0] + "/", "HasDelete": True}}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(orthanc_folder() / "orthanc"), str(folder / "orthanc.json")],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ),
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if client.get("/system").status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield client
    finally:
        process.terminate()
        process.wait(20)


def make(study: str, number: int, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    values = np.random.default_rng(number).integers(0, 4096, (40, 36), "u2")
    names = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "InstanceNumber": number}
    data = dataset(**names, Rows=40, Columns=36, PixelData=values.tobytes(), PatientName="Müller^Jürgen")
    if syntax in (RLELossless, JPEGLSLossless):
        return CODECS.transcode(encoded(data), syntax)
    return encoded(data, syntax)


def upload(orthanc: httpx.Client, parts: list[bytes]) -> list[str]:
    return [orthanc.post("/instances", content=part).json()["ID"] for part in parts]


def test_orthanc_stores_to_us(site: tuple[str, Parts], orthanc: httpx.Client) -> None:
    """STOW-RS as Orthanc sends it (chunked, 73-character boundary); it fails unless every instance is in the answer."""
    parts = [
        make("1.50", number, syntax)
        for number, syntax in enumerate(
            [*["1.2.840.10008.1.2.1"] * 5, RLELossless, JPEGLSLossless, ImplicitVRLittleEndian]
        )
    ]
    ids = upload(orthanc, parts)
    for _ in range(2):  # again: identical duplicates count as stored
        answer = orthanc.post("/dicom-web/servers/wetread/stow", json={"Resources": ids, "Synchronous": True})
        assert answer.status_code == 200, answer.text
    found = httpx.get(f"{site[0]}/studies/1.50/instances").json()
    assert len(found) == len(parts)
    for part in parts:
        data = pydicom.dcmread(io.BytesIO(part))
        url = f"{site[0]}/studies/1.50/series/1.50.1/instances/{data.SOPInstanceUID}"
        back = httpx.get(
            url, headers={"Accept": f"application/dicom; transfer-syntax={data.file_meta.TransferSyntaxUID}"}
        )
        kept = pydicom.dcmread(io.BytesIO(back.content))
        assert kept.PixelData == data.PixelData
        assert kept.PatientName == data.PatientName


def test_orthanc_searches_us(site: tuple[str, Parts], orthanc: httpx.Client) -> None:
    httpx.post(
        f"{site[0]}/studies", content=make("1.51", 1), headers={"Content-Type": "application/dicom"}
    ).raise_for_status()
    for uri, arguments, count in (
        ("studies", {"PatientID": "P1", "StudyInstanceUID": "1.51"}, 1),
        ("studies", {"PatientName": "Muller*", "StudyInstanceUID": "1.51"}, 1),
        ("studies", {"PatientID": "nobody"}, 0),
        ("studies/1.51/series", {}, 1),
        ("studies/1.51/instances", {"includefield": "00280010"}, 1),
    ):
        answer = orthanc.post("/dicom-web/servers/wetread/qido", json={"Uri": f"/{uri}", "Arguments": arguments})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()) == count, uri


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", ImplicitVRLittleEndian, JPEGLSLossless])
def test_orthanc_retrieves_from_us(site: tuple[str, Parts], orthanc: httpx.Client, syntax: str) -> None:
    """WADO-RS as Orthanc asks (any transfer syntax, multipart) for a study and for one series."""
    study = f"1.52.{len(syntax)}"
    parts = [make(study, number, syntax) for number in (1, 2, 3)]
    for part in parts:
        headers = {"Content-Type": "application/dicom"}
        httpx.post(f"{site[0]}/studies", content=part, headers=headers).raise_for_status()
    for resource in ({"Study": study}, {"Study": study, "Series": f"{study}.1"}):
        answer = orthanc.post(
            "/dicom-web/servers/wetread/retrieve", json={"Resources": [resource], "Synchronous": True}
        )
        assert answer.status_code == 200, answer.text
    held = orthanc.get(f"/dicom-web/studies/{study}/instances").json()
    assert len(held) == 3
    found = orthanc.post("/tools/lookup", content=pydicom.dcmread(io.BytesIO(parts[0])).SOPInstanceUID).json()
    kept = pydicom.dcmread(io.BytesIO(orthanc.get(f"/instances/{found[0]['ID']}/file").content))
    assert np.array_equal(kept.pixel_array, pydicom.dcmread(io.BytesIO(parts[0])).pixel_array)


def test_orthanc_reads_our_metadata_and_frames(site: tuple[str, Parts], orthanc: httpx.Client) -> None:
    part = make("1.53", 1)
    headers = {"Content-Type": "application/dicom"}
    httpx.post(f"{site[0]}/studies", content=part, headers=headers).raise_for_status()
    data = pydicom.dcmread(io.BytesIO(part))
    instance = f"/studies/1.53/series/1.53.1/instances/{data.SOPInstanceUID}"
    metadata = orthanc.post(
        "/dicom-web/servers/wetread/get",
        json={"Uri": f"{instance}/metadata", "HttpHeaders": {"Accept": "application/dicom+json"}},
    )
    assert metadata.json()[0]["00080018"]["Value"] == [data.SOPInstanceUID]
    rendered = orthanc.post(
        "/dicom-web/servers/wetread/get", json={"Uri": f"{instance}/rendered", "HttpHeaders": {"Accept": "image/png"}}
    )
    assert rendered.content.startswith(b"\x89PNG")
