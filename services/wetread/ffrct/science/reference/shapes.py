"""Lumen shapes of the reference set, scaled by the healthy inlet diameter (D = 1, R = 1/2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wetread.ffrct.science.tree import FloatArray

Family = Literal["straight", "cosine", "blunt", "skewed", "serial"]


@dataclass(frozen=True)
class Shape:
    """One lesion: ``severity`` 1 - D_s/D0, ``length`` in D; the rest by family.

    ``plateau`` share of the length that is flat (blunt), ``throat`` place of the throat as share of the
    length (skewed), ``gap`` in D between two throats and ``second`` severity of the other (serial),
    ``taper`` loss of healthy radius over the lesion.
    """

    family: Family
    severity: float
    length: float
    plateau: float = 0.0
    throat: float = 0.5
    gap: float = 0.0
    second: float = 0.0
    taper: float = 0.0

    @property
    def extent(self) -> float:
        """Length of everything that differs from a straight tube, in D."""
        return self.length * 2.0 + self.gap if self.family == "serial" else self.length

    def radius(self, x: FloatArray) -> FloatArray:
        """R(x)/D with x in D from the start of the lesion."""
        healthy = 0.5 * (1.0 - self.taper * np.clip(x / max(self.extent, 1e-12), 0.0, 1.0))
        return np.asarray(healthy * (1.0 - self._depth(x)), dtype=np.float64)

    def _depth(self, x: FloatArray) -> FloatArray:
        if self.family == "straight":
            return np.zeros_like(x)
        if self.family == "serial":
            later = x - self.length - self.gap
            return np.asarray(self.severity * _bump(x / self.length) + self.second * _bump(later / self.length))
        t = np.clip(x / self.length, 0.0, 1.0)
        if self.family == "blunt":
            shoulder = 0.5 * (1.0 - self.plateau)
            rise = np.clip(np.minimum(t, 1.0 - t) / shoulder, 0.0, 1.0)
            return np.asarray(self.severity * rise**2 * (3.0 - 2.0 * rise))
        if self.family == "skewed":
            t = np.where(t < self.throat, 0.5 * t / self.throat, 0.5 + 0.5 * (t - self.throat) / (1.0 - self.throat))
        return np.asarray(self.severity * _bump(t))


def _bump(t: FloatArray) -> FloatArray:
    """Cosine bump on 0..1, 0 outside."""
    return np.asarray(0.5 * (1.0 - np.cos(2.0 * np.pi * np.clip(t, 0.0, 1.0))), dtype=np.float64)
