"""Levels of a slide where the archive keeps them: ranges of stored instances, without HTTP and without copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wetread.core.errors import CorruptRecord, NotFound
from wetread.core.ports.objects import ObjectRef, ObjectStore
from wetread.pathology.errors import SlideUnreadable
from wetread.pathology.slide.source import Range, read_merged


class StoredInstance:
    """``RangeSource`` over one stored instance, which never changes under its reference."""

    path: Path | None = None

    def __init__(self, store: ObjectStore, ref: ObjectRef) -> None:
        self._store, self._ref = store, ref

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self._ref.length

    def read(self, offset: int, length: int) -> bytes:
        """Return one range, shorter at the end. Raises SlideUnreadable, Unavailable."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        try:
            return self._store.read(self._ref, offset, length)
        except (NotFound, CorruptRecord) as error:
            raise SlideUnreadable("a stored level of the slide cannot be read") from error

    def read_many(self, ranges: Sequence[Range]) -> list[bytes]:
        """Return the bytes of each range; neighbours share a read."""
        return read_merged(ranges, lambda wanted: [self.read(*span) for span in wanted])

    def close(self) -> None:
        """Nothing is held open."""
