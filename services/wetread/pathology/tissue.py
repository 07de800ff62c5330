"""Where the tissue is: chroma threshold on an overview, without pen ink, holes and crumbs. Arrays in, values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

_CHROMA_RANGE: Final = (12.0, 40.0)
"""Otsu's threshold is kept within these grey levels: glass alone or tissue alone has no valley between them."""
_NEAR_BLACK: Final = 40
_CLOSE_UM: Final = 40.0
_SMALLEST_MM2: Final = 0.02
_NO_TISSUE_MM2: Final = 0.05
_BAND: Final = 256


@dataclass(frozen=True, slots=True)
class TissueParameters:
    """What the mask depends on; part of the plan hash. Micrometres and square millimetres."""

    chroma_range: tuple[float, float] = _CHROMA_RANGE
    close_um: float = _CLOSE_UM
    smallest_mm2: float = _SMALLEST_MM2
    no_tissue_mm2: float = _NO_TISSUE_MM2


@dataclass(frozen=True, slots=True)
class Tissue:
    """``mask[row, column]`` on an overview of ``mpp`` micrometres per pixel along x and y."""

    mask: Mask
    mpp: tuple[float, float]
    threshold: float
    area_mm2: float

    @property
    def found(self) -> bool:
        """False when there is too little to analyse."""
        return bool(self.mask.any())


def find_tissue(overview: Pixels, mpp: tuple[float, float], parameters: TissueParameters | None = None) -> Tissue:
    """Return the tissue in ``overview`` uint8[row, column, 3].

    Chroma (largest minus smallest channel) separates stain from glass at any brightness; near-black borders and
    strokes of saturated blue, green or black ink are no tissue.
    """
    parameters = parameters or TissueParameters()
    high, low = overview.max(axis=2), overview.min(axis=2)
    chroma = ndimage.gaussian_filter((high - low).astype(np.float32), 1.0)
    threshold = float(np.clip(_otsu(chroma), *parameters.chroma_range))
    mask = (chroma > threshold) & (high > _NEAR_BLACK) & ~_ink(overview)
    pixel_mm2 = mpp[0] * mpp[1] / 1e6
    radius = max(round(parameters.close_um / 2 / float(np.sqrt(mpp[0] * mpp[1]))), 1)
    mask = ndimage.binary_closing(np.pad(mask, radius), _disc(radius))[radius:-radius, radius:-radius]
    smallest = parameters.smallest_mm2 / pixel_mm2
    mask = _without_small(mask, smallest)
    mask = ~_without_small(~mask, smallest)
    area = float(np.count_nonzero(mask)) * pixel_mm2
    if area < parameters.no_tissue_mm2:
        mask, area = np.zeros_like(mask), 0.0
    return Tissue(mask, mpp, threshold, area)


def tissue_fractions(
    tissue: Tissue, left_um: npt.NDArray[np.float64], top_um: npt.NDArray[np.float64], size_um: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return the share of tissue in boxes of *size_um* (width, height), from an integral image.

    Boxes are rounded outward to whole mask pixels; what lies outside the mask counts as glass.
    """
    rows, columns = tissue.mask.shape
    integral = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    np.cumsum(np.cumsum(tissue.mask, axis=0, dtype=np.int64), axis=1, out=integral[1:, 1:])
    x0 = np.floor(left_um / tissue.mpp[0] + 1e-9).astype(np.int64)
    y0 = np.floor(top_um / tissue.mpp[1] + 1e-9).astype(np.int64)
    x1 = np.ceil((left_um + size_um[0]) / tissue.mpp[0] - 1e-9).astype(np.int64)
    y1 = np.ceil((top_um + size_um[1]) / tissue.mpp[1] - 1e-9).astype(np.int64)
    area = np.maximum((x1 - x0) * (y1 - y0), 1)
    x0, x1 = np.clip(x0, 0, columns), np.clip(x1, 0, columns)
    y0, y1 = np.clip(y0, 0, rows), np.clip(y1, 0, rows)
    inside = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    return np.asarray(inside / area, dtype=np.float64)


def _otsu(values: npt.NDArray[np.float32]) -> float:
    """Return the threshold of greatest between-class variance (Otsu 1979) over 256 bins."""
    counts, edges = np.histogram(values, bins=256, range=(0, 256))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts).astype(np.float64)
    sums = np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(centres[int(np.nan_to_num(variance).argmax())])


def _ink(overview: Pixels) -> Mask:
    """Return where marker pens drew: stain is never green, and no haematoxylin is as blue as ink."""
    drawn = np.zeros(overview.shape[:2], dtype=bool)
    for top in range(0, len(overview), _BAND):  # signed copies of a band at a time: an overview can be large
        red, green, blue = np.moveaxis(overview[top : top + _BAND].astype(np.int16), 2, 0)
        high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
        band = (green > red + 25) & (green > blue + 5)
        band |= (blue > red + 70) & (blue > green + 50)
        band |= (high < 90) & (high - low < 25)
        drawn[top : top + _BAND] = band
    return drawn


def _disc(radius: int) -> Mask:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x * x + y * y <= radius * radius)


def _without_small(mask: Mask, pixels: float) -> Mask:
    labels: Any
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    large = np.bincount(labels.ravel()) >= pixels
    large[0] = False
    return np.asarray(large[labels])
