"""Beats from the volume curve alone: no electrocardiogram is asked, clips often come without one.

An end of systole is a minimum that stands out on both sides; the end of diastole before it is the largest volume since
the minimum before. A beat whose beginning the clip does not show is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

SMOOTH_S: Final = 0.03
"""Standard deviation of the smoothing over time."""
LEAST_CYCLE_S: Final = 0.3
"""200 beats a minute."""
LONGEST_SYSTOLE_S: Final = 0.75
PROMINENCE: Final = 0.45
"""Least depth of a minimum, as a share of the curve's range."""
WHOLE: Final = 0.75
"""A beat's fall, as a share of the curve's range, that shows it was seen from its beginning."""
LEAST_RANGE: Final = 0.05
"""Range of the curve over its top below which nothing beats."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ejection:
    """One beat: frames of end of diastole and end of systole, and the volumes there."""

    diastole: int
    systole: int
    full: float
    emptied: float

    @property
    def fraction(self) -> float:
        """Ejection fraction, 0 to 1."""
        return 1.0 - self.emptied / self.full


def smoothed(volume: Floats, times_s: Floats) -> Floats:
    """Return the curve without the noise of single frames."""
    steady = ndimage.median_filter(volume, 3, mode="nearest") if len(volume) >= 3 else volume
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
    return np.asarray(ndimage.gaussian_filter1d(steady, SMOOTH_S / max(step, 1e-3), mode="nearest"))


def ejections(curve: Floats, times_s: Floats) -> tuple[Ejection, ...]:
    """Return the full beats of a smoothed volume curve, in order; empty when there is none."""
    low, high = np.percentile(curve, (2, 98))
    if high <= 0 or (high - low) < LEAST_RANGE * high:
        return ()
    span = float(high - low)
    step = float(np.median(np.diff(times_s)))
    apart = max(1, round(LEAST_CYCLE_S / step))
    minima, _ = signal.find_peaks(-curve, prominence=PROMINENCE * span, distance=apart)
    found, before = [], 0
    for minimum in (int(m) for m in minima):
        earliest = max(before, minimum - round(LONGEST_SYSTOLE_S / step))
        diastole = earliest + int(curve[earliest : minimum + 1].argmax())
        if curve[diastole] - curve[minimum] >= WHOLE * span or (diastole > earliest and _falls(curve, diastole)):
            found.append(Ejection(diastole, minimum, float(curve[diastole]), float(curve[minimum])))
        before = minimum
    return tuple(found)


def _falls(curve: Floats, diastole: int) -> bool:
    """Whether the volume rises before *diastole*, so that this is a top and not where the clip begins."""
    return diastole > 0 and bool(curve[diastole] > curve[max(0, diastole - 2)])
