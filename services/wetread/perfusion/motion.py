"""Head motion during a dynamic series: rigid registration in plane, by the rim of the head that no bolus reaches.

All planes move together: two shifts and one turn per time point, found by Gauss-Newton steps against the mean of the
first images. Motion out of the plane cannot be undone with thick planes; it shows as a rim that no longer fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray
from wetread.core.errors import NotProcessable

STILL_MM: Final = 0.3
"""Less than this at the rim of the head is left as it is: resampling would cost more than it mends."""
FAR_MM: Final = 12.0
"""A time point displaced by more is not used."""
MISFIT_MM: Final = 1.5
"""A time point whose rim still differs as much as this shift would make it is not used."""
LOST_SHARE: Final = 0.15
"""More unusable time points than this are too many."""
LOST_RUN: Final = 4
"""So are this many in a row: the bolus may pass between them."""
RIM_MM: Final = 12.0
_STEPS: Final = 8
_POINTS: Final = 6000

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Registered:
    """Images without motion, and what it was: displacement of the rim in mm and whether each time point was used."""

    images: FloatArray
    displacement_mm: Floats
    used: npt.NDArray[np.bool_]


def register(
    images: FloatArray, pixel_mm: tuple[float, float], head: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_]
) -> Registered:
    """Register [time, plane, row, column] to the mean of the first two.

    *head* and *inside* are [plane, row, column]: the rim is what lies within the first and outside the second.

    Unusable time points are replaced by what lies between their neighbours. Raises NotProcessable("motion").
    """
    reference = images[:2].mean(axis=0)
    rim = _rim(head, inside, pixel_mm)
    planes = np.flatnonzero(rim.any(axis=(1, 2)))
    fit = _Fit(reference[planes], rim[planes], pixel_mm)
    moves = np.zeros((len(images), 3))
    misfit = np.zeros(len(images))
    for index, stack in enumerate(images):
        start = moves[index - 1] if index else np.zeros(3)
        moves[index], misfit[index] = fit.solve(stack[planes], start)
    reach = fit.reach_mm
    displaced = np.hypot(moves[:, 0], moves[:, 1]) + np.abs(moves[:, 2]) * reach
    used = (displaced <= FAR_MM) & (misfit <= MISFIT_MM)
    _refuse_lost(used)
    corrected = images.copy() if bool((displaced > STILL_MM).any()) or not used.all() else images
    for moved in np.flatnonzero(used & (displaced > STILL_MM)):
        corrected[moved] = fit.moved(images[moved], moves[moved])
    _fill(corrected, used)
    return Registered(corrected, displaced, used)


class _Fit:
    """Gauss-Newton on the rim. Moves are (along rows, along columns) in mm and a turn in radians about the middle."""

    def __init__(self, reference: FloatArray, rim: npt.NDArray[np.bool_], pixel_mm: tuple[float, float]) -> None:
        self._pixel = np.asarray(pixel_mm)
        self._centre = (np.asarray(reference.shape[1:]) - 1) / 2
        self._points = np.argwhere(rim)
        self._points = self._points[:: 1 + len(self._points) // _POINTS]
        self._offset_mm = (self._points[:, 1:] - self._centre) * self._pixel
        smooth = _smooth(reference)
        at = tuple(self._points.T)
        self._wanted = smooth[at]
        row = np.gradient(smooth, axis=1)[at] / self._pixel[0]
        column = np.gradient(smooth, axis=2)[at] / self._pixel[1]
        self._slope = max(float(np.sqrt(np.mean((row**2 + column**2) / 2))), 1e-9)
        turn = row * -self._offset_mm[:, 1] + column * self._offset_mm[:, 0]
        # The slopes of the reference serve every step: near the solution they are those of the image.
        self._inverse = np.linalg.pinv(np.stack([row, column, turn], axis=1))
        self.reach_mm = float(np.percentile(np.hypot(*self._offset_mm.T), 90)) if len(self._points) else 0.0

    def solve(self, stack: FloatArray, start: Floats) -> tuple[Floats, float]:
        """Return the move that brings *stack* onto the reference, and what remains, as the shift that would make it."""
        smooth = _smooth(stack)
        move, best = start.copy(), (start.copy(), np.inf)
        for _ in range(_STEPS):
            at = self._places(move)
            seen = ndimage.map_coordinates(smooth, at, order=1, mode="nearest")
            error = self._wanted - seen
            remains = float(np.sqrt(np.mean(error**2))) / self._slope
            if remains < best[1]:
                best = (move.copy(), remains)
            change = self._inverse @ error
            move = move + change
            if np.hypot(*change[:2]) + abs(change[2]) * self.reach_mm < 0.02:
                break
        return best

    def moved(self, stack: FloatArray, move: Floats) -> FloatArray:
        """Return *stack* [plane, row, column] with the move undone."""
        matrix = _turn(move[2]) * self._pixel[None, :] / self._pixel[:, None]
        offset = self._centre - matrix @ self._centre + move[:2] / self._pixel
        return np.stack(
            [ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest") for image in stack]
        ).astype(np.float32)

    def _places(self, move: Floats) -> Floats:
        in_plane = (self._offset_mm @ _turn(move[2]).T + move[:2]) / self._pixel + self._centre
        return np.concatenate([self._points[:, :1].T, in_plane.T])


def _turn(angle: float) -> Floats:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _smooth(images: FloatArray) -> FloatArray:
    return np.asarray(ndimage.gaussian_filter(images, (0, 1.0, 1.0), truncate=2.0), dtype=np.float32)


def _rim(
    head: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_], pixel_mm: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    inner = max(1, round(RIM_MM / pixel_mm[0]))
    flat = np.zeros((3, 3, 3), dtype=bool)
    flat[1] = True
    deep = ndimage.binary_erosion(head, flat, iterations=inner)
    wide = ndimage.binary_dilation(head, flat, iterations=2)
    return np.asarray(wide & ~deep & ~inside, dtype=np.bool_)


def _refuse_lost(used: npt.NDArray[np.bool_]) -> None:
    lost = ~used
    runs: Any = ndimage.label(lost)[0]
    longest = int(np.bincount(runs)[1:].max()) if lost.any() else 0
    if lost.mean() > LOST_SHARE or longest >= LOST_RUN:
        raise NotProcessable("motion", f"{int(lost.sum())} of {len(used)} time points cannot be brought into register")


def _fill(images: FloatArray, used: npt.NDArray[np.bool_]) -> None:
    good = np.flatnonzero(used)
    for index in np.flatnonzero(~used):
        before, after = good[good < index], good[good > index]
        if len(before) and len(after):
            share = (index - before[-1]) / (after[0] - before[-1])
            images[index] = images[before[-1]] * (1 - share) + images[after[0]] * share
        else:
            images[index] = images[before[-1] if len(before) else after[0]]
