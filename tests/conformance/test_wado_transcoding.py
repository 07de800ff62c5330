"""Transcoding (PS3.18 8.7.3): each lossless syntax from each stored one, exact; lossy never becomes lossless."""

from __future__ import annotations

import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from tests.gateway_support import CODECS, Parts, dataset, encoded, instance, running, split_response

from wetread.adapters.codecs.pool import CodecPool
from wetread.core.dicom.lossless import HTJ2K, HTJ2K_RPCL, JPEG_2000, JPEG_LS, LOSSLESS
from wetread.core.dicom.transfer_syntax import RLE, transfer_syntax
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout

NATIVE = str(ExplicitVRLittleEndian)
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
J2K_LOSSY = "1.2.840.10008.1.2.4.91"
DICE = np.random.default_rng(7)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    with running(tmp_path_factory.mktemp("transcoding")) as parts:
        yield parts


def put(site: Parts, part: bytes) -> str:
    response = site.store(part)
    assert response.status_code == 200, response.text
    url: str = response.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    return url.removeprefix("http://testserver/dicom-web")


def read(answer: Any, syntax: str) -> pydicom.Dataset:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == f"application/dicom; transfer-syntax={syntax}"
    data = pydicom.dcmread(io.BytesIO(answer.content))
    assert data.file_meta.TransferSyntaxUID == syntax
    return data


