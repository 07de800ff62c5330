"""Where the native tiles of a slide lie: frozen, without pixels, the same for TIFF and DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from wetread.pathology.errors import SlideUnreadable

Codec = Literal["jpeg", "jpeg2000", "deflate", "none"]
Colour = Literal["ycbcr", "rgb"]
Pixels = npt.NDArray[np.uint8]
MAX_LEVEL_PIXELS = 1 << 34
MAX_TILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of the pyramid. Sizes in pixels; tiles in rows from the top left, ``columns`` per row."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    codec: Codec
    colour: Colour
    prefix: bytes = b""
    """What replaces the first two bytes (SOI) of every JPEG tile: tables and the colour transform it leaves out."""
    predictor: int = 1
    """TIFF tag 317: 2 means that deflated samples are differences along the row."""

    @property
    def columns(self) -> int:
        """Tiles per row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_height)


@dataclass(frozen=True, slots=True)
class Pyramid:
    """A slide: levels from fine to coarse, and what its header says of size, maker and identity."""

    levels: tuple[Level, ...]
    mpp: tuple[float, float] | None
    """Micrometres per pixel of level 0 along x and y; None when the header does not say."""
    kind: Literal["tiff", "dicom"]
    vendor: str
    properties: Mapping[str, str] = field(default_factory=dict)
    instances: tuple[str, ...] = ()
    """SOP Instance UID of each level (DICOM)."""


class TileBytes(Protocol):
    """Compressed native tiles of a slide."""

    def fetch(self, level: int, tiles: Sequence[int]) -> list[bytes]:
        """Return each tile's bytes; empty for one that the slide leaves out (background)."""

    def fetch_one(self, level: int, tile: int) -> bytes:
        """Return one tile's bytes."""

    def header_digest(self) -> str:
        """Return the SHA-256 over the tables that say where tiles lie."""

    def close(self) -> None:
        """Give back what was opened."""


@dataclass(frozen=True, slots=True)
class OpenedSlide:
    """What opening a slide found: its index and the way to its bytes."""

    pyramid: Pyramid
    tiles: TileBytes


def checked_level(level: Level) -> Level:
    """Return *level* unless its numbers are absurd, so that nothing is allocated for a bomb. Raises SlideUnreadable."""
    sizes = (level.width, level.height, level.tile_width, level.tile_height)
    if min(sizes) <= 0:
        raise SlideUnreadable("a level of the slide has no size")
    if level.width * level.height > MAX_LEVEL_PIXELS:
        raise SlideUnreadable(f"a level of {level.width} x {level.height} pixels is larger than any slide")
    if level.tile_width * level.tile_height * 3 > MAX_TILE_BYTES:
        raise SlideUnreadable(f"native tiles of {level.tile_width} x {level.tile_height} pixels are too large")
    return level


def check_table(level: Level, offsets: npt.NDArray[np.uint64], lengths: npt.NDArray[np.uint64], size: int) -> None:
    """Raise SlideUnreadable unless there is one entry per tile and each lies inside the *size* bytes of the slide."""
    wanted = level.columns * level.rows
    if len(offsets) != wanted or len(lengths) != wanted:
        raise SlideUnreadable(f"the tile table has {len(offsets)} entries for {wanted} tiles")
    if not len(offsets):
        return
    present = lengths > 0
    # In float: a hostile 64-bit offset plus a length would wrap around.
    ends = offsets[present].astype(np.float64) + lengths[present].astype(np.float64)
    if ends.size and float(ends.max()) > size:
        raise SlideUnreadable("tiles lie beyond the end of the file: it is cut off")
    if int(lengths.max()) > MAX_TILE_BYTES:
        raise SlideUnreadable("a compressed tile is larger than 64 MiB")
