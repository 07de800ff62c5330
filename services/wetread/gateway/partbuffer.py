"""Collects the body of one part: in memory while small, in an unlinked scratch file when large."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import BinaryIO


class PartBuffer:
    """``spool_bytes``: size beyond which the rest goes to *scratch*. ``pieces`` ends collecting."""

    def __init__(self, scratch: Path | None, spool_bytes: int) -> None:
        self._scratch = scratch
        self._spool_bytes = spool_bytes
        self._pieces: list[bytes | memoryview] = []
        self._file: BinaryIO | None = None
        self.size = 0
        self.in_memory = 0
        """Bytes held in memory: what counts against the in-flight budget."""

    def add(self, piece: memoryview) -> int:
        """Append; return the change of bytes held in memory. Raises OSError when the scratch disk is full."""
        self.size += len(piece)
        if self._file is not None:
            self._file.write(piece)
            return 0
        self._pieces.append(piece)
        self.in_memory += len(piece)
        if self.in_memory <= self._spool_bytes or self._scratch is None:
            return len(piece)
        held = self.in_memory - len(piece)
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - lives as long as the part
        for stored in self._pieces:
            self._file.write(stored)
        self._pieces = []
        self.in_memory = 0
        return -held

    def pieces(self) -> list[bytes | memoryview]:
        """Return the body as it came; a spooled one as a mapping that lives as long as the view."""
        if self._file is not None:
            self._file.flush()
            mapped = mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_READ)
            self._file.close()
            return [memoryview(mapped)]
        pieces, self._pieces = self._pieces, []
        return pieces

    def discard(self) -> None:
        """Drop what was collected."""
        self._pieces = []
        self.in_memory = 0
        if self._file is not None:
            self._file.close()
            self._file = None
