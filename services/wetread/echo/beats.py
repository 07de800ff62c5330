"""Beats from the volume curve alone: no electrocardiogram is asked, clips often come without one.

An end of systole is a minimum that stands out on both sides; the end of diastole before it is the largest volume since
the minimum before. A beat whose beginning the clip does not show is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

SMOOTH_S: Final = 0.03
"""Standard deviation of the smoothing over time by which beats are told apart."""
FINE_S: Final = 0.01
"""The same for the volumes themselves: the end of systole is sharp, and smoothing fills it up."""
NEAR: Final = 2
"""Frames about an end of diastole or systole of the smooth curve in which the fine one has its own."""
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


def smoothed(volume: Floats, times_s: Floats, sigma_s: float = FINE_S) -> Floats:
    """Return the curve without the noise of single frames."""
    step = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
    return np.asarray(ndimage.gaussian_filter1d(volume, sigma_s / max(step, 1e-3), mode="nearest"))


def ejections(fine: Floats, times_s: Floats) -> tuple[Ejection, ...]:
    """Return the full beats of a volume curve (``smoothed``), in order; empty when there is none."""
    if len(fine) < 3:
        return ()
    from scipy import signal  # a second to import, and who asks from headers alone never comes here

    steady = ndimage.median_filter(fine, 3, mode="nearest")
    curve = smoothed(steady, times_s, SMOOTH_S)
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
            full, emptied = _near(fine, diastole, 1.0), _near(fine, minimum, -1.0)
            found.append(Ejection(full, emptied, float(fine[full]), float(fine[emptied])))
        before = minimum
    return tuple(found)


def _near(fine: Floats, frame: int, sign: float) -> int:
    """Return the frame about *frame* where the fine curve is largest (sign 1) or smallest (-1)."""
    first = max(0, frame - NEAR)
    return first + int((sign * fine[first : frame + NEAR + 1]).argmax())


def _falls(curve: Floats, diastole: int) -> bool:
    """Whether the volume rises before *diastole*, so that this is a top and not where the clip begins."""
    return diastole > 0 and bool(curve[diastole] > curve[max(0, diastole - 2)])
