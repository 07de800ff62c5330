"""The Python dicomweb-client and OHIF's request pattern work unmodified against a real socket."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from tests.gateway_support import CODECS, dataset, encoded, serving

from wetread.core.dicom.lossless import HTJ2K, JPEG_LS


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


class Recorded(DICOMwebClient):
    """Remembers which of its calls were made."""

    def __init__(self, url: str) -> None:
        self.made: set[str] = set()
        super().__init__(url)

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("_") and name != "made" and callable(getattr(DICOMwebClient, name, None)):
            self.made.add(name)
        return super().__getattribute__(name)


def test_every_call_of_the_client(url: str) -> None:
    """Each public method once, those of other tests included: a new release with a new call fails here."""
    client = Recorded(url)
    client.set_chunk_size(50_000)
    client.set_http_retry_params(retry=False)
    names = {"StudyInstanceUID": "1.77", "SeriesInstanceUID": "1.77.1"}
    data = [pydicom.dcmread(io.BytesIO(encoded(dataset(InstanceNumber=n, **names)))) for n in (1, 2, 3)]
    assert len(client.store_instances(data, "1.77").ReferencedSOPSequence) == 3
    one = ("1.77", "1.77.1", str(data[0].SOPInstanceUID))
    keyword, tag = client.lookup_keyword("00100010"), client.lookup_tag("PatientName")
    assert (keyword, tag) == ("PatientName", "00100010")
    assert len(client.search_for_studies(search_filters={tag: "Doe*", "StudyInstanceUID": "1.77"})) == 1
    assert len(client.search_for_series("1.77")) == 1
    assert len(client.search_for_instances("1.77")) == 3
    for whole in (client.retrieve_study("1.77"), list(client.iter_study("1.77"))):
        assert [item.SOPInstanceUID for item in whole] == [item.SOPInstanceUID for item in data]
    for whole in (client.retrieve_series(*one[:2]), list(client.iter_series(*one[:2]))):
        assert len(whole) == 3
    assert client.retrieve_instance(*one) == data[0]
    compressed = client.retrieve_instance(*one, media_types=(("application/dicom", JPEG_LS),))
    assert np.array_equal(compressed.pixel_array, data[0].pixel_array)
    assert client.retrieve_instance_frames(*one, [1]) == [data[0].PixelData]
    assert list(client.iter_instance_frames(*one, [1])) == [data[0].PixelData]
    (stream,) = client.retrieve_instance_frames(*one, [1], media_types=(("image/jls", JPEG_LS),))
    assert stream.startswith(b"\xff\xd8\xff\xf7")
    assert len(client.retrieve_study_metadata("1.77")) == len(client.retrieve_series_metadata(*one[:2])) == 3
    uri = client.retrieve_instance_metadata(*one)["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(uri) == list(client.iter_bulkdata(uri)) == [data[0].PixelData]
    assert client.retrieve_instance_rendered(*one, media_types=("image/jpeg",)).startswith(b"\xff\xd8")
    assert client.retrieve_series_rendered(*one[:2], media_types=("image/jpeg",)).startswith(b"\xff\xd8")
    assert client.retrieve_instance_frames_rendered(*one, [1], media_types=("image/png",)).startswith(b"\x89PNG")
    client.delete_instance(*one)
    assert len(client.search_for_instances("1.77")) == 2
    client.delete_series(*one[:2])
    assert client.search_for_series("1.77") == []
    client.store_instances([data[1]])
    client.delete_study("1.77")
    assert client.search_for_studies(search_filters={"StudyInstanceUID": "1.77"}) == []
    public = {
        name for name in dir(DICOMwebClient) if not name.startswith("_") and callable(getattr(DICOMwebClient, name))
    }
    assert public - client.made == set()


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


def test_ohif_scrolls_through_a_compressed_series(url: str) -> None:
    """All frames at a time, stored syntax, the part header that its loaders need; then thumbnail and rendered frame."""
    names = {"StudyInstanceUID": "1.78", "SeriesInstanceUID": "1.78.1"}
    parts = [CODECS.transcode(encoded(dataset(InstanceNumber=n, **names)), HTJ2K) for n in range(12)]
    accept = {"Accept": "multipart/related; type=application/octet-stream; transfer-syntax=*"}
    with httpx.Client(base_url=url, timeout=60) as client:
        for part in parts:
            client.post("/studies", content=part, headers={"Content-Type": "application/dicom"}).raise_for_status()
        found = client.get("/studies/1.78/series/1.78.1/metadata", headers={"Accept": OHIF_METADATA}).json()
        paths = [f"/studies/1.78/series/1.78.1/instances/{item['00080018']['Value'][0]}" for item in found]
        with ThreadPoolExecutor(12) as pool:
            frames = list(pool.map(lambda path: client.get(f"{path}/frames/1", headers=accept), paths))
        for frame, part in zip(frames, parts, strict=True):
            head, _, rest = frame.content.partition(b"\r\n\r\n")
            assert f"Content-Type: image/jphc; transfer-syntax={HTJ2K}".encode() in head
            assert rest[: rest.index(b"\r\n--")] in part
        for path in (
            f"{paths[3]}/rendered",
            f"{paths[3]}/thumbnail",
            f"{paths[3]}/frames/1/rendered",
            "/studies/1.78/thumbnail",
        ):
            assert client.get(path, headers={"Accept": "image/jpeg"}).content.startswith(b"\xff\xd8")


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