def image(kind: str) -> dict[str, Any]:
    """Return attributes of a noisy 40 x 36 image (noise: nothing that a codec could guess) of one pixel layout."""
    shape = (2, 40, 36)
    grey = {"Rows": 40, "Columns": 36, "NumberOfFrames": 2}
    colour = grey | {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    full = {"BitsStored": 16, "HighBit": 15}
    pixels = {
        "unsigned 12 bits": grey | {"PixelData": DICE.integers(0, 4096, shape, "u2")},
        "unsigned 16 bits": grey | full | {"PixelData": DICE.integers(0, 65536, shape, "u2")},
        "signed 12 bits": grey | {"PixelRepresentation": 1, "PixelData": DICE.integers(-2048, 2048, shape, "i2")},
        "signed 16 bits": grey
        | full
        | {"PixelRepresentation": 1, "PixelData": DICE.integers(-(1 << 15), 1 << 15, shape, "i2")},
        "8 bits": grey | bits | {"PixelData": DICE.integers(0, 256, shape, "u1")},
        "colour by pixel": colour | bits | {"PixelData": DICE.integers(0, 256, (*shape, 3), "u1")},
        "colour by plane": colour
        | bits
        | {"PlanarConfiguration": 1, "PixelData": DICE.integers(0, 256, (2, 3, 40, 36), "u1")},
    }
    found = pixels[kind]
    return found | {"PixelData": found["PixelData"].tobytes()}


KINDS = [
    "unsigned 12 bits",
    "unsigned 16 bits",
    "signed 12 bits",
    "signed 16 bits",
    "8 bits",
    "colour by pixel",
    "colour by plane",
]


@pytest.mark.parametrize("kind", KINDS)
def test_matrix_is_exact(site: Parts, kind: str) -> None:
    """From uncompressed to each lossless syntax, from there to each other one, and back: always the same values."""
    attributes = image(kind)
    truth = pydicom.dcmread(io.BytesIO(instance(**attributes)))
    path = put(site, instance(**attributes))
    for first in sorted(LOSSLESS):
        compressed = site.get(path, f"application/dicom; transfer-syntax={first}")
        data = read(compressed, first)
        assert np.array_equal(data.pixel_array, truth.pixel_array), first
        assert data.PatientName == "Doe^Jane"
        assert data.SOPInstanceUID == path.rsplit("/", 1)[1]
        if "colour" in kind:
            assert data.PlanarConfiguration == (1 if first == RLE else 0)
            assert data.PhotometricInterpretation == ("RGB" if first in (RLE, JPEG_LS) else "YBR_RCT")
        # The compressed instance as a sender would store it, under a UID of its own.
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        again = io.BytesIO()
        data.save_as(again, enforce_file_format=True)
        other = put(site, again.getvalue())
        targets = [NATIVE, *sorted(LOSSLESS - {first})] if kind == "unsigned 12 bits" else [NATIVE]
        for second in targets:
            answer = read(site.get(other, f"application/dicom; transfer-syntax={second}"), second)
            assert np.array_equal(answer.pixel_array, truth.pixel_array), (first, second)
            if second == NATIVE and truth.get("PlanarConfiguration", 0) == 0:
                assert answer.PixelData == truth.PixelData, "byte for byte, unused high bits included"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("target", [JPEG_LS, HTJ2K, DeflatedExplicitVRLittleEndian, NATIVE])
def test_header_encodings(site: Parts, syntax: str, target: str) -> None:
    data = dataset()
    if syntax == ExplicitVRBigEndian:
        data.PixelData = np.arange(48, dtype=">u2").tobytes()
    part = encoded(data, syntax)
    path = put(site, part)
    found = read(site.get(path, f"application/dicom; transfer-syntax={target}"), target)
    assert np.array_equal(found.pixel_array, np.arange(48).reshape(8, 6))
    assert found.PatientName == "Doe^Jane"


@pytest.mark.parametrize(
    ("media", "syntax"),
    [
        ("image/jls", JPEG_LS),
        ("image/x-jls", JPEG_LS),
        ("image/jp2", JPEG_2000),
        ("image/jphc", HTJ2K),
        (f"image/jphc; transfer-syntax={HTJ2K_RPCL}", HTJ2K_RPCL),
        ("image/dicom-rle", RLE),
        ("image/jls; transfer-syntax=*", JPEG_LS),
        (f"application/octet-stream; transfer-syntax={HTJ2K}", HTJ2K),
    ],
)
def test_frames_are_compressed_on_request(site: Parts, media: str, syntax: str) -> None:
    values = DICE.integers(0, 4096, (2, 40, 36), "u2")
    path = put(site, instance(Rows=40, Columns=36, NumberOfFrames=2, PixelData=values.tobytes()))
    inner, _, parameter = media.partition("; ")
    related = f'multipart/related; type="{inner}"' + (f"; {parameter}" if parameter else "")
    parts = split_response(site.get(f"{path}/frames/2,1", related))
    single = site.get(f"{path}/frames/2", media)
    assert single.content == parts[0][1]
    assert single.headers["content-type"] == parts[0][0]["content-type"]
    assert single.headers["content-type"] == f"{transfer_syntax(syntax).media_type}; transfer-syntax={syntax}"
    layout = FrameLayout(40, 36, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")
    for (_, body), number in zip(parts, (1, 0), strict=True):
        found = CODECS.unpack(body, syntax, layout, rgb=False)
        assert found.values == values[number].tobytes()


def lossy_j2k() -> bytes:
    target = io.BytesIO()
    grey = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(grey).save(target, "JPEG2000", irreversible=True, quality_layers=[8], no_jp2=True)
    return target.getvalue()


def jpeg() -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)).save(target, "JPEG", quality=60)
    return target.getvalue()


def lossy(syntax: str, frame: bytes, **changes: Any) -> bytes:
    data = dataset(Rows=64, Columns=64, BitsAllocated=8, BitsStored=8, HighBit=7, **changes)
    data.PixelData = encapsulate([frame])
    data["PixelData"].is_undefined_length = True
    return encoded(data, syntax)


@pytest.mark.parametrize(
    ("syntax", "frame", "method"),
    [(JPEG_BASELINE, jpeg(), "ISO_10918_1"), (J2K_LOSSY, lossy_j2k(), "ISO_15444_1")],
    ids=["JPEG baseline", "JPEG 2000"],
)
def test_lossy_stays_lossy(site: Parts, syntax: str, frame: bytes, method: str) -> None:
    part = lossy(syntax, frame)
    path = put(site, part)
    assert site.get(path, "application/dicom").content == part, "the default does not inflate what is lossy anyway"
    for target in sorted(LOSSLESS):
        refused = site.get(path, f"application/dicom; transfer-syntax={target}")
        assert refused.status_code == 406, target
    for media in ("image/jls", "image/jphc", "image/dicom-rle", f"application/octet-stream; transfer-syntax={JPEG_LS}"):
        assert site.get(f"{path}/frames/1", media).status_code == 406, media
    plain = read(site.get(path, f"application/dicom; transfer-syntax={NATIVE}"), NATIVE)
    assert (plain.LossyImageCompression, plain.LossyImageCompressionMethod) == ("01", method)
    assert plain.pixel_array.shape == (64, 64)


