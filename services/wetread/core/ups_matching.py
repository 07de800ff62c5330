"""Matching keys of a workitem search or a filtered subscription (PS3.18 8.3.4.1, PS3.4 C.2.2.2 and CC.2.8)."""

from __future__ import annotations

import calendar
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from wetread.core.errors import InvalidInput
from wetread.core.ups_dataset import TRANSACTION_UID, items, text, values, vr_of

TIMEZONE: Final = "00080201"
STUDY: Final = "0020000D"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_KEYWORD = re.compile(r"[A-Z][A-Za-z0-9]*")
_DT = re.compile(r"(\d{4}|\d{6}|\d{8}|\d{10}|\d{12}|\d{14}(?:\.\d{1,6})?)([+-]\d{4})?")
_WILDCARD_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})


@dataclass(frozen=True, slots=True)
class Key:
    """One matching key: the tag path through sequences, the VR of its last tag, and the value asked for."""

    path: tuple[str, ...]
    vr: str
    value: str

    @property
    def universal(self) -> bool:
        """Whether it matches everything, also an absent attribute (PS3.4 C.2.2.2.3)."""
        return not self.value.strip("*")

    @property
    def exact(self) -> bool:
        """Whether only the very same text can match."""
        return self.vr in _WILDCARD_VRS - {"PN"} and not re.search(r"[*?]", self.value)

    @property
    def literals(self) -> tuple[str, ...]:
        """Text that every match contains, folded for PN, so that a data base may leave out what cannot match."""
        if self.vr not in _WILDCARD_VRS:
            return ()
        wanted = folded(self.value) if self.vr == "PN" else self.value
        return tuple(part for part in re.split(r"[*?]+", wanted) if part)

    @property
    def uids(self) -> tuple[str, ...]:
        """The UIDs of a UI key, any of which matches (PS3.4 C.2.2.2.2); empty for other VRs."""
        return tuple(re.split(r"[,\\]", self.value)) if self.vr == "UI" else ()


def looks_like_attribute(name: str) -> bool:
    """Return whether a query parameter means an attribute: 8 hex digits, a path, or something like a keyword."""
    return "." in name or _TAG.fullmatch(name) is not None or _KEYWORD.fullmatch(name) is not None


def attribute_path(name: str) -> tuple[str, ...]:
    """Return the tags of a keyword, a tag or a dotted path mixing both. Raises InvalidInput."""
    return tuple(_tag(part) for part in name.split("."))


def _tag(part: str) -> str:
    if _TAG.fullmatch(part):
        return part.upper()
    tag = tag_for_keyword(part)
    if tag is None:
        msg = "a search key is neither a known keyword nor a tag"
        raise InvalidInput(msg)
    return f"{tag:08X}"


def matching_key(name: str, value: str) -> Key:
    """Return the key of one query parameter. Raises InvalidInput for what can never be matched."""
    path = attribute_path(name)
    if TRANSACTION_UID in path:
        msg = "the Transaction UID is not a key"
        raise InvalidInput(msg)
    if any(vr_of(tag) not in {"SQ", None} for tag in path[:-1]):
        msg = f"{'.'.join(path)} does not lead through sequences"
        raise InvalidInput(msg)
    vr = vr_of(path[-1]) or "UN"
    key = Key(path, vr, value)
    if not key.universal:
        _check_value(key)
    return key


def _check_value(key: Key) -> None:
    if key.vr == "SQ":
        msg = f"{keyword_for_tag(int(key.path[-1], 16))} is a sequence: name an attribute inside it"
        raise InvalidInput(msg)
    if key.vr == "DT":
        _interval(key.value, "+0000")
    if key.vr in {"DA", "TM"} and not re.fullmatch(r"[\d.:]*-?[\d.:]*", key.value):
        msg = f"{'.'.join(key.path)} has a malformed date or time"
        raise InvalidInput(msg)


def study_uid(dataset: Mapping[str, Any]) -> str:
    """Return the study that a workitem is about: named at its top, in its first input, or in its first request."""
    sources = [dataset, *items(dataset, "00404021"), *items(dataset, "0040A370")]
    return next((found for found in (text(source, STUDY) for source in sources) if found), "")


def matches(dataset: Mapping[str, Any], keys: Sequence[Key]) -> bool:
    """Return whether a workitem matches all keys; of a sequence one item must match all of its keys at once.

    A top-level Study Instance UID, which the UPS IOD does not have, asks for `study_uid`.
    """
    if STUDY not in dataset:
        dataset = {**dataset, STUDY: {"vr": "UI", "Value": [study_uid(dataset)]}}
    return _matches(dataset, [(key.path, key) for key in keys if not key.universal], text(dataset, TIMEZONE) or "+0000")


