"""Zip archives of studies and series, streamed: one instance in memory at a time (Supplement 211 of DICOM).

Members are stored, not deflated: pixel data hardly shrink. Sizes and checksums precede each member's bytes, so that an
archive can be unpacked while it arrives. Names are numbers of ours, never values of the data.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Final

from wetread.core.dicomweb.media_types import DICOM, MULTIPART, MediaType

ZIP: Final = "application/zip"
_FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)
"""The same objects give the same bytes whenever they are asked for."""


def zip_range(ranges: Sequence[MediaType]) -> MediaType | None:
    """Return the range of instances that a zip archive has to hold, None when something else is preferred.

    An archive has to be asked for by name: for ``*/*`` the standard's default is multipart.
    """
    for media in ranges:
        if media.type == ZIP:
            syntax = {"transfer-syntax": media.transfer_syntax} if media.transfer_syntax else {}
            return MediaType(MULTIPART, {"type": DICOM, **syntax}, media.quality)
        if media.multipart and media.covers(DICOM):
            return None
    return None


class _Window(io.RawIOBase):
    """A file whose begin has been sent already: ``zipfile`` goes back to a member's header until it is drained."""

    def __init__(self) -> None:
        self._sent = 0
        self._held = io.BytesIO()

    def seekable(self) -> bool:
        """Return whether ``seek`` works."""
        return True

    def writable(self) -> bool:
        """Return whether ``write`` works."""
        return True

    def tell(self) -> int:
        """Return the position from the begin of the archive."""
        return self._sent + self._held.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within what is not sent yet."""
        if whence == io.SEEK_SET:
            self._held.seek(offset - self._sent)
        else:
            self._held.seek(offset, whence)
        return self.tell()

    def write(self, data: object) -> int:
        """Write at the position."""
        return self._held.write(data)  # type: ignore[arg-type]

    def drain(self) -> bytes:
        """Return what was written since the last call."""
        data = self._held.getvalue()
        self._sent += len(data)
        self._held = io.BytesIO()
        return data


class ZipStream:
    """Turns members into the bytes of an archive; beyond 4 GiB or 65,535 members it is a Zip64 archive."""

    def __init__(self) -> None:
        self._window = _Window()
        self._archive = zipfile.ZipFile(self._window, "w", zipfile.ZIP_STORED, allowZip64=True)

    def add(self, series: int, number: int, body: bytes) -> bytes:
        """Return the bytes of the member of one instance: both numbers count from 1 in the order of the answer."""
        member = zipfile.ZipInfo(f"SERIES{series:05d}/IMAGE{number:06d}.dcm", _FIRST_DATE)
        member.external_attr = 0o600 << 16
        self._archive.writestr(member, body)
        return self._window.drain()

    def end(self) -> bytes:
        """Return the central directory."""
        self._archive.close()
        return self._window.drain()
