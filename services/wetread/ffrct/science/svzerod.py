"""The steady subset of svZeroDSolver input: what its vessels, junctions and borders mean for the solver.

Numbers keep the file's own units. Read are BloodVessel (R_poiseuille, stenosis_coefficient; C and L do
nothing in a steady state), NORMAL_JUNCTION, internal_junction, BloodVesselJunction, and the borders FLOW
and PRESSURE (inlet), RESISTANCE, PRESSURE, RCR and CORONARY (outlet). A pulsatile border is taken at its
mean over the period, which is exact for linear networks only and is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .laws import VesselLaws
from .network import Network, solve_network, vessel_pressures
from .problems import Problem
from .topology import orient_edges, outlets_of, path_matrix
from .tree import FloatArray

_PLAIN_JUNCTIONS: Final = ("NORMAL_JUNCTION", "internal_junction")


@dataclass(frozen=True)
class SvZeroDNetwork:
    """A network from a file: ``names`` of its vessels (the first of ``network``; junction losses follow)."""

    names: tuple[str, ...]
    network: Network
    pulsatile_mean: bool


@dataclass(frozen=True)
class SvZeroDSolution:
    """Steady state per named vessel (n,) in the file's units; ``residual`` relative, ``iterations`` Newton's."""

    names: tuple[str, ...]
    flow: FloatArray
    pressure_in: FloatArray
    pressure_out: FloatArray
    residual: float
    iterations: int


class _RefusedError(Exception):
    """Carries a problem out of the nested reading below; never leaves this module."""

    def __init__(self, code: str, pointer: str, advice: str) -> None:
        super().__init__(advice)
        self.problem = Problem(code, pointer, advice)


def read_svzerod(document: Mapping[str, Any]) -> SvZeroDNetwork | Problem:
    """Turn a parsed input file into a network, or say what it holds that a steady tree cannot."""
    try:
        return _read(document)
    except _RefusedError as refused:
        return refused.problem
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return Problem("schema_invalid", "/network", f"not an svZeroDSolver input: {type(error).__name__} {error}")


@dataclass(frozen=True)
class _Edges:
    """Vessels as edges between nodes, with their coefficients; junction losses are appended."""

    tails: list[str]
    heads: list[str]
    resistance: list[float]
    quadratic: list[float]


def _read(document: Mapping[str, Any]) -> SvZeroDNetwork:
    vessels: Sequence[Mapping[str, Any]] = document["vessels"]
    names = [str(vessel["vessel_name"]) for vessel in vessels]
    by_id = {vessel["vessel_id"]: number for number, vessel in enumerate(vessels)}
    by_name = {name: number for number, name in enumerate(names)}
    edges = _Edges([f"in:{i}" for i in range(len(vessels))], [f"out:{i}" for i in range(len(vessels))], [], [])
    for number, vessel in enumerate(vessels):
        kind = vessel.get("zero_d_element_type", "BloodVessel")
        if kind != "BloodVessel":
            advice = f"element type {kind} is not a vessel of the steady solver"
            raise _RefusedError("tier_unavailable", f"/network/vessels/{number}", advice)
        values = vessel["zero_d_element_values"]
        edges.resistance.append(float(values.get("R_poiseuille", 0.0)))
        edges.quadratic.append(float(values.get("stenosis_coefficient", 0.0)))
    for number, junction in enumerate(document.get("junctions", ())):
        inlets = _members(junction, "inlet", by_id, by_name)
        outlets = _members(junction, "outlet", by_id, by_name)
        _connect(edges, junction, number, inlets, outlets)
    parents = orient_edges(edges.tails, edges.heads, "/network/junctions")
    if isinstance(parents, Problem):
        raise _RefusedError(parents.code, parents.pointer, parents.advice)
    borders = {str(bc["bc_name"]): bc for bc in document["boundary_conditions"]}
    ends = [vessel.get("boundary_conditions") or {} for vessel in vessels]
    roots = [number for number in range(len(parents)) if parents[number] < 0]
    inlet = _inlet(borders, ends, roots)
    outlets_at = [int(number) for number in outlets_of(parents)]
    rest = [_outlet(borders, ends[number], number) for number in outlets_at]
    return SvZeroDNetwork(
        names=tuple(names),
        network=Network(
            parents=parents,
            resistance=np.array(edges.resistance),
            quadratic=np.array(edges.quadratic),
            outlet_resistance=np.array([item[0] for item in rest]),
            outlet_pressure=np.array([item[1] for item in rest]),
            inlet_pressure=inlet[1] if inlet[0] == "PRESSURE" else None,
            inlet_flow=inlet[1] if inlet[0] == "FLOW" else None,
        ),
        pulsatile_mean=inlet[2] or any(item[2] for item in rest),
    )


def _members(junction: Mapping[str, Any], side: str, by_id: Mapping[Any, int], by_name: Mapping[str, int]) -> list[int]:
    """Vessel numbers on one side of a junction, named by id or by block name."""
    if f"{side}_vessels" in junction:
        return [by_id[item] for item in junction[f"{side}_vessels"]]
    return [by_name[str(item)] for item in junction[f"{side}_blocks"]]


def _connect(edges: _Edges, junction: Mapping[str, Any], number: int, inlets: list[int], outlets: list[int]) -> None:
    """Join vessels at a node; a junction with losses puts a vessel of its own before every outlet."""
    kind = junction.get("junction_type", "NORMAL_JUNCTION")
    pointer = f"/network/junctions/{number}"
    if len(inlets) != 1:
        raise _RefusedError("tree_cyclic", pointer, "a junction of a tree has one inlet: loops are refused")
    node = edges.heads[inlets[0]]
    if kind in _PLAIN_JUNCTIONS:
        for outlet in outlets:
            edges.tails[outlet] = node
        return
    if kind != "BloodVesselJunction":
        raise _RefusedError("tier_unavailable", pointer, f"junction type {kind} is not in the steady solver")
    values = junction["junction_values"]
    stenosis = values.get("stenosis_coefficient", [0.0] * len(outlets))
    for outlet, resistance, coefficient in zip(outlets, values["R_poiseuille"], stenosis, strict=True):
        edges.tails.append(node)
        edges.heads.append(f"{pointer}:{outlet}")
        edges.tails[outlet] = edges.heads[-1]
        edges.resistance.append(float(resistance))
        edges.quadratic.append(float(coefficient))


def _mean(values: Mapping[str, Any], key: str) -> tuple[float, bool]:
    """Mean of a border value over its period, and whether it changes."""
    given = np.atleast_1d(np.asarray(values[key], dtype=np.float64))
    if not np.isfinite(given).all():
        raise ValueError(f"{key} is not finite")
    steady = float(np.ptp(given)) <= 1e-12 * max(1.0, float(np.abs(given).max()))
    if len(given) == 1 or steady:
        return float(given[0]), False
    time = np.asarray(values["t"], dtype=np.float64)
    return float(np.trapezoid(given, time) / (time[-1] - time[0])), True


def _inlet(borders: Mapping[str, Any], ends: Sequence[Mapping[str, Any]], roots: list[int]) -> tuple[str, float, bool]:
    found = []
    for root in roots:
        pointer = f"/network/vessels/{root}/boundary_conditions/inlet"
        if "inlet" not in ends[root]:
            raise _RefusedError("bc_invalid", pointer, "a vessel without a parent needs an inlet")
        border = borders[ends[root]["inlet"]]
        kind = str(border["bc_type"])
        if kind not in {"FLOW", "PRESSURE"}:
            raise _RefusedError("bc_invalid", pointer, f"{kind} is not an inlet of the steady solver")
        value, changes = _mean(border["bc_values"], "Q" if kind == "FLOW" else "P")
        found.append((kind, value, changes))
    if len({item[:2] for item in found}) > 1 or (len(found) > 1 and found[0][0] == "FLOW"):
        raise _RefusedError("bc_invalid", "/network", "several inlets must share one pressure")
    return found[0]


def _outlet(borders: Mapping[str, Any], ends: Mapping[str, Any], number: int) -> tuple[float, float, bool]:
    """Steady resistance and distal pressure of an outlet."""
    pointer = f"/network/vessels/{number}/boundary_conditions/outlet"
    if "outlet" not in ends:
        raise _RefusedError("bc_invalid", pointer, "a vessel without a daughter needs an outlet")
    border = borders[ends["outlet"]]
    kind, values = str(border["bc_type"]), border["bc_values"]
    resistors = {"RESISTANCE": ("R",), "RCR": ("Rp", "Rd"), "CORONARY": ("Ra1", "Ra2", "Rv1"), "PRESSURE": ()}
    distal = {"RESISTANCE": "Pd", "RCR": "Pd", "CORONARY": "P_v", "PRESSURE": "P"}
    if kind not in resistors:
        raise _RefusedError("bc_invalid", pointer, f"{kind} is not an outlet of the steady solver")
    parts = [_mean(values, key) for key in (*resistors[kind], distal[kind])]
    return sum(part[0] for part in parts[:-1]), parts[-1][0], any(part[1] for part in parts)


def solve_svzerod(case: SvZeroDNetwork) -> SvZeroDSolution | Problem:
    """Solve the steady state of a network that was read from a file."""
    network = case.network
    positive = np.concatenate([network.resistance, network.quadratic, network.outlet_resistance])
    if not bool(np.isfinite(positive).all() and (positive >= 0.0).all()):
        return Problem("bc_invalid", "/network", "resistances and coefficients are finite and not negative")
    path = path_matrix(network.parents)
    unhindered = network.outlet_resistance + path @ (network.resistance + network.quadratic) == 0.0
    if bool(unhindered.any()):
        return Problem("bc_invalid", "/network", "an outlet without any resistance on its way has no unique flow")
    try:
        solved = solve_network(network)
    except np.linalg.LinAlgError:
        return Problem("bc_invalid", "/network", "the resistances leave the split of flow open")
    if not bool(solved.converged[0]):
        return Problem("solver_diverged", "/network", "Newton's method did not converge")
    laws = VesselLaws(network.resistance[None], network.quadratic[None])
    drop, _, _ = laws.evaluate(solved.flow)
    upstream, downstream = _pressures(network, solved.inlet_pressure, drop)
    named = slice(0, len(case.names))
    return SvZeroDSolution(
        case.names,
        solved.flow[0, named],
        upstream[named],
        downstream[named],
        float(solved.residual[0]),
        int(solved.iterations[0]),
    )


def _pressures(network: Network, inlet: FloatArray, drop: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pressures in the file's vessel order; the walk needs parents first, the file need not have them so."""
    depth = np.zeros(len(network.parents), dtype=np.int64)
    for vessel in range(len(depth)):
        current = int(network.parents[vessel])
        while current >= 0:
            depth[vessel] += 1
            current = int(network.parents[current])
    order = [int(v) for v in np.argsort(depth, kind="stable")]
    place = {vessel: position for position, vessel in enumerate(order)}
    parents = np.array([place.get(int(network.parents[v]), -1) for v in order], dtype=np.int64)
    upstream, downstream = vessel_pressures(parents, inlet, drop[:, order])
    back = np.argsort(order)
    return upstream[0, back], downstream[0, back]
