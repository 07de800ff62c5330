"""Which tiles are read, at which level, in which order; and the hash that names the whole plan.

Coordinates come from integer indices every time, never by adding up: no drift over a thousand columns.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.errors import InvalidInput
from wetread.core.identifiers import digest
from wetread.pathology.errors import MppMissing, MppTooCoarse
from wetread.pathology.slide.index import Level, Pyramid
from wetread.pathology.tissue import Tissue, TissueParameters, tissue_fractions

AS_IS: Final = 1.02
"""A level whose resolution is within 2 % of the target is read as it is."""
_ROW_CACHE_BYTES: Final = 24 << 20
Corners = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a user chooses. ``tile`` and ``overlap`` in pixels of the target resolution ``mpp``."""

    mpp: float = 0.5
    tile: int = 256
    overlap: int = 0
    min_tissue: float = 0.25
    mask_mpp: float = 10.0
    mpp_override: float | None = None
    allow_upsample: bool = False

    def checked(self) -> PlanOptions:
        """Return the options. Raises InvalidInput for numbers that make no plan."""
        if not (0.05 <= self.mpp <= 50 and 32 <= self.tile <= 4096 and 0 <= self.overlap < self.tile):
            raise InvalidInput("mpp is 0.05-50, tile 32-4096, overlap 0 to less than tile")
        if not (0 <= self.min_tissue <= 1 and 8 <= self.mask_mpp <= 16):
            raise InvalidInput("min-tissue is 0-1, mask mpp 8-16")
        if self.mpp_override is not None and not 0.01 <= self.mpp_override <= 100:
            raise InvalidInput("mpp-override is 0.01-100")
        return self


