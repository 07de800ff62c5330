"""Reading single values out of data sets as they come: empty, repeated, unparsable or of the wrong type.

Elements that pydicom has not converted yet are read from their bytes: opening a series of 300 slices needs thousands
of values, and a full conversion of each costs more than reading the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

_TEXT: Final = frozenset({"CS", "DS", "IS", "UI"})
"""VRs of the default character repertoire whose values a backslash separates (PS3.5 6.2)."""
_BINARY: Final = {"US": "u2", "SS": "i2", "US or SS": "u2"}


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


@lru_cache(maxsize=128)
def _known(keyword: str) -> tuple[BaseTag, str]:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return BaseTag(tag), dictionary_VR(tag)


def _values(header: Dataset, keyword: str) -> Sequence[Any]:
    tag, vr = _known(keyword)
    try:
        element = header.get_item(tag)
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
            written = element.VR if element.VR not in {None, "UN"} else vr
            if written in _TEXT:
                return _split(element.value)
            if written in _BINARY:
                order = "<" if element.is_little_endian else ">"
                return np.frombuffer(element.value, order + _BINARY[written]).tolist()
        value = header.get(keyword)
    except Exception:  # noqa: BLE001 - pydicom raises many types on odd values; all mean "not readable"
        return ()
    if value is None or value in ("", b""):
        return ()
    if isinstance(value, (MultiValue, list, tuple)):
        return list(value)
    return (value,)


def _split(value: bytes) -> list[str]:
    text = value.decode("latin-1").rstrip(" \0")
    return text.split("\\") if text else []
