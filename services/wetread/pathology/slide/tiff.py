"""Tiled TIFF (classic and BigTIFF; Aperio SVS): image file directories to an index (TIFF 6.0 sections 2, 15, 22).

Strips, planar samples, other depths than 8 bits and codecs outside the table raise ``NotNative``: such slides are
read by OpenSlide.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.pathology.errors import SlideUnreadable
from wetread.pathology.slide.index import Codec, Colour, Level, OpenedSlide, Pyramid, check_table, checked_level
from wetread.pathology.slide.jpeg import tables_prefix
from wetread.pathology.slide.source import RangeSource, as_file

_CODECS: Final[dict[int, Codec]] = {
    1: "none",
    7: "jpeg",
    8: "deflate",
    32946: "deflate",
    33003: "jpeg2000",
    33005: "jpeg2000",
}
_TYPES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 12: "d", 13: "I", 16: "Q"}
_APERIO_YCBCR: Final = 33003
_PALETTE_OF_UNITS: Final = {2: 25_400.0, 3: 10_000.0}
"""TIFF ResolutionUnit -> micrometres: inch, centimetre."""
_MAX_DIRECTORIES: Final = 64
_MAX_ENTRIES: Final = 4096
_MPP: Final = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


class NotNative(Exception):  # noqa: N818 - no failure: another reader takes over
    """The native reader does not know the format; the message says what it met."""


@dataclass(frozen=True, slots=True)
class _Directory:
    tags: dict[int, Any]

    def number(self, tag: int, default: int = 0) -> int:
        value = self.tags.get(tag)
        return default if value is None or not len(value) else int(value[0])

    def text(self, tag: int) -> str:
        value = self.tags.get(tag)
        return "" if value is None else bytes(bytearray(value)).split(b"\0")[0].decode("utf-8", "replace")


class RangedTiles:
    """``TileBytes`` over byte ranges. ``spans[level]``: (offsets, lengths); ``framed``: spans hold DICOM items."""

    def __init__(
        self,
        sources: Sequence[RangeSource],
        spans: Sequence[tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]],
        *,
        framed: bool = False,
        owner: Sequence[int] | None = None,
    ) -> None:
        self._sources, self._framed = list(sources), framed
        self._owner = list(owner) if owner is not None else [0] * len(spans)
        self._spans = list(spans)

    def fetch(self, level: int, tiles: Sequence[int]) -> list[bytes]:
        """Return the bytes of each tile."""
        offsets, lengths = self._spans[level]
        ranges = [(int(offsets[tile]), int(lengths[tile])) for tile in tiles]
        wanted = [span for span in ranges if span[1]]
        found = iter(self._sources[self._owner[level]].read_many(wanted)) if wanted else iter(())
        bodies = [next(found) if length else b"" for _, length in ranges]
        return [_unframed(body) for body in bodies] if self._framed else bodies

    def fetch_one(self, level: int, tile: int) -> bytes:
        """Return the bytes of one tile: the way of local slides, without the lists of ``fetch``."""
        offsets, lengths = self._spans[level]
        length = int(lengths[tile])
        if not length:
            return b""
        body = self._sources[self._owner[level]].read_many(((int(offsets[tile]), length),))[0]
        return _unframed(body) if self._framed else body

    def header_digest(self) -> str:
        """Return the SHA-256 over all tile tables and file sizes."""
        sha = hashlib.sha256()
        for offsets, lengths in self._spans:
            sha.update(offsets.tobytes())
            sha.update(lengths.tobytes())
        for source in self._sources:
            sha.update(struct.pack("<Q", source.size))
        return sha.hexdigest()

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()


def _unframed(span: bytes) -> bytes:
    """Return the frame inside a run of DICOM items (PS3.5 A.4): usually one, joined when fragmented."""
    if not span:
        return span
    pieces, at = [], 0
    while at + 8 <= len(span):
        tag, length = struct.unpack_from("<II", span, at)
        if tag != 0xE000FFFE:
            break
        pieces.append(span[at + 8 : at + 8 + length])
        at += 8 + length
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def is_tiff(start: bytes) -> bool:
    """Return whether a file that begins with *start* is TIFF."""
    return start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_tiff(source: RangeSource) -> OpenedSlide:
    """Read all directories. Raises SlideUnreadable (broken) or NotNative (another reader's format)."""
    try:
        directories = _directories(source)
    except (struct.error, IndexError, OverflowError, MemoryError) as error:
        raise SlideUnreadable("the TIFF directories are cut off") from error
    first = directories[0]
    description = first.text(270)
    vendor = "aperio" if description.startswith("Aperio") else "generic-tiff"
    maker = first.text(271)
    if vendor != "aperio" and (maker or any(tag >= 65420 for tag in first.tags)):
        raise NotNative(f"TIFF of {maker or 'a vendor with private tags'}")
    tiled = [d for d in directories if 322 in d.tags and d.number(254) & 1 == (0 if d is first else d.number(254) & 1)]
    if not tiled or first not in tiled:
        raise NotNative("TIFF without tiles")
    built = sorted((_level(d, source.size) for d in tiled), key=lambda entry: -entry[0].width)
    built = _one_pyramid(built)
    pyramid = Pyramid(
        levels=tuple(level for level, _ in built),
        mpp=_mpp(first, description),
        kind="tiff",
        vendor=vendor,
        properties=_properties(description),
    )
    return OpenedSlide(pyramid, RangedTiles([source], [spans for _, spans in built]))


_Built = tuple[Level, tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]]


