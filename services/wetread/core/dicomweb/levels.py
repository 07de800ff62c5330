"""Which attribute belongs to which level of the study root model, and what a search returns (PS3.18 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final


class Level(IntEnum):
    """Levels of a search, from the outside in."""

    STUDY = 0
    SERIES = 1
    INSTANCE = 2


def _tags(text: str) -> frozenset[int]:
    return frozenset(int(tag, 16) for tag in text.split())


_STUDY_TAGS: Final = _tags(
    "00080020 00080030 00080050 00080051 00080061 00080062 00080080 00080081 00080082 00080090 00080092 00080096 "
    "0008009C 00081030 00081032 00081040 00081048 00081060 00081080 00081084 00081110 00081120 0020000D 00200010 "
    "00201200 00201202 00201204 00201206 00201208 00321032 00321033 00321060 00321064 00380010 00380014 00380060 "
    "00380500 00401012 0040E010"
)
_SERIES_TAGS: Final = _tags(
    "00080021 00080031 00080060 00080064 00080068 00080070 0008103E 0008103F 00081010 00081050 00081052 00081070 "
    "00081072 00081090 00081111 00081115 00081250 00180015 00181000 00181020 00181030 00185100 0020000E 00200011 "
    "00200060 00201209 00400244 00400245 00400250 00400251 00400253 00400254 00400260 00400275 00400280 00540410"
)

RETRIEVE_URL: Final = 0x00081190
AVAILABILITY: Final = 0x00080056
TIMEZONE: Final = 0x00080201
AVAILABLE_SYNTAX: Final = 0x00083002

DEFAULTS: Final[Mapping[Level, frozenset[int]]] = {
    Level.STUDY: _tags(
        "00080020 00080030 00080050 00080056 00080061 00080090 00080201 00081190 00100010 00100020 00100030 00100040 "
        "0020000D 00200010 00201206 00201208"
    ),
    Level.SERIES: _tags(
        "00080056 00080060 00080201 0008103E 00081190 0020000E 00200011 00201209 00400244 00400245 00400275"
    ),
    Level.INSTANCE: _tags(
        "00080016 00080018 00080056 00080201 00081190 00083002 00200013 00280008 00280010 00280011 00280100"
    ),
}
"""Attributes that a search always returns where they exist (PS3.18 tables 10.6.3-3 to -5)."""

REQUIRED: Final[Mapping[Level, Mapping[int, str]]] = {
    Level.STUDY: {
        0x00080020: "DA",
        0x00080030: "TM",
        0x00080050: "SH",
        0x00080061: "CS",
        0x00080090: "PN",
        0x00100010: "PN",
        0x00100020: "LO",
        0x00100030: "DA",
        0x00100040: "CS",
        0x00200010: "SH",
    },
    Level.SERIES: {0x00080060: "CS", 0x00200011: "IS"},
    Level.INSTANCE: {0x00200013: "IS"},
}
"""Of the defaults those that are present even when empty, with their VR."""


def level_of(tag: int) -> Level:
    """Return the level that an attribute describes; what is neither study nor series is instance."""
    if tag >> 16 == 0x0010 or tag in _STUDY_TAGS:
        return Level.STUDY
    return Level.SERIES if tag in _SERIES_TAGS else Level.INSTANCE


def fragment(data: Mapping[str, Mapping[str, Any]], level: Level) -> dict[str, Mapping[str, Any]]:
    """Return the attributes of one level. Bulk values stay with the instance; the time zone goes to every level."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for key, entry in data.items():
        tag = int(key, 16)
        if (level_of(tag) is level or tag == TIMEZONE) and "BulkDataURI" not in entry:
            chosen[key] = entry
    return chosen


INSTANCE_FRAGMENT: Final = tuple(
    f"{tag:08X}"
    for tag in sorted(
        _tags(
            "00080008 00080012 00080013 00080016 00080018 00080022 00080023 0008002A 00080032 00080033 00080201 "
            "00200012 00200013 00200032 00200037 00200052 00280002 00280004 00280008 00280010 00280011 00280030 "
            "00280100 00280101 00281050 00281051 0040A043 0040A491 0040A493 0040A496 00420010 00700080 00700081"
        )
    )
)
"""What the index keeps beside an instance for searches; any other attribute is read from the stored metadata."""
