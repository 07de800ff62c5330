"""Headers that resemble earlier ones: most elements of a series' instances are the same bytes, converted only once.

What an element becomes in the DICOM JSON model follows from its bytes and the character set, so it is remembered under
them; elements that came one after the other are remembered as runs, which are recognised by one comparison. Whatever is
not remembered is converted by the walker and the converter themselves (``header``, ``json_model``), one element at a
time; whatever is not plain (another syntax than Explicit VR Little Endian, encapsulated pixel data, elements out of
order, unknown VRs, any damage) is left to them as a whole. So the result is theirs by construction.
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
from wetread.core.dicom.json_model import (
    BULK_KEY,
    NOT_ALONE,
    SELF_EVIDENT,
    JsonDataset,
    convert_elements,
    self_evident_entry,
)
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE
from wetread.core.errors import InstanceRejected

_SHORT_AT: Final = struct.Struct("<HH2sH").unpack_from
_LONG_AT: Final = struct.Struct("<I").unpack_from
_NEVER: Final = frozenset({0x0002, 0xFFFE})
"""Groups that a data set does not hold."""
_UNDEFINED: Final = 0xFFFFFFFF
_REMEMBERED_BYTES: Final = 4096
"""Longer elements are seldom the same in the next instance."""
_PLAIN_BYTES: Final = 1 << 16
"""Headers with longer values are left to the walk."""
_CHARSET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_SELF_EVIDENT: Final = {vr.encode(): vr for vr in SELF_EVIDENT}
_SHORTEST_RUN: Final = 2
_LONGEST_RUN: Final = 24
_ALTERNATIVES: Final = 24
"""Runs that begin with the same element: of the series that arrive at the same time."""

Encodings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Converted:
    """One element in the DICOM JSON model. ``json``: its member of the JSON object, a comma in front."""

    key: str
    entry: dict[str, Any]
    json: bytes
    clean: bool
    elements: int
    """How many elements it counts for, those of its items included."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Elements that came one after the other. ``raw``: their bytes."""

    raw: bytes
    last: int
    attributes: JsonDataset
    json: bytes
    elements: int


@dataclass(frozen=True, slots=True)
class PlainHeader:
    """A header read with the help of earlier ones; ``json``: the JSON object of ``attributes``.

    Entries are shared between instances: nobody changes them.
    """

    header: Header
    attributes: JsonDataset
    json: bytes
    clean: bool


class HeaderMemory:
    """Remembers elements (of ``room`` bytes, and as many that were in use lately) and runs (of ``room`` bytes).

    Any thread may read with it; two that meet only do some work twice.
    """

    def __init__(self, limits: HeaderLimits | None = None, *, room: int = 4 << 20) -> None:
        self._limits = limits or HeaderLimits()
        self._room = room
        self._element_bytes = 0
        self._run_bytes = 0
        self._young: dict[tuple[bytes, Encodings], Converted] = {}
        self._old: dict[tuple[bytes, Encodings], Converted] = {}
        self._runs: dict[tuple[bytes, Encodings], list[_Run]] = {}

    def read(self, head: bytes, size: int) -> PlainHeader | None:
        """Return the header of a part of *size* bytes that begins with *head*; None: it needs the whole walk."""
        try:
            return _Reading(self, head, size, self._limits).run()
        except (InstanceRejected, struct.error):
            return None  # the walk finds it again and says what is wrong

    def recall(self, raw: bytes, encodings: Encodings) -> tuple[Converted, bool]:
        """Return what an element becomes, and whether it had been seen before."""
        key = (raw, encodings)
        found = self._young.get(key)
        if found is not None:
            return found, True
        found = self._old.get(key)
        seen = found is not None
        if found is None:
            found = _self_evident(raw) or convert(raw, encodings, 0, {}, self._limits)
        if len(raw) <= _REMEMBERED_BYTES:
            self._element_bytes += len(raw) + len(found.json)
            if self._element_bytes > self._room:
                self._old, self._young, self._element_bytes = self._young, {}, 0
            self._young[key] = found
        return found, seen

    def run_at(self, head: bytes, position: int, encodings: Encodings) -> _Run | None:
        """Return a remembered run that *head* goes on with."""
        runs = self._runs.get((head[position : position + 8], encodings))
        if runs is not None:
            for run in runs:
                if head.startswith(run.raw, position):
                    return run
        return None

    def keep_run(self, head: bytes, start: int, stop: int, encodings: Encodings, elements: list[Converted]) -> None:
        """Remember elements that have all been seen before."""
        attributes = {one.key: one.entry for one in elements if one.key}
        json = b"".join(one.json for one in elements)
        count = sum(one.elements for one in elements)
        run = _Run(head[start:stop], int(elements[-1].key, 16), attributes, json, count)
        self._run_bytes += len(run.raw) + len(json)
        if self._run_bytes > self._room:
            self._runs, self._run_bytes = {}, 0
        key = (head[start : start + 8], encodings)
        self._runs[key] = [run, *self._runs.get(key, ())][:_ALTERNATIVES]


