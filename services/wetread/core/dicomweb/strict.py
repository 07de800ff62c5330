"""Content negotiation to the letter of PS3.18 8.7.5, for sites that want to find out what their clients send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from wetread.core.dicomweb.media_types import DICOM, DICOM_JSON, DICOM_XML, OCTETS, MediaType
from wetread.core.errors import InvalidInput, NotAcceptable

Kind = Literal["DICOM", "rendered"]

_DICOM: Final = frozenset(
    {DICOM, DICOM_JSON, DICOM_XML, OCTETS, "application/zip"}
    | {f"image/{name}" for name in ("dicom-rle", "jls", "jp2", "jpx", "jphc", "jxl")}
)
_RENDERED: Final = frozenset({"image/jpeg", "image/png", "image/gif", "application/pdf"})
_RENDERED_AS: Final = ("text/", "model/", "video/")


def require_accept(header: str | None) -> None:
    """Refuse a request without an ``Accept`` header, or with an empty one. Raises NotAcceptable."""
    if header is None or not header.strip():
        msg = "the request has no Accept header (PS3.18 8.7.5)"
        raise NotAcceptable(msg)


def check_strict(header: str | None, ranges: Sequence[MediaType], *, bulk: bool) -> None:
    """Refuse what is tolerated otherwise. ``ranges``: what is asked for. ``bulk``: of frames or bulk data.

    Raises NotAcceptable without an ``Accept`` header, which an ``accept`` query parameter does not stand for;
    InvalidInput when DICOM and rendered media types are mixed.
    """
    require_accept(header)
    if len({kind_of(media, bulk=bulk) for media in ranges} - {None}) > 1:
        msg = "DICOM and rendered media types are not mixed (PS3.18 8.7.5)"
        raise InvalidInput(msg)


def kind_of(media: MediaType, *, bulk: bool) -> Kind | None:
    """Return what a media type asks for, None when it may be either: wild cards, and types that nobody knows.

    Some types are both: those of pictures and videos are frames as they are stored where frames are asked for.
    """
    payload = media.payload
    if media.transfer_syntax is not None or payload in _DICOM:
        return "DICOM"
    if payload.endswith("*"):
        return None
    if bulk and payload.startswith(("image/", "video/")):
        return "DICOM"
    return "rendered" if payload in _RENDERED or payload.startswith(_RENDERED_AS) else None
