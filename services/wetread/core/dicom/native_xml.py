"""The Native DICOM Model in XML and back (PS3.19 annex A.1), by way of the DICOM JSON model.

The reader refuses document types, hence entities and external references of every kind, and bounds depth and number of
elements while it reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from wetread.core.dicom.dictionary import keyword_of, tag_of, vr_of
from wetread.core.errors import InvalidInput

NAMESPACE: Final = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_HEAD: Final = f'<?xml version="1.0" encoding="UTF-8"?>\n<NativeDicomModel xmlns="{NAMESPACE}" xml:space="preserve">'
_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_PARTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 has no way to write."""

_DEPTH_LIMIT: Final = 64 * 2 + 8
_ELEMENT_LIMIT: Final = 1_000_000
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")


def to_xml(data: Mapping[str, Any]) -> bytes:
    """Return a data set of the DICOM JSON model as an XML document."""
    pieces = [_HEAD]
    _write(pieces, data)
    pieces.append("</NativeDicomModel>\n")
    return "".join(pieces).encode()


def _write(pieces: list[str], data: Mapping[str, Any]) -> None:
    creators = _creators(data)
    for key, entry in data.items():
        tag = int(key, 16)
        named = ""
        if tag >> 16 & 1:
            if (tag >> 8) & 0xFF == 0 and tag & 0xFF >= 0x10:
                continue  # a private creator is said with each of its attributes (PS3.19 table A.1.5-2)
            creator = creators.get(tag >> 16 << 8 | (tag >> 8) & 0xFF)
            if creator:
                key = f"{tag & 0xFFFF00FF:08X}"  # noqa: PLW2901 - the block number is not said
                named = f" privateCreator={quoteattr(_speakable(creator))}"
        elif keyword_of(tag):
            named = f' keyword="{keyword_of(tag)}"'
        pieces.append(f'<DicomAttribute tag="{key}" vr="{entry["vr"]}"{named}>')
        if "BulkDataURI" in entry:
            pieces.append(f"<BulkData uri={quoteattr(_speakable(str(entry['BulkDataURI'])))}/>")
        elif "InlineBinary" in entry:
            pieces.append(f"<InlineBinary>{entry['InlineBinary']}</InlineBinary>")
        else:
            for number, value in enumerate(entry.get("Value", ()), 1):
                _write_value(pieces, entry["vr"], number, value)
        pieces.append("</DicomAttribute>")


def _creators(data: Mapping[str, Any]) -> dict[int, str]:
    found = {}
    for key, entry in data.items():
        tag = int(key, 16)
        if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF and entry.get("Value"):
            found[tag >> 16 << 8 | tag & 0xFF] = str(entry["Value"][0])
    return found


def _write_value(pieces: list[str], vr: str, number: int, value: Any) -> None:
    if vr == "SQ":
        pieces.append(f'<Item number="{number}">')
        _write(pieces, value)
        pieces.append("</Item>")
    elif value is None:
        return  # numbers may have gaps: a missing value is empty
    elif vr == "PN":
        pieces.append(f'<PersonName number="{number}">')
        for group in _GROUPS:
            if value.get(group):
                parts = zip(_PARTS, value[group].split("^"), strict=False)
                inner = "".join(f"<{name}>{_escaped(part)}</{name}>" for name, part in parts if part)
                pieces.append(f"<{group}>{inner}</{group}>")
        pieces.append("</PersonName>")
    else:
        if vr == "DS" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        pieces.append(f'<Value number="{number}">{_escaped(str(value))}</Value>')


def _escaped(text: str) -> str:
    # A parser turns a bare carriage return into a line feed (XML 1.0 2.11).
    return escape(_speakable(text), {"\r": "&#13;"})


def _speakable(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)


