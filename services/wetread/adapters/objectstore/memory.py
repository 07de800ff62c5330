"""Instances in memory: for tests and for trying things out. Nothing survives the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from wetread.core.errors import NotFound
from wetread.core.ports.objects import Erased, ObjectRef


class MemoryObjectStore:
    """The port in a list; a locator is a position in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: list[tuple[str, bytes, bytes]] = []

    def append(self, tenant: str, records: Sequence[tuple[bytes, Sequence[bytes | memoryview]]]) -> list[ObjectRef]:
        """Keep the records."""
        with self._lock:
            refs = []
            for description, chunks in records:
                payload = b"".join(chunks)
                refs.append(ObjectRef(f"memory:{len(self._records)}", len(payload)))
                self._records.append((tenant, description, payload))
        return refs

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        """Return payload bytes."""
        kind, _, number = ref.locator.partition(":")
        if kind != "memory" or not number.isdecimal() or int(number) >= len(self._records):
            msg = "not an address of this store"
            raise NotFound(msg)
        payload = self._records[int(number)][2]
        return payload[start:] if length is None else payload[start : start + length]

    def scan(self, after: Sequence[str] = ()) -> Iterator[tuple[str, bytes, ObjectRef]]:
        """Yield the records in the order of storing."""
        first = max((int(locator.partition(":")[2]) + 1 for locator in after), default=0)
        for number, (tenant, description, payload) in enumerate(list(self._records)):
            if number >= first and tenant:
                yield tenant, description, ObjectRef(f"memory:{number}", len(payload))

    def erase(self, locators: Sequence[str]) -> Erased:
        """Forget payloads."""
        freed = 0
        with self._lock:
            for locator in locators:
                number = int(locator.partition(":")[2])
                freed += len(self._records[number][2])
                self._records[number] = ("", b"", b"")
        return Erased(tuple(locators), freed)

    def close(self) -> None:
        """Nothing to close."""
