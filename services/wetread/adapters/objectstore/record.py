"""The record format of segment files (ADR 0201): self-describing, so that the index can be rebuilt from segments alone.

::

    head     4s magic "WRD1", u16 version, u16 tenant length, u32 description length, u64 payload length,
             f64 Unix time, u32 crc32 of the head so far                                                  32 bytes
    tenant, description, payload
    tail     u32 crc32 of the payload, u32 crc32 of tenant + description, 4s "1DRW"                        12 bytes

An erased record begins with "WRD0" and has the same lengths; its payload is zeros.
All integers little endian. The head's own checksum lets a reader find the next record behind a damaged one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAGIC: Final = b"WRD1"
_ERASED: Final = b"WRD0"
_END: Final = b"1DRW"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<4sHHIQd")
_CRC: Final = struct.Struct("<I")
_TAIL: Final = struct.Struct("<II4s")
HEAD_SIZE: Final = _HEAD.size + _CRC.size
TAIL_SIZE: Final = _TAIL.size

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Head:
    """Lengths of a record's fields, and when it was written (Unix seconds)."""

    tenant_length: int
    description_length: int
    payload_length: int
    time: float
    erased: bool = False
    """Its payload is gone; the record is there to be stepped over."""

    @property
    def payload_at(self) -> int:
        """Offset of the payload from the record's first byte."""
        return HEAD_SIZE + self.tenant_length + self.description_length

    @property
    def size(self) -> int:
        """Length of the whole record."""
        return self.payload_at + self.payload_length + TAIL_SIZE


def encode(tenant: bytes, description: bytes, chunks: Sequence[Buffer], time: float) -> tuple[list[Buffer], Head]:
    """Return the buffers of one record in writing order (payload chunks are not copied) and its head."""
    head = Head(len(tenant), len(description), sum(len(chunk) for chunk in chunks), time)
    fields = _HEAD.pack(MAGIC, _VERSION, head.tenant_length, head.description_length, head.payload_length, time)
    payload_crc = 0
    for chunk in chunks:
        payload_crc = zlib.crc32(chunk, payload_crc)
    tail = _TAIL.pack(payload_crc, zlib.crc32(description, zlib.crc32(tenant)), _END)
    return [fields + _CRC.pack(zlib.crc32(fields)) + tenant + description, *chunks, tail], head


def decode_head(data: bytes) -> Head | None:
    """Return the head at the beginning of *data*, or None when there is no intact one."""
    if len(data) < HEAD_SIZE or data[:4] not in (MAGIC, _ERASED):
        return None
    if _CRC.unpack_from(data, _HEAD.size)[0] != zlib.crc32(data[: _HEAD.size]):
        return None
    magic, version, tenant, description, payload, time = _HEAD.unpack_from(data)
    return Head(tenant, description, payload, time, magic == _ERASED) if version == _VERSION else None


def erased_head(head: Head) -> bytes:
    """Return the bytes that make *head* the head of an erased record."""
    lengths = (head.tenant_length, head.description_length, head.payload_length)
    fields = _HEAD.pack(_ERASED, _VERSION, *lengths, head.time)
    return fields + _CRC.pack(zlib.crc32(fields))


def tail_matches(tail: bytes, *, payload_crc: int, description_crc: int | None = None) -> bool:
    """Return whether *tail* is the tail of a record with these checksums."""
    if len(tail) != TAIL_SIZE:
        return False
    stored, described, end = _TAIL.unpack(tail)
    return bool(end == _END and stored == payload_crc and description_crc in (None, described))
