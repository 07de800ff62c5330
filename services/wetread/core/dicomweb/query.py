"""QIDO-RS key grammar: from a query string to typed match keys (PS3.18 8.3.4, 10.6.1.2; PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from wetread.core.dicom.dictionary import keyword_of, tag_of, vr_of
from wetread.core.dicomweb.levels import Level, level_of
from wetread.core.errors import InvalidInput

KEY_LIMIT: Final = 64
"""Match keys and include fields per request."""

MAXIMUM: Final = {Level.STUDY: 5000, Level.SERIES: 5000, Level.INSTANCE: 10_000}
"""Results per answer; a larger limit is clamped."""

_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}")
_PLUS: Final = re.compile(r"\+(?![0-9]{4}(?![0-9]))")
_RANGED: Final = frozenset({"DA", "TM", "DT"})
_WILD: Final = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
_DATE: Final = re.compile(r"[0-9]{8}|[0-9]{4}\.[0-9]{2}\.[0-9]{2}")
_TIME: Final = re.compile(r"[0-9]{2}:?(?:[0-9]{2}:?(?:[0-9]{2}(?:\.[0-9]{1,6})?)?)?")
_DATE_TIME: Final = re.compile(r"[0-9]{4,14}(?:\.[0-9]{1,6})?(?:[+-][0-9]{4})?")
_PLAIN_PARAMETERS: Final = frozenset(
    {"accept", "limit", "offset", "fuzzymatching", "emptyvaluematching", "multiplevaluematching"}
)
_FORMS: Final = {"DA": _DATE, "TM": _TIME, "DT": _DATE_TIME}


@dataclass(frozen=True, slots=True)
class Key:
    """One match key. ``path``: tags from the outermost sequence to the attribute. ``value``: decoded, as sent."""

    path: tuple[int, ...]
    vr: str
    value: str
    any_of: tuple[str, ...] = ()
    """Alternatives of a list (UIDs, modalities); empty for a plain value."""
    matches_empty: bool = False

    @property
    def level(self) -> Level:
        """Level of the outermost attribute."""
        return level_of(self.path[0])

    @property
    def universal(self) -> bool:
        """True when the key matches everything (PS3.4 C.2.2.2.3) and only asks for the attribute."""
        return not self.matches_empty and not self.any_of and self.value.strip("*") == ""

    @property
    def wild(self) -> bool:
        """True when ``*`` and ``?`` have their special meaning."""
        return self.vr in _WILD and any(c in self.value for c in "*?")

    @property
    def range(self) -> tuple[str, str] | None:
        """Return (from, to), either may be empty, for a range of DA, TM, DT; None for a single value."""
        if self.vr not in _RANGED:
            return None
        return split_range(self.value, self.vr)


@dataclass(frozen=True, slots=True)
class Query:
    """One search. ``include``: outermost tags of the include fields."""

    level: Level
    keys: tuple[Key, ...] = ()
    include: frozenset[int] = frozenset()
    include_all: bool = False
    fuzzy: bool = False
    limit: int | None = None
    offset: int = 0
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def page(self) -> int:
        """Results that this answer may hold."""
        maximum = MAXIMUM[self.level]
        return maximum if self.limit is None else min(self.limit, maximum)


def split_range(value: str, vr: str) -> tuple[str, str] | None:
    """Split ``a-b``, ``a-``, ``-b``; a minus that belongs to the zone offset of a DT does not split."""
    for at, character in enumerate(value):
        if character != "-":
            continue
        low, high = value[:at].strip(), value[at + 1 :].strip()
        if all(not part or _FORMS[vr].fullmatch(part) for part in (low, high)) and (low or high):
            if vr == "DT" and low and re.fullmatch(r"[0-9]{4}", high) and _is_offset(high) and len(low) > 4:
                continue
            return low, high
    return None


def _is_offset(text: str) -> bool:
    """Return whether four digits read as hours and minutes of a zone, not as a year."""
    return int(text[:2]) <= 14 and int(text[2:]) < 60


def parse_query(level: Level, query_string: str) -> Query:
    """Parse a search. Raises InvalidInput for repeated keys, unknown attributes and ill-formed values.

    Plus signs are spaces, because browsers and the Python clients form-encode; in a DT value a plus before four digits
    is the sign of an offset.
    """
    builder = _Builder(level)
    for pair in query_string.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            builder.take(unquote(name.replace("+", " ")).strip(), value)
    return builder.build()


class _Builder:
    def __init__(self, level: Level) -> None:
        self._level = level
        self._keys: dict[tuple[int, ...], tuple[str, str]] = {}
        self._include: set[int] = set()
        self._include_all = False
        self._flags: dict[str, bool] = {}
        self._counts: dict[str, int] = {}
        self._warnings: list[str] = []
        self._seen: set[str] = set()

    def take(self, name: str, raw: str) -> None:
        plain = unquote(raw.replace("+", " "))
        lower = name.lower()
        if lower == "includefield":
            self._take_include(plain)
            return
        if lower in _PLAIN_PARAMETERS:
            self._take_plain(lower, plain)
            return
        path = parse_path(name)
        if path is None:
            if "." in name or name[:1].isupper() or name[:1].isdigit():
                raise InvalidInput("a match key is neither a keyword nor a tag of the data dictionary")
            self._warnings.append(f"The parameter {_printable(name)} is not known and was ignored")
            return
        if path in self._keys:
            raise InvalidInput("a match key is repeated")
        if len(self._keys) >= KEY_LIMIT:
            raise InvalidInput(f"more than {KEY_LIMIT} match keys")
        vr = vr_of(path[-1])
        self._keys[path] = vr, unquote(_PLUS.sub(" ", raw)) if vr == "DT" else plain

    def _take_plain(self, name: str, value: str) -> None:
        if name == "accept":
            return
        if name in self._seen:
            raise InvalidInput(f"{name} is repeated")
        self._seen.add(name)
        if name in ("limit", "offset"):
            if not re.fullmatch(r"[0-9]{1,18}", value):
                raise InvalidInput(f"{name} must be an unsigned integer")
            self._counts[name] = int(value)
            return
        if value.lower() not in ("true", "false"):
            raise InvalidInput(f"{name} must be true or false")
        self._flags[name] = value.lower() == "true"

    def _take_include(self, value: str) -> None:
        for name in (part.strip() for part in value.split(",")):
            if name.lower() == "all":
                self._include_all = True
                continue
            path = parse_path(name) if name else None
            if path is None:
                self._warnings.append(f"The include field {_printable(name)} is not known and was ignored")
            elif len(self._include) >= KEY_LIMIT:
                raise InvalidInput(f"more than {KEY_LIMIT} include fields")
            elif level_of(path[0]) > self._level:
                self._warnings.append(f"The include field {_printable(name)} is of a lower level and was ignored")
            else:
                self._include.add(path[0])

    def build(self) -> Query:
        keys = tuple(self._key(path, vr, value) for path, (vr, value) in self._keys.items())
        if any(key.level > self._level and not key.universal for key in keys):
            self._warnings.append("A relational key of a lower level was matched against related entities")
        return Query(
            level=self._level,
            keys=keys,
            include=frozenset(self._include) | {key.path[0] for key in keys if key.level <= self._level},
            include_all=self._include_all,
            fuzzy=self._flags.get("fuzzymatching", False),
            limit=self._counts.get("limit"),
            offset=self._counts.get("offset", 0),
            warnings=tuple(self._warnings),
        )

    def _key(self, path: tuple[int, ...], vr: str, value: str) -> Key:
        empty = self._flags.get("emptyvaluematching", False) and value == '""'
        alternatives: tuple[str, ...] = ()
        value = value if empty else value.strip(" \0")
        if vr == "UI" and value:
            alternatives = tuple(part.strip() for part in re.split(r"[,\\]", value) if part.strip())
            if any(not re.fullmatch(r"[0-9.]{1,64}", part) for part in alternatives) and value.strip("*"):
                raise InvalidInput(f"{keyword_of(path[-1])} is not a UID or a list of UIDs")
            if not value.strip("*"):
                alternatives = ()
        elif path[-1] in (0x00080060, 0x00080061) and "," in value:
            alternatives = tuple(part.strip() for part in re.split(r"[,\\]", value) if part.strip())
        elif "\\" in value and (
            self._flags.get("multiplevaluematching", False) or path[-1] in (0x00080060, 0x00080061)
        ):
            alternatives = tuple(part.strip() for part in value.split("\\") if part.strip())
        bounded = vr in _RANGED and not empty and value.strip("*") != ""
        if bounded and split_range(value, vr) is None and not _FORMS[vr].fullmatch(value):
            raise InvalidInput(f"{keyword_of(path[-1])} is not a {vr} value or range")
        return Key(path, vr, "" if empty else value, alternatives, empty)


def parse_path(name: str) -> tuple[int, ...] | None:
    """Return the tags of a keyword, tag or dotted path; None when a part is neither."""
    tags = []
    for part in name.split("."):
        if _HEX.fullmatch(part):
            tag: int | None = int(part, 16)
            if keyword_of(tag or 0) == "" and not (tag or 0) >> 16 & 1:
                return None
        else:
            tag = tag_of(part)
        if tag is None:
            return None
        tags.append(tag)
    if len(tags) > 1 and any(vr_of(tag) not in ("SQ", "UN") for tag in tags[:-1]):
        return None
    return tuple(tags)


def _printable(name: str) -> str:
    """Return a parameter name fit for a header value: no control characters, no quotes, bounded."""
    return re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:64]
