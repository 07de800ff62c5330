"""Decoding compressed pixel data: one frame in, stored values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wetread.core.detector import Array


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """The Image Pixel attributes that say how a frame is stored (PS3.3 C.7.6.3.1)."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar_configuration: int = 0

    @property
    def frame_bytes(self) -> int:
        """Length of one uncompressed frame in bytes."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8


class FrameDecoder(Protocol):
    """Decodes one frame of a compressed transfer syntax. Safe to call from several threads."""

    def decode(self, frame: bytes, transfer_syntax_uid: str, layout: FrameLayout) -> Array:
        """Return stored values [row, column] (or [row, column, sample]) without colour or rescale transform.

        The dimensions that the code stream declares are checked against *layout* before anything is allocated.
        Raises NotProcessable("decode_error").
        """


@dataclass(frozen=True, slots=True)
class FrameSamples:
    """Uncompressed values of one frame, little endian.

    ``shape``: rows x columns [x samples], so colour is by pixel. ``dtype``: NumPy name of the values;
    single-bit pixels are a byte each.
    ``photometric``: after decoding (PS3.3 C.7.6.3.1.2).
    """

    values: bytes
    dtype: str
    shape: tuple[int, ...]
    photometric: str


class FrameCodecs(Protocol):
    """Compression and decompression away from the caller's process. Blocking; safe to call from several threads.

    Each call raises NotProcessable: ``decode_error`` (damaged, or no decoder), ``encode_error`` (the values cannot be
    carried by the syntax), ``codec_lost`` (the process that did it died or took too long).
    """

    @property
    def targets(self) -> frozenset[str]:
        """Compressed transfer syntaxes that there is an encoder for: all lossless."""

    def unpack(self, frame: bytes, transfer_syntax_uid: str, layout: FrameLayout, *, rgb: bool) -> FrameSamples:
        """Return the values of a compressed frame. ``rgb``: YBR turned into RGB."""

    def pack(self, values: bytes, layout: FrameLayout, transfer_syntax_uid: str) -> bytes:
        """Return native *values* as one losslessly compressed frame."""

    def transcode(self, stored: bytes, transfer_syntax_uid: str) -> bytes:
        """Return a PS3.10 file with the same data set in another transfer syntax; see ``targets``."""
