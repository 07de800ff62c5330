"""Pressure drop as a function of flow: R Q + K Q|Q| for most vessels, a monotone table for some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.interpolate import PchipInterpolator

from .tree import BoolArray, FloatArray, IntArray


class TabulatedLaw:
    """Monotone PCHIP through (0, 0) and computed drops; odd in the flow.

    ``flow`` (k,) ascending and positive in m3/s, ``drop`` (k,) in Pa, strictly rising. Beyond the last
    flow the drop goes on with the last slope plus ``curvature`` (Pa s2/m6) times the square.
    """

    def __init__(self, flow: FloatArray, drop: FloatArray, curvature: float) -> None:
        self._spline = PchipInterpolator(
            np.concatenate([[0.0], flow]), np.concatenate([[0.0], drop]), extrapolate=False
        )
        self._slope = self._spline.derivative()
        self._energy = self._spline.antiderivative()
        self._last = float(flow[-1])
        self._at_last = (
            float(drop[-1]),
            float(self._slope(self._last)),
            float(self._energy(self._last)),
        )
        self._curvature = curvature

    @property
    def largest_flow(self) -> float:
        """End of the table in m3/s."""
        return self._last

    def evaluate(self, flow: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Drop (Pa), its derivative (Pa s/m3) and its integral from 0 (W), each shaped as ``flow``."""
        size = np.abs(flow)
        inside = np.minimum(size, self._last)
        beyond = size - inside
        drop_last, slope_last, _ = self._at_last
        drop = self._spline(inside) + beyond * (slope_last + self._curvature * beyond)
        slope = np.where(beyond > 0.0, slope_last + 2.0 * self._curvature * beyond, self._slope(inside))
        energy = self._energy(inside) + beyond * (
            drop_last + beyond * (slope_last / 2.0 + self._curvature * beyond / 3.0)
        )
        return np.sign(flow) * drop, slope, energy


@dataclass(frozen=True)
class VesselLaws:
    """Laws of all vessels: ``resistance`` and ``quadratic`` (rows, n_vessels), tables by vessel index.

    A table replaces the vessel's R and K in every row.
    """

    resistance: FloatArray
    quadratic: FloatArray
    tables: Mapping[int, TabulatedLaw] = field(default_factory=dict)

    def rows(self, which: IntArray | BoolArray) -> VesselLaws:
        """The same laws for some of the rows."""
        return VesselLaws(self.resistance[which], self.quadratic[which], self.tables)

    def evaluate(self, flow: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Drop, slope and energy integral of flows (rows, n_vessels)."""
        size = np.abs(flow)
        drop = (self.resistance + self.quadratic * size) * flow
        slope = self.resistance + 2.0 * self.quadratic * size
        energy = (0.5 * self.resistance + self.quadratic * size / 3.0) * size**2
        for vessel, table in self.tables.items():
            drop[:, vessel], slope[:, vessel], energy[:, vessel] = table.evaluate(flow[:, vessel])
        return drop, slope, energy
