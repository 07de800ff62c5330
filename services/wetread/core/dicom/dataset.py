"""Reading single values out of data sets as they come: empty, repeated, unparsable or of the wrong type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue


def first_number(header: Dataset, keyword: str) -> float | None:
    """Return the first value of an attribute as a finite float, or None."""
    found = numbers(header, keyword)
    return found[0] if found else None


def numbers(header: Dataset, keyword: str, count: int = 1) -> tuple[float, ...] | None:
    """Return at least *count* finite values of an attribute, or None."""
    values = _values(header, keyword)
    try:
        found = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return None
    return found if len(found) >= count and all(map(math.isfinite, found)) else None


def whole(header: Dataset, keyword: str) -> int | None:
    """Return the first value of an attribute as an integer, or None."""
    value = first_number(header, keyword)
    return None if value is None else int(value)


def first_text(header: Dataset, keyword: str) -> str:
    """Return the first value of an attribute as stripped text, empty when absent."""
    found = texts(header, keyword)
    return found[0] if found else ""


def texts(header: Dataset, keyword: str) -> tuple[str, ...]:
    """Return all values of an attribute as stripped text."""
    return tuple(str(v).strip() for v in _values(header, keyword))


def _values(header: Dataset, keyword: str) -> Sequence[Any]:
    try:
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises many types on odd values; all mean "not readable"
        return ()
    if value is None or value in ("", b""):
        return ()
    if isinstance(value, (MultiValue, list, tuple)):
        return list(value)
    return (value,)
