"""Synthetic slides with planted regions: ``python -m wetread.testing.phantoms.slide --size 10240 --out FILE``.

A slide is a map of classes on cells of 64 level-0 pixels; each class shows one periodic texture. So every pixel of
every level can be computed alone, and a slide of any size costs no more memory than its textures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.testing.phantoms.tissue_texture import (
    BACKGROUND,
    CLASSES,
    DENSE,
    FIBROUS,
    SPARSE,
    FloatArray,
    Stain,
    Texture,
    render,
)

Pixels = npt.NDArray[np.uint8]
CELL: Final = 64
TEXTURE: Final = 1024


@dataclass(frozen=True, slots=True)
class Planted:
    """A square region of dense nuclei. Level-0 pixels; multiples of 64."""

    x: int
    y: int
    size: int


@dataclass(frozen=True)
class SlideSpec:
    """One synthetic slide; ``width`` and ``height`` in level-0 pixels."""

    width: int
    height: int
    mpp: float = 0.5
    seed: int = 0
    stain: Stain = field(default_factory=Stain)
    planted: tuple[Planted, ...] = ()
    empty: bool = False
    """Glass only."""
    texture: int = TEXTURE
    """Period of the textures in pixels; a power of two from 64."""

    @cached_property
    def classes(self) -> npt.NDArray[np.uint8]:
        """[row, column] class of each cell: an ellipse of fibrous tissue with sparse islands, then what is planted."""
        rows, columns = -(-self.height // CELL), -(-self.width // CELL)
        cells = np.full((rows, columns), BACKGROUND, dtype=np.uint8)
        if self.empty:
            return cells
        y, x = np.mgrid[0:rows, 0:columns]
        u, v = (x + 0.5) / columns * 2 - 1, (y + 0.5) / rows * 2 - 1
        rng = np.random.default_rng(self.seed)
        wave = 0.06 * np.sin(5 * np.arctan2(v, u) + rng.uniform(0, 6))
        cells[np.hypot(u / 0.8, v / 0.85) < 1 + wave] = FIBROUS
        for _ in range(4):
            at = rng.uniform(-0.45, 0.45, 2)
            radius = rng.uniform(0.12, 0.28)
            cells[(np.hypot(u - at[0], v - at[1]) < radius) & (cells == FIBROUS)] = SPARSE
        for region in self.planted:
            first_row, first_column, count = region.y // CELL, region.x // CELL, region.size // CELL
            cells[first_row : first_row + count, first_column : first_column + count] = DENSE
        return cells

    @cached_property
    def textures(self) -> tuple[Texture, ...]:
        """One periodic texture per class."""
        rng = np.random.default_rng(self.seed + 1)
        return tuple(render(kind, self.texture, self.mpp, self.stain, rng) for kind in range(len(CLASSES)))

    def atlas(self, scale: int) -> Pixels:
        """Return [class, row, column, 3] textures averaged *scale* to one (a power of two up to 64)."""
        found = self._atlases.get(scale)
        if found is None:
            stack = np.stack([texture.rgb for texture in self.textures])
            side = self.texture // scale
            found = np.rint(stack.reshape(len(stack), side, scale, side, scale, 3).mean(axis=(2, 4))).astype(np.uint8)
            self._atlases[scale] = found
        return found

    @cached_property
    def _atlases(self) -> dict[int, Pixels]:
        return {}

    def region(self, scale: int, x: int, y: int, width: int, height: int) -> Pixels:
        """Return pixels of the level *scale* times coarser than level 0; outside the image is white."""
        atlas = self.atlas(scale)
        side, cell = self.texture // scale, CELL // scale
        columns, rows = np.arange(x, x + width), np.arange(y, y + height)
        kinds = self.classes[
            np.minimum(rows // cell, self.classes.shape[0] - 1)[:, None],
            np.minimum(columns // cell, self.classes.shape[1] - 1)[None, :],
        ]
        out: Pixels = atlas[kinds, (rows % side)[:, None], (columns % side)[None, :]]
        out[:, columns >= self.width // scale] = 255
        out[rows >= self.height // scale] = 255
        return out

    def signature(self, scale: int, x: int, y: int, width: int, height: int) -> bytes | None:
        """Return a key that equal regions share: place in the texture and classes; None at the image border."""
        if x + width > self.width // scale or y + height > self.height // scale:
            return None
        side, cell = self.texture // scale, CELL // scale
        kinds = self.classes[y // cell : -(-(y + height) // cell), x // cell : -(-(x + width) // cell)]
        if kinds.size and (kinds == kinds.flat[0]).all():
            return bytes(f"{x % side},{y % side},{kinds.flat[0]}", "ascii")
        return bytes(f"{x % side},{y % side},", "ascii") + kinds.tobytes()

    def nuclei(self) -> FloatArray:
        """Return [n, 2] centres (x, y) of all nuclei in level-0 pixels."""
        found = []
        for kind, texture in enumerate(self.textures):
            if not len(texture.nuclei):
                continue
            for top in range(0, self.height, self.texture):
                for left in range(0, self.width, self.texture):
                    points = texture.nuclei + np.array([left, top], dtype=np.float32)
                    inside = (points[:, 0] < self.width) & (points[:, 1] < self.height)
                    points = points[inside]
                    cells = self.classes[points[:, 1].astype(int) // CELL, points[:, 0].astype(int) // CELL]
                    found.append(points[cells == kind])
        return np.concatenate(found) if found else np.zeros((0, 2), dtype=np.float32)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one synthetic slide."""
    from wetread.testing.phantoms.slide_files import TiffOptions, write_slide_tiff

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=10_240, help="pixels of level 0, square")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--sampling", choices=["444", "422", "420"], default="422")
    parser.add_argument("--rgb", action="store_true", help="RGB JPEG with tables apart, as Aperio writes")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    third = given.size // 3 // CELL * CELL
    spec = SlideSpec(
        given.size,
        given.size,
        given.mpp,
        given.seed,
        planted=(Planted(third, third, max(given.size // 10, 512) // CELL * CELL),),
    )
    write_slide_tiff(spec, given.out, TiffOptions(tile=given.tile, sampling=given.sampling, rgb=given.rgb))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
