"""Reading a segment file from its first byte: intact records for replay, and where a torn tail begins."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from wetread.adapters.objectstore import record

_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """An intact record. ``payload_at``: offset in the file; ``begin``, ``end``: of the whole record."""

    tenant: str
    description: bytes
    payload_at: int
    payload_length: int
    begin: int
    end: int
    time: float


def records_of(path: Path, *, after: int = -1, size: int | None = None) -> Iterator[Found]:
    """Yield intact records whose payload lies behind offset *after*. Damaged ones are stepped over.

    ``size``: where to stop, the end of the file by default.
    """
    size = path.stat().st_size if size is None else size
    with path.open("rb") as file:
        position = 0
        while position + record.HEAD_SIZE <= size:
            file.seek(position)
            head = record.decode_head(file.read(record.HEAD_SIZE))
            if head is None:
                position = _resynchronise(file, position + 1, size)
                continue
            if position + head.payload_at > after and not head.erased:
                found = _check(file, position, head, size)
                if found is not None:
                    yield found
            position += head.size


def sound_length(path: Path) -> int | None:
    """Return where appending may go on: the end of the last intact record when everything behind it is torn.

    None when a damaged record has intact ones behind it.
    """
    end = 0
    with path.open("rb") as file:
        for found in records_of(path):
            end = _behind_erased(file, end, found.begin)
            if found.begin != end:
                return None
            end = found.end
        return _behind_erased(file, end, path.stat().st_size)


def _behind_erased(file: BinaryIO, position: int, limit: int) -> int:
    """Return where erased records that follow each other from *position* on end."""
    while position < limit:
        file.seek(position)
        head = record.decode_head(file.read(record.HEAD_SIZE))
        if head is None or not head.erased or position + head.size > limit:
            break
        position += head.size
    return position


def _check(file: BinaryIO, position: int, head: record.Head, size: int) -> Found | None:
    if position + head.size > size:
        return None
    named = file.read(head.tenant_length + head.description_length)
    crc, left = 0, head.payload_length
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            return None
        crc = zlib.crc32(block, crc)
        left -= len(block)
    if not record.tail_matches(file.read(record.TAIL_SIZE), payload_crc=crc, description_crc=zlib.crc32(named)):
        return None
    try:
        tenant = named[: head.tenant_length].decode()
    except UnicodeDecodeError:
        return None
    return Found(
        tenant,
        named[head.tenant_length :],
        position + head.payload_at,
        head.payload_length,
        position,
        position + head.size,
        head.time,
    )


def _resynchronise(file: BinaryIO, position: int, size: int) -> int:
    """Return the offset of the next intact head at or behind *position*; the file's size when there is none."""
    overlap = record.HEAD_SIZE - 1
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK + overlap)
        at = block.find(record.MAGIC)
        while at >= 0:
            if record.decode_head(block[at : at + record.HEAD_SIZE]) is not None:
                return position + at
            at = block.find(record.MAGIC, at + 1)
        position += _BLOCK
    return size
