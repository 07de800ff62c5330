"""Which representation a retrieval answers with (PS3.18 8.7): of instances, and of frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

from wetread.core.dicom.lossless import HTJ2K, JPEG_2000, JPEG_LS
from wetread.core.dicom.transfer_syntax import DEFLATED_LE, EXPLICIT_LE, RLE, TransferSyntax, transfer_syntax
from wetread.core.dicomweb.media_types import DICOM, OCTETS, MediaType
from wetread.core.errors import NotAcceptable

STORED: Final = "stored"
NATIVE: Final = "native"
"""Explicit VR Little Endian, decompressed; of whole instances also deflated."""
ENCODED: Final = "encoded"
"""Losslessly compressed by us."""

_DEFAULT_SYNTAX: Final[Mapping[str, str]] = {
    "image/dicom-rle": RLE,
    "image/jls": JPEG_LS,
    "image/jp2": JPEG_2000,
    "image/jphc": HTJ2K,
}
"""What a media type means without a transfer syntax, where there is an encoder (PS3.18 table 8.7.3-5)."""


_NONE: Final[AbstractSet[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Choice:
    """``form``: stored, native or encoded. ``multipart``: False for a single part. ``media``: type of each part."""

    form: str
    multipart: bool
    media: str
    transfer_syntax: str

    @property
    def content_type(self) -> str:
        """Part header value; the syntax is unquoted and always the actual one (viewers depend on both)."""
        return f"{self.media}; transfer-syntax={self.transfer_syntax}"


def choose_instance(
    ranges: Sequence[MediaType], stored_uid: str, *, single: bool, lossy: bool, encodable: AbstractSet[str] = _NONE
) -> list[Choice]:
    """Return the ways an instance may be sent, best first. ``single``: the resource is one instance.

    ``encodable``: the compressed syntaxes that there is an encoder for. Raises NotAcceptable when there is none.
    """
    stored = transfer_syntax(stored_uid)
    choices: list[Choice] = []
    for media in ranges:
        if not media.covers(DICOM) or (not media.multipart and not single and media.payload == DICOM):
            continue
        multipart = media.multipart or media.payload != DICOM
        forms = _forms(media.transfer_syntax, stored, lossy=lossy or stored.lossy, encodable=encodable)
        if media.transfer_syntax == DEFLATED_LE != stored.uid:
            forms = [(NATIVE, DEFLATED_LE)]
        choices += [Choice(form, multipart, DICOM, uid) for form, uid in forms]
    if not choices:
        archives = "" if single else " or application/zip,"
        syntaxes = ", ".join([EXPLICIT_LE, DEFLATED_LE, *([] if stored.lossy else sorted(encodable))])
        raise NotAcceptable(f'available: multipart/related; type="{DICOM}",{archives} in {syntaxes} or as stored')
    return choices


def _forms(
    asked: str | None, stored: TransferSyntax, *, lossy: bool, encodable: AbstractSet[str]
) -> list[tuple[str, str]]:
    """Return (form, transfer syntax) of what satisfies one transfer-syntax parameter."""
    native, as_is = (NATIVE, EXPLICIT_LE), (STORED, stored.uid)
    if asked is None:
        # Without a syntax the default is Explicit VR Little Endian, unless only lossy data exist (PS3.18 8.7.3.4).
        if stored.uid == EXPLICIT_LE or (lossy and stored.on_the_wire):
            return [as_is]
        return [native, as_is] if stored.on_the_wire else [native]
    if asked == stored.uid:
        return [as_is]
    if asked == "*":
        return [as_is] if stored.on_the_wire or stored.deflated else [native]
    if asked == EXPLICIT_LE:
        return [native]
    # What is stored lossy is never put into a lossless syntax: it would claim to be what it is not.
    return [(ENCODED, asked)] if asked in encodable and not stored.lossy else []


def choose_frames(
    ranges: Sequence[MediaType], stored_uid: str, *, one: bool, lossy: bool, encodable: AbstractSet[str] = _NONE
) -> list[Choice]:
    """Return the ways frames may be sent, best first. ``one``: a single frame is asked for, so one part is possible.

    Raises NotAcceptable when there is none.
    """
    stored = transfer_syntax(stored_uid)
    stored_media = stored.media_type or OCTETS
    choices: list[Choice] = []
    for media in ranges:
        if not media.multipart and not one and media.payload not in ("*/*", "*"):
            continue
        # Anything goes: bulk data of several frames are parts, and the standard's default is multipart.
        multipart = media.multipart or media.payload in ("*/*", "*")
        if media.covers(OCTETS):
            forms = _forms(media.transfer_syntax, stored, lossy=lossy or stored.lossy, encodable=encodable)
        elif media.covers(stored_media) and media.transfer_syntax in (None, "*", stored.uid):
            forms = [(STORED, stored.uid)]
        else:
            forms = _encoded(media, stored, encodable)
        choices += [_frame_choice(form, uid, stored, multipart=multipart) for form, uid in forms]
    if not choices:
        compressed = [] if stored.lossy else sorted(set(_DEFAULT_SYNTAX.values()) & encodable)
        others = "".join(f', "{transfer_syntax(uid).media_type}" in {uid}' for uid in compressed)
        raise NotAcceptable(f'available: type="{OCTETS}" in {EXPLICIT_LE}, "{stored_media}" in {stored_uid}{others}')
    return choices


def _encoded(media: MediaType, stored: TransferSyntax, encodable: AbstractSet[str]) -> list[tuple[str, str]]:
    """Return what an image type asks to be compressed to."""
    asked = media.transfer_syntax
    uid = _DEFAULT_SYNTAX.get(media.payload, "") if asked in (None, "*") else str(asked)
    wanted = transfer_syntax(uid).media_type
    fits = uid in encodable and wanted is not None and media.covers(wanted) and not stored.lossy
    return [(ENCODED, uid)] if fits else []


def _frame_choice(form: str, uid: str, stored: TransferSyntax, *, multipart: bool) -> Choice:
    if form == STORED:
        return _as_stored(stored, stored.media_type or OCTETS, multipart=multipart)
    return Choice(form, multipart, OCTETS if form == NATIVE else transfer_syntax(uid).media_type or OCTETS, uid)


def _as_stored(stored: TransferSyntax, media: str, *, multipart: bool) -> Choice:
    if not stored.encapsulated and (stored.deflated or not stored.explicit):
        # The values of one frame are the same in every little endian syntax.
        return Choice(STORED, multipart, OCTETS, EXPLICIT_LE)
    return Choice(STORED, multipart, media, stored.uid)
