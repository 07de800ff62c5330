"""Decoded native tiles, least recently used out first, in slots that are allocated once."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from wetread.pathology.slide.index import Pixels

DEFAULT_CACHE_BYTES = 64 << 20

Key = tuple[int, int]
"""(level, native tile)."""


class TileCache:
    """Holds at most ``limit_bytes`` of pixels. A dropped tile's slot is used again by the next of the same shape."""

    def __init__(self, limit_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._tiles: OrderedDict[Key, Pixels] = OrderedDict()
        self._free: list[Pixels] = []
        self.hits = 0
        self.misses = 0

    def get(self, key: Key) -> Pixels | None:
        """Return a held tile, now the most recent one."""
        found = self._tiles.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._tiles.move_to_end(key)
        return found

    def slot(self, height: int, width: int) -> Pixels:
        """Return a buffer uint8[height, width, 3] to decode into, dropping old tiles until it fits."""
        shape, size = (height, width, 3), height * width * 3
        for at, spare in enumerate(self._free):
            if spare.shape == shape:
                return self._free.pop(at)
        self._held -= sum(spare.size for spare in self._free)
        self._free.clear()
        while self._tiles and self._held + size > self._limit:
            _, oldest = self._tiles.popitem(last=False)
            if oldest.shape == shape:
                return oldest
            self._held -= oldest.size
        self._held += size
        return np.empty(shape, dtype=np.uint8)

    def put(self, key: Key, pixels: Pixels) -> None:
        """Keep a decoded slot."""
        self._tiles[key] = pixels

    def give_back(self, pixels: Pixels) -> None:
        """Return a slot whose tile could not be decoded."""
        self._free.append(pixels)
