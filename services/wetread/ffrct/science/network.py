"""Exact steady flow in a tree of vessels: Newton on a strictly convex energy, one or many at once.

Unknowns are the outlet flows q; vessel flows are Q = B' q, so mass is conserved by construction.
F(q) = (P_in - P_d) - B dp(Q) - R_o q is minus the gradient of a strictly convex function, its Jacobian is
symmetric positive definite, and the solution exists and is unique.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .laws import VesselLaws
from .topology import path_matrix
from .tree import BoolArray, FloatArray, IntArray

TOLERANCE: Final = 1e-10
MAX_ITERATIONS: Final = 50
MAX_HALVINGS: Final = 20


@dataclass(frozen=True)
class Network:
    """One tree as numbers (SI). Outlets in the order of ``topology.outlets_of(parents)``.

    ``inlet_pressure`` in Pa is common to all roots; exactly one of it and ``inlet_flow`` (m3/s) is set,
    and a flow inlet has one root.
    """

    parents: IntArray
    resistance: FloatArray
    quadratic: FloatArray
    outlet_resistance: FloatArray
    outlet_pressure: FloatArray
    inlet_pressure: float | None = None
    inlet_flow: float | None = None


@dataclass(frozen=True)
class Rows:
    """Systems of equal size to be solved together; ``path`` may have one row for all.

    Shapes: ``path`` (1 or n, n_o, n_v), ``outlet_*`` (n, n_o), ``inlet`` (n,); ``valid`` (n, n_o) is
    False for outlets that only pad. ``inlet`` is a pressure (Pa), or a flow (m3/s) if ``flow_inlet``.
    """

    path: FloatArray
    laws: VesselLaws
    outlet_resistance: FloatArray
    outlet_pressure: FloatArray
    inlet: FloatArray
    valid: BoolArray
    flow_inlet: bool = False


@dataclass(frozen=True)
class RowsSolution:
    """Flows in m3/s and pressures in Pa: ``outlet_flow`` (n, n_o), ``flow`` (n, n_v), the rest (n,)."""

    outlet_flow: FloatArray
    flow: FloatArray
    inlet_pressure: FloatArray
    residual: FloatArray
    iterations: IntArray
    converged: BoolArray


def solve_rows(rows: Rows) -> RowsSolution:
    """Solve every row to a residual of 1e-10 of its driving pressure; converged rows are frozen."""
    q = np.asarray(_start(rows), dtype=np.float64)
    count = len(q)
    pressure: FloatArray = np.zeros(count) if rows.flow_inlet else rows.inlet.astype(np.float64)
    residual = np.full(count, np.inf)
    iterations = np.zeros(count, dtype=np.int64)
    active = np.arange(count)
    for sweep in range(MAX_ITERATIONS + 1):
        part = _select(rows, active)
        force, slope, energy = _balance(part, q[active])
        jacobian = np.matmul(part.path * slope[:, None, :], np.swapaxes(part.path, -1, -2))
        diagonal = np.arange(q.shape[1])
        jacobian[:, diagonal, diagonal] += part.outlet_resistance
        if rows.flow_inlet:
            pressure[active], step = _flow_step(part, q[active], force, jacobian)
            force = np.where(part.valid, force + pressure[active, None], 0.0)
        else:
            step = np.asarray(np.linalg.solve(jacobian, force[..., None])[..., 0], dtype=np.float64)
        residual[active] = _relative(force, pressure[active], part)
        iterations[active] = sweep
        going = residual[active] > TOLERANCE
        if not going.any() or sweep == MAX_ITERATIONS:
            break
        q[active[going]] = _halved(_select(part, going), q[active[going]], step[going], energy[going])
        active = active[going]
    flow = np.matmul(q[:, None, :], rows.path)[:, 0, :]
    return RowsSolution(q, flow, pressure, residual, iterations, residual <= TOLERANCE)


def _relative(force: FloatArray, pressure: FloatArray, rows: Rows) -> FloatArray:
    """Largest force of each row over its driving pressure (n,); absolute where nothing drives."""
    lowest = np.where(rows.valid, rows.outlet_pressure, np.inf).min(axis=1)
    scale = np.abs(pressure - lowest)
    worst = np.abs(force).max(axis=1)
    return np.asarray(np.where(scale > 0.0, worst / np.where(scale > 0.0, scale, 1.0), worst))


def _select(rows: Rows, which: IntArray | BoolArray) -> Rows:
    return Rows(
        path=rows.path if len(rows.path) == 1 else rows.path[which],
        laws=rows.laws.rows(which),
        outlet_resistance=rows.outlet_resistance[which],
        outlet_pressure=rows.outlet_pressure[which],
        inlet=rows.inlet[which],
        valid=rows.valid[which],
        flow_inlet=rows.flow_inlet,
    )


def _start(rows: Rows) -> FloatArray:
    """Flow that each outlet would draw if flow split everywhere as the outlet conductances do.

    Its own path is then a scalar quadratic, so a tight lesion on the trunk does not cost halvings.
    """
    own = rows.outlet_resistance + np.matmul(rows.path, rows.laws.resistance[..., None])[..., 0]
    # A path may have a quadratic loss only: the floor keeps its share finite.
    floor = np.where(own.max(axis=1) > 0.0, own.max(axis=1), 1.0)[:, None] * 1e-12
    weight = np.where(rows.valid, 1.0 / np.maximum(own, floor), 0.0)
    if rows.flow_inlet:
        return np.asarray(weight / weight.sum(axis=1, keepdims=True) * rows.inlet[:, None])
    through = np.matmul(weight[:, None, :], rows.path)[:, 0, :]
    share = through[:, None, :] / np.where(rows.valid, weight, 1.0)[..., None]
    linear = rows.outlet_resistance + np.einsum("nov,nv->no", rows.path * share, rows.laws.resistance)
    square = np.einsum("nov,nv->no", rows.path * share**2, rows.laws.quadratic)
    drive = rows.inlet[:, None] - rows.outlet_pressure
    root = np.sqrt(linear**2 + 4.0 * square * np.abs(drive))
    return np.asarray(np.where(rows.valid, 2.0 * drive / (linear + root), 0.0), dtype=np.float64)


def _balance(rows: Rows, q: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Force F (n, n_o) without an unknown inlet pressure, vessel slopes (n, n_v) and energy (n,)."""
    flow = np.matmul(q[:, None, :], rows.path)[:, 0, :]
    drop, slope, stored = rows.laws.evaluate(flow)
    drive = -rows.outlet_pressure
    if not rows.flow_inlet:
        drive = rows.inlet[:, None] + drive
    lost = np.matmul(rows.path, drop[..., None])[..., 0]
    force = np.where(rows.valid, drive - lost - rows.outlet_resistance * q, 0.0)
    outlet = np.where(rows.valid, 0.5 * rows.outlet_resistance * q**2 - drive * q, 0.0)
    return force, slope, stored.sum(axis=1) + outlet.sum(axis=1)