class _Reading:
    """One pass over a header."""

    def __init__(self, memory: HeaderMemory, head: bytes, size: int, limits: HeaderLimits) -> None:
        self._memory = memory
        self._head = head
        self._size = size
        self._limits = limits
        self._attributes: JsonDataset = {}
        self._json: list[bytes] = []
        self._encodings = DEFAULT
        self._creators: dict[int, str] = {}
        self._representation = 0
        self._clean = True
        self._seen: list[Converted] = []
        self._seen_from = 0

    def run(self) -> PlainHeader | None:
        head, size = self._head, self._size
        if head[128:132] != b"DICM":
            return None
        meta, position = read_meta(head, 132)
        if meta.get(0x00020010) != EXPLICIT_LE:
            return None
        header = Header(head, EXPLICIT_LE, True, True, position, True, meta)
        last, count, end = -1, 0, len(head)
        while position < size:
            run = self._memory.run_at(head, position, self._encodings)
            if run is not None:
                self._settle(position)
                group, number, _, _ = _SHORT_AT(head, position)
                if group << 16 | number <= last:
                    return None
                last = run.last
                count += run.elements
                self._attributes.update(run.attributes)
                self._json.append(run.json)
                position += len(run.raw)
                continue
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
                self._settle(position)
                self._take(_bulk(tag, code.decode(), length))
            elif stop > end or length > _PLAIN_BYTES or (code == b"UN" and not group & 1):
                return None  # (UN may be of any VR, which may depend on other elements)
            else:
                count += self._element(tag, code, position, start, stop)
            position = stop
        self._settle(position)
        if not self._attributes or count > self._limits.elements:
            return None
        json = b"{" + b"".join(self._json)[1:] + b"}"
        return PlainHeader(header, self._attributes, json, self._clean)

    def _element(self, tag: int, code: bytes, position: int, start: int, stop: int) -> int:
        """Convert one element and return how many it counts for; what others depend on is kept out of runs."""
        head = self._head
        raw = head[position:stop]
        if tag == _CHARSET:
            self._settle(position)
        if code == b"UN":
            found, seen = convert(raw, self._encodings, self._representation, self._creators, self._limits), False
        else:
            found, seen = self._memory.recall(raw, self._encodings)
            if tag == _CHARSET:
                self._encodings, seen = encodings_of(head[start:stop]), False
            elif tag == _PIXEL_REPRESENTATION:
                self._representation, seen = int.from_bytes(head[start:stop], "little"), False
            elif tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and start < stop <= start + 64:
                name = head[start:stop].decode("latin-1").strip(" \0")
                self._creators[(tag >> 16) << 8 | tag & 0xFFFF], seen = name, False
        if not found.key:
            self._settle(position)  # a group length: not part of the model
        elif seen and found.clean:
            if not self._seen:
                self._seen_from = position
            self._seen.append(found)
            if len(self._seen) == _LONGEST_RUN:
                self._settle(stop)
        else:
            self._settle(position)
            self._take(found)
        return found.elements

    def _settle(self, stop: int) -> None:
        """End the elements in a row that had been seen before; from now on they are a run."""
        seen, self._seen = self._seen, []
        if len(seen) >= _SHORTEST_RUN:
            self._memory.keep_run(self._head, self._seen_from, stop, self._encodings, seen)
        for one in seen:
            self._take(one)

    def _take(self, found: Converted) -> None:
        self._attributes[found.key] = found.entry
        self._json.append(found.json)
        self._clean = self._clean and found.clean


def _self_evident(raw: bytes) -> Converted | None:
    """Convert an element whose VR says all; None: it needs the walk. Those that differ in each instance are such."""
    group, number, code, _ = _SHORT_AT(raw, 0)
    vr = _SELF_EVIDENT.get(code)
    if vr is None or group & 1 or not number or group << 16 | number in NOT_ALONE:
        return None
    key = f"{group:04X}{number:04X}"
    entry = self_evident_entry(vr, raw[8:])
    return Converted(key, entry, b"," + orjson.dumps({key: entry})[1:-1], True, 1)


def convert(
    raw: bytes, encodings: Encodings, representation: int, creators: dict[int, str], limits: HeaderLimits
) -> Converted:
    """Convert one element by the whole walk. Raises InstanceRejected."""
    header = Header(raw, EXPLICIT_LE, True, True, 0, True)
    count = read_elements(header, limits, creators)
    model, clean = convert_elements(header, encodings, representation)
    if not model:
        return Converted("", {}, b"", clean, count)
    ((key, entry),) = model.items()
    return Converted(key, entry, b"," + orjson.dumps(model)[1:-1], clean, count)


def _bulk(tag: int, vr: str, length: int) -> Converted:
    key = f"{tag:08X}"
    entry: dict[str, Any] = {"vr": vr, BULK_KEY: f"/bulkdata/{key}"} if length else {"vr": vr}
    return Converted(key, entry, b"," + orjson.dumps({key: entry})[1:-1], True, 0)
