"""STOW-RS of metadata and bulk data apart, as JSON and as XML (PS3.18 10.5.2, 8.6.1.2)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pydicom
import pytest
from PIL import Image
from pydicom.uid import generate_uid
from tests.gateway_support import CODECS, CT, Parts, dataset, encoded, reasons, running, split_response
from tests.json_oracle import normalised, oracle_json

from wetread.core.dicom.header import read_header
from wetread.core.dicom.json_model import to_json
from wetread.core.dicom.lossless import HTJ2K, JPEG_2000, JPEG_LS
from wetread.core.dicom.native_xml import from_xml, to_xml
from wetread.core.ports.pixels import FrameLayout
from wetread.gateway.settings import GatewaySettings, IngestSettings

JSON = "application/dicom+json"
XML = "application/dicom+xml"
OCTETS = "application/octet-stream"
PIXELS = "7FE00010"
URI = "http://sender.example/bulk/1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("metadata")) as parts:
        yield parts


Bulk = tuple[str, str, bytes]
"""Content-Type, Content-Location, bytes."""


def body(documents: list[bytes], bulk: list[Bulk], root: str = JSON) -> bytes:
    parts = [(root, "", document) for document in documents] + [(media, where, data) for media, where, data in bulk]
    pieces = []
    for media, where, data in parts:
        location = f"Content-Location: {where}\r\n" if where else ""
        pieces.append(f"--XX\r\nContent-Type: {media}\r\n{location}\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + b"--XX--\r\n"


def send(site: Parts, documents: list[bytes], bulk: list[Bulk], root: str = JSON, **headers: str) -> Any:
    given = {"Content-Type": f'multipart/related; type="{root}"; boundary=XX'} | headers
    return site.client.post("/dicom-web/studies", content=body(documents, bulk, root), headers=given)


def model(**changes: Any) -> dict[str, Any]:
    """Return the JSON model of a small CT slice whose pixel data are at ``URI``."""
    data = to_json(read_header(encoded(dataset(**changes))), inline_limit=1 << 20)[0]
    if PIXELS in data:
        data[PIXELS] = {"vr": "OW", "BulkDataURI": URI}
    return json.loads(orjson.dumps(data))


def fetch(site: Parts, response: Any, number: int = 0) -> pydicom.Dataset:
    assert response.status_code == 200, response.text
    url = response.json()["00081199"]["Value"][number]["00081190"]["Value"][0]
    answer = site.client.get(url, headers={"Accept": "application/dicom; transfer-syntax=*"})
    return pydicom.dcmread(io.BytesIO(answer.content))


def test_json_with_bulk_data_is_the_same_instance(site: Parts) -> None:
    data = dataset(PatientName="Müller^Jürgen", SpecificCharacterSet="ISO_IR 192")
    part = encoded(data)
    metadata = oracle_json(part)
    metadata[PIXELS] = {"vr": "OW", "BulkDataURI": URI}
    response = send(site, [orjson.dumps([metadata])], [(OCTETS, URI, data.PixelData)])
    found = fetch(site, response)
    assert found.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    assert found.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    again = io.BytesIO()
    found.save_as(again)
    assert normalised(oracle_json(again.getvalue())) == normalised(oracle_json(part))
    assert np.array_equal(found.pixel_array, pydicom.dcmread(io.BytesIO(part)).pixel_array)


def test_several_instances_and_bulk_parts_in_any_order(site: Parts) -> None:
    models = [model(InstanceNumber=n) for n in (1, 2, 3)]
    for number, each in enumerate(models):
        each[PIXELS]["BulkDataURI"] = f"b{number}"
    values = [bytes([n]) * 96 for n in (1, 2, 3)]
    bulk = [(OCTETS, f"b{number}", values[number]) for number in (2, 0, 1)]
    response = send(site, [orjson.dumps(models)], bulk)
    assert [fetch(site, response, n).PixelData for n in range(3)] == values


def test_xml_has_a_part_per_instance(site: Parts) -> None:
    models = [model(InstanceNumber=n, PatientName="Ямада^太郎", SpecificCharacterSet="ISO_IR 192") for n in (1, 2)]
    response = send(site, [to_xml(each) for each in models], [(OCTETS, URI, bytes(96))], XML)
    found = [fetch(site, response, n) for n in range(2)]
    assert [each.InstanceNumber for each in found] == [1, 2]
    assert found[0].PatientName == "Ямада^太郎"
    assert found[0].PixelSpacing == [0.5, 0.5]


@pytest.mark.parametrize("media", [JSON, "application/json", XML])
def test_single_part_metadata(site: Parts, media: str) -> None:
    data = model(PixelData=None)
    content = to_xml(data) if media == XML else orjson.dumps([data])
    response = site.client.post("/dicom-web/studies", content=content, headers={"Content-Type": media})
    assert fetch(site, response).PatientID == "P1"


def test_inline_binary_and_nested_bulk(site: Parts) -> None:
    data = model(PixelData=None)
    data["00420011"] = {"vr": "OB", "InlineBinary": "AAECAw=="}
    data["00081140"] = {"vr": "SQ", "Value": [{"00091001": {"vr": "UN", "BulkDataURI": "nested"}}]}
    found = fetch(site, send(site, [orjson.dumps([data])], [("application/pdf", "nested", b"%PDF")]))
    assert found.EncapsulatedDocument == bytes(range(4))
    assert found.ReferencedImageSequence[0][0x00091001].value == b"%PDF"


GREY = (np.add.outer(np.arange(40), np.arange(36)) * 20).astype("<u2")
LAYOUT = FrameLayout(40, 36, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")


@pytest.mark.parametrize(("media", "syntax"), [("image/jls", JPEG_LS), ("image/jp2", JPEG_2000), ("image/jphc", HTJ2K)])
@pytest.mark.parametrize("described", [True, False], ids=["described", "derived"])
def test_compressed_frames_are_encapsulated(site: Parts, media: str, syntax: str, described: bool) -> None:
    """One frame per part; Image Pixel attributes that are missing come from the code stream (PS3.18 10.5.2)."""
    frames = [CODECS.pack(values.tobytes(), LAYOUT, syntax) for values in (GREY, GREY[::-1].copy())]
    data = model(Rows=40, Columns=36, NumberOfFrames=2)
    if not described:
        for key in [key for key in data if key.startswith("0028") and key not in ("00281052", "00281053", "00280030")]:
            del data[key]
    found = fetch(site, send(site, [orjson.dumps([data])], [(media, URI, frame) for frame in frames]))
    assert found.file_meta.TransferSyntaxUID == syntax
    assert found.NumberOfFrames == 2
    assert np.array_equal(found.pixel_array, np.stack([GREY, GREY[::-1]]))


def picture(kind: str, values: np.ndarray) -> bytes:
    target = io.BytesIO()
    Image.fromarray(values).save(target, kind)
    return target.getvalue()


def test_jpeg_syntax_is_read_from_the_stream(site: Parts) -> None:
    jpeg = picture("JPEG", (GREY >> 4).astype("u1"))
    data = model(Rows=40, Columns=36, BitsAllocated=8, BitsStored=8, HighBit=7)
    found = fetch(site, send(site, [orjson.dumps([data])], [("image/jpeg", URI, jpeg)]))
    assert found.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.50"
    data = model(Rows=40, Columns=36)
    lying = send(site, [orjson.dumps([data])], [("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70", URI, jpeg)])
    assert (lying.status_code, reasons(lying)) == (409, [0xC000]), "lossy data cannot be stored under a lossless name"


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_pictures_become_uncompressed(site: Parts, kind: str) -> None:
    grey = (GREY >> 4).astype("u1")
    found = fetch(site, send(site, [orjson.dumps([model()])], [(f"image/{kind.lower()}", URI, picture(kind, grey))]))
    assert found.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    values = found.pixel_array
    assert np.array_equal(values if values.ndim == 2 else values[..., 0], grey)
    assert (found.Rows, found.Columns, found.BitsAllocated) == (40, 36, 8)


def test_bulk_data_that_is_not_in_the_request_is_never_fetched(site: Parts) -> None:
    """One instance fails (C000), the others are stored."""
    good, bad = model(), model()
    bad[PIXELS]["BulkDataURI"] = "http://127.0.0.1:1/secret"
    response = send(site, [orjson.dumps([bad, good])], [(OCTETS, URI, bytes(96))])
    assert response.status_code == 202
    (failed,) = response.json()["00081198"]["Value"]
    assert failed["00081197"]["Value"] == [0xC000]
    assert failed["00081155"]["Value"] == bad["00080018"]["Value"]
    assert len(response.json()["00081199"]["Value"]) == 1


def changed(**entries: Any) -> list[dict[str, Any]]:
    data = model(PixelData=None)
    for key, entry in entries.items():
        if entry is None:
            data.pop(key[1:], None)
        else:
            data[key[1:]] = entry
    return [data]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (changed(_00080018=None), 0xA900),
        (changed(_0020000D={"vr": "UI", "Value": ["x"]}), 0xA900),
        (changed(_00080016={"vr": "UI", "Value": ["1.2.840.10008.1.3.10"]}), 0x0122),
        (changed(_00280010={"vr": "US", "Value": [-1]}), 0xC000),
        (changed(_00100010={"vr": "ZZ"}), 0xC000),
        (changed(_00100010="Doe"), 0xC000),
        (changed(_00080016={"vr": "UI", "Value": [{}]}), 0xC000),
        ([{}], 0xC000),
    ],
)
def test_10_5_3_failure_reasons(site: Parts, data: list[dict[str, Any]], reason: int) -> None:
    response = send(site, [orjson.dumps(data)], [])
    assert (response.status_code, reasons(response)) == (409, [reason])


def test_study_of_the_url_and_duplicates(site: Parts) -> None:
    data = model(PixelData=None, SOPInstanceUID=generate_uid())
    headers = {"Content-Type": JSON}
    one = site.client.post("/dicom-web/studies/9.9", content=orjson.dumps([data]), headers=headers)
    assert (one.status_code, reasons(one)) == (409, [0xA901])
    assert send(site, [orjson.dumps([data, data])], []).status_code == 200
    data["00104000"] = {"vr": "LT", "Value": ["other"]}
    conflict = send(site, [orjson.dumps([data])], [])
    assert (conflict.status_code, reasons(conflict)) == (409, [45070])


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[", 400),
        (b"[1]", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"[" * 100_000, 400),
        (b'[{"00081140":{"vr":"SQ","Value":[' * 2000, 400),
        (b"\xff\xfe", 400),
    ],
)
def test_what_is_no_list_of_data_sets_is_400(site: Parts, content: bytes, status: int) -> None:
    assert send(site, [content], []).status_code == status
    assert site.client.post("/dicom-web/studies", content=content, headers={"Content-Type": JSON}).status_code == status


def test_broken_bodies(site: Parts) -> None:
    whole = body([orjson.dumps([model()])], [(OCTETS, URI, bytes(96))])
    headers = {"Content-Type": f'multipart/related; type="{JSON}"; boundary=XX'}

    def post(content: bytes) -> Any:
        return site.client.post("/dicom-web/studies", content=content, headers=headers)

    assert post(whole[:200]).status_code == 400, "the metadata themselves are cut off"
    cut = post(whole[:-40])
    assert (cut.status_code, reasons(cut)) == (409, [0xC000, 272]), "their bulk data are"
    assert post(whole[:-4] + b"\r\nContent").status_code == 202, "only the end is: what was complete is stored"
    assert post(b"").status_code == 400
    no_root = body([], [(OCTETS, URI, bytes(96))])
    assert post(no_root).status_code == 400


def test_limits(tmp_path: Path) -> None:
    limits = IngestSettings(metadata_bytes=5000, assembled_bytes=2000, request_parts=3, spool_bytes=100)
    with running(tmp_path, settings=GatewaySettings(ingest=limits)) as site:
        large = send(site, [orjson.dumps([model()] * 4)], [])
        assert large.status_code == 413
        assert send(site, [orjson.dumps([model()])], [(OCTETS, f"{n}", b"") for n in range(4)]).status_code == 413
        heavy = send(site, [orjson.dumps([model()])], [(OCTETS, URI, bytes(2002))])
        assert (heavy.status_code, reasons(heavy)) == (507, [0xA700])
        spooled = send(site, [orjson.dumps([model()])], [(OCTETS, URI, bytes(range(96))), (OCTETS, "x", bytes(500))])
        assert fetch(site, spooled).PixelData == bytes(range(96))
        assert site.app is not None


@pytest.mark.parametrize("accept", [XML, f"{XML}, text/html", f"{JSON};q=0.1, {XML}"])
def test_the_answer_is_xml_on_request(site: Parts, accept: str) -> None:
    response = send(site, [orjson.dumps([model(PixelData=None)])], [], Accept=accept)
    if "q=0.1" in accept:
        assert response.status_code == 200
        return
    assert (response.status_code, response.headers["content-type"]) == (200, XML)
    module = from_xml(response.content)
    assert module["00081199"]["Value"][0]["00081150"]["Value"] == [CT]


def test_metadata_and_search_as_xml(site: Parts) -> None:
    """PS3.18 10.4.3 and 10.6.3: multipart/related of one XML part per data set."""
    study = generate_uid()[:60]
    names = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    data = [
        encoded(dataset(**names, InstanceNumber=n, PatientName="Buc^Jérôme", SpecificCharacterSet="ISO_IR 192"))
        for n in (1, 2)
    ]
    site.store(*data)
    related = f'multipart/related; type="{XML}"'
    for path, accept, count in (
        (f"/studies/{study}/metadata", related, 2),
        (f"/studies?StudyInstanceUID={study}", related, 1),
        (f"/studies/{study}/instances?limit=1", f"{related}; q=0.9, {JSON}; q=0.5", 1),
    ):
        answer = site.get(path, accept)
        assert answer.headers["content-type"].startswith(f'multipart/related; type="{XML}"; boundary=')
        parts = split_response(answer)
        assert len(parts) == count
        plain = site.get(path, JSON)
        assert plain.headers["content-type"] == JSON
        assert plain.headers.get_list("warning") == answer.headers.get_list("warning")
        for (headers, document), expected in zip(parts, plain.json(), strict=True):
            assert headers["content-type"] == XML
            found = from_xml(document)
            assert found.keys() == expected.keys()
            assert found.get(PIXELS, {}).get("BulkDataURI") == expected.get(PIXELS, {}).get("BulkDataURI")
            assert found["00100010"]["Value"] == expected["00100010"]["Value"] if "00100010" in expected else True
        assert site.get(path, accept, **{"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert site.get("/studies?PatientID=nobody-at-all", related).status_code == 204
    assert site.get(f"/studies/{study}/metadata", "text/html").status_code == 406
