"""Classical measures of a stained tile: colour deconvolution, stain areas, focus, nuclei. NumPy and SciPy only.

Ruifrok and Johnston, Anal Quant Cytol Histol 2001;23:291: optical densities are unmixed by the inverse of the stain
matrix. Everything is measured at 1 um per pixel: half the resolution of a 20x scan is a sixth of the time, and nuclei
of 6-9 um keep six pixels across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

VERSION: Final = "1"
NAMES: Final = (
    "tissue_fraction",
    "haematoxylin_fraction",
    "eosin_fraction",
    "haematoxylin_density",
    "eosin_density",
    "focus",
    "nuclei",
    "nuclei_per_mm2",
)
"""Columns of the table, in the order of ``TileMeasures.values``."""
WORKING_MPP: Final = 1.0
_HAEMATOXYLIN: Final = (0.65, 0.70, 0.29)
_EOSIN: Final = (0.07, 0.99, 0.11)
_DENSITY: Final = (-np.log((np.arange(256) + 1.0) / 256.0)).astype(np.float32)
_STAINED: Final = 0.15
_EXCESS: Final = 0.15
"""How far above its surroundings (stain units) a nucleus stands."""
_SURROUNDINGS_UM: Final = 24.0
_SMOOTH_UM: Final = 1.5
_MIN_DISTANCE_UM: Final = 3.0
FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TileMeasures:
    """``values`` as in ``NAMES``; ``nuclei`` [n, 2] centres (x, y) in pixels of the tile."""

    values: tuple[float, ...]
    nuclei: FloatArray


def unmixing(
    haematoxylin: tuple[float, float, float] = _HAEMATOXYLIN, eosin: tuple[float, float, float] = _EOSIN
) -> FloatArray:
    """Return the matrix [3, 3] that turns optical densities (row vector) into stain amounts H, E and a remainder."""
    h, e = (np.array(vector) / np.linalg.norm(vector) for vector in (haematoxylin, eosin))
    rest = np.cross(h, e)
    return np.linalg.inv(np.stack([h, e, rest / np.linalg.norm(rest)])).astype(np.float32)


STANDARD: Final = unmixing()


def stains(tile: Pixels, matrix: FloatArray = STANDARD) -> FloatArray:
    """Return stain amounts float32[H, W, 3] of ``tile`` uint8[H, W, 3]."""
    density = _DENSITY[tile]
    out: FloatArray = (density.reshape(-1, 3) @ matrix).reshape(density.shape)
    return out


def measure(tile: Pixels, mpp: float, matrix: FloatArray = STANDARD) -> TileMeasures:
    """Measure one tile uint8[H, W, 3] of *mpp* micrometres per pixel.

    Nuclei touching the tile border are counted by the tile that holds their centre.
    """
    factor = max(round(WORKING_MPP / mpp), 1)
    small, working = shrink(tile, factor), mpp * factor
    amounts = stains(small, matrix)
    h, e = amounts[..., 0], amounts[..., 1]
    stained = (h > _STAINED) | (e > _STAINED)
    count = max(int(stained.sum()), 1)
    centres = find_nuclei(h, working)
    luma = small[..., 1].astype(np.float32)
    area_mm2 = small.shape[0] * small.shape[1] * (working / 1000) ** 2
    values = (
        float(stained.mean()),
        float((h > _STAINED).mean()),
        float(((e > _STAINED) & (e > h)).mean()),
        float(h[stained].sum() / count),
        float(e[stained].sum() / count),
        float(ndimage.laplace(luma).var()),
        float(len(centres)),
        len(centres) / area_mm2,
    )
    return TileMeasures(values, (centres * factor + (factor - 1) / 2).astype(np.float32))


def find_nuclei(haematoxylin: FloatArray, mpp: float) -> FloatArray:
    """Return [n, 2] centres (x, y): local maxima of the smoothed stain that stand out of their surroundings."""
    smooth = ndimage.gaussian_filter(haematoxylin, _SMOOTH_UM / mpp, mode="nearest", truncate=3.0)
    around = ndimage.uniform_filter(haematoxylin, max(round(_SURROUNDINGS_UM / mpp), 3), mode="nearest")
    reach = 2 * max(round(_MIN_DISTANCE_UM / mpp), 1) - 1
    peaks = (smooth == ndimage.maximum_filter(smooth, reach, mode="nearest")) & (smooth > around * 0.9 + _EXCESS)
    # Flat tops give several equal pixels: one nucleus each.
    rows, columns = np.nonzero(peaks)
    if not len(rows):
        return np.zeros((0, 2), dtype=np.float32)
    return np.stack([columns, rows], axis=1).astype(np.float32)


def shrink(tile: Pixels, factor: int) -> Pixels:
    """Return block means; rows and columns that fill no block are left out."""
    if factor == 1:
        return tile
    rows, columns = tile.shape[0] // factor, tile.shape[1] // factor
    # Sums of strided views in 16 bits: four times as fast as a mean over reshaped axes.
    total = np.zeros((rows, columns, 3), dtype=np.uint16)
    for y in range(factor):
        for x in range(factor):
            total += tile[y : rows * factor : factor, x : columns * factor : factor]
    out: Pixels = ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)
    return out


def resample(tile: Pixels, size: int) -> Pixels:
    """Return ``tile`` as size x size pixels by area averaging: each target pixel weighs what it covers."""
    if tile.shape[:2] == (size, size):
        return tile
    rows, columns = _area_weights(tile.shape[0], size), _area_weights(tile.shape[1], size)
    # einsum as two matrix products: [size, H] @ [H, W*3], then along the columns.
    down = (rows @ tile.reshape(tile.shape[0], -1).astype(np.float32)).reshape(size, tile.shape[1], 3)
    across = np.matmul(columns, down)
    out: Pixels = np.clip(np.rint(across), 0, 255).astype(np.uint8)
    return out


def _area_weights(source: int, target: int) -> FloatArray:
    """Return [target, source] weights: overlap of each target pixel with each source pixel, rows sum to 1."""
    edges = np.arange(target + 1) * (source / target)
    starts = np.arange(source)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    overlap = np.clip(overlap, 0, None)
    out: FloatArray = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    return out
