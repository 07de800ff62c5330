"""From the network's answers on every frame to beats and ejection fraction, or a typed reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Array, Cine, CineCalibration, FloatArray
from wetread.core.errors import NotProcessable
from wetread.echo.beats import NEAR, Ejection, ejections, smoothed
from wetread.echo.discs import LEAST_CELLS, Axis, Discs, cut, largest, long_axis
from wetread.echo.sector import Sector, find_sector, tensor_of, to_grid

VIEWS: Final = ("apical four-chamber", "apical two-chamber")
FASTEST: Final = 60.0
"""Frames per second that are read at most; faster clips are thinned evenly."""
LONGEST_S: Final = 6.0
SHOWN_SHARE: Final = 0.8
"""Least share of frames in which the ventricle is found."""
LOST_SHARE: Final = 0.25
"""A frame whose outline is smaller than this share of the largest ones has lost the ventricle: one that empties by 90 %
and shortens by a third still shows that much (volume is area squared over length)."""
UNSTEADY: Final = 0.12
"""Largest scatter of single frames about the mean of their neighbours, as a share of the largest volume."""
LENGTH_MM: Final = (45.0, 135.0)
"""Long axis at the end of diastole that a person can have; beyond it the calibration is not believed."""
SQUARE_RATIO: Final = 1.1
"""Largest ratio of pixel height to width that the circular discs allow for without correction."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clip:
    """What of a clip goes to the network."""

    sector: Sector
    chosen: npt.NDArray[np.intp]
    """Frames of the clip that are read."""
    times_s: Floats
    tensor: FloatArray


@dataclass(frozen=True, slots=True)
class Echo:
    """An analysed clip. Frames count the chosen ones."""

    clip: Clip
    view: int
    apical_score: float
    """Mean certainty that the ventricle is seen from its apex, 0 to 1."""
    probability: FloatArray
    """[frame, row, column] on the grid."""
    axis: Axis
    discs: Discs
    curve: Floats
    """[frame] smoothed volume, cubic cells."""
    beats: tuple[Ejection, ...]
    shown: Ejection
    """The beat nearest to the mean one."""
    cell_mm: float | None
    """Side of a grid cell; None without a calibration that is believed."""
    flags: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """Mean ejection fraction of the beats, per cent."""
        return 100.0 * float(np.mean([beat.fraction for beat in self.beats]))

    @property
    def spread(self) -> float:
        """Standard deviation between beats, per cent points; 0 for one beat."""
        return 100.0 * float(np.std([beat.fraction for beat in self.beats], ddof=1)) if len(self.beats) > 1 else 0.0

    def volume_ml(self, beat_volume: float) -> float | None:
        """Return cubic cells as mL; None without calibration."""
        return None if self.cell_mm is None else beat_volume * self.cell_mm**3 / 1000.0


def prepare(cine: Cine, longest_s: float = LONGEST_S) -> Clip:
    """Find the picture and put its frames on the network's grid.

    Raises NotProcessable: no_picture, colour_flow.
    """
    sector = find_sector(cine)
    if cine.coloured[sector.inside].mean() > 0.04:
        raise NotProcessable("colour_flow", "a large part of the picture is coloured: flow, not tissue")
    step = float(np.median(np.diff(cine.times_s)))
    stride = max(1, int(1.0 / (FASTEST * step) + 1e-6))
    chosen = np.flatnonzero(cine.times_s <= longest_s)[::stride]
    grid = to_grid(cine.voxels[chosen], sector.square)
    return Clip(sector, chosen, cine.times_s[chosen], tensor_of(grid))


