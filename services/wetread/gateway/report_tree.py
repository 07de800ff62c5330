"""The content of a structured report as a tree of texts (PS3.3 C.17.3; relationship and value macros C.18).

Every text is as it was sent: what shows it has to treat it as hostile.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wetread.core.dicom.attributes import Attributes, items, text, texts, values
from wetread.core.errors import PayloadTooLarge
from wetread.core.identifiers import is_uid
from wetread.gateway.documents import class_name

ITEM_LIMIT: Final = 20_000
"""Content items of a report that is written for people. A part of a report could be taken for the whole, so that a
longer one is refused."""

_POINTS: Final = 4
_UNITLESS: Final = frozenset({"", "1", "no units", "unity", "unitless"})
_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})")
_TIME: Final = re.compile(r"(\d{2})(\d{2})(?:(\d{2})(\.\d+)?)?")
_DATE_TIME: Final = re.compile(r"(\d{8})(\d{4,6}(?:\.\d+)?)?([+-]\d{4})?")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A SOP instance that the report points to. ``parts``: which frames, segments or channels of it."""

    sop_class: str
    sop_uid: str
    parts: str


@dataclass(frozen=True, slots=True)
class ContentItem:
    """A content item and what is below it. ``position``: its identifier, such as ``1.2.3`` (PS3.3 C.18.9).

    ``value`` is what a reader reads; ``code`` the coded value or the unit of it. ``target`` is the position of an item
    that is meant instead of one of its own (by-reference relationship).
    """

    position: str
    relationship: str
    value_type: str
    name: Code | None
    value: str
    code: Code | None
    references: tuple[Reference, ...]
    observed: str
    target: str
    children: tuple[ContentItem, ...]


def content_tree(data: Attributes) -> ContentItem:
    """Return the tree of a report. Raises PayloadTooLarge."""
    return _Reader().item(data, "1")


class _Reader:
    def __init__(self) -> None:
        self._count = 0

    def item(self, data: Attributes, position: str) -> ContentItem:
        self._count += 1
        if self._count > ITEM_LIMIT:
            raise PayloadTooLarge(f"the report has more than {ITEM_LIMIT} content items: retrieve the instance")
        kind = text(data, "0040A040").strip()
        read = _VALUES.get(kind)
        target = ".".join(texts(data, "0040DB73"))
        return ContentItem(
            position=position,
            relationship=text(data, "0040A010").strip(),
            value_type=kind,
            name=code_of(data, "0040A043"),
            value=read(data) if read else "",
            code=_unit(data) if kind == "NUM" else code_of(data, "0040A168") if kind == "CODE" else None,
            references=tuple(_references(data)) if kind in ("COMPOSITE", "IMAGE", "WAVEFORM") else (),
            observed=date_time(text(data, "0040A032")),
            target=target,
            children=tuple(
                self.item(child, f"{position}.{number}") for number, child in enumerate(items(data, "0040A730"), 1)
            ),
        )


def code_of(data: Attributes, tag: str) -> Code | None:
    """Return the first code of a code sequence, with a short, long or URN code value."""
    for item in items(data, tag):
        value = text(item, "00080100") or text(item, "00080119") or text(item, "00080120")
        return Code(value, text(item, "00080102"), text(item, "00080104"))
    return None


def _unit(data: Attributes) -> Code | None:
    return next((unit for item in items(data, "0040A300") if (unit := code_of(item, "004008EA"))), None)


def _number(data: Attributes) -> str:
    found = []
    for item in items(data, "0040A300"):
        measured = ", ".join(number_text(value) for value in values(item, "0040A30A") if value is not None)
        unit = code_of(item, "004008EA")
        symbol = unit_symbol(unit) if unit else ""
        found.append(f"{measured} {symbol}".strip())
    qualifier = code_of(data, "0040A301")
    if qualifier:
        found.append(qualifier.meaning or qualifier.value)
    return "; ".join(each for each in found if each) or "no value"


