"""A small picture of a whole slide, from the coarsest level that is fine enough, a band of native rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from wetread.core.errors import WetreadError
from wetread.pathology.slide.index import Pixels
from wetread.pathology.slide.slide import BACKGROUND, Reader

DEFAULT_MPP: Final = 10.0
COARSEST_MPP: Final = 16.0
_PIXELS: Final = 8 << 20
_BLOCK: Final = 1024


@dataclass(frozen=True, slots=True)
class Overview:
    """``pixels[row, column, 3]``; ``mpp`` along x and y, in micrometres per pixel of the overview."""

    pixels: Pixels
    mpp: tuple[float, float]
    level: int
    unreadable: int
    """Blocks that could not be decoded and are shown as background."""


def make_overview(reader: Reader, base_mpp: tuple[float, float], target_mpp: float = DEFAULT_MPP) -> Overview:
    """Return the slide at about *target_mpp*: whole pixels of one level are averaged, never interpolated."""
    levels = reader.pyramid.levels
    base = levels[0]
    fine = [n for n, level in enumerate(levels) if base_mpp[0] * base.width / level.width <= target_mpp]
    number = max(fine, default=0)
    level = levels[number]
    level_mpp = (base_mpp[0] * base.width / level.width, base_mpp[1] * base.height / level.height)
    factor = max(int(target_mpp / level_mpp[0]), 1)
    while level.width * level.height > _PIXELS * factor**2 and level_mpp[0] * (factor + 1) <= COARSEST_MPP:
        factor += 1  # a large slide is looked at more coarsely: the mask is the one thing that grows with its area
    rows, columns = -(-level.height // factor), -(-level.width // factor)
    out = np.full((rows, columns, 3), BACKGROUND, dtype=np.uint8)
    step = max(_BLOCK // factor, 1) * factor
    buffer = np.empty((step, step, 3), dtype=np.uint8)
    unreadable = 0
    for y in range(0, level.height, step):
        for x in range(0, level.width, step):
            try:
                reader.read_into(buffer, number, x, y)
            except WetreadError:
                unreadable += 1
                continue
            shape = (step // factor, factor, step // factor, factor, 3)
            small = np.rint(buffer.reshape(shape).mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
            target = out[y // factor : (y + step) // factor, x // factor : (x + step) // factor]
            target[...] = small[: target.shape[0], : target.shape[1]]
    return Overview(out, (level_mpp[0] * factor, level_mpp[1] * factor), number, unreadable)
