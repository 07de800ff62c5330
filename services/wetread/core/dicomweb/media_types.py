"""Media types and content negotiation of DICOMweb (RFC 9110 8.3, 12.5.1; PS3.18 8.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from wetread.core.errors import InvalidInput

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
OCTETS: Final = "application/octet-stream"
MULTIPART: Final = "multipart/related"

_RANGE_LIMIT: Final = 64

ALIASES: Final[Mapping[str, str]] = {
    "application/json": DICOM_JSON,
    "image/x-jls": "image/jls",
    "image/dicom+jpeg-ls": "image/jls",
    "image/x-dicom-rle": "image/dicom-rle",
    "image/dicom+rle": "image/dicom-rle",
    "image/dicom+jpeg": "image/jpeg",
    "image/dicom+jp2": "image/jp2",
    "image/dicom+jpx": "image/jpx",
    "image/jhc": "image/jphc",
    "image/jpg": "image/jpeg",
    "video/h265": "video/H265",
}
"""Names that clients send, and the standard name that we answer with (PS3.18 table 8.7.3-2 and older editions)."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type or range. ``type`` in lower case with aliases resolved; parameter names in lower case."""

    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0
    ranked_apart: frozenset[tuple[bool, str]] = frozenset()
    """(multipart, payload) that a range does not speak for, because the same header names them themselves."""

    @property
    def multipart(self) -> bool:
        """True for multipart/related."""
        return self.type == MULTIPART

    @property
    def payload(self) -> str:
        """The type of what is transported: the ``type`` parameter of a multipart, else the type itself."""
        if not self.multipart:
            return self.type
        inner = self.parameters.get("type", "*/*").lower()
        return ALIASES.get(inner, inner)

    @property
    def transfer_syntax(self) -> str | None:
        """The ``transfer-syntax`` parameter: a UID, ``*``, or None."""
        return self.parameters.get("transfer-syntax") or None

    def covers(self, media_type: str) -> bool:
        """Return whether the payload range includes *media_type*."""
        wanted = self.payload
        if (self.multipart, media_type) in self.ranked_apart:
            return False
        if wanted in ("*/*", "*", media_type):
            return True
        return wanted.endswith("/*") and media_type.startswith(wanted[:-1])


def _split(text: str, separator: str) -> list[str]:
    """Split at *separator* outside of quoted strings."""
    if '"' not in text:
        return text.split(separator)
    pieces: list[str] = []
    current: list[str] = []
    quoted = escaped = False
    for character in text:
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            pieces.append("".join(current))
            current = []
            continue
        current.append(character)
    pieces.append("".join(current))
    return pieces


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return value.strip('"')


@lru_cache(maxsize=256)
def parse_media_type(text: str) -> MediaType:
    """Parse one media type with parameters; ``q`` becomes the quality. A sender says the same with every request.

    Raises InvalidInput when there is no type/subtype.
    """
    pieces = _split(text, ";")
    name = pieces[0].strip().lower()
    if "/" not in name or name.startswith("/") or name.endswith("/"):
        msg = "a media type has no type/subtype"
        raise InvalidInput(msg)
    parameters: dict[str, str] = {}
    quality = 1.0
    for piece in pieces[1:]:
        key, equals, value = piece.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            continue
        if key == "q":
            try:
                quality = min(max(float(_unquote(value)), 0.0), 1.0)
            except ValueError:
                quality = 0.0
        else:
            parameters.setdefault(key, _unquote(value))
    return MediaType(ALIASES.get(name, name), parameters, quality)


@lru_cache(maxsize=256)
def parse_accept(header: str | None, query: str | None = None) -> tuple[MediaType, ...]:
    """Return the acceptable ranges, best first (quality, then specificity, then the order given).

    ``query``: the ``accept`` query parameter, which has priority (PS3.18 8.3.3.1). Without either, everything is
    acceptable (the standard says 406 there; documented deviation). Ill-formed ranges and parameters are ignored.
    What a header names itself has the quality it says there, whatever a wider range says (RFC 9110 12.5.1): with
    ``application/dicom+json;q=0, */*`` there is no JSON.
    """
    text = query or header
    if text is None or not text.strip():
        return (MediaType("*/*"),)
    ranges: list[MediaType] = []
    for piece in _split(text, ",")[:_RANGE_LIMIT]:
        try:
            media = parse_media_type(piece)
        except InvalidInput:
            continue
        ranges.append(media)
    named = frozenset(
        (media.multipart, media.payload)
        for media in ranges
        if not media.payload.endswith("*") and media.transfer_syntax is None
    )
    ranges = [
        replace(media, ranked_apart=named) if named and media.payload.endswith("*") else media
        for media in ranges
        if media.quality > 0
    ]
    order = {id(media): position for position, media in enumerate(ranges)}
    ranges.sort(key=lambda media: (-media.quality, _generality(media), order[id(media)]))
    return tuple(ranges)


def _generality(media: MediaType) -> int:
    if media.payload in ("*/*", "*"):
        return 2
    return 1 if media.payload.endswith("/*") else 0


def accepts(ranges: Sequence[MediaType], media_type: str) -> bool:
    """Return whether *media_type* may be sent as a single part."""
    return any(not media.multipart and media.covers(media_type) for media in ranges)
