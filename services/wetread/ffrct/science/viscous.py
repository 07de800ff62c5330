"""Viscous resistance of a lumen, exact for linear taper between samples and for elliptic sections."""

from __future__ import annotations

import numpy as np

from .tree import FloatArray


def shape_factor(aspect_ratio: FloatArray) -> FloatArray:
    """Ratio of an ellipse's viscous drop to that of the circle of equal area: (k + 1/k)/2."""
    return 0.5 * (aspect_ratio + 1.0 / aspect_ratio)


def interval_resistance(s: FloatArray, radius: FloatArray, aspect_ratio: FloatArray, viscosity: float) -> FloatArray:
    """Resistance (n-1,) in Pa s/m3 of each interval between samples (n,), all in SI.

    The integral of 8 mu/(pi r^4) over a linearly tapered interval in the form that has no
    singularity at equal radii; the shape factor is the mean of the interval's ends.
    """
    r0, r1 = radius[:-1], radius[1:]
    shape = shape_factor(aspect_ratio)
    mean_inverse_fourth = (r0 * r0 + r0 * r1 + r1 * r1) / (3.0 * (r0 * r1) ** 3)
    factor = 8.0 * viscosity / np.pi * 0.5 * (shape[:-1] + shape[1:])
    return np.asarray(factor * np.diff(s) * mean_inverse_fourth, dtype=np.float64)
