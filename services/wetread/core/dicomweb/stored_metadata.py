"""Stored metadata of one instance: compressed once at ingest, sent as stored in the gzip answer of a whole series.

A packed object is a zlib stream of the DICOM JSON object (any zlib reads it), cut into deflate pieces that stand alone:
one cut behind each ``"BulkDataURI":"``, because what follows there is relative and gets the address of the instance in
front when it is sent. A table behind the stream says where the pieces are. Pieces of many instances, stored blocks with
the addresses and separators between them, make one gzip member (RFC 1951 3.2.4, RFC 1952); its CRC is combined from the
CRCs of the pieces, so that nothing is decompressed and nothing is compressed again.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

BULK_ADDRESS: Final = b'"BulkDataURI":"'
_ZLIB_HEAD: Final = b"\x78\x01"
_LAST_BLOCK: Final = b"\x03\x00"
_GZIP_HEAD: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_PIECE: Final = struct.Struct("<III")
_TAIL: Final = struct.Struct("<I4s")
_MAGIC: Final = b"WSM1"
_ADLER_BYTES: Final = 4
_STORED_LIMIT: Final = 0xFFFF
_WINDOW_BITS: Final = -13
_MEMORY_LEVEL: Final = 7
"""Objects have a few kilobytes: a small window costs less to set up than it saves to search."""

Piece = tuple[int, int, bytes]
"""CRC-32 and length of the text, and the text as deflate blocks that end on a byte border."""


def pack(json: bytes) -> bytes:
    """Return the stored form of a DICOM JSON object with relative bulk data addresses."""
    pieces = _compressed(json)
    table = b"".join(_PIECE.pack(crc, length, len(data)) for crc, length, data in pieces)
    data = b"".join(data for _, _, data in pieces)
    stream = _ZLIB_HEAD + data + _LAST_BLOCK + zlib.adler32(json).to_bytes(_ADLER_BYTES, "big")
    return stream + table + _TAIL.pack(len(pieces), _MAGIC)


def unpack(stored: bytes) -> bytes:
    """Return the JSON object of a stored form."""
    return zlib.decompress(stored)


def addressed(stored: bytes, url: bytes) -> bytes:
    """Return the JSON object with the instance's *url* in front of every bulk data address."""
    return unpack(stored).replace(BULK_ADDRESS, BULK_ADDRESS + url)


def gzip_array(members: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the gzip form of a JSON array of ``addressed`` objects. ``members``: stored form and URL of each."""
    out = [_GZIP_HEAD]
    crc, length = 0, 0
    lead = b"["
    for stored, url in members:
        for crc_of_piece, size, data in _pieces(stored):
            out.append(_literal(lead))
            out.append(data)
            crc = _shift(zlib.crc32(lead, crc), size) ^ crc_of_piece
            length += len(lead) + size
            lead = url
        lead = b","
    end = b"]" if length else b"[]"
    crc = zlib.crc32(end, crc)
    length += len(end)
    out += [_literal(end), _LAST_BLOCK, struct.pack("<II", crc, length & 0xFFFFFFFF)]
    return b"".join(out)


def _pieces(stored: bytes) -> list[Piece]:
    count, magic = _TAIL.unpack_from(stored, len(stored) - _TAIL.size)
    at = len(stored) - _TAIL.size - count * _PIECE.size
    if magic != _MAGIC or at < len(_ZLIB_HEAD):
        return _compressed(unpack(stored))  # written before pieces were
    pieces: list[Piece] = []
    position = len(_ZLIB_HEAD)
    for crc, length, size in _PIECE.iter_unpack(stored[at : -_TAIL.size]):
        pieces.append((crc, length, stored[position : position + size]))
        position += size
    return pieces


def _compressed(json: bytes) -> list[Piece]:
    engine = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    pieces: list[Piece] = []
    at = 0
    while at < len(json):
        cut = json.find(BULK_ADDRESS, at)
        cut = len(json) if cut < 0 else cut + len(BULK_ADDRESS)
        text = json[at:cut]
        # A full flush: nothing behind it refers to what is before it.
        pieces.append((zlib.crc32(text), len(text), engine.compress(text) + engine.flush(zlib.Z_FULL_FLUSH)))
        at = cut
    return pieces


def _literal(text: bytes) -> bytes:
    """Return deflate blocks that hold *text* uncompressed."""
    blocks = [text[at : at + _STORED_LIMIT] for at in range(0, len(text), _STORED_LIMIT)]
    return b"".join(b"\x00" + struct.pack("<HH", len(one), len(one) ^ 0xFFFF) + one for one in blocks)


_POLYNOMIAL: Final = 0xEDB88320
"""CRC-32 of RFC 1952, bits reflected: the highest bit is x to the 0."""


def _shift(crc: int, size: int) -> int:
    """Return what *crc* contributes to the CRC of a text with *size* more bytes behind it."""
    return _times(_power(size), crc) if crc and size else crc


@lru_cache(maxsize=4096)
def _power(size: int) -> int:
    """Return x to the power of 8 * size, modulo the polynomial."""
    result, factor, exponent = 1 << 31, 1 << 23, size
    while exponent:
        if exponent & 1:
            result = _times(factor, result)
        factor = _times(factor, factor)
        exponent >>= 1
    return result


def _times(left: int, right: int) -> int:
    """Return the product of two polynomials over GF(2), modulo the CRC's."""
    product = 0
    bit = 1 << 31
    while left:
        if left & bit:
            product ^= right
            left ^= bit
        bit >>= 1
        right = right >> 1 ^ _POLYNOMIAL if right & 1 else right >> 1
    return product