def from_xml(document: bytes) -> dict[str, Any]:
    """Return the data set of a Native DICOM Model in the DICOM JSON model; values stay text.

    Raises InvalidInput for what is not well-formed, not this model, or has a document type.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        parser.Parse(document, True)
    except expat.ExpatError as error:
        msg = "the XML is not well-formed"
        raise InvalidInput(msg) from error
    except (LookupError, ValueError) as error:
        msg = "the XML is in an unknown encoding"
        raise InvalidInput(msg) from error
    if reader.result is None:
        msg = "the XML has no NativeDicomModel"
        raise InvalidInput(msg)
    return reader.result


def _no_doctype(*_arguments: Any) -> None:
    msg = "XML with a document type is not read"
    raise InvalidInput(msg)


class _Attribute:
    def __init__(self, key: str, entry: dict[str, Any]) -> None:
        self.key = key
        self.entry = entry


class _Reader:
    """Builds the data set while expat calls; the stack holds the open data sets and attributes."""

    def __init__(self) -> None:
        self.result: dict[str, Any] | None = None
        self._sets: list[dict[str, Any]] = []
        self._attributes: list[_Attribute] = []
        self._open: list[str] = []
        self._text: list[str] | None = None
        self._number = 1
        self._name: dict[str, list[str]] = {}
        self._count = 0

    def start(self, name: str, given: dict[str, str]) -> None:
        kind = name.rpartition(" ")[2]
        self._count += 1
        if len(self._open) >= _DEPTH_LIMIT or self._count > _ELEMENT_LIMIT:
            msg = "the XML is too deep or has too many elements"
            raise InvalidInput(msg)
        inside = self._open[-1] if self._open else ""
        self._open.append(kind)
        if kind == "NativeDicomModel" and not inside:
            self.result = {}
            self._sets.append(self.result)
        elif kind == "DicomAttribute" and inside in ("NativeDicomModel", "Item"):
            self._begin_attribute(given)
        elif kind == "Item" and inside == "DicomAttribute":
            item: dict[str, Any] = {}
            self._place(given, item)
            self._sets.append(item)
        elif kind in ("Value", "InlineBinary") and inside == "DicomAttribute":
            self._number = _position(given) if kind == "Value" else 1
            self._text = []
        elif kind == "PersonName" and inside == "DicomAttribute":
            self._number = _position(given)
            self._name = {}
        elif kind in _GROUPS and inside == "PersonName":
            self._name[kind] = [""] * len(_PARTS)
        elif kind in _PARTS and inside in _GROUPS:
            self._text = []
        elif kind == "BulkData" and inside == "DicomAttribute":
            self._attributes[-1].entry["BulkDataURI"] = given.get("uri", given.get("uuid", ""))
        else:
            msg = "the XML is not the Native DICOM Model"
            raise InvalidInput(msg)

    def text(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def end(self, _name: str) -> None:
        kind = self._open.pop()
        written = "".join(self._text) if self._text is not None else ""
        if kind == "DicomAttribute":
            self._attributes.pop()
        elif kind in ("Item", "NativeDicomModel"):
            self._sets.pop()
        elif kind == "Value":
            self._place({"number": str(self._number)}, written)
        elif kind == "InlineBinary":
            self._attributes[-1].entry["InlineBinary"] = "".join(written.split())
        elif kind in _PARTS:
            self._name[self._open[-1]][_PARTS.index(kind)] = written
        elif kind == "PersonName":
            groups = {group: "^".join(parts).rstrip("^") for group, parts in self._name.items()}
            self._place({"number": str(self._number)}, {group: text for group, text in groups.items() if text} or None)
        else:
            return
        self._text = None

    def _begin_attribute(self, given: Mapping[str, str]) -> None:
        tag = given.get("tag", "")
        if not tag and given.get("keyword"):
            tag = f"{tag_of(given['keyword']) or 0:08X}"
        if not _TAG.fullmatch(tag) or not int(tag, 16):
            msg = "a DicomAttribute has no tag"
            raise InvalidInput(msg)
        number = int(tag, 16)
        if given.get("privateCreator") and number >> 16 & 1 and not number & 0xFF00:
            number |= self._block(number >> 16, given["privateCreator"]) << 8
        key = f"{number:08X}"
        entry: dict[str, Any] = {"vr": given.get("vr") or vr_of(number).partition(" ")[0]}
        if key in self._sets[-1]:
            msg = "a data set has an attribute twice"
            raise InvalidInput(msg)
        self._sets[-1][key] = entry
        self._attributes.append(_Attribute(key, entry))

    def _block(self, group: int, creator: str) -> int:
        """Return the block of a private creator, reserving the next free one (PS3.5 7.8.1)."""
        data = self._sets[-1]
        for block in range(0x10, 0x100):
            key = f"{group:04X}{block:04X}"
            if key not in data:
                data[key] = {"vr": "LO", "Value": [creator]}
                return block
            if data[key].get("Value") == [creator]:
                return block
        msg = "a group has too many private creators"
        raise InvalidInput(msg)

    def _place(self, given: Mapping[str, str], value: Any) -> None:
        """Put a value at its number; the ones left out in between are empty."""
        values = self._attributes[-1].entry.setdefault("Value", [])
        position = _position(given)
        if position <= len(values) or position > len(values) + 1024:
            msg = "the values of a DicomAttribute are not numbered in order"
            raise InvalidInput(msg)
        values += [None] * (position - len(values) - 1)
        values.append(value)


def _position(given: Mapping[str, str]) -> int:
    number = given.get("number", "")
    if not number.isascii() or not number.isdecimal() or not 0 < len(number) <= 7 or int(number) == 0:
        msg = "a value has no number"
        raise InvalidInput(msg)
    return int(number)
