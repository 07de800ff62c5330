"""Workitem datasets in DICOM JSON (PS3.18 Annex F): strict reading of what a client sent, and small accessors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pydicom.datadict import dictionary_VR

from wetread.core.errors import InvalidInput
from wetread.core.ups import UpsStatus

Json = dict[str, Any]

TRANSACTION_UID: Final = "00081195"
_MAX_DEPTH: Final = 16
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_VRS: Final = re.compile(r"A[EST]|CS|D[AST]|F[DL]|IS|L[OT]|O[BDFLVW]|PN|S[HLQSTV]|TM|U[CILNRSTV]")
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMBERS: Final = frozenset({"FD", "FL", "SL", "SS", "UL", "US"})


def vr_of(tag: str) -> str | None:
    """Return the dictionary's VR of a tag (8 hex digits), the first one where it lists several; None: private."""
    try:
        return dictionary_VR(int(tag, 16)).split(" or ")[0]
    except KeyError:
        return None


def element(vr: str, *values: Any) -> Json:
    """Return an element object; without values only its VR (PS3.18 F.2.5)."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def code(value: str, scheme: str, meaning: str) -> Json:
    """Return a code sequence item (PS3.3 8.8)."""
    return {
        "00080100": element("SH", value),
        "00080102": element("SH", scheme),
        "00080104": element("LO", meaning),
    }


def values(dataset: Mapping[str, Any], tag: str) -> list[Any]:
    """Return the values of an element, without nulls; empty when it is absent or empty."""
    return [value for value in dataset.get(tag, {}).get("Value", ()) if value is not None and value != ""]


def text(dataset: Mapping[str, Any], tag: str) -> str:
    """Return the first value as text; empty when there is none."""
    found = values(dataset, tag)
    return str(found[0]) if found else ""


def items(dataset: Mapping[str, Any], tag: str) -> list[Json]:
    """Return the items of a sequence."""
    return [item for item in values(dataset, tag) if isinstance(item, dict)]


def dicom_datetime(at: float) -> str:
    """Return Unix seconds as a DT value in UTC with its offset (PS3.5 6.2)."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def invalid(detail: str, status: UpsStatus = UpsStatus.INVALID_ATTRIBUTE_VALUE) -> InvalidInput:
    """Return the error for a dataset that cannot be accepted; *detail* names tags, never values."""
    return InvalidInput(detail, dicom_status=status)


def read_dataset(body: Any) -> tuple[Json, bool]:
    """Return the one dataset of a parsed request body and whether unsupported elements were left out.

    An array of one dataset is the rule, a bare object is tolerated. File meta (0002), group lengths and pixel data
    have no place in a workitem and are left out. VRs are those of the dictionary. Raises InvalidInput.
    """
    if isinstance(body, list):
        if len(body) != 1:
            raise invalid("the body must hold exactly one dataset")
        body = body[0]
    return _read_item(body, 0)


def _read_item(item: Any, depth: int) -> tuple[Json, bool]:
    if not isinstance(item, dict):
        raise invalid("a dataset must be a JSON object")
    if depth > _MAX_DEPTH:
        raise invalid("sequences are nested too deeply")
    result: Json = {}
    dropped = False
    for raw_tag, raw in item.items():
        if not _TAG.fullmatch(raw_tag):
            raise invalid("attribute keys must be 8 hexadecimal digits")
        tag = raw_tag.upper()
        if tag in result:
            raise invalid(f"{tag} is given twice")
        if tag[:4] in {"0002", "7FE0"} or tag[4:] == "0000":
            dropped = True
            continue
        result[tag], inner = _read_element(tag, raw, depth)
        dropped = dropped or inner
    return dict(sorted(result.items())), dropped


def _read_element(tag: str, raw: Any, depth: int) -> tuple[Json, bool]:
    if not isinstance(raw, dict) or not _VRS.fullmatch(str(raw.get("vr"))):
        raise invalid(f"{tag} has no valid vr")
    vr = str(raw["vr"])
    known = vr_of(tag)
    if known is not None:
        if (known == "SQ") != (vr == "SQ"):
            raise invalid(f"{tag} must have vr {known}")
        vr = known
    kinds = [key for key in ("Value", "InlineBinary", "BulkDataURI") if key in raw]
    if len(kinds) > 1 or (kinds and kinds[0] != "Value" and vr not in _BINARY):
        raise invalid(f"{tag} has no usable value")
    if kinds and kinds[0] != "Value":
        if not isinstance(raw[kinds[0]], str):
            raise invalid(f"{tag} has no usable value")
        return {"vr": vr, kinds[0]: raw[kinds[0]]}, False
    given = raw.get("Value", [])
    if not isinstance(given, list):
        raise invalid(f"Value of {tag} must be an array")
    if vr == "SQ":
        read = [_read_item(item, depth + 1) for item in given]
        return element(vr, *(item for item, _ in read)), any(inner for _, inner in read)
    if any(not _fits(vr, value) for value in given):
        raise invalid(f"{tag} has a value that vr {vr} does not allow")
    return element(vr, *given), False


def _fits(vr: str, value: Any) -> bool:
    if value is None:
        return True
    if vr == "PN":
        return isinstance(value, str) or (
            isinstance(value, dict)
            and set(value) <= {"Alphabetic", "Ideographic", "Phonetic"}
            and all(isinstance(group, str) for group in value.values())
        )
    if isinstance(value, bool):
        return False
    if vr in _NUMBERS:
        return isinstance(value, (int, float)) or value in {"NaN", "inf", "-inf"}
    if vr in {"DS", "IS", "SV", "UV"}:
        return isinstance(value, (int, float, str))
    return isinstance(value, str)


def merged(dataset: Mapping[str, Any], changes: Mapping[str, Any]) -> Json:
    """Return *dataset* with whole top-level attributes replaced, keys ascending (PS3.4 CC.2.6.2)."""
    return dict(sorted({**dataset, **changes}.items()))


def without(dataset: Mapping[str, Any], tags: Iterable[str]) -> Json:
    """Return *dataset* less *tags*."""
    left_out = set(tags)
    return {tag: value for tag, value in dataset.items() if tag not in left_out}
