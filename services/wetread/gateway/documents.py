"""What instances look like to a person: the resource categories and rendered media types (PS3.18 8.7.2, 8.7.4).

Pictures are drawn by ``rendering``, reports by ``report_page``; videos and encapsulated documents go out as stored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydicom.uid import UID

from wetread.core.dicom.attributes import Attributes, integer
from wetread.core.dicom.frame_table import FrameTable
from wetread.core.dicom.transfer_syntax import known_syntaxes, transfer_syntax
from wetread.core.dicomweb.media_types import MediaType
from wetread.core.errors import InvalidInput, NotAcceptable, NotFound
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.objects import ObjectRef, ObjectStore
from wetread.gateway.rendering import FORMATS

HTML: Final = "text/html"
PLAIN: Final = "text/plain"
XML: Final = "text/xml"

_REPORTS: Final = "1.2.840.10008.5.1.4.1.1.88."
_MORE_REPORTS: Final = frozenset({"1.2.840.10008.5.1.4.1.1.78.6", "1.2.840.10008.5.1.4.1.1.79.1"})
"""Spectacle Prescription and Macular Grid reports: SR documents with UIDs of their own family."""

DOCUMENTS: Final[Mapping[str, str]] = {
    "1.2.840.10008.5.1.4.1.1.104.1": "application/pdf",
    "1.2.840.10008.5.1.4.1.1.104.2": XML,
    "1.2.840.10008.5.1.4.1.1.104.3": "model/stl",
    "1.2.840.10008.5.1.4.1.1.104.4": "model/obj",
    "1.2.840.10008.5.1.4.1.1.104.5": "model/mtl",
}
"""Type of an encapsulated document by SOP class (PS3.3 A.45, A.85). What its sender calls it is never believed."""

PART_LIMIT: Final = 500
"""Parts of one answer."""

_ITEM: Final = (0xFFFE, 0xE000)


class Category(StrEnum):
    """Resource categories (PS3.18 table 8.7.2-1); Text is two of them, because not all of it can be rewritten."""

    IMAGE = "image"
    VIDEO = "video"
    REPORT = "structured report"
    DOCUMENT = "encapsulated document"
    OTHER = "other"


OFFERED: Final[Mapping[Category, Sequence[str]]] = {
    Category.IMAGE: tuple(FORMATS),
    Category.VIDEO: tuple(
        dict.fromkeys(s.media_type for s in known_syntaxes() if s.media_type and s.media_type.startswith("video/"))
    ),
    Category.REPORT: (HTML, PLAIN, XML),
    Category.DOCUMENT: tuple(dict.fromkeys(DOCUMENTS.values())),
    Category.OTHER: (),
}
"""Rendered media types of each category, the default first."""


class NotRenderable(NotFound):
    """There is such an instance, but nothing of it can be shown. ``reason`` is stable and documented."""

    slug, title = "not-renderable", "Nothing to render"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        return {**super().problem(instance), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Pick:
    """One part of an answer: an instance, its frame where it is a picture, and the media type it is sent in."""

    item: ArchivedInstance
    frame: int | None
    media: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent."""

    multipart: bool
    picks: tuple[Pick, ...]


def category(item: ArchivedInstance) -> Category:
    """Return the resource category of an instance."""
    kind = item.sop_class_uid
    if kind in DOCUMENTS:
        return Category.DOCUMENT
    if kind.startswith(_REPORTS) or kind in _MORE_REPORTS:
        return Category.REPORT
    if (transfer_syntax(item.transfer_syntax_uid).media_type or "").startswith("video/"):
        return Category.VIDEO if item.frames.get("length") else Category.OTHER
    return Category.IMAGE if frame_count(item) else Category.OTHER


def frame_count(item: ArchivedInstance) -> int:
    """Return how many frames an instance has, without reading its frame table: that of a slide is long."""
    return int(item.frames.get("count", 0))


def offers(item: ArchivedInstance) -> Sequence[str]:
    """Return the rendered media types of an instance, the default first; none when it cannot be shown."""
    kind = category(item)
    if kind is Category.VIDEO:
        return (str(transfer_syntax(item.transfer_syntax_uid).media_type),)
    return (DOCUMENTS[item.sop_class_uid],) if kind is Category.DOCUMENT else OFFERED[kind]


