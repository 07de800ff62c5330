"""From residue functions to flow, volume and Tmax, with three known errors taken off.

The highest of many noisy values is too high: the height is read at the delay of the neighbourhood. A baseline that
is off leaves a box in the residue: its level is seen when all tracer has left. And truncation lowers the height and
delays the maximum by amounts that depend on the transit time: a table made with the measured arterial curve gives
them back, for the transit time of the neighbourhood (one voxel's own would amplify its noise).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.perfusion.deconvolution import LEVELS, TRANSITS_S, Residues, peak_times, truncated_table

WINDOW_S: Final = 4.0
"""A voxel's own maximum is looked for this close to that of its neighbourhood."""
GONE_S: Final = 32.0
EDGE_S: Final = 4.0
LEAST_LATE: Final = 8
"""The baseline is checked from GONE_S to EDGE_S before the end of the scan, if that is LEAST_LATE samples or more."""
MOST_HELD: Final = 0.5
NEIGHBOURHOOD_MM: Final = 18.0
"""Full width at half maximum of the neighbourhood in plane."""
_ROUNDS: Final = 3
_SIGMA_PER_WIDTH: Final = 1 / 2.3548

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Measures:
    """Per voxel of the tissue: flow (1/s), blood volume (fraction), time of the residue's maximum (s).

    Noise makes some of them negative, so that averages stay right.
    """

    flow: Floats
    volume: Floats
    tmax_s: Floats


def measure(
    residues: Residues,
    arterial: Floats,
    step_s: float,
    tissue: npt.NDArray[np.bool_],
    pixel_mm: tuple[float, float],
) -> Measures:
    """Measure the residue functions of the voxels of *tissue* [plane, row, column], in its raster order."""
    near = _Neighbourhood(tissue, pixel_mm)
    functions, length = residues.functions, len(arterial)
    delay = peak_times(near.functions(functions), step_s)
    late = slice(round(GONE_S / step_s), length - round(EDGE_S / step_s))
    checked = late.stop - late.start >= LEAST_LATE
    late_level = functions[:, late].mean(axis=1) if checked else np.zeros(len(functions))
    area = functions.sum(axis=1, dtype=np.float64) * step_s
    height = _value_at(functions, delay, step_s)
    tables = {k: truncated_table(arterial, step_s, LEVELS[k]) for k in np.unique(residues.level)}
    transit = np.full(len(functions), 5.0)
    flow, volume = height, area
    for _ in range(_ROUNDS):
        offset = _offset(late_level, area, delay, transit, late, length, step_s) if checked else late_level
        volume = area - offset * length * step_s
        flow = height - offset
        for level, (heights, _) in tables.items():
            members = residues.level == level
            flow[members] /= np.clip(np.interp(transit[members], TRANSITS_S, heights * TRANSITS_S), 0.2, 1.2)
        transit = np.clip(near.mean(volume) / np.maximum(near.mean(flow), 1e-6), 1.5, 20.0)
    shift = np.zeros(len(functions))
    for level, (_, delays) in tables.items():
        members = residues.level == level
        shift[members] = np.interp(transit[members], TRANSITS_S, delays)
    tmax = peak_times(_only_near(functions, delay, step_s), step_s) - shift
    return Measures(flow, volume, tmax)


def _value_at(functions: npt.NDArray[np.float32], delay: Floats, step_s: float) -> Floats:
    place = delay / step_s
    before = np.floor(place).astype(int)
    size, rows = functions.shape[1], np.arange(len(functions))
    low, high = functions[rows, before % size], functions[rows, (before + 1) % size]
    return np.asarray(low + (high - low) * (place - before), dtype=np.float64)


def _only_near(functions: npt.NDArray[np.float32], delay: Floats, step_s: float) -> npt.NDArray[np.float32]:
    """Blank what is further than WINDOW_S from the delay of the neighbourhood."""
    size = functions.shape[1]
    distance = np.abs(np.arange(size)[None] * step_s - delay[:, None])
    distance = np.minimum(distance, size * step_s - distance)
    return np.where(distance <= WINDOW_S, functions, functions.min(axis=1, keepdims=True))


def _offset(
    level: Floats, area: Floats, delay: Floats, transit: Floats, late: slice, length: int, step_s: float
) -> Floats:
    """Return the height of the box that an error of the baseline leaves.

    What is seen late is the box and what an exponential residue of that area, delay and transit time still holds.
    Where that is much, nothing can be said about the box.
    """
    times = np.arange(late.start, late.stop) * step_s
    held = np.exp(-np.maximum(times[None] - delay[:, None], 0.0) / transit[:, None]).mean(axis=1) / transit
    share = held * length * step_s
    told = share < MOST_HELD
    return np.where(told, (level - held * area) / (1.0 - np.where(told, share, 0.0)), 0.0)


class _Neighbourhood:
    """Averages of tissue voxels in plane."""

    def __init__(self, tissue: npt.NDArray[np.bool_], pixel_mm: tuple[float, float]) -> None:
        self._tissue = tissue
        self._sigma = (0.0, *(NEIGHBOURHOOD_MM * _SIGMA_PER_WIDTH / size for size in pixel_mm))
        self._weight = ndimage.gaussian_filter(tissue.astype(np.float64), self._sigma)[tissue]

    def mean(self, values: Floats) -> Floats:
        """Return the weighted mean around every voxel."""
        total = ndimage.gaussian_filter(self._placed(values), self._sigma)[self._tissue]
        return np.asarray(total / np.maximum(self._weight, 1e-9), dtype=np.float64)

    def functions(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the weighted mean of functions [voxel, time] around every voxel, times a factor of its place."""
        placed = np.zeros((*self._tissue.shape, values.shape[1]), dtype=np.float32)
        placed[self._tissue] = values
        return np.asarray(ndimage.gaussian_filter(placed, (*self._sigma, 0.0), truncate=2.5)[self._tissue])

    def _placed(self, values: Floats) -> Floats:
        placed = np.zeros(self._tissue.shape)
        placed[self._tissue] = values
        return placed
