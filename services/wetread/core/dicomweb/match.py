"""Attribute matching on the DICOM JSON model (PS3.4 C.2.2.2; PS3.18 8.3.4): the reference for every search."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wetread.core.dicom.attributes import Attributes, folded, items, person_name, values
from wetread.core.dicomweb.query import Key

_PAIRS: Final = (
    (0x00080020, 0x00080030),
    (0x00080021, 0x00080031),
    (0x00080022, 0x00080032),
    (0x00080023, 0x00080033),
    (0x00400244, 0x00400245),
)
"""Date and time attributes whose ranges are one combined range (PS3.4 C.2.2.2.5)."""

_TOKEN: Final = re.compile(r"[\s^=,.]+")


def matches(keys: Sequence[Key], data: Attributes, *, fuzzy: bool = False) -> bool:
    """Return whether one entity matches all *keys*."""
    keys = [key for key in keys if not key.universal]
    combined = _combined(keys)
    for date_key, time_key in combined:
        if not _in_combined_range(date_key, time_key, data):
            return False
    taken = {key.path for pair in combined for key in pair}
    nested: dict[int, list[Key]] = {}
    for key in keys:
        if key.path in taken:
            continue
        if len(key.path) > 1:
            inner = Key(key.path[1:], key.vr, key.value, key.any_of, key.matches_empty)
            nested.setdefault(key.path[0], []).append(inner)
        elif not _attribute_matches(key, data.get(f"{key.path[0]:08X}"), fuzzy=fuzzy):
            return False
    # One item has to match all keys of its sequence (PS3.4 C.2.2.2.6).
    return all(
        any(matches(inner, item, fuzzy=fuzzy) for item in items(data, f"{tag:08X}")) for tag, inner in nested.items()
    )


def _combined(keys: Sequence[Key]) -> list[tuple[Key, Key]]:
    ranged = {key.path[0]: key for key in keys if len(key.path) == 1 and key.range is not None}
    return [(ranged[date], ranged[time]) for date, time in _PAIRS if date in ranged and time in ranged]


def _in_combined_range(date_key: Key, time_key: Key, data: Attributes) -> bool:
    date = _first(data, date_key)
    if not date:
        return False
    moment = normalised(date, "DA") + normalised(_first(data, time_key) or "", "TM")
    dates, times = date_key.range or ("", ""), time_key.range or ("", "")
    low = normalised(dates[0], "DA") + normalised(times[0], "TM") if dates[0] else ""
    high = normalised(dates[1], "DA") + (normalised(times[1], "TM") if times[1] else "99") if dates[1] else ""
    return (not low or moment >= low) and (not high or moment <= high)


def _first(data: Attributes, key: Key) -> str:
    found = values(data, f"{key.path[0]:08X}")
    return str(found[0]) if found and found[0] is not None else ""


def _attribute_matches(key: Key, entry: Mapping[str, Any] | None, *, fuzzy: bool) -> bool:
    found = [value for value in (entry or {}).get("Value", ()) if value is not None]
    if key.matches_empty:
        return not found and "InlineBinary" not in (entry or {}) and "BulkDataURI" not in (entry or {})
    wanted = key.any_of or (key.value,)
    return any(_value_matches(key, one, value, fuzzy=fuzzy) for one in wanted for value in found)


def _value_matches(key: Key, wanted: str, value: Any, *, fuzzy: bool) -> bool:
    if isinstance(value, dict):
        return _name_matches(wanted, value, fuzzy=fuzzy) if key.vr == "PN" else False
    text = str(value).strip()
    if key.vr in ("DA", "TM", "DT"):
        return _moment_matches(key, text)
    if key.vr in ("IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV"):
        return _number(wanted) is not None and _number(wanted) == _number(text)
    if key.wild:
        return wildcard(wanted, text)
    return text == wanted


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _moment_matches(key: Key, text: str) -> bool:
    value = normalised(text, key.vr)
    limits = key.range
    if limits is None:
        return value == normalised(key.value, key.vr)
    low, high = limits
    return (not low or value >= normalised(low, key.vr)) and (not high or value <= normalised(high, key.vr))


def normalised(text: str, vr: str) -> str:
    """Return a DA, TM or DT so that text order is time order; missing parts are zero (``2230`` is ``223000``).

    A DT with an offset is brought to UTC.
    """
    text = text.strip()
    if vr == "DA":
        return text.replace(".", "")
    if vr == "TM":
        whole, _, fraction = text.replace(":", "").partition(".")
        return f"{whole:0<6}.{fraction:0<6}"
    return _utc(text)


def _utc(text: str) -> str:
    from datetime import UTC, datetime, timedelta, timezone

    parts = re.fullmatch(r"([0-9]{4,14})(?:\.([0-9]{1,6}))?([+-][0-9]{4})?", text)
    if parts is None:
        return text
    digits = parts[1] + "00000101000000"[len(parts[1]) :] if len(parts[1]) < 14 else parts[1]
    fraction = f"{parts[2] or '':0<6}"
    if parts[3]:
        minutes = int(parts[3][1:3]) * 60 + int(parts[3][3:])
        zone = timezone(timedelta(minutes=minutes if parts[3][0] == "+" else -minutes))
        try:
            moment = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=zone).astimezone(UTC)
        except ValueError:
            return text
        digits = moment.strftime("%Y%m%d%H%M%S")
    return f"{digits}.{fraction}"


def wildcard(wanted: str, text: str) -> bool:
    """Match ``*`` (any run) and ``?`` (one character), everything else literally, in time |wanted| x |text| at most."""
    at = position = 0
    star, resume = -1, 0
    while position < len(text):
        if at < len(wanted) and wanted[at] == "*":
            star, resume = at, position
            at += 1
        elif at < len(wanted) and wanted[at] in ("?", text[position]):
            at += 1
            position += 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return not wanted[at:].strip("*")


def _name_matches(wanted: str, value: Mapping[str, str], *, fuzzy: bool) -> bool:
    """Match a person name without case and accents, against the whole value or any component group."""
    candidates = [folded(group) for group in value.values()]
    candidates.append(folded(person_name(value)))
    literal = folded(wanted).rstrip("^")
    for candidate in candidates:
        if wildcard(literal, candidate.rstrip("^")):
            return True
    if not fuzzy:
        return False
    tokens = [token for token in _TOKEN.split(literal) if token.strip("*")]
    return bool(tokens) and any(_tokens_match(tokens, candidate) for candidate in candidates)


def _tokens_match(tokens: Sequence[str], candidate: str) -> bool:
    """Every token is the beginning of some part of the name, in any order (PS3.18 8.3.4.2)."""
    parts = [part for part in _TOKEN.split(candidate) if part]
    return all(any(wildcard(token + "*", part) for part in parts) for token in tokens)