def choose(found: Sequence[ArchivedInstance], frames: Sequence[int] | None, ranges: Sequence[MediaType]) -> Plan:
    """Return what the best range that can be satisfied asks for.

    A multipart answer has every instance that the range covers, with all frames; a single part shows one: the picture
    of the middle instance, else the first report, document or video. Raises NotRenderable, NotAcceptable, InvalidInput.
    """
    offered = [(item, kinds) for item in found if (kinds := offers(item))]
    if frames is not None:
        offered = [(item, kinds) for item, kinds in offered if category(item) is Category.IMAGE]
    if not offered:
        raise _nothing(found, frames)
    for media in ranges:
        fits = [(item, kind) for item, kinds in offered if (kind := next(filter(media.covers, kinds), None))]
        if not fits:
            continue
        if media.multipart:
            if sum(len(_frames(item, frames)) for item, _ in fits) > PART_LIMIT:
                raise InvalidInput(f"more than {PART_LIMIT} parts in one answer: ask for frames or instances")
            return Plan(True, tuple(Pick(item, at, kind) for item, kind in fits for at in _frames(item, frames)))
        pictures = [(item, kind) for item, kind in fits if category(item) is Category.IMAGE]
        item, kind = pictures[len(pictures) // 2] if pictures else fits[0]
        return Plan(False, (Pick(item, _frames(item, frames)[0], kind),))
    available = dict.fromkeys(kind for _, kinds in offered for kind in kinds)
    raise NotAcceptable(f"available: {', '.join(available)}")


def _frames(item: ArchivedInstance, asked: Sequence[int] | None) -> Sequence[int | None]:
    if category(item) is not Category.IMAGE:
        return [None]
    return asked if asked is not None else range(1, frame_count(item) + 1)


def _nothing(found: Sequence[ArchivedInstance], frames: Sequence[int] | None) -> NotRenderable:
    kind = category(found[0])
    if frames is not None and kind is Category.VIDEO:
        return NotRenderable("video-frame", "frames of a video are not decoded here: ask for the rendered instance")
    if frames is not None and kind is not Category.OTHER:
        return NotRenderable("no-frames", f"a {kind.value} has no frames")
    if len(found) > 1:
        return NotRenderable("no-pixel-data", "none of the instances has pixel data or a document to show")
    return NotRenderable(
        "no-pixel-data", f"{class_name(found[0].sop_class_uid)}: the instance has no pixel data and is no document"
    )


def class_name(uid: str) -> str:
    """Return the name of a SOP class, its UID when it has none."""
    return str(UID(uid).name) if uid else "no SOP Class"


def document(value: bytes, data: Attributes) -> bytes:
    """Return the bytes of an encapsulated document: *value* of (0042,0011) without what makes its length even.

    (0042,0015) says the length; older objects have none, and no type of document ends with a zero byte.
    """
    length = integer(data, "00420015")
    if length is not None and len(value) - 1 <= length <= len(value):
        return value[:length]
    return value[:-1] if value.endswith(b"\0") else value


def stream_spans(objects: ObjectStore, item: ArchivedInstance) -> tuple[tuple[int, int], ...]:
    """Return (start, length) of each fragment of a video within the stored object: together they are its container.

    Fragments that ingest did not give to frames are walked item by item. Raises NotRenderable.
    """
    table = FrameTable.from_json(item.frames)
    spans = [flat[at : at + 2] for flat in table.spans for at in range(0, len(flat), 2)]
    if not spans:
        spans = _walk(objects, item.ref, table.start, table.start + table.length)
    if not any(length for _, length in spans):
        raise NotRenderable("no-pixel-data", "the instance has no video stream")
    return tuple((start, length) for start, length in spans)


def _walk(objects: ObjectStore, ref: ObjectRef, position: int, end: int) -> list[tuple[int, ...]]:
    spans: list[tuple[int, ...]] = []
    while position + 8 <= end:
        group, element, length = struct.unpack("<HHI", objects.read(ref, position, 8))
        if (group, element) != _ITEM or position + 8 + length > end:
            break
        spans.append((position + 8, length))
        position += 8 + length
    return spans[1:]  # without the Basic Offset Table (PS3.5 A.4)
