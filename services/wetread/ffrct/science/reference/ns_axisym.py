"""Solves steady axisymmetric laminar flow through a lesion with finite elements (scikit-fem, extra ``dev``).

Taylor-Hood P2/P1 on a tensor mesh mapped by r = eta R(x); everything scaled by the inlet diameter D and
the inlet mean velocity U, pressure by rho U^2. A straight tube gives exactly 32 L/Re.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import skfem  # type: ignore[import-untyped]
from scipy.sparse import bmat, csc_matrix, csr_matrix
from scipy.sparse.linalg import splu
from skfem.helpers import ddot, div, dot, grad  # type: ignore[import-untyped]

from wetread.ffrct.science.tree import FloatArray

from .shapes import Shape

INLET: Final = 2.0
INLET_CELLS: Final = 8
NEAR: Final = 3.0
NEAR_CELLS: Final = 24
FAR_CELLS: Final = 25
RADIAL_CELLS: Final = 14
NEWTON_LIMIT: Final = 12
NEWTON_TOLERANCE: Final = 1e-8
CONTINUATION_START: Final = 60.0
CONTINUATION_FACTOR: Final = 2.5


@dataclass(frozen=True)
class Reference:
    """One solved case: total drop over ``length`` D in rho U^2, and what it took."""

    dp: float
    length: float
    outlet: float
    ndof: int
    newton: int


class NotConvergedError(Exception):
    """Newton did not converge; the case is left out of the set."""


def outlet_length(shape: Shape, re: float) -> float:
    """Straight run behind the lesion in D, long enough for the jet to decay."""
    worst = max(shape.severity, shape.second)
    return float(np.clip(2.0 + 0.06 * re / (1.0 - worst), 6.0, 25.0))


def stations(shape: Shape, outlet: float) -> FloatArray:
    """Axial mesh nodes in D; the lesion starts at ``INLET``."""
    worst = max(shape.severity, shape.second)
    nodes = int(max(24, 14.0 * shape.extent / np.sqrt(1.0 - worst)))
    start, end = INLET, INLET + shape.extent
    near = min(NEAR, outlet)
    parts = [
        np.linspace(0.0, start, INLET_CELLS + 1),
        np.linspace(start, end, nodes + 1),
        np.linspace(end, end + near, NEAR_CELLS + 1),
        end + near + (outlet - near) * np.linspace(0.0, 1.0, FAR_CELLS + 1) ** 1.4,
    ]
    return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])


def solve_reference(shape: Shape, re: float, radial_cells: int = RADIAL_CELLS) -> Reference:
    """Solve one case; raises :class:`NotConvergedError`."""
    outlet = outlet_length(shape, re)
    x = stations(shape, outlet)
    eta = 1.0 - (1.0 - np.linspace(0.0, 1.0, radial_cells + 1)) ** 1.25
    mesh = skfem.MeshTri.init_tensor(x, eta)
    length = float(x[-1])
    radius = shape.radius(mesh.p[0] - INLET)
    flow = _Flow(skfem.MeshTri(np.vstack([mesh.p[0], mesh.p[1] * radius]), mesh.t), length)
    steps = [re]
    while steps[0] > CONTINUATION_START:
        steps.insert(0, max(steps[0] / CONTINUATION_FACTOR, CONTINUATION_START))
    state, newton = flow.start(), 0
    for step in steps:
        state, used = flow.newton(state, 1.0 / step)
        newton += used
    return Reference(flow.drop(state), length, outlet, len(state), newton)


class _Flow:
    """Discrete problem on one mesh."""

    def __init__(self, mesh: Any, length: float) -> None:
        velocity = skfem.ElementVector(skfem.ElementTriP2())
        self.u = skfem.Basis(mesh, velocity, intorder=5)
        self.p = self.u.with_element(skfem.ElementTriP1())
        self.viscous = skfem.BilinearForm(_viscous).assemble(self.u)
        self.coupling = -skfem.BilinearForm(_continuity).assemble(self.u, self.p)
        facets = mesh.facets_satisfying(lambda x: x[0] < 1e-12, boundaries_only=True)
        ends = mesh.facets_satisfying(lambda x: x[0] > length - 1e-12, boundaries_only=True)
        axis = mesh.facets_satisfying(lambda x: x[1] < 1e-12, boundaries_only=True)
        outer = np.setdiff1d(mesh.boundary_facets(), np.concatenate([facets, ends, axis]))
        inlet = self.u.get_dofs(facets)
        wall = self.u.get_dofs(outer)
        on_axis = self.u.get_dofs(axis).all(["u^2"])
        self.fixed = np.unique(np.concatenate([inlet.all(), wall.all(), on_axis]))
        self.values = np.zeros(self.u.N + self.p.N)
        along = inlet.all(["u^1"])
        self.values[along] = 2.0 * (1.0 - 4.0 * self.u.doflocs[1, along] ** 2)
        self.values[wall.all()] = 0.0
        self.free = np.setdiff1d(np.arange(len(self.values)), self.fixed)
        self._ends = [
            skfem.FacetBasis(mesh, skfem.ElementTriP1(), facets=where, intorder=4) for where in (facets, ends)
        ]

    def start(self) -> FloatArray:
        """Rest, with the boundary values in place."""
        return self.values.copy()

    def newton(self, state: FloatArray, nu: float) -> tuple[FloatArray, int]:
        """Newton at kinematic viscosity ``nu`` from ``state``; returns the new state and the count."""
        state = state.copy()
        n_u = self.u.N
        for count in range(1, NEWTON_LIMIT + 1):
            field = self.u.interpolate(state[:n_u])
            transport = skfem.BilinearForm(_transport).assemble(self.u, w=field)
            known = skfem.LinearForm(_transport_of).assemble(self.u, w=field)
            top = nu * self.viscous
            matrix = csc_matrix(bmat([[top + transport, self.coupling.T], [self.coupling, None]], format="csc"))
            steady = csr_matrix(bmat([[top, self.coupling.T], [self.coupling, None]]))
            residual = -np.asarray(steady @ state)
            residual[:n_u] -= known
            step = splu(matrix[self.free][:, self.free]).solve(residual[self.free])
            state[self.free] += step
            if np.abs(step[self.free < n_u]).max() < NEWTON_TOLERANCE:
                return state, count
            if not np.isfinite(step).all():
                break
        raise NotConvergedError

    def drop(self, state: FloatArray) -> float:
        """Mean inlet pressure minus mean outlet pressure, weighted by r."""
        pressure = state[self.u.N :]
        means = []
        for basis in self._ends:
            field = basis.interpolate(pressure)
            means.append(
                skfem.Functional(_weighted).assemble(basis, p=field) / skfem.Functional(_weight).assemble(basis)
            )
        return float(means[0] - means[1])


def _viscous(u: Any, v: Any, w: Any) -> Any:
    r = w.x[1]
    return ddot(grad(u), grad(v)) * r + u[1] * v[1] / r


def _continuity(u: Any, q: Any, w: Any) -> Any:
    return q * (w.x[1] * div(u) + u[1])


def _transport(u: Any, v: Any, w: Any) -> Any:
    r = w.x[1]
    by_known = np.einsum("j...,ij...->i...", w["w"], grad(u))
    by_unknown = np.einsum("j...,ij...->i...", u, grad(w["w"]))
    return dot(by_known + by_unknown, v) * r


def _transport_of(v: Any, w: Any) -> Any:
    carried = np.einsum("j...,ij...->i...", w["w"], grad(w["w"]))
    return dot(carried, v) * w.x[1]


def _weighted(w: Any) -> Any:
    return w["p"] * w.x[1]


def _weight(w: Any) -> Any:
    return w.x[1]
