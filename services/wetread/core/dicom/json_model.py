"""DICOM JSON model straight from the walked header, without a data set object in between (PS3.18 annex F).

Where it differs from pydicom's model, on purpose: group lengths are left out; empty values among several are null and
trailing padding of each value is cut; empty PN groups are left out; a DS or IS that a number cannot carry stays a
string; NaN and infinities are the strings ``NaN``, ``inf``, ``-inf``; other-word values of big endian data are
little endian; values that break the length of their VR are UN.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import numpy as np

from wetread.core.dicom.charsets import DEFAULT, decode_text, encodings_of
from wetread.core.dicom.header import Element, Header
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE

JsonDataset = dict[str, dict[str, Any]]

INLINE_LIMIT: Final = 4096
"""Binary values up to this many bytes are InlineBinary, longer ones BulkDataURI (ours to choose, PS3.18 F.2.7)."""

BULK_KEY: Final = "BulkDataURI"
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LUT_DESCRIPTORS: Final = frozenset({0x00281101, 0x00281102, 0x00281103, 0x00283002})
_CHARSET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_LUT_DATA: Final = 0x00283006
_LUT_DESCRIPTOR: Final = 0x00283002

_BINARY: Final = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_WORD: Final = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}
_PLAIN: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI"})
_TEXT: Final = frozenset({"LO", "SH", "UC"})
_PARAGRAPH: Final = frozenset({"LT", "ST", "UT"})
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_SIZES: Final = {"H": 2, "h": 2, "I": 4, "i": 4, "f": 4, "d": 8, "q": 8, "Q": 8}
_EXACT_INTEGER: Final = 1 << 53


def to_json(header: Header, *, inline_limit: int = INLINE_LIMIT) -> tuple[JsonDataset, bool]:
    """Return (data set in the DICOM JSON model, True when all text could be decoded).

    BulkDataURI values are relative (``/bulkdata/{path}``): the server puts the address of the instance in front.
    """
    converter = _Converter(header, inline_limit)
    return converter.data_set(header.elements, DEFAULT, 0, ""), converter.clean


def convert_elements(header: Header, encodings: tuple[str, ...], representation: int) -> tuple[JsonDataset, bool]:
    """Return the model of a piece of a data set, whose character set and pixel representation come from before it."""
    converter = _Converter(header, INLINE_LIMIT)
    return converter.data_set(header.elements, encodings, representation, ""), converter.clean


SELF_EVIDENT: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI"})
"""VRs whose value alone says what it becomes."""
NOT_ALONE: Final = frozenset({_CHARSET})
"""Elements of such a VR that others depend on."""


def self_evident_entry(vr: str, value: bytes) -> dict[str, Any]:
    """Return the entry of a value of one of the ``SELF_EVIDENT`` VRs: without a walk, for a single element."""
    return _ALONE._entry(vr, value, DEFAULT)  # noqa: SLF001 - of this module


class _Converter:
    def __init__(self, header: Header, inline_limit: int) -> None:
        self._data = header.data
        self._little = header.little_endian
        self._implicit = not header.explicit
        self._inline_limit = inline_limit
        self.clean = True

    def data_set(
        self, elements: list[Element], encodings: tuple[str, ...], representation: int, path: str
    ) -> JsonDataset:
        """Convert one level; character set and pixel representation are inherited by items."""
        result: JsonDataset = {}
        last = -1
        ordered = True
        descriptor_entries = 0
        for tag, known_vr, start, length, items in elements:
            vr = known_vr
            if tag & 0xFFFF == 0 or tag >> 16 == 2:
                continue
            if tag < last:
                ordered = False
            last = tag
            key = f"{tag:08X}"
            if items is not None:
                entry: dict[str, Any] = {"vr": "SQ"}
                if items:
                    entry["Value"] = [
                        self.data_set(item, encodings, representation, f"{path}{key}/{number}/")
                        for number, item in enumerate(items)
                    ]
                result[key] = entry
                continue
            if tag in _PIXELS:
                entry = {"vr": self._pixel_vr(vr, elements)}
                if length:
                    entry[BULK_KEY] = f"/bulkdata/{path}{key}"
                result[key] = entry
                continue
            if " " in vr:
                vr = self._settle(tag, vr, representation, descriptor_entries)
            if vr in _BINARY:
                result[key] = self._binary(vr, start, length, path + key)
                continue
            value = bytes(self._data[start : start + length])
            if tag == _CHARSET:
                encodings = encodings_of(value)
            entry = self._entry(vr, value, encodings)
            if tag in _LUT_DESCRIPTORS and "Value" in entry and entry["Value"][0] < 0:
                # The number of entries is unsigned whatever the pixel representation says (PS3.3 C.11.1.1).
                entry["Value"][0] += 65536
            if tag == _PIXEL_REPRESENTATION and "Value" in entry and isinstance(entry["Value"][0], int):
                representation = entry["Value"][0]
            elif tag == _LUT_DESCRIPTOR and "Value" in entry:
                descriptor_entries = entry["Value"][0]
            result[key] = entry
        return result if ordered else dict(sorted(result.items()))

    def _pixel_vr(self, vr: str, elements: list[Element]) -> str:
        if " " not in vr:
            return vr
        return "OW" if self._implicit else _native_vr(elements, self._data, little=self._little)

    def _settle(self, tag: int, vr: str, representation: int, descriptor_entries: int) -> str:
        """Choose among the VRs of an ambiguous attribute (PS3.5 A.1, PS3.3 C.7.6.3.1.2, C.11.1.1.1)."""
        if vr == "US or SS":
            return "SS" if representation == 1 else "US"
        if tag == _LUT_DATA and descriptor_entries == 1:
            return "US"
        return "OW"

    def _binary(self, vr: str, start: int, length: int, path: str) -> dict[str, Any]:
        if not length:
            return {"vr": vr}
        if length > self._inline_limit:
            return {"vr": vr, BULK_KEY: f"/bulkdata/{path}"}
        value = little_endian(bytes(self._data[start : start + length]), vr, little=self._little)
        return {"vr": vr, "InlineBinary": binascii.b2a_base64(value, newline=False).decode("ascii")}

    def _entry(self, vr: str, value: bytes, encodings: tuple[str, ...]) -> dict[str, Any]:
        if not value:
            return {"vr": vr}
        values: list[Any] | None
        if vr in _PLAIN:
            values = _strings(value.decode("latin-1"), strip_left=vr == "AE")
        elif vr in _TEXT:
            values = _strings(self._text(value, encodings))
        elif vr in ("DS", "IS"):
            convert: Callable[[str], Any] = decimal_number if vr == "DS" else integer_number
            texts = value.decode("latin-1").strip(" \0").split("\\")
            values = [convert(text.strip(" \0")) for text in texts]
            if values == [None]:
                values = None
        elif vr in _NUMBERS:
            values = self._numbers(_NUMBERS[vr], value)
        elif vr == "PN":
            values = self._names(value, encodings)
        elif vr in _PARAGRAPH:
            text = self._text(value, encodings).rstrip(" \0")
            values = [text] if text else None
        elif vr == "UR":
            text = value.decode("latin-1").rstrip(" \0")
            values = [text] if text else None
        elif vr == "AT" and len(value) % 4 == 0:
            words = struct.unpack(f"{'<' if self._little else '>'}{len(value) // 2}H", value)
            values = [f"{words[at]:04X}{words[at + 1]:04X}" for at in range(0, len(words), 2)]
        else:
            return {"vr": "UN", "InlineBinary": binascii.b2a_base64(value, newline=False).decode("ascii")}
        if values is None:
            return {"vr": vr}
        if not values:
            return {"vr": "UN", "InlineBinary": binascii.b2a_base64(value, newline=False).decode("ascii")}
        return {"vr": vr, "Value": values}

    def _text(self, value: bytes, encodings: tuple[str, ...]) -> str:
        text, clean = decode_text(value, encodings)
        if not clean:
            self.clean = False
        return text

    def _names(self, value: bytes, encodings: tuple[str, ...]) -> list[dict[str, str] | None] | None:
        text = self._text(value.rstrip(b" \0"), encodings)
        if not text:
            return None
        names: list[dict[str, str] | None] = []
        for name in text.split("\\"):
            groups = dict(zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False))
            names.append({group: part.rstrip(" ") for group, part in groups.items() if part.strip(" ")} or None)
        return None if names == [None] else names

    def _numbers(self, code: str, value: bytes) -> list[Any]:
        """Return the numbers, or an empty list when the length does not fit the VR."""
        size = _SIZES[code]
        if len(value) % size:
            return []
        numbers: list[Any] = list(struct.unpack(f"{'<' if self._little else '>'}{len(value) // size}{code}", value))
        if code in "fd":
            return [number if math.isfinite(number) else _name_of(number) for number in numbers]
        if code in "qQ":
            return [number if abs(number) <= _EXACT_INTEGER else str(number) for number in numbers]
        return numbers


_ALONE: Final = _Converter(Header(b"", EXPLICIT_LE, True, True, 0, True), INLINE_LIMIT)


def _native_vr(elements: list[Element], data: bytes | memoryview, *, little: bool) -> str:
    for tag, _, start, length, _items in elements:
        if tag == 0x00280100 and length == 2:
            (bits,) = struct.unpack_from("<H" if little else ">H", data, start)
            return "OW" if bits > 8 else "OB"
    return "OW"


def little_endian(value: bytes, vr: str, *, little: bool) -> bytes:
    """Return an other-word *value* in little endian order (bulk data and InlineBinary always are, PS3.18 F.2.7)."""
    size = _WORD.get(vr, 1)
    if little or size == 1 or len(value) % size:
        return value
    return np.frombuffer(value, dtype=f">u{size}").astype(f"<u{size}").tobytes()


def _name_of(number: float) -> str:
    return "NaN" if math.isnan(number) else ("inf" if number > 0 else "-inf")


def _strings(text: str, *, strip_left: bool = False) -> list[str | None] | None:
    text = text.rstrip(" \0")
    if strip_left:
        text = text.strip(" \0")
    if not text:
        return None
    if "\\" not in text:
        return [text]
    values = [part.strip(" \0") if strip_left else part.rstrip(" \0") for part in text.split("\\")]
    return [part or None for part in values]


def decimal_number(text: str) -> float | int | str | None:
    """Return a DS as the JSON number of the same value, or its text where a double would change it."""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    if "_" in text or not math.isfinite(number):
        return text
    if len(text) > 15:
        try:
            if Decimal(text) != Decimal(repr(number)):
                return text
        except InvalidOperation:
            return text
    return number


def integer_number(text: str) -> int | str | None:
    """Return an IS as a JSON number, or its text when it is none or too large to be exact."""
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        try:
            real = float(text)
        except ValueError:
            return text
        if not real.is_integer():
            return text
        number = int(real)
    return number if abs(number) <= _EXACT_INTEGER and "_" not in text else text
