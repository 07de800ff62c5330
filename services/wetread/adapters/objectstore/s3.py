"""Instances in an S3 bucket: one object per commit group, holding the records of segment files (ADR 1203).

``t/{tenant directory}/{writer}/{number}``: the writer is this process's name, the number its time in nanoseconds, so
that names sort by age and need no listing to be found. A UID or a tenant name is never part of a key. An object is
there whole or not at all, and never changed: any process may read and cache all of them.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from wetread.adapters.objectstore import record
from wetread.adapters.objectstore.read_cache import BlockCache
from wetread.adapters.objectstore.s3_bucket import AlreadyThere, Bucket
from wetread.core.errors import ConfigurationError, CorruptRecord, NotFound, Unavailable
from wetread.core.ports.objects import Erased, ObjectRef

_LOCATOR: Final = re.compile(r"([0-9a-f]{16})/([a-z0-9]{1,16})-([0-9]{20}):([0-9]{1,16})")
_KEY: Final = re.compile(r"t/([0-9a-f]{16})/([a-z0-9]{1,16})/([0-9]{20})")
_ATTEMPTS: Final = 4


class S3ObjectStore:
    """``writer`` names this process's own objects; ``cache`` keeps blocks that were read on a local disk."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        writer: str,
        cache: BlockCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not re.fullmatch(r"[a-z0-9]{1,16}", writer):
            msg = "the name of a writer is 1-16 lower-case letters and digits"
            raise ConfigurationError(msg)
        self._bucket = bucket
        self._writer = writer
        self._cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._newest = 0

    def append(self, tenant: str, records: Sequence[tuple[bytes, Sequence[bytes | memoryview]]]) -> list[ObjectRef]:
        """Store the group as one object; see the port."""
        if not records:
            return []
        now = self._clock()
        buffers: list[record.Buffer] = []
        places: list[tuple[int, int]] = []
        position = 0
        for description, chunks in records:
            encoded, head = record.encode(tenant.encode(), description, chunks, now)
            buffers += encoded
            places.append((position + head.payload_at, head.payload_length))
            position += head.size
        stem = self._create(_directory_of(tenant), b"".join(buffers), now)
        return [ObjectRef(f"{stem}:{offset}", length) for offset, length in places]

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        """Return payload bytes; a read of the whole payload is checked against the record's checksum."""
        key, offset = _place(ref)
        whole = start == 0 and (length is None or length >= ref.length)
        wanted = ref.length - start if length is None else min(length, ref.length - start)
        if not whole and wanted <= 0:
            return b""
        begin, size = (offset, ref.length + record.TAIL_SIZE) if whole else (offset + start, wanted)
        data = self._range(key, begin, size)
        if len(data) != size and self._cache is not None:
            self._cache.forget(key)
        if not whole:
            if len(data) != size:
                msg = "a stored instance is cut off"
                raise CorruptRecord(msg)
            return data
        payload, tail = data[: ref.length], data[ref.length :]
        if len(payload) != ref.length or not record.tail_matches(tail, payload_crc=zlib.crc32(payload)):
            if self._cache is not None:  # a damaged block of the cache is not read again
                self._cache.forget(key)
            msg = "a stored instance does not match its checksum"
            raise CorruptRecord(msg)
        return payload

    def scan(self, after: Sequence[str] = ()) -> Iterator[tuple[str, bytes, ObjectRef]]:
        """Yield every intact record, oldest first over all writers; see the port for ``after``."""
        marks: dict[tuple[str, str], tuple[str, int]] = {}
        for locator in after:
            match = _LOCATOR.fullmatch(locator)
            if match is not None:
                marks[match[1], match[2]] = match[3], int(match[4])
        streams = [
            self._stream(directory, writer, marks.get((directory, writer)))
            for directory in self._bucket.folders("t/")
            for writer in self._bucket.folders(f"t/{directory}/")
        ]
        for number, directory, writer, mark in heapq.merge(*streams):
            try:
                data = self._bucket.get(f"t/{directory}/{writer}/{number}")
            except NotFound:
                continue  # erased, as the one of a mark may be
            for tenant, description, offset, length in _records(data):
                if _directory_of(tenant) == directory and offset > mark:
                    yield tenant, description, ObjectRef(f"{directory}/{writer}-{number}:{offset}", length)

    def prefetch(self, refs: Sequence[ObjectRef]) -> int:
        """Bring records into the read cache; return how many bytes were fetched. Without a cache nothing happens."""
        if self._cache is None:
            return 0
        fetched = 0
        for ref in refs:
            key, offset = _place(ref)
            fetched += self._cache.fill(key, offset, ref.length + record.TAIL_SIZE, self._fetcher(key))
        return fetched

    def keys_of(self, refs: Sequence[ObjectRef]) -> list[str]:
        """Return the keys of the objects that hold *refs*, each once, without the bucket's prefix."""
        return list(dict.fromkeys(_place(ref)[0] for ref in refs))

    def erase(self, locators: Sequence[str]) -> Erased:
        """Delete the objects of which nothing else is left; a group that holds anything else stays whole."""
        objects: dict[str, dict[int, str]] = {}
        for locator in locators:
            key, offset = _place(ObjectRef(locator, 0))
            objects.setdefault(key, {})[offset] = locator
        done: list[str] = []
        freed = 0
        for key, wanted in objects.items():
            try:
                data = self._bucket.get(key)
            except NotFound:
                done += wanted.values()
                continue
            if all(offset in wanted for _, _, offset, _ in _records(data)):
                self._bucket.delete([key])
                if self._cache is not None:
                    self._cache.forget(key)
                done += wanted.values()
                freed += len(data)
        return Erased(tuple(done), freed)

    def check(self) -> None:
        """Raise Unavailable when the bucket does not answer."""
        self._bucket.check()

    def close(self) -> None:
        """Nothing is held open."""

    def _create(self, directory: str, data: bytes, now: float) -> str:
        """Create the object under a name that was never used and return it as the locator's first half."""
        for _ in range(_ATTEMPTS):
            with self._lock:
                self._newest = number = max(int(now * 1e9), self._newest + 1)
            key = f"t/{directory}/{self._writer}/{number:020d}"
            try:
                self._bucket.create(key, data)
            except AlreadyThere:
                # The client repeats a request whose answer was lost: then the object that is there is this one.
                if self._bucket.get(key) != data:
                    continue
            return f"{directory}/{self._writer}-{number:020d}"
        msg = "another process writes under the name of this one: set WETREAD_INSTANCE"
        raise Unavailable(msg)

    def _stream(self, directory: str, writer: str, mark: tuple[str, int] | None) -> Iterator[tuple[str, str, str, int]]:
        """Yield (number, directory, writer, offset of the last record to leave out), oldest first."""
        prefix = f"t/{directory}/{writer}/"
        if mark is not None:
            yield mark[0], directory, writer, mark[1]  # its group may go on behind the mark
        for key, _ in self._bucket.keys(prefix, after=f"{prefix}{mark[0]}" if mark else None):
            match = _KEY.fullmatch(key)
            if match is not None and match[2] == writer:
                yield match[3], directory, writer, -1

    def _range(self, key: str, start: int, length: int) -> bytes:
        try:
            if self._cache is not None:
                return self._cache.read(key, start, length, self._fetcher(key))
            return self._bucket.range(key, start, length)
        except NotFound as error:
            msg = "an object of the store is missing"
            raise CorruptRecord(msg) from error

    def _fetcher(self, key: str) -> Callable[[int, int], bytes]:
        return lambda start, length: self._bucket.range(key, start, length)


def _directory_of(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


def _place(ref: ObjectRef) -> tuple[str, int]:
    """Return key and offset of a payload. Raises NotFound for what is not a locator of this store."""
    match = _LOCATOR.fullmatch(ref.locator)
    if match is None:
        msg = "not an address of this store"
        raise NotFound(msg)
    return f"t/{match[1]}/{match[2]}/{match[3]}", int(match[4])


def _records(data: bytes) -> Iterator[tuple[str, bytes, int, int]]:
    """Yield (tenant, description, payload offset, payload length) of the intact records of an object."""
    position = 0
    while (head := record.decode_head(data[position : position + record.HEAD_SIZE])) is not None:
        end = position + head.size
        names = data[position + record.HEAD_SIZE : position + head.payload_at]
        payload_end = end - record.TAIL_SIZE
        payload_crc = zlib.crc32(memoryview(data)[position + head.payload_at : payload_end])
        tail = data[payload_end:end]
        if record.tail_matches(tail, payload_crc=payload_crc, description_crc=zlib.crc32(names)):
            yield (
                names[: head.tenant_length].decode("utf-8", "replace"),
                names[head.tenant_length :],
                position + head.payload_at,
                head.payload_length,
            )
        position = end