def _one_pyramid(built: list[_Built]) -> list[_Built]:
    """Keep the levels that are the same picture as the first: aspect ratio within two pixels."""
    base = built[0][0]
    kept: list[_Built] = []
    for level, spans in built:
        scale = base.width / level.width
        if kept and level.width == kept[-1][0].width:
            continue
        if abs(base.height / scale - level.height) <= 2:
            kept.append((level, spans))
    return kept


def _level(directory: _Directory, size: int) -> _Built:
    compression, photometric = directory.number(259, 1), directory.number(262)
    codec = _CODECS.get(compression)
    if codec is None:
        raise NotNative(f"TIFF compression {compression}")
    bits = [int(b) for b in directory.tags.get(258, [1])]
    if directory.number(277, 1) != 3 or set(bits) != {8} or directory.number(284, 1) != 1:
        raise NotNative("samples are not three interleaved bytes")
    if photometric not in {2, 6} or (photometric == 6 and codec in {"none", "deflate"}):
        raise NotNative(f"photometric interpretation {photometric}")
    colour: Colour = "rgb" if photometric == 2 else "ycbcr"
    if codec == "jpeg2000":
        colour = "ycbcr" if compression == _APERIO_YCBCR else "rgb"
    tables = bytes(bytearray(directory.tags.get(347, b"")))
    level = checked_level(
        Level(
            width=directory.number(256),
            height=directory.number(257),
            tile_width=directory.number(322),
            tile_height=directory.number(323),
            codec=codec,
            colour=colour,
            prefix=tables_prefix(tables, rgb=colour == "rgb") if codec == "jpeg" else b"",
            predictor=directory.number(317, 1),
        )
    )
    offsets = np.asarray(directory.tags.get(324, []), dtype=np.uint64)
    lengths = np.asarray(directory.tags.get(325, []), dtype=np.uint64)
    check_table(level, offsets, lengths, size)
    return level, (offsets, lengths)


def _directories(source: RangeSource) -> list[_Directory]:
    head = source.read(0, 16)
    if len(head) < 8 or not is_tiff(head):
        raise SlideUnreadable("this is not a slide: no TIFF or DICOM header")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:3] == b"+" or head[3:4] == b"+"
    at = struct.unpack_from(order + "Q", head, 8)[0] if big else struct.unpack_from(order + "I", head, 4)[0]
    seen: set[int] = set()
    found: list[_Directory] = []
    with as_file(source) as file:
        while at:
            if at in seen or len(found) >= _MAX_DIRECTORIES:
                raise SlideUnreadable("the TIFF directories run in a circle")
            seen.add(at)
            directory, at = _directory(file, at, order, source.size, big=big)
            found.append(directory)
    if not found:
        raise SlideUnreadable("the TIFF file has no directory")
    return found


def _directory(file: io.BufferedReader, at: int, order: str, size: int, *, big: bool) -> tuple[_Directory, int]:
    count_form, entry_size, word = ("Q", 20, "Q") if big else ("H", 12, "I")
    file.seek(at)
    (count,) = struct.unpack(order + count_form, file.read(struct.calcsize(count_form)))
    if count > _MAX_ENTRIES:
        raise SlideUnreadable("a TIFF directory has more entries than any slide")
    body = file.read(count * entry_size + struct.calcsize(word))
    (following,) = struct.unpack_from(order + word, body, count * entry_size)
    tags: dict[int, Any] = {}
    inline = struct.calcsize(word)
    for entry in range(count):
        tag, kind, number = struct.unpack_from(order + "HH" + word, body, entry * entry_size)
        form = _TYPES.get(kind)
        if form is None:
            continue
        length = struct.calcsize("=" + form) * number
        start = entry * entry_size + 4 + inline
        if length <= inline:
            data = body[start : start + length]
        else:
            (place,) = struct.unpack_from(order + word, body, start)
            if place + length > size:
                raise SlideUnreadable("a TIFF directory points beyond the end of the file: it is cut off")
            file.seek(place)
            data = file.read(length)
        tags[tag] = np.frombuffer(data, dtype=np.dtype(form[0]).newbyteorder("<" if order == "<" else ">"))
    return _Directory(tags), int(following)


def _mpp(first: _Directory, description: str) -> tuple[float, float] | None:
    """Vendor property first, then the TIFF resolution when it is one that a slide scanner can have."""
    stated = _MPP.search(description)
    if stated:
        try:
            value = float(stated.group(1))
        except ValueError:
            value = 0.0
        if 0.01 <= value <= 100:
            return value, value
    scale = _PALETTE_OF_UNITS.get(first.number(296, 2))
    found = []
    for tag in (282, 283):
        ratio = first.tags.get(tag)
        if scale is None or ratio is None or len(ratio) < 2 or not ratio[0]:
            return None
        found.append(scale * float(ratio[1]) / float(ratio[0]))
    return (found[0], found[1]) if all(0.05 <= value <= 50 for value in found) else None


def _properties(description: str) -> dict[str, str]:
    """Return the scanner settings in an Aperio description; names and barcodes of patients are left where they are."""
    pairs = (part.partition("=") for part in description.split("|")[1:])
    known = {"AppMag", "MPP", "Filtered", "Left", "Top"}
    return {key.strip(): value.strip() for key, mark, value in pairs if mark and key.strip() in known}
