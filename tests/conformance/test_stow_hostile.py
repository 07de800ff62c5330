"""Hostile instances: refused with a reason, or stored, given back as they are, and never costing more than that."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from tests.gateway_support import CODECS, Parts, dataset, encoded, instance, reasons, running

from wetread.core.dicom.header import read_header
from wetread.core.dicom.lossless import HTJ2K
from wetread.core.ports.pixels import FrameLayout

NATIVE = "1.2.840.10008.1.2.1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("hostile")) as parts:
        yield parts


def element(tag: int, vr: bytes, length: int, value: bytes = b"") -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return (
        head
        + (struct.pack("<HI", 0, length) if vr in (b"SQ", b"OB", b"OW", b"UN") else struct.pack("<H", length))
        + value
    )


def with_tail(tail: bytes) -> bytes:
    """Return an instance without pixels, *tail* behind its last element."""
    return instance(PixelData=None) + tail


ITEM, ITEM_END, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"
UNDEFINED = 0xFFFFFFFF

REFUSED: dict[str, Callable[[], bytes]] = {
    "length beyond the part": lambda: with_tail(element(0x7FE00010, b"OW", 1 << 31)),
    "4 GiB less one": lambda: with_tail(element(0x7FE00010, b"OW", 0xFFFFFFFE)),
    "undefined length without end": lambda: with_tail(element(0x7FE00010, b"OB", UNDEFINED)),
    "undefined sequence without end": lambda: with_tail(element(0x40000000, b"SQ", UNDEFINED)),
    "fragment longer than the part": lambda: with_tail(
        element(0x7FE00010, b"OB", UNDEFINED, ITEM + struct.pack("<I", 1 << 30))
    ),
    "fragment of undefined length": lambda: with_tail(element(0x7FE00010, b"OB", UNDEFINED, ITEM + b"\xff" * 4)),
    "endless empty fragments": lambda: with_tail(element(0x7FE00010, b"OB", UNDEFINED, (ITEM + bytes(4)) * 5000)),
    "item end without item": lambda: with_tail(ITEM_END),
    "sequence end without sequence": lambda: with_tail(END),
    "item without sequence": lambda: with_tail(ITEM + bytes(4)),
    "item longer than its sequence": lambda: with_tail(
        element(0x00081140, b"SQ", 16, ITEM + struct.pack("<I", 100) + bytes(8))
    ),
    "nesting bomb": lambda: with_tail((element(0x40000000, b"SQ", UNDEFINED) + ITEM + b"\xff" * 4) * 3000),
    "nesting bomb of defined lengths": lambda: with_tail(nested(500)),
    "transfer syntax with a line break": lambda: instance().replace(
        NATIVE.encode() + b"\0", b"1.2\r\nX-Evil: 1\r\n\r\n1"
    ),
    "transfer syntax that is no text": lambda: instance().replace(
        NATIVE.encode() + b"\0", b"1.2.840.\xff\xfe.8.1.2.1\0"
    ),
    "unknown VR": lambda: with_tail(element(0x40000010, b"??", 2, b"ab")),
    "deflate bomb": lambda: deflated(bytes(20 << 20)),
    "deflate garbage": lambda: deflated(None),
}


def nested(depth: int) -> bytes:
    body = b""
    for _ in range(depth):
        body = element(0x40000000, b"SQ", len(body) + 8, ITEM + struct.pack("<I", len(body)) + body)
    return body


def deflated(payload: bytes | None) -> bytes:
    part = encoded(dataset(), DeflatedExplicitVRLittleEndian)
    head = part[: read_header(part).dataset_start]
    if payload is None:
        return head + b"\xff" * 500
    engine = zlib.compressobj(9, wbits=-15)
    return head + engine.compress(payload) + engine.flush()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_c000_and_quickly(site: Parts, name: str) -> None:
    part = REFUSED[name]()
    began = time.process_time()
    response = site.store(part)
    assert (response.status_code, reasons(response)) == (409, [0xC000])
    assert time.process_time() - began < 10


def compressed(frame: bytes, syntax: str, **changes: Any) -> bytes:
    data = dataset(**{"Rows": 40, "Columns": 36} | changes)
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    return encoded(data, syntax)


LAYOUT = FrameLayout(40, 36, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")


def giant(syntax: str) -> bytes:
    """Return a small code stream whose header promises 65,535 x 65,535 pixels."""
    frame = bytearray(CODECS.pack(bytes(2880), LAYOUT, syntax))
    if syntax == JPEGLSLossless:
        at = frame.index(b"\xff\xf7") + 5
        frame[at : at + 4] = b"\xff\xff\xff\xff"
    else:
        at = frame.index(b"\xff\x51") + 6
        frame[at : at + 8] = struct.pack(">II", 65535, 65535)
    return bytes(frame)


def offsets(*values: int) -> bytes:
    """Return two frames whose offset table points anywhere."""
    frame = CODECS.pack(bytes(2880), LAYOUT, RLELossless)
    table = struct.pack(f"<{len(values)}I", *values)
    return fragments(b"".join(ITEM + struct.pack("<I", len(piece)) + piece for piece in (table, frame, frame, frame)))


def fragments(items: bytes) -> bytes:
    part = compressed(b"\0\0", RLELossless, NumberOfFrames=2)
    return part[: part.index(b"\xe0\x7f\x10\x00OB")] + element(0x7FE00010, b"OB", UNDEFINED, items + END)


STORED: dict[str, Callable[[], bytes]] = {
    "duplicate tags": lambda: with_tail(element(0x40000010, b"US", 2, b"\1\0") * 3),
    "tags out of order": lambda: with_tail(element(0x00080005, b"CS", 10, b"ISO_IR 100")),
    "rows and columns that overflow": lambda: instance(Rows=65535, Columns=65535),
    "frames that overflow": lambda: instance(NumberOfFrames=2147483647),
    "frames that are none": lambda: instance(NumberOfFrames=-5),
    "no bits": lambda: instance(BitsAllocated=0),
    "odd bits": lambda: instance(BitsAllocated=13),
    "samples that overflow": lambda: instance(SamplesPerPixel=65535),
    "fewer pixels than promised": lambda: instance(PixelData=bytes(10)),
    "group 0002 lies: compressed": lambda: instance().replace(NATIVE.encode() + b"\0", b"1.2.840.10008.1.2.5\0"),
    "group 0002 lies: implicit": lambda: instance().replace(NATIVE.encode() + b"\0\2", b"1.2.840.10008.1.2\0\0\0\2"),
    "offsets outside": lambda: offsets(0, 1 << 31),
    "offsets between fragments": lambda: offsets(3, 5),
    "too many offsets": lambda: offsets(*range(50)),
    "JPEG-LS bomb": lambda: compressed(giant(JPEGLSLossless), JPEGLSLossless),
    "JPEG 2000 bomb": lambda: compressed(giant(JPEG2000Lossless), JPEG2000Lossless),
    "HTJ2K bomb": lambda: compressed(giant(HTJ2K), HTJ2K),
    "bomb that agrees with its header": lambda: compressed(
        giant(JPEG2000Lossless), JPEG2000Lossless, Rows=65535, Columns=65535
    ),
    "no fragments": lambda: fragments(ITEM + bytes(4)),
    "empty fragments": lambda: fragments((ITEM + bytes(4)) * 3),
    "RLE with too many segments": lambda: compressed(b"\xff" * 200, RLELossless),
    "window of no width": lambda: instance(WindowCenter="nan", WindowWidth="0"),
    "rescale to infinity": lambda: instance(RescaleSlope="1e308", RescaleIntercept="1e308"),
    "pixels that are not square": lambda: instance(PixelSpacing=["1e-30", "1e30"]),
    "preamble of a web page": lambda: b"<html><script>alert(1)</script>".ljust(128, b" ") + instance()[128:],
    "preamble of a program": lambda: b"MZ".ljust(128, b"\0") + instance()[128:],
    "markup in values": lambda: instance(StudyDescription="<script>alert(1)</script>", PatientName='"><img src=x>'),
    "paths in values": lambda: instance(AccessionNumber="../../etc/passwd", StudyID="..\\..\\x"),
}


@pytest.mark.parametrize("name", STORED)
def test_stored_and_harmless(site: Parts, name: str) -> None:
    part = STORED[name]()
    response = site.store(part)
    assert response.status_code in (200, 202), response.text
    url = response.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    syntax = read_header(part).transfer_syntax_uid
    back = site.client.get(url, headers={"Accept": f"application/dicom; transfer-syntax={syntax}"})
    assert (back.status_code, back.content) == (200, part)
    assert back.headers["content-type"].startswith("application/dicom;"), "never as what its preamble pretends"
    assert back.headers["x-content-type-options"] == "nosniff"
    began = time.monotonic()
    for suffix, accept in (
        ("/metadata", "application/dicom+json"),
        ("", "application/dicom"),
        ("", f"application/dicom; transfer-syntax={HTJ2K}"),
        ("/frames/1", "*/*"),
        ("/frames/2", f"application/octet-stream; transfer-syntax={NATIVE}"),
        ("/frames/999999999", "*/*"),
        ("/bulkdata/7FE00010", "*/*"),
        ("/rendered", "image/png"),
        ("/thumbnail", "*/*"),
    ):
        answer = site.client.get(url + suffix, headers={"Accept": accept})
        assert answer.status_code in (200, 404, 406, 413), (suffix, answer.text)
    assert site.client.get(f"{url}/thumbnail").status_code == 200
    assert time.monotonic() - began < 60


def test_picture_bomb_as_bulk_data(site: Parts) -> None:
    """A PNG of a few kilobytes that promises gigabytes is refused before it is decoded."""
    target = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(target, "PNG")
    png = bytearray(target.getvalue())
    png[16:24] = struct.pack(">II", 60000, 60000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    model = {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
        "00080018": {"vr": "UI", "Value": ["1.99.1"]},
        "0020000D": {"vr": "UI", "Value": ["1.99"]},
        "0020000E": {"vr": "UI", "Value": ["1.99.2"]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "x"},
    }
    body = b"--XX\r\nContent-Type: application/dicom+json\r\n\r\n" + orjson.dumps([model])
    body += b"\r\n--XX\r\nContent-Type: image/png\r\nContent-Location: x\r\n\r\n" + bytes(png) + b"\r\n--XX--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom+json"; boundary=XX'}
    response = site.client.post("/dicom-web/studies", content=body, headers=headers)
    assert (response.status_code, reasons(response)) == (409, [0xC000])
