"""From the DICOM JSON model to an Explicit VR Little Endian data set (PS3.18 annex F, PS3.5 7).

The way back of ``json_model``. Text goes out as UTF-8 with (0008,0005) ISO_IR 192 where there is any beyond ASCII:
JSON has no other encoding to keep. Group 0002 and group lengths of the input are left out.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydicom.valuerep import format_number_as_ds

from wetread.core.dicom.dictionary import vr_of
from wetread.core.errors import InstanceRejected

CANNOT_UNDERSTAND: Final = 0xC000
DEPTH_LIMIT: Final = 64
PIXEL_DATA: Final = "7FE00010"

BulkReader = Callable[[str, str], bytes]
"""(BulkDataURI, tag) to the value's little endian bytes. Raises InstanceRejected."""

_TEXT: Final = frozenset({"LO", "SH", "UC", "LT", "ST", "UT", "PN"})
_PLAIN: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UI", "UR"})
_BINARY: Final = frozenset({"OB", "OW", "OD", "OF", "OL", "OV", "UN"})
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_LONG: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT_LIMIT: Final = 0xFFFE
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_CHARSET: Final = "00080005"
_UTF8: Final = "ISO_IR 192"


def encode_data_set(data: Mapping[str, Any], bulk: BulkReader, *, pixels: bytes | None = None) -> bytes:
    """Return the encoded data set.

    ``pixels``: the complete pixel data element, where the caller has made it. Raises InstanceRejected (C000 range) for
    what is not the DICOM JSON model.
    """
    return _Encoder(bulk, pixels, utf8=not _ascii(data)).data_set(data, 0)


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return one element of defined length. A value too long for the length field of its VR is UN (PS3.5 6.2.2)."""
    if len(value) % 2:
        value += b"\0" if vr in _BINARY or vr == "UI" else b" "
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if vr not in _LONG and len(value) <= _SHORT_LIMIT:
        return head + vr.encode() + struct.pack("<H", len(value)) + value
    return head + (vr if vr in _LONG else "UN").encode() + struct.pack("<HI", 0, len(value)) + value


def _refuse(text: str) -> InstanceRejected:
    return InstanceRejected(CANNOT_UNDERSTAND, text)


def _ascii(value: Any, depth: int = 0) -> bool:
    if depth > DEPTH_LIMIT * 4:
        raise _refuse(f"sequences nest deeper than {DEPTH_LIMIT}")
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, Mapping):
        return all(_ascii(inner, depth + 1) for inner in value.values())
    if isinstance(value, list):
        return all(_ascii(inner, depth + 1) for inner in value)
    return True


class _Encoder:
    def __init__(self, bulk: BulkReader, pixels: bytes | None, *, utf8: bool) -> None:
        self._bulk = bulk
        self._pixels = pixels
        self._utf8 = utf8

    def data_set(self, data: Mapping[str, Any], depth: int) -> bytes:
        """Return the elements of one level in ascending order."""
        if depth > DEPTH_LIMIT:
            raise _refuse(f"sequences nest deeper than {DEPTH_LIMIT}")
        entries = {}
        for key, entry in data.items():
            tag = _tag(key)
            if not isinstance(entry, Mapping):
                raise _refuse(f"({key[:4]},{key[4:8]}) is not an object")
            if tag >> 16 != 2 and tag & 0xFFFF:
                entries[tag] = entry
        if self._utf8 and (depth == 0 or 0x00080005 in entries):
            entries[0x00080005] = {"vr": "CS", "Value": [_UTF8]}
        pieces = [self._entry(tag, entries[tag], depth) for tag in sorted(entries)]
        return b"".join(pieces)

    def _entry(self, tag: int, entry: Mapping[str, Any], depth: int) -> bytes:
        name = f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        if depth == 0 and f"{tag:08X}" == PIXEL_DATA and self._pixels is not None:
            return self._pixels
        vr = entry.get("vr") or vr_of(tag).partition(" ")[0]
        if sum(form in entry for form in ("Value", "InlineBinary", "BulkDataURI")) > 1:
            raise _refuse(f"{name} has more than one kind of value")
        if vr == "SQ":
            return self._sequence(tag, entry.get("Value") or [], depth)
        if not isinstance(vr, str) or vr not in _TEXT | _PLAIN | _BINARY | _NUMBERS.keys() | {"DS", "IS", "AT"}:
            raise _refuse(f"{name} has no valid value representation")
        if "BulkDataURI" in entry:
            value = self._bulk(str(entry["BulkDataURI"]), f"{tag:08X}")
        elif "InlineBinary" in entry:
            value = _inline(entry["InlineBinary"], name)
        else:
            value = self._values(vr, entry.get("Value") or [], name)
        return element(tag, vr, value)

    def _sequence(self, tag: int, items: Any, depth: int) -> bytes:
        if not isinstance(items, list) or any(not isinstance(item, Mapping | None) for item in items):
            raise _refuse(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is not a sequence of items")
        encoded = [self.data_set(item or {}, depth + 1) for item in items]
        body = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in encoded)
        return element(tag, "SQ", body)

    def _values(self, vr: str, values: Any, name: str) -> bytes:
        if not isinstance(values, list):
            raise _refuse(f"{name} has a value that is not a list")
        if vr in _BINARY and values:
            raise _refuse(f"{name} is binary and has no InlineBinary")
        try:
            if vr in _NUMBERS:
                numbers = [_number(vr, value) for value in values]
                return struct.pack(f"<{len(numbers)}{_NUMBERS[vr]}", *numbers)
            if vr == "AT":
                return b"".join(struct.pack("<HH", _tag(value) >> 16, _tag(value) & 0xFFFF) for value in values)
            text = "\\".join(_text(vr, value) for value in values)
            return text.encode("utf-8" if self._utf8 else "ascii")
        except (ValueError, TypeError, struct.error, OverflowError) as error:
            raise _refuse(f"{name} has a value that is not of its VR {vr}") from error


def _tag(key: Any) -> int:
    if not isinstance(key, str) or len(key) != 8 or not key.isascii() or not key.isalnum():
        raise _refuse("an attribute is not named by eight hexadecimal digits")
    try:
        return int(key, 16)
    except ValueError as error:
        raise _refuse("an attribute is not named by eight hexadecimal digits") from error


def _inline(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _refuse(f"{name} has an InlineBinary that is not base64") from error


def _number(vr: str, value: Any) -> float | int:
    """Return the number of a JSON number or of its text (64-bit integers and NaN are strings, PS3.18 F.2.3)."""
    if vr in ("FL", "FD"):
        return float(value)
    number = int(value)
    if isinstance(value, float) and value != number:
        raise ValueError
    return number


def _text(vr: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        raise TypeError
    if vr == "PN":
        return _name(value)
    if isinstance(value, str):
        return value
    if vr == "DS" and isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format_number_as_ds(value)
    if vr == "IS" and isinstance(value, float) and value.is_integer():
        return str(int(value))
    if vr in ("DS", "IS") and isinstance(value, int):
        return str(value)
    raise TypeError


def _name(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise TypeError
    groups: Sequence[Any] = [value.get(group) or "" for group in _GROUPS]
    if any(not isinstance(group, str) for group in groups):
        raise TypeError
    return "=".join(groups).rstrip("=")
