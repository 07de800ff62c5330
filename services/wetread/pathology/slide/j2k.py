"""JPEG 2000 and deflated tiles: OpenJPEG (as in OpenSlide) and zlib, with OpenSlide's integer colour conversion."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np

from wetread.pathology.errors import TileUnreadable
from wetread.pathology.slide.index import Colour, Pixels

_HALF: Final = 1 << 15
_CHROMA: Final = np.arange(256, dtype=np.int64) - 128
# libjpeg's 16.16 fixed-point tables (jdcolor.c describes the equations of JFIF): bit-equal results need them.
_RED: Final = ((round(1.40200 * 65536) * _CHROMA + _HALF) >> 16).astype(np.int16)
_BLUE: Final = ((round(1.77200 * 65536) * _CHROMA + _HALF) >> 16).astype(np.int16)
_GREEN_RED: Final = (-round(0.71414 * 65536) * _CHROMA).astype(np.int32)
_GREEN_BLUE: Final = (-round(0.34414 * 65536) * _CHROMA + _HALF).astype(np.int32)


def ycbcr_to_rgb(samples: Pixels) -> Pixels:
    """Return full-range YCbCr uint8[..., 3] as RGB (JFIF equations in 16.16 fixed point)."""
    luma, blue, red = (samples[..., channel] for channel in range(3))
    wide = luma.astype(np.int16)
    out = np.empty(samples.shape, dtype=np.int16)
    out[..., 0] = wide + _RED[red]
    out[..., 1] = wide + ((_GREEN_BLUE[blue] + _GREEN_RED[red]) >> 16).astype(np.int16)
    out[..., 2] = wide + _BLUE[blue]
    return np.clip(out, 0, 255).astype(np.uint8)


def decode_into(tile: bytes, colour: Colour, out: Pixels) -> None:
    """Decode a JPEG 2000 code stream into ``out`` uint8[H, W, 3]. Raises TileUnreadable."""
    from openjpeg.utils import decode

    try:
        found = decode(tile)
    except Exception as error:
        # The decoder raises RuntimeError, ValueError, AssertionError and more, all for a bad stream.
        raise TileUnreadable("a JPEG 2000 tile is corrupt or cut off") from error
    if found.shape != out.shape or found.dtype != np.uint8:
        raise TileUnreadable("a JPEG 2000 tile has another size than the level says")
    out[...] = ycbcr_to_rgb(found) if colour == "ycbcr" else found


def inflate_into(tile: bytes, predictor: int, out: Pixels, *, deflated: bool = True) -> None:
    """Unpack a deflated or raw tile into ``out``; predictor 2 (TIFF 6.0 section 14) is undone.

    Raises TileUnreadable.
    """
    if deflated:
        unpacker = zlib.decompressobj()
        try:
            # One byte more than due shows a tile that is too long, without unpacking a bomb.
            tile = unpacker.decompress(tile, out.size + 1)
        except zlib.error as error:
            raise TileUnreadable("a deflated tile is corrupt") from error
    if len(tile) != out.size:
        raise TileUnreadable("an unpacked tile has another size than the level says")
    samples = np.frombuffer(tile, dtype=np.uint8).reshape(out.shape)
    out[...] = np.cumsum(samples, axis=1, dtype=np.uint8) if predictor == 2 else samples
