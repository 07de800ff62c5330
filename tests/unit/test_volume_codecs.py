"""Compressed frames: declared size, real codecs, and what is refused before anything is allocated."""

from __future__ import annotations

import io

import jpeg_ls
import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from PIL import Image
from pydicom.pixels.encoders import RLELosslessEncoder

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.core.dicom.codestream import ImageSize, image_size
from wetread.core.dicom.volume import assemble
from wetread.core.errors import NotProcessable
from wetread.core.ports.pixels import FrameLayout
from wetread.testing.sections import ct_plane, part10

J2K, JPEG_LS, JPEG, RLE = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.5",
)
STORED = (np.arange(96 * 80, dtype=np.uint16).reshape(96, 80) * 7) % 4096
LAYOUT = FrameLayout(96, 80, 1, 16, 12, 11, signed=False, photometric="MONOCHROME2")


def compressed(kind):
    if kind == J2K:
        return encode_array(STORED, bits_stored=12, photometric_interpretation=2)
    if kind == JPEG_LS:
        return bytes(jpeg_ls.encode_array(STORED))
    return RLELosslessEncoder.encode(
        STORED.astype("<u2").tobytes(),
        rows=96,
        columns=80,
        number_of_frames=1,
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=16,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
    )


@pytest.mark.parametrize("kind", [J2K, JPEG_LS, RLE])
def test_lossless_frames_come_back_exactly(kind):
    assert np.array_equal(PydicomFrameDecoder().decode(compressed(kind), kind, LAYOUT), STORED)


def test_baseline_jpeg_comes_back_closely():
    values = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (96, 1))
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "jpeg", quality=95)
    layout = FrameLayout(96, 80, 1, 8, 8, 7, signed=False, photometric="MONOCHROME2")
    decoded = PydicomFrameDecoder().decode(buffer.getvalue(), JPEG, layout)
    assert np.abs(decoded.astype(int) - values).max() <= 4


@pytest.mark.parametrize("kind", [J2K, JPEG_LS])
def test_declared_size_is_read_from_the_code_stream(kind):
    size = image_size(compressed(kind))
    assert (size.rows, size.columns, size.components) == (96, 80, 1)


def test_markers_before_the_frame_header_are_skipped():
    frame = b"\xff\xd8" + b"\xff\xe0\x00\x04ab" + b"\xff\xff\xc3\x00\x0b\x10\x02\x00\x01\x00\x01\x00\x11\x00"
    assert image_size(frame) == ImageSize(512, 256, 1, 16)


@pytest.mark.parametrize("kind", [J2K, JPEG_LS])
@pytest.mark.parametrize("change", [{"rows": 48}, {"columns": 40}, {"samples": 3}])
def test_a_frame_of_another_size_is_refused_before_decoding(kind, change, monkeypatch):
    monkeypatch.setattr("wetread.adapters.codecs.decoder.get_decoder", lambda uid: pytest.fail("decoder was asked"))
    values = {"rows": 96, "columns": 80, "samples": 1, **change}
    other = FrameLayout(**values, bits_allocated=16, bits_stored=12, high_bit=11, signed=False, photometric="M")
    with pytest.raises(NotProcessable) as caught:
        PydicomFrameDecoder().decode(compressed(kind), kind, other)
    assert caught.value.reason == "decode_error"


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b"", J2K),
        (b"\xff\xd8", JPEG_LS),
        (b"\xff\xd8garbage", JPEG),
        (b"\xff\xd8\xff\xc3\x00", JPEG),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", J2K),
        (b"\0" * 64, RLE),
        (b"\x02\0\0\0" + b"\0" * 60, RLE),
        (compressed(J2K)[:80], J2K),
        (compressed(JPEG_LS)[:40], JPEG_LS),
        (compressed(RLE)[:80], RLE),
        (compressed(J2K), "1.2.840.10008.1.2.4.100"),
        (compressed(J2K), "1.2.3"),
    ],
)
def test_broken_frames_are_a_decode_error(frame, kind):
    with pytest.raises(NotProcessable) as caught:
        PydicomFrameDecoder().decode(frame, kind, LAYOUT)
    assert caught.value.reason == "decode_error"


def test_compressed_planes_assemble_in_threads():
    headers = []
    for k in range(6):
        header = ct_plane(STORED, (0, 0, 5.0 * k), number=k, BitsStored=12, HighBit=11)
        header.PixelData = pydicom.encaps.encapsulate([compressed(J2K)])
        headers.append(part10(header, transfer_syntax=J2K))
    volume = assemble(headers, PydicomFrameDecoder(), threads=3)
    assert np.array_equal(volume.voxels, np.repeat(STORED[None].astype(np.float32) - 1024, 6, axis=0))
