"""Search fragments: default answers for the instances of a series are put together from stored bytes, nothing parsed.

A stored fragment is a JSON object whose default attributes come first, in three groups, and then the others that a
search may ask for. A line break, which JSON text written by us has nowhere else, ends each group. An answer is the
three groups with what belongs between them in the order of tags (PS3.18 F.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from wetread.core.dicomweb.levels import (
    AVAILABILITY,
    AVAILABLE_SYNTAX,
    DEFAULTS,
    INSTANCE_FRAGMENT,
    REQUIRED,
    RETRIEVE_URL,
    Level,
)

_STUDY_UID: Final = 0x0020000D
_SERIES_UID: Final = 0x0020000E
_BORDERS: Final = (AVAILABILITY, RETRIEVE_URL)
_COMPUTED: Final = frozenset({AVAILABILITY, RETRIEVE_URL, AVAILABLE_SYNTAX})
_DEFAULTS: Final = sorted(f"{tag:08X}" for tag in DEFAULTS[Level.INSTANCE] - _COMPUTED)
_GROUPS: Final = tuple(
    tuple(tag for tag in _DEFAULTS if low <= int(tag, 16) < high)
    for low, high in ((0, _BORDERS[0]), (_BORDERS[0], _BORDERS[1]), (_BORDERS[1], 1 << 32))
)
_OTHERS: Final = tuple(tag for tag in INSTANCE_FRAGMENT if tag not in _DEFAULTS)
_EMPTY: Final[Mapping[str, Mapping[str, Any]]] = {
    f"{tag:08X}": {"vr": vr} for tag, vr in REQUIRED[Level.INSTANCE].items()
}


def instance_fragment(data: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the fragment of an instance that the index keeps."""
    groups = [{tag: data.get(tag) or _EMPTY[tag] for tag in tags if tag in data or tag in _EMPTY} for tags in _GROUPS]
    groups.append({tag: data[tag] for tag in _OTHERS if tag in data})
    text = b"{"
    for number, group in enumerate(groups):
        if number:
            text += b"\n"
        if group:
            text += (b"," if text.strip() != b"{" else b"") + orjson.dumps(group)[1:-1]
    return text + b"}"


class SeriesAnswers:
    """Makes the default answers for instances below ``/studies/{study}/series/{series}`` of *base*."""

    def __init__(self, base: str, study_uid: str, series_uid: str) -> None:
        self._availability = _member(AVAILABILITY, "CS", "ONLINE")
        self._parents = _member(_STUDY_UID, "UI", study_uid) + b"," + _member(_SERIES_UID, "UI", series_uid)
        self._url = f"{base}/studies/{study_uid}/series/{series_uid}/instances/"

    def answer(self, stored: bytes, sop_uid: str, transfer_syntax_uid: str) -> bytes | None:
        """Return the JSON object of one instance; None when its fragment has to be parsed for it."""
        groups = [group.lstrip(b",") for group in stored[1:-1].split(b"\n")]
        if len(groups) != len(_GROUPS) + 1 or any(b"BulkDataURI" in group for group in groups[:-1]):
            return None
        low, middle, high, _ = groups
        members = (
            *(low, self._availability, middle, _member(RETRIEVE_URL, "UR", self._url + sop_uid)),
            *(_member(AVAILABLE_SYNTAX, "UI", transfer_syntax_uid), self._parents, high),
        )
        return b"{" + b",".join(member for member in members if member) + b"}"


def _member(tag: int, vr: str, value: str) -> bytes:
    return b'"%08X":{"vr":"%s","Value":[%s]}' % (tag, vr.encode(), orjson.dumps(value))
