"""Headers that resemble earlier ones: most elements of a series' instances are the same bytes, converted only once.

What an element becomes in the DICOM JSON model follows from its bytes and the character set, so it is remembered under
them. Whatever is not remembered is converted by the walker and the converter themselves (``header``, ``json_model``),
one element at a time; whatever is not plain (another syntax than Explicit VR Little Endian, encapsulated pixel data,
elements out of order, unknown VRs, any damage) is left to them as a whole. So the result is theirs by construction.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

import orjson

from wetread.core.dicom.charsets import DEFAULT, encodings_of
from wetread.core.dicom.header import (
    LONG_FORMS,
    PIXEL_TAGS,
    SHORT_FORMS,
    Header,
    HeaderLimits,
    Pixels,
    read_elements,
    read_meta,
)
from wetread.core.dicom.json_model import BULK_KEY, JsonDataset, convert_elements
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE
from wetread.core.errors import InstanceRejected

_SHORT_AT: Final = struct.Struct("<HH2sH").unpack_from
_LONG_AT: Final = struct.Struct("<I").unpack_from
_NEVER: Final = frozenset({0x0002, 0xFFFE})
"""Groups that a data set does not hold."""
_UNDEFINED: Final = 0xFFFFFFFF
_REMEMBERED_BYTES: Final = 1 << 16
"""Longer values are not worth remembering (or are none of the plain ones)."""
_CHARSET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103


@dataclass(frozen=True, slots=True)
class Converted:
    """One element in the DICOM JSON model. ``json``: its member of the JSON object, ``"gggeeee":{...}``."""

    key: str
    entry: dict[str, Any]
    json: bytes
    clean: bool
    elements: int
    """How many elements it counts for, those of its items included."""


@dataclass(frozen=True, slots=True)
class PlainHeader:
    """A header read with the help of earlier ones; ``json`` holds the members of ``attributes`` in their order.

    Entries are shared between instances: nobody changes them.
    """

    header: Header
    attributes: JsonDataset
    json: list[bytes]
    clean: bool


class HeaderMemory:
    """Remembers converted elements, at most twice ``capacity``: those unused for long are forgotten.

    Any thread may read with it; two that meet only do some work twice.
    """

    def __init__(self, limits: HeaderLimits | None = None, *, capacity: int = 8192) -> None:
        self._limits = limits or HeaderLimits()
        self._capacity = capacity
        self._young: dict[tuple[bytes, tuple[str, ...]], Converted] = {}
        self._old: dict[tuple[bytes, tuple[str, ...]], Converted] = {}

    def read(self, head: bytes, size: int) -> PlainHeader | None:
        """Return the header of a part of *size* bytes that begins with *head*; None: it needs the whole walk."""
        try:
            return self._read(head, size)
        except (InstanceRejected, struct.error):
            return None  # the walk finds it again and says what is wrong

    def _read(self, head: bytes, size: int) -> PlainHeader | None:
        if head[128:132] != b"DICM":
            return None
        meta, position = read_meta(head, 132)
        if meta.get(0x00020010) != EXPLICIT_LE:
            return None
        header = Header(head, EXPLICIT_LE, True, True, position, True, meta)
        attributes: JsonDataset = {}
        json: list[bytes] = []
        encodings = DEFAULT
        creators: dict[int, str] = {}
        last, count, clean, representation, end = -1, 0, True, 0, len(head)
        while position < size:
            group, number, code, length = _SHORT_AT(head, position)
            start = position + 8
            if code in LONG_FORMS:
                (length,) = _LONG_AT(head, start)
                start += 4
            elif code not in SHORT_FORMS:
                return None
            tag = group << 16 | number
            stop = start + length
            if tag <= last or group in _NEVER or length == _UNDEFINED or stop > size:
                return None
            last = tag
            if tag in PIXEL_TAGS:
                count += 1
                header.pixels = Pixels(tag, code.decode(), start, length)
                found = _bulk(tag, code.decode(), length)
            elif stop > end or length > _REMEMBERED_BYTES:
                return None
            elif code == b"UN":
                if not group & 1:
                    return None  # may be of any VR, which may depend on other elements
                found = self._convert(head[position:stop], encodings, representation, creators)
            else:
                found = self._recall(head[position:stop], encodings)
                if tag == _CHARSET:
                    encodings = encodings_of(head[start:stop])
                elif tag == _PIXEL_REPRESENTATION and length == 2:
                    representation = int.from_bytes(head[start:stop], "little")
                elif group & 1 and 0x10 <= number <= 0xFF and 0 < length <= 64:
                    creators[group << 8 | number] = head[start:stop].decode("latin-1").strip(" \0")
            count += found.elements
            if count > self._limits.elements:
                return None
            if number:  # group lengths are not part of the model
                attributes[found.key] = found.entry
                json.append(found.json)
                clean = clean and found.clean
            position = stop
        return PlainHeader(header, attributes, json, clean) if attributes else None

    def _recall(self, raw: bytes, encodings: tuple[str, ...]) -> Converted:
        key = (raw, encodings)
        found = self._young.get(key)
        if found is None:
            found = self._old.get(key) or self._convert(raw, encodings, 0, {})
            if len(self._young) >= self._capacity:
                self._old, self._young = self._young, {}
            self._young[key] = found
        return found

    def _convert(
        self, raw: bytes, encodings: tuple[str, ...], representation: int, creators: dict[int, str]
    ) -> Converted:
        header = Header(raw, EXPLICIT_LE, True, True, 0, True)
        count = read_elements(header, self._limits, creators)
        model, clean = convert_elements(header, encodings, representation)
        if not model:
            return Converted("", {}, b"", clean, count)
        ((key, entry),) = model.items()
        return Converted(key, entry, orjson.dumps(model)[1:-1], clean, count)


def _bulk(tag: int, vr: str, length: int) -> Converted:
    key = f"{tag:08X}"
    entry: dict[str, Any] = {"vr": vr, BULK_KEY: f"/bulkdata/{key}"} if length else {"vr": vr}
    return Converted(key, entry, orjson.dumps({key: entry})[1:-1], True, 0)