def _matches(dataset: Mapping[str, Any], keys: Sequence[tuple[tuple[str, ...], Key]], zone: str) -> bool:
    inside: dict[str, list[tuple[tuple[str, ...], Key]]] = {}
    for path, key in keys:
        if len(path) > 1:
            inside.setdefault(path[0], []).append((path[1:], key))
        elif not any(_value_matches(key, value, zone) for value in values(dataset, path[0])):
            return False
    return all(any(_matches(item, below, zone) for item in items(dataset, tag)) for tag, below in inside.items())


def _value_matches(key: Key, value: Any, zone: str) -> bool:
    if isinstance(value, (int, float)):
        return _is_number(key.value) and float(key.value) == value
    if key.vr == "PN":
        groups = value.values() if isinstance(value, dict) else [value]
        return any(_wildcard(folded(key.value), folded(str(group))) for group in groups)
    matcher = _MATCHERS.get(key.vr)
    if matcher is not None:
        return matcher(key.value, str(value), zone)
    return _wildcard(key.value, str(value)) if key.vr in _WILDCARD_VRS else key.value == value


def _is_number(text_value: str) -> bool:
    try:
        float(text_value)
    except ValueError:
        return False
    return True


def _uid_listed(wanted: str, value: str, _zone: str) -> bool:
    return value in re.split(r"[,\\]", wanted)


def _moment_matches(wanted: str, value: str, zone: str) -> bool:
    stored = _moment(value, zone)
    low, high = _interval(wanted, zone)
    return stored is not None and low <= stored[0] < high


def _clock_matches(wanted: str, value: str, _zone: str) -> bool:
    stored = re.sub(r"[.:]", "", value)
    low, dash, high = (re.sub(r"[.:]", "", part) for part in wanted.partition("-"))
    if not dash:
        return stored.startswith(low)
    return (not low or stored >= low) and (not high or stored[: len(high)] <= high)


_MATCHERS: Final[dict[str, Callable[[str, str, str], bool]]] = {
    "UI": _uid_listed,
    "DT": _moment_matches,
    "DA": _clock_matches,
    "TM": _clock_matches,
}


def folded(name: str) -> str:
    """Return a person's name without case and accents, so that spelling variants meet."""
    decomposed = unicodedata.normalize("NFKD", name)
    return "".join(char for char in decomposed if not unicodedata.combining(char)).casefold()


def _wildcard(pattern: str, value: str) -> bool:
    if not re.search(r"[*?]", pattern):
        return pattern == value
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", pattern))
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


def utc_range(value: str) -> tuple[str, str]:
    """Return bounds, in the form of `utc_instant`, outside which nothing matches a DT key, whatever its time zone."""
    low, high = _interval(value, "+0000")
    far = timedelta(hours=15)
    start = _EARLIEST if low - _EARLIEST < far else low - far
    end = _LATEST if _LATEST - high < far else high + far
    return start.strftime("%Y%m%d%H%M%S.%f").zfill(21), end.strftime("%Y%m%d%H%M%S.%f")


def utc_instant(value: str, zone: str = "+0000") -> str:
    """Return a DT value as a sortable text in UTC; empty when it is not one."""
    try:
        return _interval(value, zone)[0].strftime("%Y%m%d%H%M%S.%f")
    except InvalidInput:
        return ""


def _interval(value: str, zone: str) -> tuple[datetime, datetime]:
    """Return [earliest, end) of a DT value or range; '-' before a valid offset is an offset (PS3.4 C.2.2.2.5)."""
    single = _moment(value, zone)
    if single is not None:
        return single
    for position in (index for index, char in enumerate(value) if char == "-"):
        low_text, high_text = value[:position], value[position + 1 :]
        low = _moment(low_text, zone) if low_text else (_EARLIEST, _EARLIEST)
        high = _moment(high_text, zone) if high_text else (_LATEST, _LATEST)
        if low is not None and high is not None:
            return low[0], high[1]
    msg = "a date-time is malformed"
    raise InvalidInput(msg)


_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_LENGTH_OF: Final = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1), 14: timedelta(seconds=1)}


def _moment(value: str, zone: str) -> tuple[datetime, datetime] | None:
    match = _DT.fullmatch(value.strip())
    if match is None:
        return None
    digits, offset = match.group(1), match.group(2) or zone
    whole, _, fraction = digits.partition(".")
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])) * (-1 if offset[0] == "-" else 1)
    if not timedelta(hours=-12) <= shift <= timedelta(hours=14):
        return None
    padded = whole + "00000101000000"[len(whole) :]
    try:
        start = datetime.strptime(padded, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        start += timedelta(microseconds=int(fraction.ljust(6, "0") or 0)) - shift
        return start, start + _length(whole, fraction)
    except (ValueError, OverflowError):
        return None


def _length(whole: str, fraction: str) -> timedelta:
    if fraction:
        return timedelta(microseconds=10 ** (6 - len(fraction)))
    if len(whole) == 4:
        return timedelta(days=366 if calendar.isleap(int(whole)) else 365)
    if len(whole) == 6:
        return timedelta(days=calendar.monthrange(int(whole[:4]), int(whole[4:6]))[1])
    return _LENGTH_OF[len(whole)]
