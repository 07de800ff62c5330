"""Curves in space: even steps, smoothing along the arc, normal frames that do not twist."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .image import FloatArray


def arc(points: FloatArray) -> FloatArray:
    """Arc length (n,) of points (n, 3)."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def even(points: FloatArray, step: float) -> FloatArray:
    """The same curve at even steps of about *step*."""
    s = arc(points)
    keep = np.concatenate([[True], np.diff(s) > 1e-9])
    count = max(2, round(s[-1] / step) + 1)
    at = np.linspace(0.0, s[-1], count)
    return np.stack([np.interp(at, s[keep], points[keep, axis]) for axis in range(3)], axis=1)


def smooth(values: FloatArray, sigma: float, *, ends: bool = True) -> FloatArray:
    """Gaussian along the first axis, *sigma* in samples; *ends* keeps the ends of a curve in place."""
    if sigma <= 0.0 or len(values) < 3:
        return values
    if not ends:
        return np.asarray(ndimage.gaussian_filter1d(values, sigma, axis=0, mode="nearest"), dtype=np.float64)
    # Odd reflection about the end points: straight ends stay straight and in place.
    pad = min(len(values) - 1, int(4 * sigma) + 1)
    before = 2.0 * values[:1] - values[pad:0:-1]
    after = 2.0 * values[-1:] - values[-2 : -pad - 2 : -1]
    padded = np.concatenate([before, values, after])
    return np.asarray(ndimage.gaussian_filter1d(padded, sigma, axis=0)[pad:-pad], dtype=np.float64)


def frames(points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Tangents and two normals (n, 3) by parallel transport."""
    tangent = np.gradient(points, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1), 1e-12)[:, None]
    first = np.empty_like(points)
    axis = np.eye(3)[int(np.argmin(np.abs(tangent[0])))]
    current = np.cross(tangent[0], axis)
    for position, along in enumerate(tangent):
        current = current - along * float(current @ along)
        current /= max(float(np.linalg.norm(current)), 1e-12)
        first[position] = current
    return tangent, first, np.cross(tangent, first)
