"""``Slide``: regions of any level into buffers of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from wetread.pathology.errors import TileUnreadable
from wetread.pathology.slide import j2k, jpeg
from wetread.pathology.slide.cache import DEFAULT_CACHE_BYTES, TileCache
from wetread.pathology.slide.index import Level, OpenedSlide, Pixels, Pyramid

BACKGROUND: Final = 255
"""Value of what lies outside the image, and of tiles that the slide leaves out."""
READER_NAME: Final = "native/1"


class Reader(Protocol):
    """What tiles are read through: ``Slide`` here, OpenSlide behind the same face."""

    @property
    def name(self) -> str:
        """Name and version, part of the plan hash."""

    @property
    def pyramid(self) -> Pyramid:
        """Levels, resolution, identity."""

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill ``out`` uint8[H, W, 3] with the region whose top left is (x, y) in pixels of *level*."""

    def prefetch(self, level: int, corners: npt.NDArray[np.int64], size: tuple[int, int]) -> None:
        """Say which regions (x, y) of *size* (width, height) come next, so that their bytes are fetched together."""

    def close(self) -> None:
        """Close the slide."""


class Slide:
    """The native reader. Not safe to share among threads: one per worker."""

    name = READER_NAME

    def __init__(self, opened: OpenedSlide, *, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._pyramid, self._bytes = opened.pyramid, opened.tiles
        self._cache = TileCache(cache_bytes)
        self._fetched: dict[tuple[int, int], bytes] = {}

    @property
    def pyramid(self) -> Pyramid:
        """Levels, resolution, identity."""
        return self._pyramid

    def read_into(self, out: Pixels, level: int, x: int, y: int) -> None:
        """Fill *out*; what lies outside the image is background.

        Raises TileUnreadable when a native tile under the region is corrupt; *out* is then undefined.
        """
        at = self._pyramid.levels[level]
        height, width = out.shape[:2]
        tile_w, tile_h = at.tile_width, at.tile_height
        if (
            width == tile_w
            and height == tile_h
            and x % tile_w == 0
            and y % tile_h == 0
            and 0 <= x <= at.width - width
            and 0 <= y <= at.height - height
        ):
            # One whole native tile: decoded straight into the caller's buffer, no copy and no cache.
            self._decode(level, at, y // tile_h * at.columns + x // tile_w, out)
            return
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, at.width), min(y + height, at.height)
        if left >= right or top >= bottom:
            out[...] = BACKGROUND
            return
        if (right - left, bottom - top) != (width, height):
            out[...] = BACKGROUND
        for row in range(top // tile_h, (bottom - 1) // tile_h + 1):
            y0, y1 = max(row * tile_h, top), min((row + 1) * tile_h, bottom)
            for column in range(left // tile_w, (right - 1) // tile_w + 1):
                x0, x1 = max(column * tile_w, left), min((column + 1) * tile_w, right)
                tile = self._native(level, at, row * at.columns + column)
                out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[
                    y0 - row * tile_h : y1 - row * tile_h, x0 - column * tile_w : x1 - column * tile_w
                ]

    def prefetch(self, level: int, corners: npt.NDArray[np.int64], size: tuple[int, int]) -> None:
        """Fetch the compressed tiles under the regions in one call, so that a remote source can merge its requests."""
        at = self._pyramid.levels[level]
        wanted: dict[int, None] = {}
        for x, y in corners.tolist():
            for tile in _tiles_under(at, x, y, size):
                if (level, tile) not in self._fetched:
                    wanted[tile] = None
        tiles = list(wanted)
        self._fetched = dict(zip([(level, tile) for tile in tiles], self._bytes.fetch(level, tiles), strict=True))

    def stream(self, level: int, tile: int) -> bytes:
        """Return a native tile as it lies in the slide, completed with its level's tables; empty when left out."""
        raw = self._raw(level, tile)
        return jpeg.whole_stream(raw, self._pyramid.levels[level].prefix) if raw else raw

    def header_digest(self) -> str:
        """Return the SHA-256 over the tile tables."""
        return self._bytes.header_digest()

    def raw_tiles(self, level: int, tiles: Sequence[int]) -> list[bytes]:
        """Return native tiles as they lie in the slide."""
        return self._bytes.fetch(level, tiles)

    def close(self) -> None:
        """Close the slide."""
        self._fetched.clear()
        self._bytes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _native(self, level: int, at: Level, tile: int) -> Pixels:
        found = self._cache.get((level, tile))
        if found is None:
            found = self._cache.slot(at.tile_height, at.tile_width)
            try:
                self._decode(level, at, tile, found)
            except TileUnreadable:
                self._cache.give_back(found)
                raise
            self._cache.put((level, tile), found)
        return found

    def _raw(self, level: int, tile: int) -> bytes:
        if self._fetched:
            known = self._fetched.get((level, tile))
            if known is not None:
                return known
        return self._bytes.fetch_one(level, tile)

    def _decode(self, level: int, at: Level, tile: int, out: Pixels) -> None:
        raw = self._raw(level, tile)
        if not raw:
            out[...] = BACKGROUND
        elif at.codec == "jpeg":
            jpeg.decode_into(raw, at.prefix, out)
        elif at.codec == "jpeg2000":
            j2k.decode_into(raw, at.colour, out)
        else:
            j2k.inflate_into(raw, at.predictor, out, deflated=at.codec == "deflate")


def _tiles_under(at: Level, x: int, y: int, size: tuple[int, int]) -> list[int]:
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + size[0], at.width), min(y + size[1], at.height)
    if left >= right or top >= bottom:
        return []
    return [
        row * at.columns + column
        for row in range(top // at.tile_height, (bottom - 1) // at.tile_height + 1)
        for column in range(left // at.tile_width, (right - 1) // at.tile_width + 1)
    ]


def local_path(location: str) -> Path | None:
    """Return *location* as a local path, or None for a URL."""
    return None if "://" in location else Path(location)