def test_a_stated_history_of_loss_is_kept(site: Parts) -> None:
    """Lossless compression of what was lossy once is fine; that it was stays written."""
    path = put(
        site,
        instance(LossyImageCompression="01", LossyImageCompressionMethod="ISO_10918_1", LossyImageCompressionRatio=10),
    )
    data = read(site.get(path, f"application/dicom; transfer-syntax={JPEG_LS}"), JPEG_LS)
    assert (data.LossyImageCompression, data.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    path = put(site, lossy(J2K_LOSSY, lossy_j2k(), LossyImageCompression="00"))
    data = read(site.get(path, f"application/dicom; transfer-syntax={NATIVE}"), NATIVE)
    assert data.LossyImageCompression == "00", "a syntax that may be used losslessly is believed"


@pytest.mark.parametrize(
    "changes",
    [
        {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": bytes(6)},
        {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, "PixelData": bytes(192)},
        {"BitsStored": 8, "HighBit": 7},
    ],
    ids=["single bit", "32 bits", "values beyond bits stored"],
)
def test_what_a_syntax_cannot_carry_is_406(site: Parts, changes: dict[str, Any]) -> None:
    if changes.get("BitsStored") == 8:
        changes = changes | {"PixelData": np.full(48, 4095, "<u2").tobytes()}
    path = put(site, instance(**changes))
    for target in (JPEG_LS, HTJ2K):
        answer = site.get(path, f"application/dicom; transfer-syntax={target}")
        assert (answer.status_code, answer.headers["content-type"]) == (406, "application/problem+json")
        assert site.get(f"{path}/frames/1", f"application/octet-stream; transfer-syntax={target}").status_code == 406


def test_refused_before_the_first_byte(site: Parts) -> None:
    study = pydicom.uid.generate_uid()[:60]
    names = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    site.store(
        instance(**names, InstanceNumber=1), instance(**names, InstanceNumber=2, BitsAllocated=32, PixelData=bytes(192))
    )
    asked = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}'
    assert site.get(f"/studies/{study}", asked).status_code == 406


def test_objects_without_pixels_go_along(site: Parts) -> None:
    """Nothing of a report is compressed: it can be in every syntax, and a study is not refused for its sake."""
    study = pydicom.uid.generate_uid()[:60]
    names = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    site.store(instance(**names, InstanceNumber=1), instance(**names, InstanceNumber=2, PixelData=None))
    parts = split_response(
        site.get(f"/studies/{study}", f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}')
    )
    assert [headers["content-type"] for headers, _ in parts] == [f"application/dicom; transfer-syntax={JPEG_LS}"] * 2
    assert "PixelData" not in pydicom.dcmread(io.BytesIO(parts[1][1]))


@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        (f"application/dicom; transfer-syntax={JPEG_LS}; q=0.4, application/dicom; transfer-syntax={RLE}; q=0.6", RLE),
        (f'application/dicom; transfer-syntax="{JPEG_2000}"', JPEG_2000),
        (
            f"application/dicom; transfer-syntax={JPEG_BASELINE}, application/dicom; transfer-syntax={RLE}; q=0.1",
            RLE,
        ),
        (f"application/dicom; q=0, application/dicom; transfer-syntax={JPEG_LS}", JPEG_LS),
        (f"text/html, application/dicom; transfer-syntax={HTJ2K}; q=0.001, */*; q=0", HTJ2K),
        ("application/dicom; transfer-syntax=*; q=0.9, application/dicom; q=0.8", NATIVE),
    ],
)
def test_quality_decides(site: Parts, accept: str, syntax: str) -> None:
    path = put(site, instance())
    read(site.get(path, accept), syntax)


