"""Bytes: instances in an append-only store, computed artifacts by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Opaque address of stored bytes. ``locator`` is chosen by the adapter and never holds a UID or a name."""

    locator: str
    length: int


@dataclass(frozen=True, slots=True)
class Erased:
    """Which records are erased now, and how many bytes that freed."""

    locators: tuple[str, ...]
    freed_bytes: int


class ObjectStore(Protocol):
    """Append-only, durable when ``append`` returns. Records are self-describing: the index can be rebuilt from them."""

    def append(self, tenant: str, records: Sequence[tuple[bytes, Sequence[bytes | memoryview]]]) -> list[ObjectRef]:
        """Store records of (description, payload chunks) and sync them; one sync for all.

        Raises StorageFull or Unavailable; then none of the records counts as stored.
        """

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        """Return payload bytes. Raises CorruptRecord when a whole-payload read fails its checksum."""

    def scan(self, after: Sequence[str] = ()) -> Iterator[tuple[str, bytes, ObjectRef]]:
        """Yield (tenant, description, ref) of every intact record, oldest first (index rebuild).

        ``after``: locators; of the writer and tenant of each, only what was stored later is yielded (replay on start).
        """


class Erasable(Protocol):
    """An object store that can give room back."""

    def erase(self, locators: Sequence[str]) -> Erased:
        """Erase records that nobody will ask for any more; all others keep their addresses. Idempotent.

        ``scan`` does not yield them again. Some may have to stay, because of what lies beside them.
        """


class ArtifactStore(Protocol):
    """Computed blobs (masks, thumbnails) by content-free key; rewriting a key with the same bytes is harmless."""

    def put(self, tenant: str, key: str, data: bytes) -> None:
        """Store atomically and durably."""

    def get(self, tenant: str, key: str) -> bytes:
        """Return the blob. Raises NotFound."""