def _flow_step(rows: Rows, q: FloatArray, force: FloatArray, jacobian: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Inlet pressure (n,) and step (n, n_o) that keep the sum of the outlet flows at the inlet flow."""
    sides = np.stack([force, rows.valid.astype(np.float64)], axis=-1)
    solved = np.linalg.solve(jacobian, sides)
    along, unit = solved[..., 0], solved[..., 1]
    inlet = (rows.inlet - (q + along).sum(axis=1)) / unit.sum(axis=1)
    return inlet, along + unit * inlet[:, None]


def _halved(rows: Rows, q: FloatArray, step: FloatArray, energy: FloatArray) -> FloatArray:
    """Take the Newton step, halved per row until the energy does not rise."""
    size = np.ones(len(q))
    floor = 1e-12 * np.abs(energy)
    for _ in range(MAX_HALVINGS):
        _, _, trial = _balance(rows, q + size[:, None] * step)
        rising = trial > energy + floor
        if not rising.any():
            break
        size[rising] *= 0.5
    return q + size[:, None] * step


def solve_network(network: Network) -> RowsSolution:
    """Solve one network; arrays of the solution have one row."""
    path = path_matrix(network.parents)
    inlet = network.inlet_flow if network.inlet_pressure is None else network.inlet_pressure
    return solve_rows(
        Rows(
            path=path[None],
            laws=VesselLaws(network.resistance[None], network.quadratic[None]),
            outlet_resistance=network.outlet_resistance[None],
            outlet_pressure=network.outlet_pressure[None],
            inlet=np.array([inlet], dtype=np.float64),
            valid=np.ones((1, len(path)), dtype=bool),
            flow_inlet=network.inlet_pressure is None,
        )
    )


def solve_networks(networks: Sequence[Network]) -> list[RowsSolution]:
    """Solve many networks of any shape; each answer is as from :func:`solve_network`.

    Networks are grouped by kind of inlet and by outlet count rounded up to a multiple of four, and
    padded inside a group with outlets that carry nothing.
    """
    groups: dict[tuple[bool, int], list[int]] = {}
    paths = [path_matrix(network.parents) for network in networks]
    for which, network in enumerate(networks):
        bucket = -(-len(paths[which]) // 4) * 4
        groups.setdefault((network.inlet_pressure is None, bucket), []).append(which)
    answers: dict[int, RowsSolution] = {}
    for (flow_inlet, _), members in groups.items():
        solved = solve_rows(_pad([networks[i] for i in members], [paths[i] for i in members], flow_inlet=flow_inlet))
        for row, which in enumerate(members):
            n_outlets, n_vessels = paths[which].shape
            answers[which] = RowsSolution(
                solved.outlet_flow[row : row + 1, :n_outlets],
                solved.flow[row : row + 1, :n_vessels],
                solved.inlet_pressure[row : row + 1],
                solved.residual[row : row + 1],
                solved.iterations[row : row + 1],
                solved.converged[row : row + 1],
            )
    return [answers[which] for which in range(len(networks))]


def _pad(networks: Sequence[Network], paths: Sequence[FloatArray], *, flow_inlet: bool) -> Rows:
    count = len(networks)
    n_outlets = max(len(path) for path in paths)
    n_vessels = max(path.shape[1] for path in paths)
    path = np.zeros((count, n_outlets, n_vessels))
    resistance, quadratic = np.zeros((count, n_vessels)), np.zeros((count, n_vessels))
    outlet_resistance, outlet_pressure = np.ones((count, n_outlets)), np.zeros((count, n_outlets))
    valid = np.zeros((count, n_outlets), dtype=bool)
    inlet = np.zeros(count)
    for row, (network, own) in enumerate(zip(networks, paths, strict=True)):
        o, v = own.shape
        path[row, :o, :v] = own
        resistance[row, :v], quadratic[row, :v] = network.resistance, network.quadratic
        outlet_resistance[row, :o] = network.outlet_resistance
        outlet_pressure[row, :o] = network.outlet_pressure
        valid[row, :o] = True
        given = network.inlet_flow if flow_inlet else network.inlet_pressure
        inlet[row] = np.nan if given is None else given
    return Rows(
        path,
        VesselLaws(resistance, quadratic),
        outlet_resistance,
        outlet_pressure,
        inlet,
        valid,
        flow_inlet,
    )


def vessel_pressures(parents: IntArray, inlet_pressure: FloatArray, drop: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Head at both ends of every vessel, (n, n_vessels) each, from drops (n, n_vessels) in Pa.

    Parents must come before their daughters.
    """
    upstream = np.empty_like(drop)
    downstream = np.empty_like(drop)
    for vessel, parent in enumerate(parents):
        upstream[:, vessel] = inlet_pressure if parent < 0 else downstream[:, parent]
        downstream[:, vessel] = upstream[:, vessel] - drop[:, vessel]
    return upstream, downstream
