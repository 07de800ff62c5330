"""Which representation a retrieval answers with (PS3.18 8.7): of instances, and of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, TransferSyntax, transfer_syntax
from wetread.core.dicomweb.media_types import DICOM, OCTETS, MediaType
from wetread.core.errors import NotAcceptable

STORED: Final = "stored"
NATIVE: Final = "native"
"""Explicit VR Little Endian, decompressed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``form``: stored or native. ``multipart``: False for a single part. ``media``: type of each part's content."""

    form: str
    multipart: bool
    media: str
    transfer_syntax: str

    @property
    def content_type(self) -> str:
        """Part header value; the syntax is unquoted and always the actual one (viewers depend on both)."""
        return f"{self.media}; transfer-syntax={self.transfer_syntax}"


def choose_instance(ranges: Sequence[MediaType], stored_uid: str, *, single: bool, lossy: bool) -> list[Choice]:
    """Return the ways an instance may be sent, best first. ``single``: the resource is one instance.

    Raises NotAcceptable when there is none.
    """
    stored = transfer_syntax(stored_uid)
    choices: list[Choice] = []
    for media in ranges:
        if not media.covers(DICOM) or (not media.multipart and not single and media.payload == DICOM):
            continue
        multipart = media.multipart or media.payload != DICOM
        choices += [
            Choice(form, multipart, DICOM, stored_uid if form == STORED else EXPLICIT_LE)
            for form in _forms(media.transfer_syntax, stored, lossy=lossy or stored.lossy)
        ]
    if not choices:
        archives = "" if single else " or application/zip,"
        raise NotAcceptable(f'available: multipart/related; type="{DICOM}",{archives} in {EXPLICIT_LE} or as stored')
    return choices


def _forms(asked: str | None, stored: TransferSyntax, *, lossy: bool) -> list[str]:
    """Return the forms that satisfy one transfer-syntax parameter."""
    if asked is None:
        # Without a syntax the default is Explicit VR Little Endian, unless only lossy data exist (PS3.18 8.7.3.4).
        if stored.uid == EXPLICIT_LE or (lossy and stored.on_the_wire):
            return [STORED]
        return [NATIVE, STORED] if stored.on_the_wire else [NATIVE]
    if asked == stored.uid:
        return [STORED]
    if asked == "*":
        return [STORED] if stored.on_the_wire or stored.deflated else [NATIVE]
    return [NATIVE] if asked == EXPLICIT_LE else []


def choose_frames(ranges: Sequence[MediaType], stored_uid: str, *, one: bool, lossy: bool) -> list[Choice]:
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
            for form in _forms(media.transfer_syntax, stored, lossy=lossy or stored.lossy):
                if form == STORED:
                    choices.append(_as_stored(stored, stored_media, multipart=multipart))
                else:
                    choices.append(Choice(NATIVE, multipart, OCTETS, EXPLICIT_LE))
        elif media.covers(stored_media) and media.transfer_syntax in (None, "*", stored.uid):
            choices.append(_as_stored(stored, stored_media, multipart=multipart))
    if not choices:
        raise NotAcceptable(f'available: type="{OCTETS}" in {EXPLICIT_LE}, or "{stored_media}" in {stored_uid}')
    return choices


def _as_stored(stored: TransferSyntax, media: str, *, multipart: bool) -> Choice:
    if not stored.encapsulated and (stored.deflated or not stored.explicit):
        # The values of one frame are the same in every little endian syntax.
        return Choice(STORED, multipart, OCTETS, EXPLICIT_LE)
    return Choice(STORED, multipart, media, stored.uid)
