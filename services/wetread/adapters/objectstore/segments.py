"""Instances on local disks: append-only segment files, one writer per shard, one sync per group (ADR 0201).

``{root}/{tenant directory}/{shard}-{number}.seg``: directory and file names are made of internal ids only. A UID or a
tenant name is data inside a record, never part of a path. Any process may read any shard; exactly one process writes
a shard (a file lock keeps a second one out).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import heapq
import os
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from wetread.adapters.objectstore import record
from wetread.adapters.objectstore.erasure import erase_in
from wetread.adapters.objectstore.recovery import Found, records_of, sound_length
from wetread.core.errors import ConfigurationError, CorruptRecord, NotFound, StorageFull, Unavailable
from wetread.core.ports.objects import Erased, ObjectRef

_LOCATOR: Final = re.compile(r"([0-9a-f]{16})/([a-z0-9]{1,16})-([0-9]{8}):([0-9]{1,16})")
_SEGMENT: Final = re.compile(r"([a-z0-9]{1,16})-([0-9]{8})\.seg")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IOV_LIMIT: Final = 512
_OPEN_FILES: Final = 128


class SegmentStore:
    """``shard`` names this process's own files; ``segment_bytes`` is the size after which a new file is begun."""

    def __init__(
        self,
        root: Path,
        *,
        shard: str = "web",
        segment_bytes: int = 256 << 20,
        clock: Callable[[], float] = time.time,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,16}", shard):
            msg = "a shard name is 1-16 lower-case letters and digits"
            raise ConfigurationError(msg)
        self._root = root
        self._shard = shard
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._sync = sync
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._writers: dict[str, _Writer] = {}
        self._readers: OrderedDict[str, _Reader] = OrderedDict()
        self._reader_lock = threading.Lock()
        self.cut_bytes = 0
        """Bytes of torn records cut off when segments were opened for writing."""

    def append(self, tenant: str, records: Sequence[tuple[bytes, Sequence[bytes | memoryview]]]) -> list[ObjectRef]:
        """Store and sync; see the port. A failed sync seals the segment: it is never retried and acknowledged."""
        if not records:
            return []
        name = tenant.encode()
        with self._lock:
            writer = self._writer(tenant)
            buffers: list[record.Buffer] = []
            refs: list[ObjectRef] = []
            position = writer.position
            for description, chunks in records:
                encoded, head = record.encode(name, description, chunks, self._clock())
                buffers += encoded
                refs.append(ObjectRef(f"{writer.key}:{position + head.payload_at}", head.payload_length))
                position += head.size
            try:
                writer.write(buffers)
                self._sync(writer.descriptor)
            except OSError as error:
                self._abandon(tenant, writer)
                if error.errno in _FULL:
                    msg = "the object store's disk is full"
                    raise StorageFull(msg) from error
                msg = "the object store cannot be written"
                raise Unavailable(msg) from error
            writer.position = position
            if position >= self._segment_bytes:
                self._writers.pop(tenant).close()
        return refs

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        """Return payload bytes; a read of the whole payload is checked against the record's checksum."""
        path, offset = self.position(ref)
        whole = start == 0 and (length is None or length >= ref.length)
        wanted = ref.length - start if length is None else min(length, ref.length - start)
        if whole:
            reader = self._reader(path)
            payload, tail = reader.read(offset, ref.length), reader.read(offset + ref.length, record.TAIL_SIZE)
            if len(payload) != ref.length or not record.tail_matches(tail, payload_crc=zlib.crc32(payload)):
                msg = "a stored instance does not match its checksum"
                raise CorruptRecord(msg)
            return payload
        if wanted <= 0:
            return b""
        data = self._reader(path).read(offset + start, wanted)
        if len(data) != wanted:
            msg = "a stored instance is cut off"
            raise CorruptRecord(msg)
        return data

    def position(self, ref: ObjectRef) -> tuple[Path, int]:
        """Return file and offset of a payload. Raises NotFound for what is not a locator of this store."""
        match = _LOCATOR.fullmatch(ref.locator)
        if match is None:
            msg = "not an address of this store"
            raise NotFound(msg)
        return self._root / match[1] / f"{match[2]}-{match[3]}.seg", int(match[4])

    def scan(self, after: Sequence[str] = ()) -> Iterator[tuple[str, bytes, ObjectRef]]:
        """Yield every intact record, oldest first over all shards; see the port for ``after``."""
        marks: dict[tuple[str, str], tuple[int, int]] = {}
        for locator in after:
            match = _LOCATOR.fullmatch(locator)
            if match is not None:
                marks[match[1], match[2]] = int(match[3]), int(match[4])
        streams = []
        for directory, shard in sorted({(path.parent.name, shard) for path, shard, _ in self._segments()}):
            streams.append(self._stream(directory, shard, marks.get((directory, shard), (-1, -1))))
        for found, key in heapq.merge(*streams, key=lambda item: item[0].time):
            if _directory_of(found.tenant) != key.partition("/")[0]:
                continue  # bytes inside a payload that look like a record of somebody else
            yield found.tenant, found.description, ObjectRef(f"{key}:{found.payload_at}", found.payload_length)

    def erase(self, locators: Sequence[str]) -> Erased:
        """Erase records in place; those behind damage stay. Any process may do it, also beside the writer."""
        files: dict[Path, dict[int, str]] = {}
        for locator in locators:
            path, offset = self.position(ObjectRef(locator, 0))
            files.setdefault(path, {})[offset] = locator
        done: list[str] = []
        freed = 0
        for path, wanted in files.items():
            try:
                found, count = erase_in(path, wanted.keys(), self._sync)
            except FileNotFoundError:
                continue
            except OSError as error:
                msg = "the object store cannot be written"
                raise Unavailable(msg) from error
            done += [wanted[offset] for offset in sorted(found)]
            freed += count
        return Erased(tuple(done), freed)

    def check(self) -> None:
        """Nothing to ask: a disk that is full or gone says so at the next append."""

    def close(self) -> None:
        """Close all files and give the shard up."""
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()
            if self._owner is not None:
                os.close(self._owner)
                self._owner = None
        with self._reader_lock:
            self._readers.clear()

    def _segments(self) -> list[tuple[Path, str, int]]:
        found = []
        for path in self._root.glob("*/*.seg"):
            match = _SEGMENT.fullmatch(path.name)
            if match is not None and re.fullmatch(r"[0-9a-f]{16}", path.parent.name):
                found.append((path, match[1], int(match[2])))
        return sorted(found, key=lambda item: (item[0].parent.name, item[1], item[2]))

    def _stream(self, directory: str, shard: str, mark: tuple[int, int]) -> Iterator[tuple[Found, str]]:
        for path, owner, number in self._segments():
            if path.parent.name != directory or owner != shard or number < mark[0]:
                continue
            skip_to = mark[1] if number == mark[0] else -1
            for found in records_of(path, after=skip_to, size=self._durable_size(path)):
                yield found, f"{directory}/{path.stem}"

    def _durable_size(self, path: Path) -> int:
        """Return how much of a file survives a loss of power, which after this is what there was.

        A process may have died, or be about to go on, between writing records and syncing them. Whoever scans indexes
        what is found, and the index must not be ahead of the bytes (ADR 0202).
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            self._sync(descriptor)
        finally:
            os.close(descriptor)
        return size

    def _writer(self, tenant: str) -> _Writer:
        writer = self._writers.get(tenant)
        if writer is None:
            self._own()
            try:
                writer = self._open_writer(tenant)
            except OSError as error:
                if error.errno in _FULL:
                    msg = "the object store's disk is full"
                    raise StorageFull(msg) from error
                msg = "the object store cannot be written"
                raise Unavailable(msg) from error
            self._writers[tenant] = writer
        return writer

    def _own(self) -> None:
        if self._owner is not None:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        owner = os.open(self._root / f"{self._shard}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(owner)
            msg = f"another process writes shard {self._shard} of this object store"
            raise ConfigurationError(msg) from error
        self._owner = owner

    def _open_writer(self, tenant: str) -> _Writer:
        """Go on in the newest segment, its torn tail cut off, or begin a new one."""
        directory = self._root / _directory_of(tenant)
        directory.mkdir(parents=True, exist_ok=True)
        numbers = [n for path, shard, n in self._segments() if path.parent == directory and shard == self._shard]
        newest = max(numbers, default=0)
        if newest:
            path = directory / f"{self._shard}-{newest:08d}.seg"
            size = path.stat().st_size
            # A full one is not read: nothing is appended to it, and a reader steps over a torn tail.
            sound = sound_length(path) if size < self._segment_bytes else None
            # A damaged record with intact ones behind it is corruption, not a torn tail: nothing is cut, the file is
            # left to the scrub and writing goes on in a new one.
            if sound is not None and sound < self._segment_bytes:
                writer = _Writer(path, f"{directory.name}/{path.stem}", sound)
                if sound < size:
                    os.ftruncate(writer.descriptor, sound)
                    self._sync(writer.descriptor)
                    self.cut_bytes += size - sound
                return writer
        path = directory / f"{self._shard}-{newest + 1:08d}.seg"
        writer = _Writer(path, f"{directory.name}/{path.stem}", 0)
        for folder in (directory, self._root):
            _sync_directory(folder)
        return writer

    def _abandon(self, tenant: str, writer: _Writer) -> None:
        """Take back what a failed group wrote; the segment is sealed, the next append begins a new one."""
        self._writers.pop(tenant, None)
        try:
            os.ftruncate(writer.descriptor, writer.position)
        except OSError:
            pass  # the next opening cuts the torn tail
        finally:
            writer.close()

    def _reader(self, path: Path) -> _Reader:
        key = str(path)
        with self._reader_lock:
            reader = self._readers.get(key)
            if reader is not None:
                self._readers.move_to_end(key)
                return reader
            try:
                reader = _Reader(key)
            except FileNotFoundError as error:
                msg = "a segment file is missing"
                raise CorruptRecord(msg) from error
            self._readers[key] = reader
            while len(self._readers) > _OPEN_FILES:
                self._readers.popitem(last=False)
            return reader


class _Writer:
    """The open end of one segment. ``position`` moves only after a sync."""

    def __init__(self, path: Path, key: str, position: int) -> None:
        self.key = key
        self.position = position
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, buffers: list[record.Buffer]) -> None:
        position = self.position
        pending = [memoryview(buffer).cast("B") for buffer in buffers if len(buffer)]
        while pending:
            written = os.pwritev(self.descriptor, pending[:_IOV_LIMIT], position)
            position += written
            done = 0
            while done < len(pending) and written >= len(pending[done]):
                written -= len(pending[done])
                done += 1
            del pending[:done]
            if written:
                pending[0] = pending[0][written:]

    def close(self) -> None:
        os.close(self.descriptor)


class _Reader:
    """A read-only descriptor that closes itself when its last user lets go."""

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length:
            return data
        pieces = [data]
        missing = length - len(data)
        while missing and data:
            data = os.pread(self._descriptor, missing, offset + length - missing)
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _directory_of(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
