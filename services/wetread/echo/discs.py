"""The ventricle's volume from its outline in one plane: the method of discs.

The long axis is cut into twenty discs whose cross-sections are taken as circles: V = pi/4 sum(w^2) L/20 (Lang et al.,
J Am Soc Echocardiogr 2015;28:1-39, single-plane form). Widths are sums of the network's certainty across the axis, so
an edge between two cells counts by its share.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.core.detector import FloatArray

DISCS: Final = 20
ALONG: Final = 128
"""Samples along and across the axis."""
END_SHARE: Final = 0.25
"""The axis ends where the width falls below this share of the widest."""
LEAST_CELLS: Final = 40.0
"""A region smaller than this is no ventricle."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """A line through the ventricle on the grid: a point (row, column) and a unit vector."""

    centre: Floats
    direction: Floats


@dataclass(frozen=True, slots=True)
class Discs:
    """Every frame's outline as twenty widths. Lengths in cells of the grid."""

    length: Floats
    """[frame] long axis."""
    widths: Floats
    """[frame, disc]."""
    start: Floats
    """[frame] where the axis begins, from its centre."""

    @property
    def volume(self) -> Floats:
        """[frame] volume in cubic cells."""
        return np.asarray(pi / 4 * (self.widths**2).mean(axis=1) * self.length)


def largest(probability: FloatArray) -> FloatArray:
    """Return certainty [frame, row, column] without what does not hang together with each frame's largest region."""
    out = np.zeros_like(probability)
    for k, frame in enumerate(probability):
        labels, found = ndimage.label(frame > 0.5)
        if found:
            biggest = 1 + int(np.bincount(labels.ravel())[1:].argmax())
            near = ndimage.binary_dilation(labels == biggest, iterations=2)
            out[k] = frame * (near & ((labels == biggest) | (labels == 0)))
    return out


def long_axis(probability: FloatArray) -> Axis | None:
    """Return the axis of the mean region of all frames, from its second moments; None without a region."""
    weight = probability.mean(axis=0).astype(np.float64)
    total = float(weight.sum())
    if total < LEAST_CELLS:
        return None
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centre = np.array([(weight * rows).sum(), (weight * columns).sum()]) / total
    away = np.stack([(rows - centre[0]).ravel(), (columns - centre[1]).ravel()])
    spread = (away * weight.ravel()) @ away.T / total
    direction = np.linalg.eigh(spread)[1][:, 1]
    return Axis(centre, direction if direction[0] >= 0 else -direction)


def cut(probability: FloatArray, axis: Axis) -> Discs:
    """Cut the region of every frame into discs across *axis*."""
    rows, columns = np.nonzero(probability.max(axis=0) > 0.02)
    half = float(np.hypot(rows - axis.centre[0], columns - axis.centre[1]).max()) + 3.0
    steps = np.linspace(-half, half, ALONG)
    step = steps[1] - steps[0]
    across = np.array([-axis.direction[1], axis.direction[0]])
    places = (
        axis.centre[:, None, None]
        + axis.direction[:, None, None] * steps[None, :, None]
        + across[:, None, None] * steps[None, None, :]
    )
    profiles = np.stack(
        [ndimage.map_coordinates(frame, places, order=1, mode="constant").sum(axis=1) * step for frame in probability]
    )
    measured = [_discs(profile, steps) for profile in profiles]
    return Discs(
        length=np.array([m[0] for m in measured]),
        start=np.array([m[1] for m in measured]),
        widths=np.stack([m[2] for m in measured]),
    )


def _discs(profile: Floats, steps: Floats) -> tuple[float, float, Floats]:
    """Return length, start and widths of one frame's profile of widths."""
    most = float(profile.max())
    if most <= 0:
        return 0.0, 0.0, np.zeros(DISCS)
    limit = END_SHARE * most
    above = np.flatnonzero(profile >= limit)
    first, last = (
        _crossing(profile, steps, int(above[0]), -1, limit),
        _crossing(profile, steps, int(above[-1]), 1, limit),
    )
    middles = first + (last - first) * (np.arange(DISCS) + 0.5) / DISCS
    return last - first, first, np.interp(middles, steps, profile)


def _crossing(profile: Floats, steps: Floats, at: int, towards: int, limit: float) -> float:
    """Return where the profile passes *limit* between sample *at* and its neighbour outside."""
    beyond = at + towards
    if not 0 <= beyond < len(profile):
        return float(steps[at])
    share = (profile[at] - limit) / max(profile[at] - profile[beyond], 1e-9)
    return float(steps[at] + towards * share * (steps[1] - steps[0]))
