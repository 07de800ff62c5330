"""A chest volume read up to the candidates, and the marks that are made of them once they have scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import FloatArray, Volume
from wetread.nodule.candidates import Candidates, find_candidates
from wetread.nodule.frame import Frame, Grid, frame_of, sample
from wetread.nodule.lungs import find_lungs
from wetread.nodule.measure import Nodule, measure
from wetread.nodule.patches import patches

COARSE_MM: Final = 2.0
MARGIN_MM: Final = 6.0
KERNEL_BLUR_MM: Final = 0.65
"""Standard deviation of a typical kernel."""
TENT: Final = 0.41
"""Standard deviation of linear interpolation, in steps (a tent: 1 / sqrt(6))."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything about a volume but the network's opinion. ``closed`` lies on the 1 mm grid."""

    frame: Frame
    grid: Grid
    closed: Mask
    level_hu: float
    midline_mm: float
    candidates: Candidates
    blur_mm: float
    """Standard deviation of the point spread, as slabs and grid leave it."""

    def patches(self) -> FloatArray:
        """What the network is asked about."""
        return patches(self.grid.values, self.candidates.index)


@dataclass(frozen=True, slots=True)
class Mark:
    """A candidate with its score, weighed by shape, and the nodule measured there when one stands out."""

    score: float
    candidate: int
    centre_lps_mm: tuple[float, float, float]
    nodule: Nodule | None


def read(volume: Volume) -> Reading:
    """Find lungs and candidates. Raises NotApplicable (body_part), NotProcessable (mixed_orientation)."""
    frame = frame_of(volume)
    coarse = sample(frame, COARSE_MM)
    lungs = find_lungs(coarse)
    index = np.argwhere(lungs.closed)
    low, high = coarse.place(index.min(axis=0)) - MARGIN_MM, coarse.place(index.max(axis=0)) + MARGIN_MM
    grid = sample(frame, 1.0, low, high)
    closed = _refined(lungs.closed, coarse, grid)
    candidates = find_candidates(grid.values, closed, lungs.level_hu)
    return Reading(frame, grid, closed, lungs.level_hu, lungs.midline_mm, candidates, _blur(volume))


def _blur(volume: Volume) -> float:
    """Geometric mean of the blur along the axes: kernel and pixels in plane, the slab (a box) across, the grid."""
    across = np.hypot(float(np.median(volume.weights_mm)) / np.sqrt(12.0), TENT)
    within = np.hypot(KERNEL_BLUR_MM, TENT * np.maximum(1.0, volume.pixel_spacing)).mean()
    return float((within**2 * across) ** (1 / 3))


def _refined(closed: Mask, coarse: Grid, grid: Grid) -> Mask:
    """The closed lungs on the fine grid, interpolated between coarse voxels."""
    values = closed.astype(np.float32)
    for axis in range(3):
        where = (grid.start[axis] + grid.step * np.arange(grid.values.shape[axis]) - coarse.start[axis]) / coarse.step
        where = np.clip(where, 0, closed.shape[axis] - 1)
        first = np.minimum(where.astype(int), closed.shape[axis] - 2)
        share = (where - first).astype(np.float32)
        values = np.moveaxis(values, axis, 0)
        lower, upper = values[first], values[first + 1]
        values = np.moveaxis(lower + share[:, None, None] * (upper - lower), 0, axis)
    return np.asarray(values > 0.5, dtype=np.bool_)


def measured(reading: Reading, number: int) -> Nodule | None:
    """The nodule at candidate *number*; None when nothing stands out from the lung there."""
    index, radius = reading.candidates.index[number], float(reading.candidates.radius_mm[number])
    return measure(reading.grid, reading.closed, index, radius, reading.level_hu, reading.blur_mm)


def marks_of(
    reading: Reading,
    scores: npt.NDArray[np.float64],
    least: float,
    most: int,
    nodule_of: Callable[[int], Nodule | None] | None = None,
) -> list[Mark]:
    """Marks from *least* on, surest first, *most* at most; what lies in one of a higher score is the same one.

    *scores* of the candidates, as the network or another rule gives them; that of a mark is ``shaped``. *nodule_of*
    measures a candidate (default: ``measured``).
    """
    out: list[Mark] = []
    for number in np.argsort(-scores, kind="stable"):
        # shape only takes away
        if scores[number] < least or len(out) == most:
            break
        place = reading.grid.place(reading.candidates.index[number])
        if any(mark.nodule is not None and _holds(mark.nodule, place) for mark in out):
            continue
        nodule = measured(reading, int(number)) if nodule_of is None else nodule_of(int(number))
        if nodule is not None and any(m.nodule is not None and _holds(m.nodule, nodule.centre) for m in out):
            continue
        x, y, z = reading.frame.to_lps(place if nodule is None else nodule.centre)
        score = shaped(float(scores[number]), 1.0 if nodule is None else nodule.compactness)
        out.append(Mark(score, int(number), (float(x), float(y), float(z)), nodule))
    return sorted((mark for mark in out if mark.score >= least), key=lambda mark: -mark.score)


def shaped(score: float, compactness: float) -> float:
    """A score whose odds are multiplied by *compactness*: a nodule is a rounded opacity, and vessels are the rule."""
    return score * compactness / (1 - score + score * compactness)


def _holds(nodule: Nodule, place: npt.NDArray[np.float64]) -> bool:
    index = np.rint((place - nodule.start) / nodule.step).astype(int)
    if (index < 0).any() or (index >= nodule.mask.shape).any():
        return False
    return bool(nodule.mask[tuple(index)])