def test_rpcl_streams_are_what_the_syntax_promises() -> None:
    """PS3.5 10.18: RPCL order, tile-part lengths, a lowest resolution of at most 64; PS3.5 A.4.4: reversible."""
    layout = FrameLayout(300, 4200, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")
    frame = CODECS.pack(bytes(300 * 4200 * 2), layout, HTJ2K_RPCL)
    style = frame.index(b"\xff\x52")
    order, levels, transform = frame[style + 5], frame[style + 9], frame[style + 13]
    assert (order, transform) == (2, 1)
    assert min(300 >> levels, 4200 >> levels) <= 64
    assert b"\xff\x55" in frame[:400], "tile-part lengths"
    assert frame[style + 12] & 0x40, "high-throughput block coding"


def test_a_hung_or_dead_process_costs_one_request() -> None:
    layout = FrameLayout(40, 36, 1, 16, 16, 15, signed=False, photometric="MONOCHROME2")
    large = FrameLayout(1024, 1024, 1, 16, 16, 15, signed=False, photometric="MONOCHROME2")
    pool = CodecPool(1, seconds=20)
    try:
        good = pool.pack(bytes(2880), layout, RLE)
        (process,) = pool._idle
        os.kill(process._process.pid, 9)
        process._process.wait()
        assert pool.pack(bytes(2880), layout, RLE) == good, "one that died idle is replaced unseen"
        pool._seconds = 0.0
        with pytest.raises(NotProcessable) as lost:
            pool.pack(DICE.integers(0, 65536, 1 << 20, "u2").tobytes(), large, JPEG_2000)
        assert lost.value.reason == "codec_lost"
        pool._seconds = 20
        assert pool.pack(bytes(2880), layout, RLE) == good
    finally:
        pool.close()


@pytest.mark.parametrize("ending", [b"", b"\0\0"])
def test_a_cut_off_jpeg_ls_frame_is_refused_at_once(ending: bytes) -> None:
    """Found by fuzzing: without its end the decoder went on for minutes. One that only lacks the marker decodes."""
    layout = FrameLayout(40, 36, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")
    values = np.random.default_rng(3).integers(0, 4096, (40, 36), "u2").tobytes()
    frame = CODECS.pack(values, layout, JPEG_LS)
    assert CODECS.unpack(frame[:-2], JPEG_LS, layout, rgb=False).values == values
    began = time.monotonic()
    for length in (300, 1000, 1500):
        with pytest.raises(NotProcessable) as refused:
            CODECS.unpack(frame[:length] + ending, JPEG_LS, layout, rgb=False)
        assert refused.value.reason == "decode_error"
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_memory_of_a_codec_process_is_bounded() -> None:
    """A frame that needs more than the process may have fails by itself, and the process goes on."""
    pool = CodecPool(1, memory_bytes=1200 << 20)
    try:
        huge = FrameLayout(20_000, 30_000, 1, 16, 16, 15, signed=False, photometric="MONOCHROME2")
        with pytest.raises(NotProcessable):
            pool.unpack(
                CODECS.pack(
                    bytes(2880), FrameLayout(40, 36, 1, 16, 16, 15, signed=False, photometric="MONOCHROME2"), RLE
                ),
                RLE,
                huge,
                rgb=False,
            )
        small = FrameLayout(2, 2, 1, 8, 8, 7, signed=False, photometric="MONOCHROME2")
        assert pool.pack(bytes(4), small, RLE)
    finally:
        pool.close()


def test_equal_requests_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    gate = threading.Event()

    class Counting(CodecPool):
        def transcode(self, stored: bytes, transfer_syntax_uid: str) -> bytes:
            calls.append(transfer_syntax_uid)
            gate.wait(10)
            return CODECS.transcode(stored, transfer_syntax_uid)

    monkeypatch.setattr("tests.gateway_support.CODECS", Counting(1))
    with running(tmp_path) as site:
        path = put(site, instance())
        answers: list[bytes] = []
        asking = [
            threading.Thread(
                target=lambda: answers.append(site.get(path, f"application/dicom; transfer-syntax={RLE}").content)
            )
            for _ in range(4)
        ]
        for thread in asking:
            thread.start()
        while not calls:
            gate.wait(0.01)
        gate.set()
        for thread in asking:
            thread.join()
        assert len(calls) == 1
        assert len(set(answers)) == 1
        site.get(path, f"application/dicom; transfer-syntax={RLE}")
        assert len(calls) == 1, "kept"
