"""Every real file: stored or refused with a defined reason, back byte for byte, metadata as pydicom's, no 5xx."""

from __future__ import annotations

import collections
import io
import json
from pathlib import Path

import pydicom
import pytest
from tests.gateway_support import Parts, reasons, running
from tests.json_oracle import normalised, oracle_json

from wetread.core.dicom.attributes import values
from wetread.core.dicom.header import read_header

DEFINED = {0x0122, 0xA900, 0xB00E, 0xC000}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("variety")) as parts:
        yield parts


def files(shared: Path) -> list[Path]:
    return [path for path in sorted((shared / "dicom-variety").rglob("*")) if path.is_file()]


@pytest.mark.timeout(300)
def test_every_file(site: Parts, shared: Path) -> None:
    outcomes: collections.Counter[str] = collections.Counter()
    answers: collections.Counter[tuple[str, int]] = collections.Counter()
    for path in files(shared):
        part = path.read_bytes()
        response = site.store(part)
        if response.status_code == 409:
            (reason,) = reasons(response)
            assert reason in DEFINED, path.name
            outcomes[f"refused {reason:04X}"] += 1
            continue
        assert response.status_code in (200, 202), path.name
        outcomes["stored"] += 1
        (reference,) = response.json()["00081199"]["Value"]
        url = reference["00081190"]["Value"][0]
        header = read_header(part)
        back = site.client.get(
            url, headers={"Accept": f"application/dicom; transfer-syntax={header.transfer_syntax_uid}"}
        )
        assert back.status_code == 200, path.name
        if header.complete_file:
            assert back.content == part, path.name
        else:
            assert back.content.endswith(part[header.dataset_start :]), path.name
        metadata = site.client.get(f"{url}/metadata")
        if path.name != "badVR.dcm":
            assert normalised(json.loads(metadata.content)[0]) == normalised(oracle_json(part)), path.name
        for suffix, accept in (
            ("", "application/dicom"),
            ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*"),
            ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
            ("/rendered", "image/jpeg"),
            ("/thumbnail", "*/*"),
            ("/bulkdata/7FE00010", "*/*"),
        ):
            answer = site.client.get(url + suffix, headers={"Accept": accept})
            assert answer.status_code < 500, (path.name, suffix, answer.text)
            answers[suffix, answer.status_code] += 1
    assert outcomes["stored"] >= 180
    assert answers["/thumbnail", 200] == outcomes["stored"]
    assert answers["/rendered", 200] >= 145


def test_every_first_frame_that_pydicom_decodes_renders(site: Parts, shared: Path) -> None:
    failed = []
    for path in files(shared):
        try:
            data = pydicom.dcmread(path)
            pixels = data.pixel_array
        except Exception:  # noqa: BLE001 - what pydicom cannot decode is not asked of us
            continue
        if pixels.size == 0 or not all(values(data.to_json_dict(), tag) for tag in ("0020000D", "00080018")):
            continue
        if site.store(path.read_bytes()).status_code not in (200, 202):
            continue
        url = (
            f"/dicom-web/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
            f"/instances/{data.SOPInstanceUID}/rendered"
        )
        if site.client.get(url, headers={"Accept": "image/png"}).status_code != 200:
            failed.append(path.name)
    assert failed == []


def test_nema_lossless_variants_decode_identically(site: Parts, shared: Path) -> None:
    """The frames of the lossless NEMA WG-04 images come out the same as pydicom decodes them."""
    compared = 0
    for path in files(shared):
        if "nema-wg04" not in str(path):
            continue
        part = path.read_bytes()
        try:
            data = pydicom.dcmread(io.BytesIO(part))
        except pydicom.errors.InvalidDicomError:
            continue
        syntax = data.file_meta.TransferSyntaxUID
        if str(syntax) not in {
            "1.2.840.10008.1.2.4.70",
            "1.2.840.10008.1.2.4.80",
            "1.2.840.10008.1.2.4.90",
            "1.2.840.10008.1.2.5",
        }:
            continue
        site.store(part)
        url = (
            f"/dicom-web/studies/{data.StudyInstanceUID}/series/{data.SeriesInstanceUID}"
            f"/instances/{data.SOPInstanceUID}"
        )
        answer = site.client.get(url, headers={"Accept": "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"})
        if answer.status_code != 200:
            continue
        plain = pydicom.dcmread(io.BytesIO(answer.content))
        assert (plain.pixel_array == data.pixel_array).all(), path.name
        compared += 1
    assert compared >= 1