def analyse(cine: Cine, clip: Clip, outputs: Mapping[str, Array], *, view_threshold: float) -> Echo:
    """Judge the view, measure the ventricle and its beats.

    Raises NotProcessable: view, ventricle_not_found, unsteady_outline, no_full_beat.
    """
    views = _softmax(np.asarray(outputs["view"], dtype=np.float64)).mean(axis=0)
    apical = float(views[:2].sum())
    if apical < view_threshold:
        raise NotProcessable("view", f"not an apical view of the left ventricle (certainty {apical:.2f})")
    probability = largest(_sigmoid(np.asarray(outputs["lv"][:, 0], dtype=np.float32)))
    area = probability.sum(axis=(1, 2))
    seen = area >= max(LEAST_CELLS, LOST_SHARE * float(np.percentile(area, 95)))
    axis = long_axis(probability)
    if axis is None or seen.mean() < SHOWN_SHARE:
        raise NotProcessable(
            "ventricle_not_found", f"the left ventricle is found in {100 * seen.mean():.0f} % of frames"
        )
    discs = cut(probability, axis)
    volume = np.interp(clip.times_s, clip.times_s[seen], discs.volume[seen])
    curve = smoothed(volume, clip.times_s)
    scatter = _scatter(discs.volume)
    if scatter > UNSTEADY:
        raise NotProcessable("unsteady_outline", f"single frames scatter by {100 * scatter:.0f} % of the volume")
    shown_beats = ejections(curve, clip.times_s)
    if not shown_beats:
        raise NotProcessable("no_full_beat", "no beat is shown from end of diastole to filling")
    beats = tuple(beat for beat in shown_beats if seen[beat.diastole : beat.systole + NEAR + 1].all())
    if not beats:
        raise NotProcessable("unsteady_outline", "every beat has frames in which the outline is lost")
    middle = float(np.median([beat.fraction for beat in beats]))
    # Of two beats both are as near: the first, whatever the rounding of an engine's threads says.
    shown = min(beats, key=lambda beat: round(abs(beat.fraction - middle), 6))
    cell, flags = _cell_mm(cine.calibration, clip.sector, discs, shown)
    if len(beats) == 1:
        flags = (*flags, "one_beat")
    if scatter > UNSTEADY / 3:
        flags = (*flags, "outline_scatters")
    return Echo(clip, int(views[:2].argmax()), apical, probability, axis, discs, curve, beats, shown, cell, flags)


def _cell_mm(
    calibration: CineCalibration | None, sector: Sector, discs: Discs, shown: Ejection
) -> tuple[float | None, tuple[str, ...]]:
    """Return the side of a grid cell in mm if the calibration speaks of this picture and of a heart."""
    if calibration is None:
        return None, ()
    top, left, bottom, right = calibration.box
    rows, columns = np.mgrid[: sector.inside.shape[0], : sector.inside.shape[1]]
    within = (rows >= top) & (rows <= bottom) & (columns >= left) & (columns <= right)
    down, across = calibration.mm
    if sector.inside[within].sum() < 0.9 * sector.inside.sum() or max(down, across) > SQUARE_RATIO * min(down, across):
        return None, ("calibration_not_of_picture",)
    cell = sector.square.step * float(np.sqrt(down * across))
    if not LENGTH_MM[0] <= float(discs.length[shown.diastole]) * cell <= LENGTH_MM[1]:
        return None, ("calibration_implausible",)
    return cell, ()


def _scatter(volume: Floats) -> float:
    """Return how far single frames lie from the mean of their neighbours, over the largest volume."""
    if len(volume) < 3 or volume.max() <= 0:
        return 0.0
    away = volume[1:-1] - (volume[:-2] + volume[2:]) / 2
    return float(np.sqrt(np.mean(away**2) / 1.5) / volume.max())


def band_of(found: Echo, model: Mapping[str, Any]) -> float:
    """Return half the width of the band about the ejection fraction, per cent points.

    What held for the card's share of the worst set of tuning clips, widened by the spread between this clip's beats.
    """
    still = float(model["half_width"])
    return float(np.hypot(still, found.spread))


def _sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -40, 40))), dtype=np.float32)


def _softmax(values: Floats) -> Floats:
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
