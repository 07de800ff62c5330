"""Bright balls of 3 to 30 mm in the lungs: local maxima of a multi-scale Laplacian, ranked by how round they are.

Scale-normalised Laplacian of Gaussian (Lindeberg, IJCV 1998) on a pyramid, and the dot filter of Li, Sone and Doi
(Med Phys 2003) from the Hessian's eigenvalues at each maximum: |l3|^2 / |l1|. Works on HU clipped above soft tissue,
with everything outside the closed lungs set to the level of lung tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from wetread.core.detector import FloatArray

SCALES_MM: Final = ((1, (0.9, 1.35, 2.0)), (2, (3.0, 4.4)), (4, (6.4, 9.0)))
"""Step of the pyramid level, and the sigmas sought on it; a ball of radius r answers most at r / sqrt(3)."""
LEAST_RESPONSE_HU: Final = 55.0
LEAST_DOT_HU: Final = 12.0
"""Fainter or longer than any nodule that a reader would call."""
MOST: Final = 200
"""Candidates that go to the network."""
_BEFORE_THINNING: Final = 1500
_BRIGHTEST_HU: Final = 150.0

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row per candidate, the roundest first."""

    index: Floats
    """[n, (z, y, x)] on the 1 mm grid, voxels."""
    radius_mm: Floats
    response_hu: Floats
    """Laplacian, normalised by scale."""
    dot_hu: Floats
    """Dot filter: large for balls, small for tubes and sheets."""
    roundness: Floats
    """[n, 2]: l3 / l1 and l2 / l1 of the Hessian, 1 for a ball."""

    def __len__(self) -> int:
        return len(self.index)


def find_candidates(hu: FloatArray, closed: Mask, level_hu: float) -> Candidates:
    """Find candidates on the 1 mm grid within the *closed* lungs, whose tissue lies at *level_hu*."""
    image = np.where(closed, np.clip(hu, -1000, _BRIGHTEST_HU), np.float32(level_hu)).astype(np.float32)
    rows: list[Floats] = []
    for step, sigmas in SCALES_MM:
        if step > 1:
            image, closed = halved(image), halved(closed.astype(np.float32)) > 0.5
        if min(image.shape) < 5:
            break
        previous, spent = image, 0.0
        for sigma_mm in sigmas:
            sigma = sigma_mm / step
            # smoothing adds in squares: each scale goes on from the one before
            previous = ndimage.gaussian_filter(previous, float(np.sqrt(sigma**2 - spent**2)), truncate=3.0)
            spent = sigma
            rows.append(_maxima(previous, closed, step, sigma))
    found = np.concatenate(rows)
    found = found[np.argsort(-found[:, 5], kind="stable")][:_BEFORE_THINNING]
    found = found[_thinned(found)][:MOST]
    return Candidates(found[:, :3], found[:, 3], found[:, 4], found[:, 5], found[:, 6:8])


def halved(values: FloatArray) -> FloatArray:
    """Means of 2 x 2 x 2 voxels; odd ends are repeated."""
    values = np.pad(values, [(0, n % 2) for n in values.shape], mode="edge")
    for axis in range(3):
        first, second = [slice(None)] * 3, [slice(None)] * 3
        first[axis], second[axis] = slice(None, None, 2), slice(1, None, 2)
        values = (values[tuple(first)] + values[tuple(second)]) * np.float32(0.5)
    return values


def _maxima(smooth: FloatArray, closed: Mask, step: int, sigma: float) -> Floats:
    """Rows (z, y, x, radius, response, dot, l3/l1, l2/l1) of local maxima at one scale, in voxels of 1 mm."""
    inner = smooth[1:-1, 1:-1, 1:-1]
    sides = (
        smooth[2:, 1:-1, 1:-1]
        + smooth[:-2, 1:-1, 1:-1]
        + smooth[1:-1, 2:, 1:-1]
        + smooth[1:-1, :-2, 1:-1]
        + smooth[1:-1, 1:-1, 2:]
        + smooth[1:-1, 1:-1, :-2]
    )
    response = np.zeros_like(smooth)
    response[1:-1, 1:-1, 1:-1] = (6 * inner - sides) * np.float32(sigma**2)
    at = np.argwhere((response > LEAST_RESPONSE_HU) & closed)
    at = at[((at >= 2) & (at < np.array(smooth.shape) - 2)).all(axis=1)]
    if not len(at):
        return np.empty((0, 8))
    flat, strides = response.reshape(-1), _strides(smooth.shape)
    centre = at @ strides
    own = flat[centre]
    keep = np.ones(len(at), dtype=bool)
    for offset in _NEIGHBOURS:
        keep &= own >= flat[centre + int(offset @ strides)]
    at, own = at[keep], own[keep]
    if not len(at):
        return np.empty((0, 8))
    low, middle, high = (-np.linalg.eigvalsh(_hessian(smooth, at))).T[::-1]
    high = np.maximum(high, 1e-6)
    round_ = np.maximum(low, 0) / high
    dot = np.maximum(low, 0) ** 2 / high * sigma**2
    places = at * step + (step - 1) / 2
    radius = np.full(len(at), sigma * step * np.sqrt(3.0))
    rows = np.column_stack([places, radius, own, dot, round_, np.maximum(middle, 0) / high])
    return np.asarray(rows[dot > LEAST_DOT_HU], dtype=np.float64)


_NEIGHBOURS: Final = np.array(
    [(a, b, c) for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) != (0, 0, 0)]
)


def _strides(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.array([shape[1] * shape[2], shape[2], 1])


def _hessian(smooth: FloatArray, at: npt.NDArray[np.int64]) -> Floats:
    """Second differences [n, 3, 3] at voxels."""
    flat, strides = smooth.reshape(-1), _strides(smooth.shape)
    centre = at @ strides
    out = np.empty((len(at), 3, 3))
    for a in range(3):
        out[:, a, a] = flat[centre + strides[a]] + flat[centre - strides[a]] - 2.0 * flat[centre]
        for b in range(a):
            both, across = strides[a] + strides[b], strides[a] - strides[b]
            mixed = flat[centre + both] + flat[centre - both] - flat[centre + across] - flat[centre - across]
            out[:, a, b] = out[:, b, a] = mixed / 4.0
    return out


def _thinned(found: Floats) -> npt.NDArray[np.int64]:
    """Of candidates that lie within one another's radius (3 mm at least) the roundest stays."""
    if not len(found):
        return np.empty(0, dtype=np.int64)
    tree = cKDTree(found[:, :3])
    reach = np.maximum(found[:, 3], 3.0)
    gone = np.zeros(len(found), dtype=bool)
    kept = []
    for number in range(len(found)):
        if gone[number]:
            continue
        kept.append(number)
        gone[tree.query_ball_point(found[number, :3], 0.8 * reach[number])] = True
    return np.array(kept)
