"""The data set of one message while it arrives: in memory while small, in an unlinked scratch file when large."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

_LEAD: Final = 4096
"""Room in front of a spooled data set for preamble and file meta information."""


class ReceivedDataset(BytesIO):
    """What the upper layer writes fragments into. ``refused``: why nothing more is kept, empty while all is well.

    The scratch file has no name, so nothing of it outlives the process.
    """

    def __init__(
        self, scratch: Path | None, *, limit: int, spool: int, room: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__()
        self._scratch = scratch
        self._limit = limit
        self._spool = spool
        self._room = room
        self._file: IO[bytes] | None = None
        self.size = 0
        self.refused = ""
        self.too_large = False

    def write(self, data: Any, /) -> int:
        """Append a fragment; one that does not fit empties the buffer and sets ``refused``."""
        length = len(data)
        if self.refused:
            return length
        if self.size == 0 and not self._room():
            self._refuse("there is no room to receive an instance")
            return length
        self.size += length
        if self.size > self._limit:
            self.too_large = True
            self._refuse(f"the instance is larger than {self._limit} bytes")
            return length
        try:
            if self._file is None and self._scratch is not None and self.size > self._spool:
                self._open(self._scratch)
            if self._file is not None:
                self._file.write(data)
            else:
                super().write(data)
        except OSError:
            self._refuse("there is no room to receive a large instance")
        return length

    def _open(self, scratch: Path) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - lives as long as the message
        self._file.seek(_LEAD)
        self._file.write(self.getbuffer())
        self.seek(0)
        self.truncate()

    def _refuse(self, why: str) -> None:
        self.refused = why
        self.discard()

    def view(self, lead: bytes) -> bytes | memoryview:
        """Return *lead* (at most 4096 bytes) and the data set behind it; a spooled one as a mapping of its file."""
        if self._file is None:
            return lead + self.getvalue()
        self._file.seek(_LEAD - len(lead))
        self._file.write(lead)
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), _LEAD + self.size, access=mmap.ACCESS_READ)
        return memoryview(mapped)[_LEAD - len(lead) :]

    def discard(self) -> None:
        """Give memory and scratch file back."""
        self.seek(0)
        self.truncate()
        if self._file is not None:
            self._file.close()
            self._file = None
