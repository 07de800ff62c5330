"""Studies and series as zip archives (DICOM Supplement 211): streamed, stored, unpackable by anything."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from tests.gateway_support import Parts, dataset, encoded, instance, running

from wetread.core.dicomweb.media_types import parse_accept
from wetread.gateway.archives import ZipStream, zip_range


@pytest.fixture
def site(tmp_path: Path):
    with running(tmp_path) as parts:
        yield parts


def unpack(response: Any) -> dict[str, bytes]:
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} <= {zipfile.ZIP_STORED}
        assert not any(member.flag_bits & 8 for member in archive.infolist()), "sizes precede the bytes"
        return {member.filename: archive.read(member) for member in archive.infolist()}


def test_study_and_series_hold_their_instances(site: Parts) -> None:
    files = [instance(InstanceNumber=n) for n in (1, 2)]
    other = instance(SeriesInstanceUID="1.2.3.2", SeriesNumber=2)
    site.store(*files, other)
    members = unpack(site.get("/studies/1.2.3", "application/zip"))
    assert members == {
        "SERIES00001/IMAGE000001.dcm": files[0],
        "SERIES00001/IMAGE000002.dcm": files[1],
        "SERIES00002/IMAGE000001.dcm": other,
    }
    response = site.get("/studies/1.2.3/series/1.2.3.2", "application/zip")
    assert list(unpack(response).values()) == [other]
    assert response.headers["content-disposition"] == 'attachment; filename="dicom.zip"'


def test_transfer_syntax_as_for_multipart(site: Parts) -> None:
    part = encoded(dataset(), ImplicitVRLittleEndian)
    site.store(part)
    (plain,) = unpack(site.get("/studies/1.2.3", "application/zip")).values()
    assert pydicom.dcmread(io.BytesIO(plain)).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    stored = unpack(site.get("/studies/1.2.3", f"application/zip; transfer-syntax={ImplicitVRLittleEndian}"))
    assert list(stored.values()) == [part]
    assert site.get("/studies/1.2.3", "application/zip; transfer-syntax=1.2.840.10008.1.2.4.50").status_code == 406


def test_conditional_and_tagged_apart_from_multipart(site: Parts) -> None:
    site.store(instance())
    first = site.get("/studies/1.2.3", "application/zip")
    again = site.get("/studies/1.2.3", "application/zip")
    assert first.content == again.content
    tag = first.headers["etag"]
    assert site.get("/studies/1.2.3", "application/zip", **{"If-None-Match": tag}).status_code == 304
    assert site.get("/studies/1.2.3").headers["etag"] != tag


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/zip", True),
        ("application/zip, */*;q=0.1", True),
        ('multipart/related; type="application/dicom"; q=0.5, application/zip', True),
        ('multipart/related; type="application/dicom", application/zip; q=0.5', False),
        ("*/*", False),
        ("application/*", False),
        (None, False),
    ],
)
def test_only_by_name_and_by_preference(accept: str | None, wanted: bool) -> None:
    assert (zip_range(parse_accept(accept)) is not None) is wanted


def test_an_instance_or_a_deleted_study_has_no_archive(site: Parts) -> None:
    part = instance()
    site.store(part)
    uid = pydicom.dcmread(io.BytesIO(part)).SOPInstanceUID
    assert site.get(f"/studies/1.2.3/series/1.2.3.1/instances/{uid}", "application/zip").status_code == 406
    assert site.get("/studies/404", "application/zip").status_code == 404
    site.client.delete("/dicom-web/studies/1.2.3")
    assert site.get("/studies/1.2.3", "application/zip").status_code == 410


def test_pieces_of_many_members_are_one_archive() -> None:
    stream = ZipStream()
    pieces = [stream.add(1, number, bytes([number % 251]) * number) for number in range(1, 301)]
    assert max(map(len, pieces)) < 500, "what was sent is not held"
    with zipfile.ZipFile(io.BytesIO(b"".join([*pieces, stream.end()]))) as archive:
        assert archive.testzip() is None
        assert [member.file_size for member in archive.infolist()] == list(range(1, 301))


def test_more_members_than_a_plain_archive_can_count() -> None:
    stream = ZipStream()
    body = b"".join([*(stream.add(1, number, b"") for number in range(65_600)), stream.end()])
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert len(archive.infolist()) == 65_600
