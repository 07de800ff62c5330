"""The Python dicomweb-client and OHIF's request pattern work unmodified against a real socket."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from tests.gateway_support import dataset, encoded, serving


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("client")) as (base, _):
        yield base


@pytest.fixture(scope="module")
def stored(url: str) -> list[pydicom.Dataset]:
    data = [
        pydicom.dcmread(
            io.BytesIO(encoded(dataset(InstanceNumber=n, StudyInstanceUID="1.7", SeriesInstanceUID="1.7.1")))
        )
        for n in (1, 2, 3)
    ]
    answer = DICOMwebClient(url).store_instances(data)
    assert len(answer.ReferencedSOPSequence) == 3
    assert "FailedSOPSequence" not in answer
    return data


def test_client_stores_large_bodies_in_chunks(url: str) -> None:
    data = pydicom.dcmread(
        io.BytesIO(
            encoded(
                dataset(
                    StudyInstanceUID="1.8",
                    SeriesInstanceUID="1.8.1",
                    Rows=1024,
                    Columns=1024,
                    PixelData=np.zeros((1024, 1024), "<u2").tobytes(),
                )
            )
        )
    )
    answer = DICOMwebClient(url, chunk_size=100_000).store_instances([data], study_instance_uid="1.8")
    assert len(answer.ReferencedSOPSequence) == 1


def test_client_searches(url: str, stored: list[pydicom.Dataset]) -> None:
    client = DICOMwebClient(url)
    (study,) = client.search_for_studies(
        search_filters={"StudyInstanceUID": "1.7"}, fields=["StudyDescription"], fuzzymatching=True
    )
    assert study["00081030"]["Value"] == ["HEAD"]
    assert len(client.search_for_series("1.7")) == 1
    assert len(client.search_for_instances("1.7", "1.7.1", limit=2)) == 2
    assert len(client.search_for_instances("1.7", "1.7.1", limit=2, get_remaining=True)) == 3
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []


def test_client_retrieves(url: str, stored: list[pydicom.Dataset]) -> None:
    client = DICOMwebClient(url)
    first = stored[0]
    path = ("1.7", "1.7.1", first.SOPInstanceUID)
    assert [i.SOPInstanceUID for i in client.retrieve_study("1.7")] == [d.SOPInstanceUID for d in stored]
    assert len(client.retrieve_series("1.7", "1.7.1")) == 3
    assert next(iter(client.iter_series("1.7", "1.7.1"))) == first
    one = client.retrieve_instance(*path)
    assert one == first
    assert client.retrieve_instance(*path, media_types=(("application/dicom", "*"),)) == first
    assert client.retrieve_instance_frames(*path, [1]) == [first.PixelData]
    assert client.retrieve_instance_frames(*path, [1], media_types=("application/octet-stream",)) == [first.PixelData]
    assert len(client.retrieve_study_metadata("1.7")) == 3
    assert len(client.retrieve_series_metadata("1.7", "1.7.1")) == 3
    metadata = client.retrieve_instance_metadata(*path)
    assert client.retrieve_bulkdata(metadata["7FE00010"]["BulkDataURI"]) == [first.PixelData]
    assert client.retrieve_instance_rendered(*path, media_types=("image/png",)).startswith(b"\x89PNG")
    assert client.retrieve_instance_rendered(*path).startswith(b"\xff\xd8")
    assert client.retrieve_instance_frames_rendered(*path, [1], media_types=("image/jpeg",)).startswith(b"\xff\xd8")


OHIF_METADATA = (
    "application/dicom+json, application/json, multipart/related; type=application/octet-stream; transfer-syntax=*"
)


def test_ohif_lists_opens_and_scrolls(url: str, stored: list[pydicom.Dataset]) -> None:
    with httpx.Client(base_url=url) as client:
        studies = client.get(
            "/studies?limit=101&offset=0&fuzzymatching=true&includefield=00081030,00080060,00080090,00100030"
            "&StudyInstanceUID=1.7"
        ).json()
        assert studies[0]["00201208"]["Value"] == [3]
        assert studies[0]["00080061"]["Value"] == ["CT"]
        series = client.get("/studies/1.7/series?includefield=00080021,00080031,0008103E,00200011").json()
        assert series[0]["0008103E"]["Value"] == ["AXIAL 5mm"]
        metadata = client.get("/studies/1.7/series/1.7.1/metadata", headers={"Accept": OHIF_METADATA})
        assert metadata.headers["content-type"] == "application/dicom+json"
        for item, data in zip(metadata.json(), stored, strict=True):
            frames = client.get(
                f"/studies/1.7/series/1.7.1/instances/{item['00080018']['Value'][0]}/frames/1",
                headers={"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"},
            )
            head, _, rest = frames.content.partition(b"\r\n\r\n")
            # What cornerstone looks for, literally, in the part header.
            assert b"Content-Type: application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1\r\n" in head + b"\r\n"
            assert len(head) < 1000
            assert rest.startswith(data.PixelData)


def test_curl_like_chunked_upload_with_expect(url: str, tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("curl") is None:
        pytest.skip("NOT RUN: curl is not on this machine")
    body = tmp_path / "body"
    part = encoded(dataset(StudyInstanceUID="1.9", SeriesInstanceUID="1.9.1"))
    body.write_bytes(b"--B\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n--B--\r\n")
    result = subprocess.run(
        [
            "curl",
            "-sS",
            "-o",
            str(tmp_path / "out"),
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-T",
            str(body),
            "-H",
            "Content-Type: multipart/related; type=application/dicom; boundary=B",
            "-H",
            "Expect: 100-continue",
            "-H",
            "Transfer-Encoding: chunked",
            f"{url}/studies",
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout == "200"
