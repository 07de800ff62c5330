"""JPEG tiles through libjpeg-turbo: abbreviated streams made whole, decoded straight into the caller's buffer.

TIFF keeps quantisation and Huffman tables once per level (JPEGTables, TIFF technical note 2), and says in its own tag
whether samples are RGB; a decoder that sees neither fails or converts colours twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from wetread.pathology.errors import TileUnreadable
from wetread.pathology.slide.index import Pixels

SOI: Final = b"\xff\xd8"
ADOBE_RGB: Final = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"
"""APP14 with transform 0: the three components are R, G, B (T.872 6.5.3)."""
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})

_decode: Any = None


def tables_prefix(tables: bytes, *, rgb: bool) -> bytes:
    """Return what stands in place of a tile's SOI: tables and, for RGB, the marker that says so; empty for neither."""
    inner = tables[2:-2] if len(tables) > 4 and tables[:2] == SOI else b""
    adobe = ADOBE_RGB if rgb else b""
    return SOI + adobe + inner if inner or adobe else b""


def whole_stream(tile: bytes, prefix: bytes) -> bytes:
    """Return *tile* as a stream that decodes on its own."""
    return prefix + tile[2:] if prefix else tile


def decode_into(tile: bytes, prefix: bytes, out: Pixels) -> None:
    """Decode a tile into ``out`` uint8[H, W, 3] (contiguous).

    The way OpenSlide's libjpeg does it: slow DCT, fancy upsampling. Raises TileUnreadable for a corrupt stream or one
    of another size.
    """
    global _decode  # noqa: PLW0603 - the codec is looked up once: this runs per tile
    if _decode is None:
        from simplejpeg import decode_jpeg

        _decode = decode_jpeg
    try:
        got = _decode(
            prefix + tile[2:] if prefix else tile,
            colorspace="RGB",
            fastdct=False,
            fastupsample=False,
            buffer=out,
        )
    except (ValueError, RuntimeError) as error:
        raise TileUnreadable("a JPEG tile is corrupt or cut off") from error
    if got.shape != out.shape:
        raise TileUnreadable(f"a JPEG tile of {got.shape[1]} x {got.shape[0]} pixels where {out.shape[1]} were due")


def segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, payload) of each segment up to SOS, whose payload is followed by ``(0, entropy-coded bytes)``.

    Raises TileUnreadable when the stream is not built like JPEG (T.81 B.1).
    """
    at = 2
    while at + 4 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", stream, at + 2)
        yield marker, stream[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
        if marker == 0xDA:
            yield 0, stream[at:]
            return
    raise TileUnreadable("a JPEG tile has no scan")


def sampling(stream: bytes) -> tuple[int, int, int, int, tuple[int, ...]]:
    """Return (width, height, components, bits, sampling factors as written) of the frame header (T.81 B.2.2)."""
    for marker, payload in segments(stream):
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC} and len(payload) >= 6:
            height, width, components = struct.unpack_from(">HHB", payload, 1)
            factors = tuple(payload[7 + 3 * n] for n in range(components) if 7 + 3 * n < len(payload))
            return width, height, components, payload[0], factors
    raise TileUnreadable("a JPEG tile has no frame header")