@dataclass(frozen=True, slots=True)
class Geometry:
    """How tiles lie. Level-0 and level pixels; ``read`` is (width, height) before resampling to ``tile``."""

    level: int
    tile: int
    stride: int
    target_mpp: float
    base_mpp: tuple[float, float]
    level_mpp: tuple[float, float]
    read: tuple[int, int]
    resampled: bool
    columns: int
    rows: int
    base_size: tuple[int, int]
    level_size: tuple[int, int]

    def origins(self, columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> tuple[Corners, Corners]:
        """Return level-0 and level corners (x, y) of grid cells."""
        zero = np.empty((len(columns), 2), dtype=np.int64)
        zero[:, 0] = np.floor(columns * (self.stride * self.target_mpp / self.base_mpp[0]) + 1e-6)
        zero[:, 1] = np.floor(rows * (self.stride * self.target_mpp / self.base_mpp[1]) + 1e-6)
        return zero, zero * np.array(self.level_size) // np.array(self.base_size)


@dataclass(frozen=True)
class Plan:
    """The tiles of one run in reading order. Arrays have one row per tile."""

    geometry: Geometry
    cells: npt.NDArray[np.int32]
    """[n, 2] grid column and row."""
    zero: Corners
    """[n, 2] level-0 corner (x, y)."""
    corners: Corners
    """[n, 2] corner (x, y) in the level that is read."""
    fractions: npt.NDArray[np.float32]
    """[n] share of tissue."""
    plan_hash: str
    document: dict[str, Any]
    """What the hash is over, with the options: ``plan.json``."""

    def __len__(self) -> int:
        return len(self.cells)


def base_mpp(pyramid: Pyramid, override: float | None) -> tuple[float, float]:
    """Return micrometres per pixel of level 0. Raises MppMissing: objective power is never turned into a resolution."""
    if override is not None:
        return override, override
    if pyramid.mpp is None:
        raise MppMissing("the slide does not say its resolution: give it with --mpp-override")
    return pyramid.mpp


def geometry_of(pyramid: Pyramid, options: PlanOptions) -> Geometry:
    """Choose the level and lay the grid. Raises MppMissing, MppTooCoarse."""
    base = base_mpp(pyramid, options.mpp_override)
    levels = pyramid.levels
    fine = [n for n, level in enumerate(levels) if _mpp(levels[0], level, base)[0] <= options.mpp * AS_IS]
    if not fine and not options.allow_upsample:
        raise MppTooCoarse(
            f"the slide has {base[0]:.3g} um per pixel, the analysis wants {options.mpp:g}: "
            "choose a coarser --mpp, or --allow-upsample"
        )
    number = max(fine, default=0)
    level = levels[number]
    mpp = _mpp(levels[0], level, base)
    ratio = (options.mpp / mpp[0], options.mpp / mpp[1])
    as_is = all(1 / AS_IS <= part <= AS_IS for part in ratio)
    read = (options.tile, options.tile) if as_is else (round(options.tile * ratio[0]), round(options.tile * ratio[1]))
    # Read as is, the grid follows the real resolution: tiles touch without gaps or overlaps.
    target = mpp[0] if as_is else options.mpp
    stride = options.tile - options.overlap
    size_um = (levels[0].width * base[0], levels[0].height * base[1])
    columns = max(-(-int(round(size_um[0] / target, 6)) // stride), 1)
    rows = max(-(-int(round(size_um[1] / (mpp[1] if as_is else target), 6)) // stride), 1)
    return Geometry(
        level=number,
        tile=options.tile,
        stride=stride,
        target_mpp=target,
        base_mpp=base,
        level_mpp=mpp,
        read=read,
        resampled=not as_is,
        columns=columns,
        rows=rows,
        base_size=(levels[0].width, levels[0].height),
        level_size=(level.width, level.height),
    )


def make_plan(
    pyramid: Pyramid,
    tissue: Tissue,
    options: PlanOptions,
    *,
    slide_digest: str,
    reader: str,
    analysis: dict[str, Any],
    parameters: TissueParameters | None = None,
) -> Plan:
    """Return the plan: every grid cell with enough tissue, ordered so that native tiles are decoded once.

    *analysis* names model and measures with versions and hashes: another one is another plan.
    """
    geometry = geometry_of(pyramid, options.checked())
    rows, columns = np.divmod(np.arange(geometry.rows * geometry.columns, dtype=np.int64), geometry.columns)
    zero, corners = geometry.origins(columns, rows)
    side_um = (geometry.tile * geometry.target_mpp,) * 2
    um = zero.astype(np.float64) * np.array(geometry.base_mpp)
    fractions = tissue_fractions(tissue, um[:, 0], um[:, 1], side_um)
    kept = np.flatnonzero((fractions >= options.min_tissue) & (fractions > 0))
    kept = kept[_reading_order(corners[kept], pyramid.levels[geometry.level])]
    document = {
        "schema": "wetread.slide-plan/1",
        "slide": slide_digest,
        "reader": reader,
        "options": asdict(options),
        "geometry": asdict(geometry),
        "tissue": {**asdict(parameters or TissueParameters()), "threshold": tissue.threshold},
        "mask": digest("mask", tissue.mask.shape, np.packbits(tissue.mask).tobytes().hex()),
        "analysis": analysis,
    }
    return Plan(
        geometry,
        np.stack([columns[kept], rows[kept]], axis=1).astype(np.int32),
        zero[kept],
        corners[kept],
        fractions[kept].astype(np.float32),
        digest(document),
        {**document, "tiles": len(kept)},
    )


def _mpp(base: Level, level: Level, mpp: tuple[float, float]) -> tuple[float, float]:
    return mpp[0] * base.width / level.width, mpp[1] * base.height / level.height


def _reading_order(corners: Corners, level: Level) -> npt.NDArray[np.int64]:
    """Order tiles in strips so narrow that two rows of native tiles stay in the cache, row by row within a strip."""
    if not len(corners):
        return np.zeros(0, dtype=np.int64)
    per_row = max(_ROW_CACHE_BYTES // (level.tile_width * level.tile_height * 3), 4)
    strip = corners[:, 0] // (per_row * level.tile_width)
    return np.lexsort((corners[:, 0], corners[:, 1], strip)).astype(np.int64)
