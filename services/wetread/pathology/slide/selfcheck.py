"""Whether the native reader gives OpenSlide's pixels for this very slide: asked once, before a plan is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from wetread.core.errors import WetreadError
from wetread.pathology.slide.index import Level
from wetread.pathology.slide.slide import Reader

_PER_LEVEL: Final = 8


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of the comparison: ``reason`` is empty when every compared region was equal."""

    compared: int
    reason: str = ""

    @property
    def equal(self) -> bool:
        """True when the native reader may be used."""
        return not self.reason


def compare(native: Reader, other: Reader) -> Verdict:
    """Compare regions of every level: corners, right and bottom edges, places inside, one across tile borders.

    A level whose downsample is no whole number is compared at its origin only: elsewhere OpenSlide interpolates
    between pixels, because its coordinates are those of level 0.
    """
    compared = 0
    ours, theirs = native.pyramid.levels, other.pyramid.levels
    if [(level.width, level.height) for level in ours] != [(level.width, level.height) for level in theirs]:
        return Verdict(0, "the readers see other levels")
    for number, level in enumerate(ours):
        whole = ours[0].width == level.width * (ours[0].width // level.width) and (
            ours[0].height == level.height * (ours[0].height // level.height)
        )
        for x, y in _places(level) if whole else [(0, 0)]:
            width, height = min(level.tile_width, level.width - x), min(level.tile_height, level.height - y)
            got = np.empty((height, width, 3), dtype=np.uint8)
            due = np.empty_like(got)
            try:
                other.read_into(due, number, x, y)
            except WetreadError:
                continue  # what neither reader can decode is a failed tile, no reason to prefer one
            try:
                native.read_into(got, number, x, y)
            except WetreadError as error:
                return Verdict(compared, f"level {number}: {error.detail}")
            compared += 1
            if not np.array_equal(got, due):
                off = int(np.abs(got.astype(np.int16) - due.astype(np.int16)).max())
                return Verdict(compared, f"level {number}: pixels differ by up to {off}")
    return Verdict(compared)


def _places(level: Level) -> list[tuple[int, int]]:
    """Return where to look: deterministic, spread over the level, no tile twice."""
    last_x, last_y = (level.columns - 1) * level.tile_width, (level.rows - 1) * level.tile_height
    count = level.columns * level.rows
    spread = [(count * k // (_PER_LEVEL - 3) + count // (2 * _PER_LEVEL)) % count for k in range(_PER_LEVEL - 3)]
    inside = [(tile % level.columns * level.tile_width, tile // level.columns * level.tile_height) for tile in spread]
    between = (min(level.tile_width // 2, level.width - 1), min(level.tile_height // 3, level.height - 1))
    return list(dict.fromkeys([(0, 0), (last_x, 0), (0, last_y), (last_x, last_y), between, *inside]))
