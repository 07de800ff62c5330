"""Loss factor of a single concentric lesion from a Gaussian process fitted to our own Navier-Stokes set.

The process predicts Kt of dH = Kt rho/(2 A0^2) (A0/A_s - 1)^2 Q^2 from the shape of the lesion and the
Reynolds number at its throat. It refuses outside the box that it was fitted in, and where it is unsure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from .lesions import Lesion
from .tree import FloatArray

FEATURES: Final = (
    "diameter_stenosis",
    "log_throat_re",
    "log_length",
    "length_per_re",
    "diverging_length",
    "plateau_length",
    "taper",
    "excess_integral",
)
BOX_MARGIN: Final = 0.02
LARGEST_SD: Final = 0.05
PLATEAU: Final = 1.05


@dataclass(frozen=True)
class LesionShape:
    """What the process sees of a lesion beside the flow; lengths in healthy diameters at the throat."""

    diameter_stenosis: float
    length: float
    diverging_length: float
    plateau_length: float
    taper: float
    excess_integral: float

    def features(self, throat_re: FloatArray) -> FloatArray:
        """Rows (n, 8) in the order of ``FEATURES`` for throat Reynolds numbers (n,)."""
        scaled = np.asarray(throat_re, dtype=np.float64) / 100.0
        ones = np.ones_like(scaled)
        return np.column_stack(
            [
                self.diameter_stenosis * ones,
                np.log(scaled),
                np.log(self.length) * ones,
                self.length / scaled,
                self.diverging_length * ones,
                self.plateau_length * ones,
                self.taper * ones,
                np.log1p(self.excess_integral) * ones,
            ]
        )


def lesion_shape(lesion: Lesion, s: FloatArray, radius: FloatArray, healthy: FloatArray) -> LesionShape:
    """Measure a lesion on its branch, arrays (n,) in m; used alike for requests and for the fitted set."""
    diameter = 2.0 * lesion.healthy_throat_m
    inside = (s > lesion.s_start_m) & (s < lesion.s_end_m)
    x = np.concatenate([[lesion.s_start_m], s[inside], [lesion.s_end_m]])
    r = np.interp(x, s, radius)
    flat = r <= PLATEAU * lesion.radius_throat_m
    steps = np.diff(x)
    healthy_ends = np.interp(x[[0, -1]], s, healthy)
    integral = float(np.trapezoid((lesion.healthy_throat_m / r) ** 4 - 1.0, x)) / diameter
    return LesionShape(
        diameter_stenosis=lesion.diameter_stenosis,
        length=lesion.length_m / diameter,
        diverging_length=max(lesion.s_end_m - lesion.s_throat_m, 0.0) / diameter,
        plateau_length=float(np.sum(steps * 0.5 * (flat[1:].astype(float) + flat[:-1]))) / diameter,
        taper=float(healthy_ends[0] - healthy_ends[1]) / lesion.healthy_throat_m,
        excess_integral=max(integral, 0.0),
    )


@dataclass(frozen=True)
class Emulator:
    """A fitted process: inputs ``x`` (n, 8), targets ``kt`` (n,), hyper-parameters, box and provenance.

    ``length_scales`` (8,) act on inputs scaled by ``mean`` and ``sd`` (8,); ``noise`` is the variance of
    the white part against a signal of ``amplitude``; all on targets scaled by their own mean and sd.
    """

    x: FloatArray
    kt: FloatArray
    mean: FloatArray
    sd: FloatArray
    length_scales: FloatArray
    amplitude: float
    noise: float
    training_sha256: str

    @property
    def box(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest value (8,) of every feature in the fitted set."""
        return self.x.min(axis=0), self.x.max(axis=0)

    @cached_property
    def _solved(self) -> tuple[FloatArray, FloatArray]:
        """Inverse of the Cholesky factor (n, n) and weights (n,) of the process."""
        covariance = self._kernel(self.x) + self.noise * np.eye(len(self.x))
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        target = (self.kt - self.kt.mean()) / self.kt.std()
        return inverse, inverse.T @ (inverse @ target)

    def _kernel(self, x: FloatArray) -> FloatArray:
        scale = self.sd * self.length_scales
        squared = np.sum(((x[:, None, :] - self.x[None]) / scale) ** 2, axis=-1)
        return np.asarray(self.amplitude * np.exp(-0.5 * squared), dtype=np.float64)

    def outside(self, x: FloatArray) -> tuple[str, ...]:
        """Names of features of rows (n, 8) that leave the box by more than 2 % of its span."""
        low, high = self.box
        margin = BOX_MARGIN * (high - low)
        out = np.asarray(np.any((x < low - margin) | (x > high + margin), axis=0))
        return tuple(name for name, is_out in zip(FEATURES, out, strict=True) if is_out)

    def predict(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Kt and its standard deviation (n,) for rows (n, 8); check :meth:`outside` first."""
        inverse, weights = self._solved
        cross = self._kernel(x)
        spread = self.kt.std()
        reduction = np.sum((cross @ inverse.T) ** 2, axis=1)
        variance = np.maximum(self.amplitude + self.noise - reduction, 0.0)
        return self.kt.mean() + spread * (cross @ weights), spread * np.sqrt(variance)
