"""Header walker: one pass over the bytes of a PS3.10 part, without opening pixels (PS3.5 7, PS3.10 7.1).

Bounds-checked, iterative and linear: lengths that leave the part, delimiters without a start, nesting and element
floods end in InstanceRejected with a reason of the C000 range, never in a crash or a hang. Values are not copied:
an element is (tag, VR, start, length, items) into the walked buffer.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from wetread.core.dicom import transfer_syntax as ts
from wetread.core.dicom.dictionary import private_vr, vr_of
from wetread.core.errors import InstanceRejected
from wetread.core.identifiers import is_uid

CANNOT_UNDERSTAND: Final = 0xC000
"""(0008,1197) of everything that cannot be parsed (PS3.18 annex I.2: C000-CFFF)."""

Element = tuple[int, str, int, int, "list[list[Element]] | None"]
"""(tag, VR, value start, value length, items). Items is a list for sequences and None for everything else."""

PIXEL_DATA: Final = 0x7FE00010
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, PIXEL_DATA})
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF

LONG_FORMS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
SHORT_FORMS: Final = frozenset(
    {
        *(b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS"),
        *(b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"),
    }
)
"""VR codes with a 32-bit and with a 16-bit length in an explicit syntax (PS3.5 7.1.2)."""
_NAMES: Final = {vr: vr.decode() for vr in LONG_FORMS | SHORT_FORMS}


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What one part may ask of the parser (bytes, counts)."""

    depth: int = 64
    elements: int = 1_000_000
    inflated_bytes: int = 1 << 30
    inflate_ratio: int = 200


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixel data element.

    ``fragments``: (start, length) of each item of an encapsulated value, without the first (the Basic Offset Table);
    None for a native value.
    """

    tag: int
    vr: str
    start: int
    length: int
    fragments: tuple[tuple[int, int], ...] | None = None
    offset_table: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Header:
    """A walked part. Offsets of ``elements`` and ``pixels`` are into ``data`` (the inflated set when deflated)."""

    data: bytes | memoryview
    transfer_syntax_uid: str
    explicit: bool
    little_endian: bool
    dataset_start: int
    """Where the data set begins in the part as received."""
    preamble: bool
    meta: dict[int, str] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    pixels: Pixels | None = None
    deflated: bool = False

    @property
    def complete_file(self) -> bool:
        """True when the part had preamble and file meta information naming its syntax (PS3.10 7.1)."""
        return self.preamble and 0x00020010 in self.meta


def _refuse(text: str) -> InstanceRejected:
    return InstanceRejected(CANNOT_UNDERSTAND, text)


def read_header(part: bytes | memoryview, limits: HeaderLimits | None = None) -> Header:
    """Walk *part*. Raises InstanceRejected (C000) when it is not DICOM or breaks its own structure."""
    limits = limits or HeaderLimits()
    preamble = len(part) >= 132 and bytes(part[128:132]) == b"DICM"
    start = 132 if preamble else 0
    meta, dataset_start = read_meta(part, start)
    uid = meta.get(0x00020010, "")
    first = bytes(part[dataset_start : dataset_start + 8])
    if not uid:
        uid = _guess_syntax(first)
    if not is_uid(uid):
        # It goes into answers and their headers: what is no UID could be anything, line breaks included.
        msg = "the transfer syntax of the file meta information is not a UID"
        raise _refuse(msg)
    syntax = ts.transfer_syntax(uid)
    header = Header(part, uid, syntax.explicit, syntax.little_endian, dataset_start, preamble, meta)
    start = dataset_start
    if syntax.deflated:
        header.data = _inflate(part[dataset_start:], limits)
        header.deflated = True
        start = 0
        first = header.data[:8]
    # The file meta information sometimes lies about the VR encoding; the first element shows the truth.
    looks_explicit = bytes(first[4:6]) in _NAMES
    if header.explicit != looks_explicit and len(first) == 8 and header.little_endian and not syntax.deflated:
        header.explicit = looks_explicit
    _Walk(header, limits).run(start)
    if not header.elements:
        msg = "the data set is empty"
        raise _refuse(msg)
    return header


def read_meta(part: bytes | memoryview, start: int) -> tuple[dict[int, str], int]:
    """Read group 0002 (always Explicit VR Little Endian) up to the first other group, whatever its length says."""
    meta: dict[int, str] = {}
    position, end = start, len(part)
    while position + 8 <= end:
        group, element, vr, length = struct.unpack_from("<HH2sH", part, position)
        if group != 2:
            break
        position += 8
        if vr in LONG_FORMS:
            if position + 4 > end:
                msg = "the file meta information is cut off"
                raise _refuse(msg)
            (length,) = struct.unpack_from("<I", part, position)
            position += 4
        elif vr not in SHORT_FORMS:
            msg = "the file meta information is not Explicit VR Little Endian"
            raise _refuse(msg)
        if position + length > end:
            msg = "a file meta element is longer than the part"
            raise _refuse(msg)
        if vr in (b"UI", b"SH", b"AE"):
            meta[group << 16 | element] = bytes(part[position : position + length]).decode("latin-1").strip(" \0")
        position += length
    return meta, position


def _guess_syntax(first: bytes) -> str:
    """Return the syntax of a data set without file meta information when its first element leaves no doubt."""
    if len(first) == 8:
        little, big = struct.unpack("<H", first[:2])[0], struct.unpack(">H", first[:2])[0]
        explicit = first[4:6] in _NAMES
        if explicit and little in (0x0008, 0x0010):
            return ts.EXPLICIT_LE
        if explicit and big in (0x0008, 0x0010):
            return ts.EXPLICIT_BE
        if little == 0x0008 and struct.unpack("<I", first[4:8])[0] <= 1024:
            return ts.IMPLICIT_LE
    msg = "not a DICOM file: neither file meta information nor a recognisable data set"
    raise _refuse(msg)


def _inflate(deflated: bytes | memoryview, limits: HeaderLimits) -> bytes:
    engine = zlib.decompressobj(-15)
    cap = min(limits.inflated_bytes, max(len(deflated) * limits.inflate_ratio, 1 << 20))
    try:
        data = engine.decompress(deflated, cap)
    except zlib.error as error:
        msg = "the deflated data set is corrupt"
        raise _refuse(msg) from error
    if engine.unconsumed_tail:
        msg = f"the deflated data set grows beyond {cap} bytes"
        raise _refuse(msg)
    if not engine.eof:
        msg = "the deflated data set is cut off"
        raise _refuse(msg)
    return data


@dataclass(slots=True)
class _Level:
    """One open data set (``elements``) or sequence (``items``) and where it ends."""

    elements: list[Element] | None
    items: list[list[Element]] | None
    end: int
    undefined: bool
    explicit: bool
    little: bool
    creators: dict[int, str]


def read_elements(header: Header, limits: HeaderLimits, creators: dict[int, str]) -> int:
    """Walk the data set that ``header.data`` is and return how many elements it holds, those of items included.

    ``creators``: private blocks reserved before it. Raises InstanceRejected.
    """
    walk = _Walk(header, limits)
    walk.run(0, creators)
    return walk.count


class _Walk:
    def __init__(self, header: Header, limits: HeaderLimits) -> None:
        self._header = header
        self._limits = limits
        self.count = 0
        self._data = header.data

    def run(self, start: int, creators: dict[int, str] | None = None) -> None:
        header = self._header
        known = creators if creators is not None else {}
        top = _Level(header.elements, None, len(self._data), False, header.explicit, header.little_endian, known)
        self._loop([top], start)

    def _loop(self, stack: list[_Level], position: int) -> None:
        base = len(stack) - 1
        while len(stack) > base:
            level = stack[-1]
            if len(stack) > self._limits.depth * 2:
                raise _refuse(f"sequences nest deeper than {self._limits.depth}")
            if level.items is None:
                position = self._data_set(stack, level, position)
            else:
                position = self._sequence(stack, level, position)

    def _data_set(self, stack: list[_Level], level: _Level, position: int) -> int:
        """Read elements until the data set ends or a sequence opens."""
        data, end, explicit = self._data, level.end, level.explicit
        elements = level.elements
        assert elements is not None
        order = "<" if level.little else ">"
        short, long = struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "I").unpack_from
        plain = struct.Struct(order + "HHI").unpack_from
        budget = self._limits.elements
        while position + 8 <= end:
            self.count += 1
            if self.count > budget:
                raise _refuse(f"more than {budget} elements")
            start = position + 8
            vr: str | None
            if explicit:
                group, number, code, length = short(data, position)
                tag = group << 16 | number
                vr = _NAMES.get(code)
                if vr is not None and code in LONG_FORMS:
                    if start + 4 > end:
                        raise self._overrun(tag)
                    (length,) = long(data, start)
                    start += 4
                elif vr is None and group != 0xFFFE:
                    raise _refuse(f"({group:04X},{number:04X}) has no valid value representation")
            else:
                group, number, length = plain(data, position)
                tag = group << 16 | number
                vr = None
            if group == 0xFFFE:
                (length,) = long(data, position + 4)
                if tag == _ITEM_END and level.undefined and length == 0:
                    stack.pop()
                    return position + 8
                raise _refuse(f"({group:04X},{number:04X}) where no sequence is open")
            if vr is None or vr == "UN":
                vr = self._look_up(tag, vr, level, length)
            if group & 1 and 0x10 <= number <= 0xFF and 0 < length <= 64 and start + length <= end:
                level.creators[group << 8 | number] = bytes(data[start : start + length]).decode("latin-1").strip(" \0")
            if length == _UNDEFINED:
                if tag in PIXEL_TAGS or vr in ("OB", "OW"):
                    position = self._encapsulated(elements, tag, vr if vr in ("OB", "OW") else "OB", start, level)
                    continue
                return self._open(stack, level, tag, start, end, undefined=True, implicit=vr == "UN")
            stop = start + length
            if stop > end:
                raise self._overrun(tag)
            if vr == "SQ":
                if explicit and level.little and self._is_unknown_sequence(position):
                    position = self._try_unknown_sequence(elements, level, tag, start, stop)
                    continue
                return self._open(stack, level, tag, start, stop, undefined=False, implicit=False)
            elements.append((tag, vr, start, length, None))
            if tag in PIXEL_TAGS and len(stack) == 1:
                self._header.pixels = Pixels(tag, vr, start, length)
            position = stop
        if level.undefined:
            msg = "an item is not closed before its sequence ends"
            raise _refuse(msg)
        if position < end and (len(stack) > 1 or any(self._data[position:end])):
            msg = "bytes after the last element do not make an element"
            raise _refuse(msg)
        stack.pop()
        return end

    def _look_up(self, tag: int, vr: str | None, level: _Level, length: int) -> str:
        """Return the VR of an implicit or UN element (PS3.5 6.2.2); UN where no dictionary knows it."""
        if tag >> 16 & 1:
            if vr == "UN" and length == _UNDEFINED:
                return "UN"
            element = tag & 0xFFFF
            if element == 0:
                return "UL"
            if 0x10 <= element <= 0xFF:
                return "LO"
            creator = level.creators.get((tag >> 16) << 8 | element >> 8)
            return private_vr(tag, creator) if creator else "UN"
        if vr == "UN" and length >= 0xFFFF:
            # Too long for a 16-bit length: the reason why a writer had to say UN (PS3.5 6.2.2 note).
            return "UN"
        return vr_of(tag)

    def _is_unknown_sequence(self, position: int) -> bool:
        return bytes(self._data[position + 4 : position + 6]) == b"UN"

    def _try_unknown_sequence(self, elements: list[Element], level: _Level, tag: int, start: int, stop: int) -> int:
        """A known sequence written as UN holds Implicit VR Little Endian (PS3.5 6.2.2); else it stays opaque."""
        items: list[list[Element]] = []
        inner = _Level(None, items, stop, False, False, True, dict(level.creators))
        try:
            self._loop([inner], start)
        except InstanceRejected:
            elements.append((tag, "UN", start, stop - start, None))
        else:
            elements.append((tag, "SQ", start, stop - start, items))
        return stop

    def _open(
        self, stack: list[_Level], level: _Level, tag: int, start: int, end: int, *, undefined: bool, implicit: bool
    ) -> int:
        items: list[list[Element]] = []
        assert level.elements is not None
        level.elements.append((tag, "SQ", start, -1 if undefined else end - start, items))
        explicit, little = (False, True) if implicit else (level.explicit, level.little)
        stack.append(_Level(None, items, end, undefined, explicit, little, {}))
        return start

    def _sequence(self, stack: list[_Level], level: _Level, position: int) -> int:
        """Read item headers until the sequence ends or an item opens."""
        if not level.undefined and position == level.end:
            stack.pop()
            return position
        if position + 8 > level.end:
            msg = "a sequence is cut off"
            raise _refuse(msg)
        order = "<" if level.little else ">"
        group, number, length = struct.unpack_from(order + "HHI", self._data, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END and level.undefined:
            stack.pop()
            return position
        if tag != _ITEM:
            raise _refuse(f"({group:04X},{number:04X}) where an item must begin")
        undefined = length == _UNDEFINED
        end = level.end if undefined else position + length
        if end > level.end:
            raise self._overrun(tag)
        self.count += 1
        if self.count > self._limits.elements:
            raise _refuse(f"more than {self._limits.elements} elements")
        elements: list[Element] = []
        assert level.items is not None
        level.items.append(elements)
        stack.append(_Level(elements, None, end, undefined, level.explicit, level.little, {}))
        return position

    def _encapsulated(self, elements: list[Element], tag: int, vr: str, start: int, level: _Level) -> int:
        """Read the fragments of an undefined-length value (PS3.5 A.4)."""
        order = "<" if level.little else ">"
        header = struct.Struct(order + "HHI").unpack_from
        fragments: list[tuple[int, int]] = []
        position, end = start, level.end
        while True:
            if position + 8 > end:
                msg = "encapsulated pixel data is cut off"
                raise _refuse(msg)
            group, number, length = header(self._data, position)
            position += 8
            kind = group << 16 | number
            if kind == _SEQUENCE_END:
                break
            if kind != _ITEM or position + length > end:
                msg = "encapsulated pixel data has a broken fragment"
                raise _refuse(msg)
            self.count += 1
            if self.count > self._limits.elements:
                raise _refuse(f"more than {self._limits.elements} fragments")
            fragments.append((position, length))
            position += length
        elements.append((tag, vr, start, position - start, None))
        if tag in PIXEL_TAGS and level.elements is self._header.elements:
            table = fragments[0] if fragments else (0, 0)
            self._header.pixels = Pixels(tag, vr, start, position - start, tuple(fragments[1:]), table)
        return position

    def _overrun(self, tag: int) -> InstanceRejected:
        return _refuse(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than what holds it: truncated or corrupt")
