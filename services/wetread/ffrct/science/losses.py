"""Loss of one lesion in closed form: sudden expansion, and Young and Tsai's formula for verification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .lesions import Lesion
from .tree import FloatArray


def expansion_coefficient(
    kt: float | FloatArray,
    density: float,
    radius_throat: float | FloatArray,
    radius_healthy: float | FloatArray,
) -> FloatArray:
    """K of dH = K Q|Q| in Pa s2/m6: Kt rho/(2 A0^2) (A0/A_s - 1)^2; 0 when the throat is not narrower.

    Arguments broadcast; radii in m, density in kg/m3.
    """
    area = np.pi * np.square(radius_healthy)
    excess = np.maximum(np.square(np.divide(radius_healthy, radius_throat)) - 1.0, 0.0)
    return np.asarray(kt * density / (2.0 * area**2) * excess**2, dtype=np.float64)


def released(lesion: Lesion, s: FloatArray, radius: FloatArray) -> FloatArray:
    """Share (n,) of the expansion loss that lies upstream of each sample: 0 at the throat, 1 at the end.

    Between, it follows the opening of the lumen (A - A_s)/(A_end - A_s), so pressure is continuous.
    """
    area, throat = radius**2, lesion.radius_throat_m**2
    opening = lesion.radius_end_m**2 - throat
    share = (area - throat) / opening if opening > 0.0 else np.zeros_like(area)
    share = np.where(s <= lesion.s_throat_m, 0.0, np.clip(share, 0.0, 1.0))
    share = np.where(s >= lesion.s_end_m, 1.0, share)
    return np.asarray(np.maximum.accumulate(share), dtype=np.float64)


@dataclass(frozen=True)
class YoungTsai:
    """Constants of dp = rho U0^2 (Kv/Re + Kt/2 (A0/A_s - 1)^2), Kv = 32 (L_a/D0)(A0/A_s)^2."""

    kt: float
    length_factor: float
    diameter_factor: float

    def coefficients(
        self,
        length: float,
        radius_throat: float,
        radius_healthy: float,
        density: float,
        viscosity: float,
    ) -> tuple[float, float]:
        """Linear (Pa s/m3) and quadratic (Pa s2/m6) coefficient of a lesion of ``length`` metres.

        The linear part stands for the lesion's whole viscous loss: it replaces the Poiseuille part.
        """
        area = np.pi * radius_healthy**2
        diameter = 2.0 * radius_healthy
        equivalent = self.length_factor * length + self.diameter_factor * 2.0 * radius_throat
        area_ratio = (radius_healthy / radius_throat) ** 2
        viscous = 32.0 * equivalent / diameter * area_ratio**2
        linear = viscous * viscosity / (diameter * area)
        quadratic = expansion_coefficient(self.kt, density, radius_throat, radius_healthy)
        return float(linear), float(quadratic)
