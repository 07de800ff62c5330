"""Bytes of a slide by range: a local file here; objects and gateways behind the same protocol in the adapters.

Reads that lie close together are merged: one request of some hundred KiB is cheaper than ten of thirty, up to the
point where the bytes between them cost more than the request saves.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self

from wetread.pathology.errors import SlideChanged, SlideUnreadable

Range = tuple[int, int]
"""(offset, length) in bytes."""
MERGE_GAP_BYTES = 64 << 10
MERGE_LIMIT_BYTES = 4 << 20
MERGE_WASTE = 1.5
BLOCK_BYTES = 1 << 20


class RangeSource(Protocol):
    """Random access to the bytes of one object, which must not change while it is open."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    @property
    def path(self) -> Path | None:
        """The local file, for readers that can only open files; None when there is none."""

    def read(self, offset: int, length: int) -> bytes:
        """Return *length* bytes, fewer at the end. Raises SlideChanged, SlideUnreadable, Unavailable."""

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range, in the order asked."""

    def close(self) -> None:
        """Give back what was opened."""


class LocalFile:
    """A file of this machine, read with ``pread``: safe to share among threads, no seek position."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise SlideUnreadable(f"the slide file cannot be opened ({error.strerror})") from error
        self._path = path
        self._state = self._look()

    @property
    def size(self) -> int:
        """Length in bytes when it was opened."""
        return self._state[0]

    @property
    def path(self) -> Path | None:
        """The file."""
        return self._path

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes of one range."""
        try:
            return os.pread(self._descriptor, length, offset)
        except (OSError, OverflowError) as error:
            raise SlideUnreadable("the slide file cannot be read") from error

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range; the page cache makes merging needless here."""
        if self._look() != self._state:
            raise SlideChanged("the slide file changed while it was read")
        return [self.read(offset, length) for offset, length in ranges]

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def merged(ranges: Sequence[Range], *, gap: int = MERGE_GAP_BYTES, limit: int = MERGE_LIMIT_BYTES) -> list[Range]:
    """Return few requests that cover *ranges*, sorted.

    Neighbours join while the hole between them is at most *gap*, the request stays within *limit* bytes, and what is
    fetched stays within 1.5 times what is wanted; one range longer than *limit* stays whole.
    """
    joined: list[Range] = []
    wanted = 0
    for offset, length in sorted(set(ranges)):
        if joined:
            start, size = joined[-1]
            end = max(start + size, offset + length)
            fresh = max(end - max(offset, start + size), 0)
            if (
                offset - (start + size) <= gap
                and end - start <= limit
                and end - start <= MERGE_WASTE * (wanted + fresh)
            ):
                joined[-1] = (start, end - start)
                wanted += fresh
                continue
        joined.append((offset, length))
        wanted = length
    return joined


def read_merged(ranges: Sequence[Range], fetch: Callable[[list[Range]], Sequence[bytes]]) -> list[bytes]:
    """Return the bytes of each of *ranges* through *fetch*, which gets merged requests."""
    requests = merged(ranges)
    bodies = fetch(requests)
    found: dict[Range, bytes] = {}
    at = 0
    for offset, length in sorted(set(ranges)):
        while offset + length > requests[at][0] + requests[at][1]:
            at += 1
        start = offset - requests[at][0]
        found[offset, length] = bytes(bodies[at][start : start + length])
    return [found[wanted] for wanted in ranges]


class _Raw(io.RawIOBase):
    name = "slide"  # pydicom asks files for one

    def __init__(self, source: RangeSource) -> None:
        self._source, self._at = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(self._at, min(len(buffer), max(self._source.size - self._at, 0)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def as_file(source: RangeSource, *, block_bytes: int = BLOCK_BYTES) -> io.BufferedReader:
    """Return *source* as a seekable binary file that reads in blocks: for header parsers."""
    return io.BufferedReader(_Raw(source), block_bytes)
