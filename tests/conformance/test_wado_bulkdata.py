"""WADO-RS bulk data and pixel data of studies, series and instances (PS3.18 10.4.1.1)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from tests.gateway_support import CODECS, Parts, dataset, encoded, running, split_response

from wetread.core.dicom.lossless import JPEG_LS

OCTETS = 'multipart/related; type="application/octet-stream"'
STORED = f"{OCTETS}; transfer-syntax=*"
BIG = bytes(range(256)) * 40


def with_bulk(number: int) -> bytes:
    """Return an instance with a large value at the top and one within a sequence."""
    item = Dataset()
    item.EncapsulatedDocument = BIG
    data = dataset(
        InstanceNumber=number, ReferencedImageSequence=Sequence([Dataset(), item]), PixelData=bytes([number]) * 96
    )
    data.add_new(0x00420011, "OB", BIG[::-1])
    return encoded(data)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("bulk")) as parts:
        compressed = CODECS.transcode(encoded(dataset(InstanceNumber=3, NumberOfFrames=1)), JPEG_LS)
        report = encoded(dataset(PixelData=None, StudyInstanceUID="1.4", SeriesInstanceUID="1.4.1"))
        assert parts.store(with_bulk(1), with_bulk(2), compressed, report).status_code == 200
        yield parts


@pytest.mark.parametrize("path", ["/studies/1.2.3", "/studies/1.2.3/series/1.2.3.1"])
def test_every_value_once_in_order(site: Parts, path: str) -> None:
    metadata = site.get(f"{path}/metadata").json()
    parts = split_response(site.get(f"{path}/bulkdata", STORED))
    assert len(parts) == 7
    expected = [
        uri
        for item in metadata
        for uri in (
            item["00081140"]["Value"][1]["00420011"]["BulkDataURI"] if "00081140" in item else None,
            item.get("00420011", {}).get("BulkDataURI"),
            item["7FE00010"]["BulkDataURI"],
        )
        if uri
    ]
    assert [headers["content-location"] for headers, _ in parts] == expected
    assert [body for _, body in parts[:3]] == [BIG, BIG[::-1], b"\1" * 96]
    assert parts[6][0]["content-type"] == f"image/jls; transfer-syntax={JPEG_LS}"
    pixels = split_response(site.get(f"{path}/pixeldata", STORED))
    assert [body for _, body in pixels] == [parts[2][1], parts[5][1], parts[6][1]]


def test_pixel_data_are_decompressed_by_default(site: Parts) -> None:
    path = (
        next(
            item["7FE00010"]["BulkDataURI"]
            for item in site.get("/studies/1.2.3/metadata").json()
            if item["00200013"]["Value"] == [3]
        )
        .removeprefix("http://testserver/dicom-web")
        .removesuffix("/bulkdata/7FE00010")
    )
    ((headers, body),) = split_response(site.get(f"{path}/pixeldata"))
    assert headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    assert len(body) == 96


def test_conditional_and_unacceptable(site: Parts) -> None:
    first = site.get("/studies/1.2.3/bulkdata", STORED)
    same = site.get("/studies/1.2.3/bulkdata", STORED, **{"If-None-Match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert site.get("/studies/1.2.3/bulkdata", "application/octet-stream").status_code == 406
    assert site.get("/studies/1.2.3/pixeldata", "multipart/related; type=image/jxl").status_code == 406


@pytest.mark.parametrize("path", ["/studies/1.4", "/studies/9.9", "/studies/1.4/series/1.4.1"])
def test_nothing_there_is_404(site: Parts, path: str) -> None:
    assert site.get(f"{path}/bulkdata").status_code == 404
    assert site.get(f"{path}/pixeldata").status_code == 404


def test_other_tenants_values_do_not_exist(tmp_path: Path) -> None:
    from wetread.core.facts import Source

    with running(tmp_path) as site:
        site.ingest.store("other", [with_bulk(1)], source=Source())
        assert site.get("/studies/1.2.3/bulkdata").status_code == 404
