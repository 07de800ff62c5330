"""pydicom's DICOM JSON model as oracle, and the documented differences taken out of both sides."""

from __future__ import annotations

import io
from typing import Any

import pydicom

INLINE_LIMIT = 4096


def oracle_json(part: bytes) -> dict[str, Any]:
    """Return what pydicom makes of *part*."""
    return pydicom.dcmread(io.BytesIO(part), force=True).to_json_dict()


def normalised(data: dict[str, Any]) -> dict[str, Any]:
    """Return *data* without what may differ (``wetread.core.dicom.json_model``): group lengths, padding of single
    values, empty values as null, empty name groups, inline or by address.
    """
    result = {}
    for key, given in data.items():
        if key.endswith("0000") or key.startswith("0002"):
            continue
        entry: dict[str, Any] = dict(given)
        if entry["vr"] == "SQ":
            entry["Value"] = [normalised(item) for item in entry.get("Value", [])]
        elif "Value" in entry:
            entry["Value"] = [_value(value) for value in entry["Value"]]
        if entry.get("Value") in ([], [None]):
            del entry["Value"]
        inline = entry.pop("InlineBinary", None)
        if "BulkDataURI" in entry or key in ("7FE00008", "7FE00009", "7FE00010"):
            entry["BulkDataURI"] = True
        elif inline is not None:
            long = len(inline) > (INLINE_LIMIT + 2) // 3 * 4
            entry["BulkDataURI" if long else "InlineBinary"] = True if long else inline
        result[key] = entry
    return result


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return value.rstrip(" \0") or None
    if isinstance(value, dict):
        return {group: part.rstrip() for group, part in value.items() if part.strip()} or None
    return value
