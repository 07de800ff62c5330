"""Reading values out of the DICOM JSON model: one place that knows how first values, names and numbers look."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_EXACT = 1 << 53
"""Integers up to here are what they are as a float, too."""

Attributes = Mapping[str, Mapping[str, Any]]
"""A data set, or one level of it, in the DICOM JSON model: 8 upper-case hex digits to {vr, Value...}."""


def values(data: Attributes, tag: str) -> list[Any]:
    """Return all values; empty when the attribute is absent or empty."""
    entry = data.get(tag)
    if entry is None:
        return []
    found = entry.get("Value")
    return found if isinstance(found, list) else []


def text(data: Attributes, tag: str) -> str:
    """Return the first value as text; empty when there is none. A person name is its literal value."""
    entry = data.get(tag)
    if entry is None:
        return ""
    found = entry.get("Value")
    if not found or not isinstance(found, list):
        return ""
    first = found[0]
    if isinstance(first, str):
        return first
    if first is None:
        return ""
    return person_name(first) if isinstance(first, dict) else str(first)


def texts(data: Attributes, tag: str) -> tuple[str, ...]:
    """Return all values as text, empty ones as empty text."""
    return tuple("" if value is None else str(value) for value in values(data, tag))


def number(data: Attributes, tag: str) -> float | None:
    """Return the first value as a float; None when there is none or it is not a number."""
    found = values(data, tag)
    return as_float(found[0]) if found else None


def integer(data: Attributes, tag: str) -> int | None:
    """Return the first value as an int; None when there is none or it is not whole."""
    entry = data.get(tag)
    if entry is None:
        return None
    found = entry.get("Value")
    if not found or not isinstance(found, list):
        return None
    first = found[0]
    if type(first) is int and -_EXACT <= first <= _EXACT:
        return first
    value = as_float(first)
    if value is None or not value.is_integer() or abs(value) >= 1 << 62:
        return None
    return int(value)


def numbers(data: Attributes, tag: str, count: int) -> tuple[float, ...] | None:
    """Return exactly *count* floats, or None."""
    found = values(data, tag)
    if len(found) != count:
        return None
    result = [number for value in found if (number := as_float(value)) is not None]
    return tuple(result) if len(result) == count else None


def as_float(value: Any) -> float | None:
    """Return a JSON value as a finite float, or None."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if result - result == 0 else None


def items(data: Attributes, tag: str) -> list[Attributes]:
    """Return the items of a sequence."""
    return [item for item in values(data, tag) if isinstance(item, dict)]


def person_name(value: Mapping[str, str]) -> str:
    """Return the literal value of a name: its component groups joined by ``=`` (PS3.5 6.2)."""
    groups = [value.get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")]
    return "=".join(groups).rstrip("=")


def folded(value: str) -> str:
    """Return *value* without case and accents, for name matching (PS3.4 C.2.2.2.1; NFKD, combining marks cut)."""
    if value.isascii():
        return value.casefold()
    decomposed = unicodedata.normalize("NFKD", value)
    return "".join(character for character in decomposed if not unicodedata.combining(character)).casefold()
