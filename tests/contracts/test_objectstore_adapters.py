"""The object store contract on every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from wetread.adapters.objectstore.memory import MemoryObjectStore
from wetread.adapters.objectstore.segments import SegmentStore
from wetread.testing.contracts.objectstore import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> MemoryObjectStore:
        return MemoryObjectStore()


class TestSegmentStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SegmentStore]:
        store = SegmentStore(tmp_path)
        yield store
        store.close()


class TestSmallSegments(ObjectStoreContract):
    """Every group begins a new file."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SegmentStore]:
        store = SegmentStore(tmp_path, segment_bytes=1)
        yield store
        store.close()
