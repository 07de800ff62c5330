"""Frame table: where each frame of a stored instance lies, found once at ingest (PS3.5 A.4, PS3.18 8.7.3.3)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from wetread.core.dicom.attributes import Attributes, integer, text
from wetread.core.dicom.header import Header, Pixels

_EXTENDED_OFFSETS: Final = 0x7FE00001


@dataclass(frozen=True, slots=True)
class FrameTable:
    """Byte ranges of frames in the stored object.

    Native: frame *n* is ``frame_bits`` bits from bit ``(n - 1) * frame_bits`` of the value at ``start``.
    Encapsulated: ``spans[n - 1]`` holds (start, length) pairs, flat, of its fragments. ``embedded``: the data set is
    deflated, offsets are into the inflated set.
    """

    count: int = 0
    start: int = 0
    length: int = 0
    frame_bits: int = 0
    spans: tuple[tuple[int, ...], ...] = field(default_factory=tuple)
    embedded: bool = False
    offset: int = 0
    """Where the data set starts in the stored object (what ``embedded`` offsets are relative to once inflated)."""

    @property
    def encapsulated(self) -> bool:
        """True when frames are code streams of their own."""
        return bool(self.spans)

    def ranges(self, number: int) -> list[tuple[int, int]]:
        """Return the byte ranges of frame *number* (1-based, must exist).

        A frame of single-bit pixels may start within a byte: then the range is the bytes that touch it.
        """
        if self.spans:
            flat = self.spans[number - 1]
            return [(flat[at], flat[at + 1]) for at in range(0, len(flat), 2)]
        first = (number - 1) * self.frame_bits
        begin, end = first // 8, -(-(first + self.frame_bits) // 8)
        return [(self.start + begin, end - begin)]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form that the index stores; defaults left out."""
        fields = {
            "count": self.count,
            "start": self.start,
            "length": self.length,
            "frame_bits": self.frame_bits,
            "spans": [list(span) for span in self.spans],
            "embedded": self.embedded,
            "offset": self.offset,
        }
        return {name: value for name, value in fields.items() if value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FrameTable:
        """Return the table of a stored JSON form."""
        fields = dict(stored)
        fields["spans"] = tuple(tuple(span) for span in fields.get("spans", ()))
        return cls(**fields)


def frame_table(header: Header, data: Attributes, *, shift: int = 0) -> FrameTable:
    """Return the table of a walked instance. ``shift``: bytes that were put in front of the part when it was stored."""
    pixels = header.pixels
    offset = header.dataset_start + shift
    if pixels is None or not pixels.length:
        return FrameTable(offset=offset, embedded=header.deflated)
    shift = 0 if header.deflated else shift
    frames = max(integer(data, "00280008") or 1, 1)
    if pixels.fragments is not None:
        groups = _group_fragments(header, pixels, frames)
        spans = tuple(tuple(v for start, length in group for v in (start + shift, length)) for group in groups)
        return FrameTable(len(spans), pixels.start + shift, pixels.length, 0, spans, header.deflated, offset)
    bits = _native_frame_bits(data)
    available = pixels.length * 8 // bits if bits else 0
    return FrameTable(min(frames, available), pixels.start + shift, pixels.length, bits, (), header.deflated, offset)


def _native_frame_bits(data: Attributes) -> int:
    rows, columns = integer(data, "00280010") or 0, integer(data, "00280011") or 0
    samples, allocated = integer(data, "00280002") or 1, integer(data, "00280100") or 0
    if min(rows, columns, samples, allocated) <= 0:
        return 0
    if text(data, "00280004").strip() == "YBR_FULL_422" and samples == 3:
        # Two chrominance samples are shared by two pixels (PS3.3 C.7.6.3.1.2).
        samples = 2
    return rows * columns * samples * allocated


def _group_fragments(header: Header, pixels: Pixels, frames: int) -> list[list[tuple[int, int]]]:
    fragments = list(pixels.fragments or ())
    if not fragments:
        return []
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    offsets = _extended_offsets(header) or _basic_offsets(header, pixels)
    if len(offsets) == frames:
        # Offsets count from the first item tag behind the offset table; an item header has 8 bytes.
        origin = fragments[0][0] - 8
        grouped = _group_by(fragments, [origin + offset for offset in offsets])
        if grouped is not None:
            return grouped
    starts = [at for at, (start, length) in enumerate(fragments) if _is_start(header.data, start, length)]
    if len(starts) == frames and starts[0] == 0:
        ends = [*starts[1:], len(fragments)]
        return [fragments[begin:end] for begin, end in zip(starts, ends, strict=True)]
    return []


def _group_by(fragments: list[tuple[int, int]], origins: list[int]) -> list[list[tuple[int, int]]] | None:
    groups: list[list[tuple[int, int]]] = [[] for _ in origins]
    begin = {origin: number for number, origin in enumerate(origins)}
    current = -1
    for start, length in fragments:
        current = begin.get(start - 8, current)
        if current < 0:
            return None
        groups[current].append((start, length))
    return groups if all(groups) else None


def _basic_offsets(header: Header, pixels: Pixels) -> list[int]:
    start, length = pixels.offset_table
    count = length // 4
    return list(struct.unpack_from(f"<{count}I", header.data, start)) if count else []


def _extended_offsets(header: Header) -> list[int]:
    for tag, _, start, length, items in header.elements:
        if tag == _EXTENDED_OFFSETS and items is None and length and length % 8 == 0:
            return list(struct.unpack_from(f"<{length // 8}Q", header.data, start))
    return []


def _is_start(data: bytes | memoryview, start: int, length: int) -> bool:
    """Return whether a fragment begins a code stream: JPEG, JPEG-LS (SOI) or JPEG 2000 family (SOC)."""
    return length >= 2 and bytes(data[start : start + 2]) in (b"\xff\xd8", b"\xff\x4f")
