"""Solves the tree for one or many sets of coefficients and lays the pressure out along every branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .boundary_conditions import BoundaryConditions
from .laws import TabulatedLaw, VesselLaws
from .lumen_model import LumenModel
from .network import Rows, solve_rows, vessel_pressures
from .tree import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Coefficients:
    """Rows of the same tree: ``resistance`` and ``quadratic`` (n, n_branches), borders (n, n_outlets).

    ``inlet`` (n,) is a pressure, or a flow when the boundary conditions prescribe one.
    """

    resistance: FloatArray
    quadratic: FloatArray
    outlet_resistance: FloatArray
    outlet_pressure: FloatArray
    inlet: FloatArray
    tables: Mapping[int, TabulatedLaw] = field(default_factory=dict)


@dataclass(frozen=True)
class Flows:
    """Solution (SI): ``flow``, ``upstream``, ``drop`` (n, n_branches); the rest (n,).

    ``outlet_flow`` (n, n_outlets) is 0 behind an occlusion. ``converged`` is False where Newton gave up.
    """

    flow: FloatArray
    upstream: FloatArray
    drop: FloatArray
    outlet_flow: FloatArray
    inlet_pressure: FloatArray
    residual: FloatArray
    iterations: IntArray
    converged: BoolArray


def nominal_inlet(bc: BoundaryConditions) -> float:
    """The prescribed inlet flow, else the inlet pressure."""
    if bc.inlet_flow_m3_s is not None:
        return bc.inlet_flow_m3_s
    return float("nan") if bc.inlet_pressure_pa is None else bc.inlet_pressure_pa


def solve_flows(model: LumenModel, bc: BoundaryConditions, c: Coefficients) -> Flows:
    """Solve every row; branches that lead to no open outlet carry nothing."""
    count = len(c.inlet)
    is_open = model.open_outlets
    laws = VesselLaws(c.resistance, c.quadratic, c.tables)
    outlet_flow = np.zeros((count, len(model.outlets)))
    if not is_open.any():
        still = np.zeros_like(c.resistance)
        pressure = np.full(count, np.nan) if bc.inlet_flow_m3_s is not None else c.inlet
        zero = np.zeros(count)
        upstream, _ = vessel_pressures(model.parents, pressure, still)
        return Flows(
            still,
            upstream,
            still,
            outlet_flow,
            pressure,
            zero,
            zero.astype(np.int64),
            np.full(count, bc.inlet_flow_m3_s is None),
        )
    solved = solve_rows(
        Rows(
            path=model.path[is_open][None],
            laws=laws,
            outlet_resistance=c.outlet_resistance[:, is_open],
            outlet_pressure=c.outlet_pressure[:, is_open],
            inlet=c.inlet,
            valid=np.ones((count, int(is_open.sum())), dtype=bool),
            flow_inlet=bc.inlet_flow_m3_s is not None,
        )
    )
    outlet_flow[:, is_open] = solved.outlet_flow
    drop, _, _ = laws.evaluate(solved.flow)
    upstream, _ = vessel_pressures(model.parents, solved.inlet_pressure, drop)
    return Flows(
        solved.flow,
        upstream,
        drop,
        outlet_flow,
        solved.inlet_pressure,
        solved.residual,
        solved.iterations,
        solved.converged,
    )


@dataclass(frozen=True)
class Layout:
    """How a branch's drop lies along it: ``viscous`` and ``expansion`` (n, k) cumulative coefficients."""

    viscous: FloatArray
    expansion: FloatArray


def equivalent_layout(model: LumenModel, branch: int, flow: float, drop: float) -> Layout:
    """Lay out a drop that a table gave: what exceeds the viscous part is released at the lesions.

    Where a table gives less than the viscous part, that part is scaled down as a whole.
    """
    own = model.branches[branch]
    viscous = float(own.viscous[-1]) * abs(flow)
    excess = abs(drop) - viscous
    at_one = float(own.expansion[-1])
    if excess >= 0.0 and at_one > 0.0 and flow != 0.0:
        return Layout(own.viscous[None], own.expansion[None] * (excess / flow**2 / at_one))
    scale = abs(drop) / viscous if viscous > 0.0 else 1.0
    return Layout(own.viscous[None] * scale, np.zeros((1, len(own.viscous))))


def head_along(layout: Layout, upstream: FloatArray, flow: FloatArray) -> FloatArray:
    """Total head (n, k) in Pa along a branch; ``upstream`` and ``flow`` (n,)."""
    q = flow[:, None]
    return np.asarray(upstream[:, None] - layout.viscous * q - layout.expansion * q * np.abs(q), dtype=np.float64)


def static_along(
    head: FloatArray, flow: FloatArray, radius: FloatArray, density: float, ke_factor: float
) -> FloatArray:
    """Static pressure (n, k): head minus 1/2 alpha rho U^2, with ``radius`` (k,) or (n, k)."""
    velocity = flow[:, None] / (np.pi * np.square(radius))
    return np.asarray(head - 0.5 * ke_factor * density * velocity**2, dtype=np.float64)
