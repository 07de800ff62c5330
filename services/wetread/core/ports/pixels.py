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
