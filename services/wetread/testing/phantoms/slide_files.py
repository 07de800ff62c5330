"""Synthetic slides as files: tiled TIFF that OpenSlide reads as Aperio, every variant that readers stumble over.

Tiles that are equal are stored once and pointed to many times (offsets may repeat, TIFF 6.0 section 15), so a slide
of 80,000 pixels square takes seconds to write; ``share=False`` stores each, as scanners do.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from wetread.testing.phantoms.slide import Pixels, SlideSpec


@dataclass(frozen=True, slots=True)
class TiffOptions:
    """How to write. ``tables``: quantisation and Huffman tables once per level; ``sparse``: leave these tiles out."""

    tile: int = 256
    sampling: Literal["444", "422", "420"] = "422"
    quality: int = 80
    rgb: bool = False
    tables: bool = False
    codec: Literal["jpeg", "j2k-rgb", "j2k-ycbcr", "deflate", "none"] = "jpeg"
    scales: tuple[int, ...] = (1, 4, 16)
    mpp_written: bool = True
    sparse: frozenset[tuple[int, int]] = frozenset()
    """(level, tile) entries of length 0."""
    share: bool = True
    big: bool = False


def write_slide_tiff(spec: SlideSpec, path: Path, options: TiffOptions | None = None) -> None:
    """Write *spec* as a pyramid."""
    options = options or TiffOptions()
    with path.open("wb") as file:
        file.write((b"II+\0" + struct.pack("<HHQ", 8, 0, 0)) if options.big else b"II*\0" + struct.pack("<I", 0))
        directories = [_level(file, spec, scale, number, options) for number, scale in enumerate(options.scales)]
        link = 8 if options.big else 4
        for directory in directories:
            link = _directory(file, directory, link, big=options.big)


def _level(
    file: BinaryIO, spec: SlideSpec, scale: int, number: int, options: TiffOptions
) -> dict[int, tuple[int, Any]]:
    side = options.tile
    width, height = spec.width // scale, spec.height // scale
    columns, rows = -(-width // side), -(-height // side)
    offsets = np.zeros(columns * rows, dtype=np.uint64)
    lengths = np.zeros(columns * rows, dtype=np.uint64)
    known: dict[bytes, tuple[int, int]] = {}
    memory: dict[bytes, bytes] = {}
    tables = b""
    for index in range(columns * rows):
        if (number, index) in options.sparse:
            continue
        x, y = index % columns * side, index // columns * side
        key = spec.signature(scale, x, y, side, side)
        if key is not None and options.share and key in known:
            offsets[index], lengths[index] = known[key]
            continue
        body = memory.get(key) if key is not None else None
        if body is None:
            body, tables = encode_tile(spec.region(scale, x, y, side, side), options)
            if key is not None and not options.share:
                memory[key] = body
        offsets[index], lengths[index] = file.tell(), len(body)
        file.write(body)
        if len(body) % 2:
            file.write(b"\0")
        if key is not None:
            known[key] = (int(offsets[index]), int(lengths[index]))
    compression = {"jpeg": 7, "j2k-rgb": 33005, "j2k-ycbcr": 33003, "deflate": 8, "none": 1}[options.codec]
    photometric = 6 if options.codec == "jpeg" and not options.rgb else 2
    text = f"Aperio Image Library (synthetic)\r\n{width}x{height}|AppMag = {round(10 / spec.mpp)}"
    if options.mpp_written:
        text += f"|MPP = {spec.mpp:.4f}"
    word = 16 if options.big else 4
    directory: dict[int, tuple[int, Any]] = {
        254: (4, [0]),
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8, 8, 8]),
        259: (3, [compression]),
        262: (3, [photometric]),
        270: (2, list(text.encode() + b"\0")),
        277: (3, [3]),
        284: (3, [1]),
        322: (3, [side]),
        323: (3, [side]),
        324: (word, offsets.tolist()),
        325: (4, lengths.tolist()),
    }
    if photometric == 6:
        sampling = {"444": [1, 1], "422": [2, 1], "420": [2, 2]}[options.sampling]
        directory[530] = (3, sampling)
    if options.tables:
        directory[347] = (7, list(tables))
    return directory


def encode_tile(pixels: Pixels, options: TiffOptions) -> tuple[bytes, bytes]:
    """Return (tile, JPEG tables) of one native tile."""
    if options.codec == "none":
        return pixels.tobytes(), b""
    if options.codec == "deflate":
        return zlib.compress(pixels.tobytes(), 6), b""
    if options.codec != "jpeg":
        return _encode_j2k(pixels, ycbcr=options.codec == "j2k-ycbcr"), b""
    if options.rgb:
        from PIL import Image

        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=options.quality, subsampling=0, keep_rgb=True)
        stream = buffer.getvalue()
    else:
        from simplejpeg import encode_jpeg

        stream = encode_jpeg(
            pixels, quality=options.quality, colorspace="RGB", colorsubsampling=options.sampling, fastdct=False
        )
    return _split(stream, apart=options.tables, rgb=options.rgb)


def _split(stream: bytes, *, apart: bool, rgb: bool) -> tuple[bytes, bytes]:
    """Drop application segments; put tables apart and number components from 0, as Aperio RGB does."""
    at, tables, kept = 2, b"", b""
    while True:
        marker = stream[at + 1]
        (length,) = struct.unpack_from(">H", stream, at + 2)
        segment = bytearray(stream[at : at + 2 + length])
        at += 2 + length
        if marker in {0xDB, 0xC4} and apart:
            tables += segment
            continue
        if 0xE0 <= marker <= 0xEF and (apart or not rgb):
            continue
        if rgb and apart and marker == 0xC0:
            for component in range(3):
                segment[10 + 3 * component] = component
        if rgb and apart and marker == 0xDA:
            for component in range(3):
                segment[5 + 2 * component] = component
        kept += segment
        if marker == 0xDA:
            break
    return b"\xff\xd8" + kept + stream[at:], b"\xff\xd8" + tables + b"\xff\xd9"


def _encode_j2k(pixels: Pixels, *, ycbcr: bool) -> bytes:
    from openjpeg.utils import encode_array

    if ycbcr:
        from PIL import Image

        pixels = np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    return encode_array(np.ascontiguousarray(pixels), photometric_interpretation=1, use_mct=not ycbcr)


def _directory(file: BinaryIO, tags: dict[int, tuple[int, Any]], link: int, *, big: bool) -> int:
    """Append a directory, point *link* at it, and return the place of its own link."""
    forms = {2: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}
    word = "Q" if big else "I"
    inline = struct.calcsize("<" + word)
    entries = []
    for tag, (kind, values) in sorted(tags.items()):
        data = struct.pack(f"<{len(values)}{forms[kind]}", *values)
        if len(data) > inline:
            place = _even(file)
            file.write(data)
            data = struct.pack("<" + word, place)
        entries.append(struct.pack("<HH" + word, tag, kind, len(values)) + data.ljust(inline, b"\0"))
    start = _even(file)
    file.write(struct.pack("<Q" if big else "<H", len(entries)) + b"".join(entries))
    own = file.tell()
    file.write(struct.pack("<" + word, 0))
    file.seek(link)
    file.write(struct.pack("<" + word, start))
    file.seek(0, 2)
    return own


def _even(file: BinaryIO) -> int:
    if file.tell() % 2:
        file.write(b"\0")
    return file.tell()
