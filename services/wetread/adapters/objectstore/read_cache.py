"""Blocks of remote objects on a local disk (NVMe): a slice that is read brings its neighbours along.

Objects never change, so a block is right for ever and any process of the machine may use it; only the room is
limited. A lost or torn cache costs time, never data: whole payloads are checked against their record's checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

Fetch = Callable[[int, int], bytes]
"""(start, length) -> bytes of the remote object; fewer at its end."""
Counted = Callable[[int, int], None]
"""Told how many blocks were here and how many had to be fetched."""

_LOOK_AFTER: Final = 0.02
"""Share of the room that may be written between two looks at how much is there."""


class BlockCache:
    """``capacity``: bytes of all blocks, about; the least recently used go first. Thread-safe."""

    def __init__(
        self, root: Path, *, capacity: int, block_bytes: int = 4 << 20, counted: Counted = lambda _hits, _misses: None
    ) -> None:
        self._counted = counted
        self._root = root
        self._capacity = capacity
        self._block = block_bytes
        self._lock = threading.Lock()
        self._written = capacity  # look at what an earlier process left before much is written

    def read(self, key: str, start: int, length: int, fetch: Fetch) -> bytes:
        """Return a range of an object, from here or there."""
        first, last = start // self._block, (start + length - 1) // self._block
        blocks = {number: self._load(key, number) for number in range(first, last + 1)}
        self._fetch_missing(key, blocks, fetch)
        data = b"".join(blocks[number] or b"" for number in range(first, last + 1))
        begin = start - first * self._block
        return data[begin : begin + length]

    def fill(self, key: str, start: int, length: int, fetch: Fetch) -> int:
        """Bring a range here; return how many bytes had to be fetched."""
        first, last = start // self._block, (start + length - 1) // self._block
        blocks: dict[int, bytes | None] = {
            number: b"" if self._path(key, number).exists() else None for number in range(first, last + 1)
        }
        return self._fetch_missing(key, blocks, fetch)

    def forget(self, key: str) -> None:
        """Drop all blocks of an object."""
        name = _name(key)
        for path in (self._root / name[:2]).glob(f"{name}.*"):
            path.unlink(missing_ok=True)

    def used_bytes(self) -> int:
        """Return the size of all blocks."""
        return sum(size for _, size, _ in self._blocks())

    def _fetch_missing(self, key: str, blocks: dict[int, bytes | None], fetch: Fetch) -> int:
        """Fetch runs of missing blocks with one request each."""
        missing = [number for number, data in blocks.items() if data is None]
        self._counted(len(blocks) - len(missing), len(missing))
        fetched = 0
        while missing:
            count = 1
            while count < len(missing) and missing[count] == missing[0] + count:
                count += 1
            data = fetch(missing[0] * self._block, count * self._block)
            fetched += len(data)
            for index in range(count):
                block = data[index * self._block : (index + 1) * self._block]
                blocks[missing[index]] = block
                self._save(key, missing[index], block)
            del missing[:count]
        return fetched

    def _load(self, key: str, number: int) -> bytes | None:
        path = self._path(key, number)
        try:
            data = path.read_bytes()
            os.utime(path)  # the order of use
        except OSError:
            return None
        return data

    def _save(self, key: str, number: int, data: bytes) -> None:
        """Keep a block; a full or broken disk only means that it is not kept."""
        path = self._path(key, number)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
            return
        with self._lock:
            self._written += len(data)
            if self._written < self._capacity * _LOOK_AFTER:
                return
            self._written = 0
        self._make_room()

    def _make_room(self) -> None:
        blocks = sorted(self._blocks())
        excess = sum(size for _, size, _ in blocks) - self._capacity
        for _, size, path in blocks:
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size

    def _blocks(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._root.glob("*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _path(self, key: str, number: int) -> Path:
        name = _name(key)
        return self._root / name[:2] / f"{name}.{number}"


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