def number_text(value: Any) -> str:
    """Return a number of the JSON model without a fraction that says nothing."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def unit_symbol(unit: Code) -> str:
    """Return how a unit is written behind a number: its UCUM symbol, nothing for 1, in words where it is an annotation.

    An annotation stands in braces, such as ``{ratio}`` (UCUM 2.3). Of 1 some senders
    say in the meaning what is counted.
    """
    if unit.scheme == "UCUM" and unit.value == "1":
        return "" if unit.meaning.lower() in _UNITLESS else unit.meaning
    return unit.meaning or unit.value if unit.scheme != "UCUM" or "{" in unit.value else unit.value


def _coded(data: Attributes) -> str:
    code = code_of(data, "0040A168")
    return (code.meaning or code.value) if code else ""


def person_text(value: Mapping[str, str]) -> str:
    """Return a person name as people write it, its other scripts in brackets (PS3.5 6.2.1)."""
    groups = [
        # Names in ideographs have no comma between family and given name.
        _components(value.get(group, ""), between)
        for group, between in (("Alphabetic", ", "), ("Ideographic", " "), ("Phonetic", " "))
    ]
    first, *others = [group for group in groups if group] or [""]
    return f"{first} ({', '.join(others)})" if others else first


def _components(group: str, between: str) -> str:
    family, given, middle, prefix, suffix, *_ = [*(part.strip() for part in group.split("^")), *[""] * 5]
    return between.join(filter(None, (family, " ".join(filter(None, (given, middle))), prefix, suffix)))


def names(data: Attributes, tag: str) -> str:
    """Return the person names of an attribute as people write them."""
    return "; ".join(person_text(value) for value in values(data, tag) if isinstance(value, dict))


def date(value: str) -> str:
    """Return a DA as ``2026-01-31``; what is none as it is."""
    match = _DATE.fullmatch(value.strip())
    return "-".join(match.groups()) if match else value


def time(value: str) -> str:
    """Return a TM as ``10:30:15``; what is none as it is."""
    match = _TIME.fullmatch(value.strip())
    return ":".join(part for part in match.groups()[:3] if part) if match else value


def date_time(value: str) -> str:
    """Return a DT as ``2026-01-31 10:30:15 +0100``; what is none as it is."""
    match = _DATE_TIME.fullmatch(value.strip())
    if not match:
        return value
    clock = time(match[2]) if match[2] else ""
    return " ".join(filter(None, (date(match[1]), clock, match[3])))


def _references(data: Attributes) -> Iterator[Reference]:
    for item in items(data, "00081199"):
        parts = [
            f"{word}{'s' if len(found) > 1 else ''} {', '.join(found)}"
            for word, tag in (("frame", "00081160"), ("segment", "0062000B"), ("channel", "0040A0B0"))
            if (found := texts(item, tag))
        ]
        yield Reference(class_name(text(item, "00081150")), text(item, "00081155"), "; ".join(parts))
        yield from _references(item)  # the presentation state that the picture is to be shown with


def _coordinates(data: Attributes) -> str:
    numbers = [number_text(value) for value in values(data, "00700022")]
    width = 3 if text(data, "0040A040") == "SCOORD3D" else 2
    points = [f"({', '.join(numbers[at : at + width])})" for at in range(0, len(numbers), width)]
    shown = " ".join(points[:_POINTS]) + (" …" if len(points) > _POINTS else "")
    count = f"{len(points)} point{'' if len(points) == 1 else 's'}"
    frame = text(data, "30060024")
    return f"{text(data, '00700023')}, {count}: {shown}" + (f", frame of reference {frame}" if frame else "")


def _temporal(data: Attributes) -> str:
    stated = [
        f"{word} {', '.join(number_text(value) for value in values(data, tag))}"
        for word, tag in (("samples", "0040A132"), ("seconds", "0040A138"), ("times", "0040A13A"))
        if values(data, tag)
    ]
    return ", ".join(filter(None, [text(data, "0040A130"), *stated]))


_VALUES: Final[Mapping[str, Callable[[Attributes], str]]] = {
    "TEXT": lambda data: text(data, "0040A160").rstrip(),
    "CODE": _coded,
    "NUM": _number,
    "DATETIME": lambda data: date_time(text(data, "0040A120")),
    "DATE": lambda data: date(text(data, "0040A121")),
    "TIME": lambda data: time(text(data, "0040A122")),
    "UIDREF": lambda data: text(data, "0040A124"),
    "PNAME": lambda data: names(data, "0040A123"),
    "SCOORD": _coordinates,
    "SCOORD3D": _coordinates,
    "TCOORD": _temporal,
}
"""Value of a content item by its value type (PS3.3 table C.17.3-7); containers and references have none."""


def evidence(data: Attributes) -> dict[str, tuple[str, str]]:
    """Return study and series by SOP Instance UID of what the report is based on or refers to (PS3.3 C.17.2)."""
    found: dict[str, tuple[str, str]] = {}
    for tag in ("0040A375", "0040A385", "00081115"):
        for study in items(data, tag):
            for series in items(study, "00081115"):
                where = text(study, "0020000D"), text(series, "0020000E")
                if all(map(is_uid, where)):
                    found |= {text(one, "00081155"): where for one in items(series, "00081199")}
    return {uid: where for uid, where in found.items() if is_uid(uid)}
