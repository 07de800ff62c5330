"""Erasing records inside a segment file: their blocks go back to the file system, everything else stays where it is.

The head is marked first and synced: whoever reads the file from then on steps over the record, and a crash leaves a
marked record that the next call empties. Addresses do not change, so neither does the index.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from wetread.adapters.objectstore import record

_PUNCH_HOLE_KEEP_SIZE: Final = 0x01 | 0x02
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE of linux/falloc.h."""
_BLOCK: Final = 1 << 20


def erase_in(path: Path, payloads: Collection[int], sync: Callable[[int], None]) -> tuple[set[int], int]:
    """Erase the records whose payloads begin at *payloads*; return which of them there were, and the bytes freed."""
    wanted, spans = set(payloads), []
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        position = 0
        while wanted:
            head = record.decode_head(os.pread(descriptor, record.HEAD_SIZE, position))
            if head is None:
                break  # the end, or damage: what lies behind it stays
            at = position + head.payload_at
            if at in wanted:
                wanted.discard(at)
                spans.append((at, head.payload_length))
                if not head.erased:
                    os.pwrite(descriptor, record.erased_head(head), position)
            position += head.size
        sync(descriptor)
        freed = sum(length for at, length in spans if _empty(descriptor, at, length))
        sync(descriptor)
    finally:
        os.close(descriptor)
    return {at for at, _ in spans}, freed


def _empty(descriptor: int, at: int, length: int) -> bool:
    """Make zeros of a span; False where the file system keeps its blocks."""
    if not length:
        return True
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, at, length) == 0:
        return True
    failed = ctypes.get_errno()
    if failed not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(failed, os.strerror(failed))
    for start in range(at, at + length, _BLOCK):
        os.pwrite(descriptor, bytes(min(_BLOCK, at + length - start)), start)
    return False
