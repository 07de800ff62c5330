"""Identifiers of C-FIND, C-MOVE and C-GET: from DICOM data sets to the search grammar of QIDO-RS and back (PS3.4 C.4).

One grammar, one matcher, one index: a C-FIND finds what a QIDO-RS search with the same keys finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from pydicom.charset import python_encoding
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from wetread.core.dicom.dictionary import vr_of
from wetread.core.dicomweb.levels import Level
from wetread.core.dicomweb.query import Query, parse_query
from wetread.core.errors import InvalidInput

PATIENT_ROOT: Final = ("PATIENT", "STUDY", "SERIES", "IMAGE")
STUDY_ROOT: Final = PATIENT_ROOT[1:]
LEVELS: Final[Mapping[str, Level]] = {
    "PATIENT": Level.STUDY,
    "STUDY": Level.STUDY,
    "SERIES": Level.SERIES,
    "IMAGE": Level.INSTANCE,
}
UNIQUE_KEYS: Final[Mapping[str, int]] = {
    "PATIENT": 0x00100020,
    "STUDY": 0x0020000D,
    "SERIES": 0x0020000E,
    "IMAGE": 0x00080018,
}
_RETRIEVE_LEVEL: Final = 0x00080052
_CHARACTER_SET: Final = 0x00080005
_RETRIEVE_AE: Final = 0x00080054
_AVAILABILITY: Final = 0x00080056
_CONTROL: Final = frozenset({_CHARACTER_SET, _RETRIEVE_LEVEL, 0x00080053, 0x00080201})
"""Attributes of an identifier that are no keys: character set, level, view, time zone."""
_NESTING: Final = 3


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a request asks for. ``asked``: tags of the attributes that the answer holds, present or empty."""

    level: str
    query: Query
    asked: tuple[int, ...]
    encoding: str


def level_named(data: Dataset, levels: Sequence[str]) -> str:
    """Return the Query/Retrieve Level, (0008,0052). Raises InvalidInput."""
    level = str(data.get("QueryRetrieveLevel", "") or "").strip().upper()
    if level not in levels:
        msg = "Query/Retrieve Level is missing or not of this model"
        raise InvalidInput(msg)
    return level


def find_identifier(data: Dataset, levels: Sequence[str]) -> Identifier:
    """Return the search that a C-FIND identifier means. Raises InvalidInput, as QIDO-RS does.

    A key with a value that cannot be matched is refused: ignoring it would return everything.
    """
    level = level_named(data, levels)
    keys, asked = [], []
    for element in data:
        tag = int(element.tag)
        if tag in _CONTROL or tag & 0xFFFF == 0 or tag >> 16 < 8:
            continue
        keys += list(_keys(element, ""))
        if not element.tag.is_private_creator:
            asked.append(tag)
    query = parse_query(LEVELS[level], "&".join(f"{name}={quote(value, safe='')}" for name, value in keys))
    wanted = frozenset(asked) | query.include
    return Identifier(level, replace(query, include=wanted), tuple(asked), _encoding(data))


def retrieve_query(data: Dataset, levels: Sequence[str]) -> tuple[str, Query]:
    """Return level and search of a C-MOVE or C-GET identifier: unique keys only (PS3.4 C.4.2.1.4).

    Raises InvalidInput.
    """
    level = level_named(data, levels)
    parts = []
    for name in PATIENT_ROOT[: PATIENT_ROOT.index(level) + 1]:
        tag = UNIQUE_KEYS[name]
        value = _text(data[tag]) if tag in data else ""
        if value.strip("*? \\"):
            parts.append((f"{tag:08X}", value))
        elif name == level:
            msg = f"the unique key of the {level} level is missing"
            raise InvalidInput(msg)
        if name == "PATIENT" and any(c in value for c in "*?\\"):
            msg = "one Patient ID, without wild cards"
            raise InvalidInput(msg)
    text = "&".join(f"{name}={quote(value, safe='')}" for name, value in parts)
    return level, parse_query(LEVELS[level], text)


def _keys(element: DataElement, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (path, value) of an element's match keys; a universal key only asks for its attribute."""
    name = f"{prefix}{int(element.tag):08X}"
    if element.VR == "SQ":
        if name.count(".") >= _NESTING:
            msg = "a sequence key is nested too deeply"
            raise InvalidInput(msg)
        for item in list(element.value or [])[:1]:  # PS3.4 C.2.2.2.6: one item
            for inner in item:
                yield from _keys(inner, f"{name}.")
        return
    value = _text(element)
    if value.strip("*"):
        yield name, value


def _text(element: DataElement) -> str:
    """Return the value as it came, several values with backslashes. Raises InvalidInput for binary values."""
    value = element.value
    if value is None:
        return ""
    if isinstance(value, bytes):
        if value.strip(b" \0"):
            msg = "a key of binary or unknown value representation cannot be matched"
            raise InvalidInput(msg)
        return ""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "\\".join(str(each) for each in value)
    return str(value)


def _encoding(data: Dataset) -> str:
    """Return the character set of the request where it is a single one, to be answered in it; empty otherwise."""
    declared = data.get("SpecificCharacterSet", "")
    return declared if isinstance(declared, str) and declared in python_encoding else ""


def answer(found: Mapping[str, Mapping[str, Any]], asked: Identifier, ae_title: str) -> Dataset:
    """Return the identifier of one match: what was asked for, empty where we hold nothing (PS3.4 C.4.1.1.3.2)."""
    data = Dataset()
    for tag in asked.asked:
        entry = found.get(f"{tag:08X}")
        element = _element(tag, entry) if entry is not None and "BulkDataURI" not in entry else None
        data.add(element or _empty(tag))
    data.QueryRetrieveLevel = asked.level
    data.RetrieveAETitle = ae_title
    if _AVAILABILITY in asked.asked:
        data.InstanceAvailability = "ONLINE"
    character_set = _character_set(found, asked)
    if character_set:
        data.SpecificCharacterSet = character_set
    return data


def _element(tag: int, entry: Mapping[str, Any]) -> DataElement | None:
    try:
        return Dataset.from_json({f"{tag:08X}": dict(entry)})[tag]
    except Exception:  # noqa: BLE001 - pydicom raises whatever the stored value made it stumble over
        return None


def _empty(tag: int) -> DataElement:
    vr = vr_of(tag)
    return DataElement(tag, vr[:2] if vr != "OB or OW" else "OB", [] if vr == "SQ" else None)


def _character_set(found: Mapping[str, Mapping[str, Any]], asked: Identifier) -> str:
    """Return what the answer has to declare: nothing for ASCII, the request's own set if it can say it, else UTF-8."""
    text = "".join(_strings([found.get(f"{tag:08X}", {}) for tag in asked.asked]))
    if text.isascii():
        return ""
    if asked.encoding:
        try:
            text.encode(python_encoding[asked.encoding])
        except (UnicodeEncodeError, LookupError):
            return "ISO_IR 192"
        return asked.encoding
    return "ISO_IR 192"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for each in value:
            yield from _strings(each)
