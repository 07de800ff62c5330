"""Files that users of svZeroDSolver know: its result table, and its input written from a solved tree."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.science.engine import Solution
from wetread.ffrct.science.svzerod import SvZeroDSolution

from .disclaimer import FFR_DISCLAIMER

COLUMNS = ("name", "time", "flow_in", "flow_out", "pressure_in", "pressure_out")


def result_csv(solution: SvZeroDSolution) -> str:
    """Result table with one time point (0); flows and pressures in the units of the input."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, flow, upstream, downstream in zip(
        solution.names, solution.flow, solution.pressure_in, solution.pressure_out, strict=True
    ):
        writer.writerow([name, 0.0, *(repr(float(v)) for v in (flow, flow, upstream, downstream))])
    return text.getvalue()


def network_result(solution: SvZeroDSolution, *, pulsatile_mean: bool) -> dict[str, Any]:
    """Answer to a ``network`` request: per vessel flow and pressures in the file's units, head ratios."""
    roots = float(np.max(solution.pressure_in))
    return {
        "schema": "wetread.ffr.network-result/1",
        "disclaimer": f"{RUO_STATEMENT} {FFR_DISCLAIMER}",
        "flags": ["mean_of_pulsatile_borders"] if pulsatile_mean else [],
        "vessels": [
            {
                "name": name,
                "q": float(flow),
                "p_in": float(upstream),
                "p_out": float(downstream),
                "ffr_head_in": float(upstream) / roots if roots > 0.0 else None,
                "ffr_head_out": float(downstream) / roots if roots > 0.0 else None,
            }
            for name, flow, upstream, downstream in zip(
                solution.names, solution.flow, solution.pressure_in, solution.pressure_out, strict=True
            )
        ],
        "solver": {"iterations": solution.iterations, "residual": solution.residual},
    }


def input_document(solution: Solution, kt: float) -> dict[str, Any]:
    """The analytic network of a solved tree as svZeroDSolver input (SI units), Kt as given.

    Closed branches are left out with everything behind them; a branch that leads nowhere is too.
    """
    model, bc = solution.model, solution.bc
    leads_on = model.path[model.open_outlets].sum(axis=0) > 0.0
    kept = [int(b) for b in np.flatnonzero(leads_on)]
    outlet_of = {int(branch): row for row, branch in enumerate(model.outlets)}
    vessels = []
    borders: list[dict[str, Any]] = [_inlet(solution)]
    for branch in kept:
        ends: dict[str, str] = {}
        if model.parents[branch] < 0:
            ends["inlet"] = "INLET"
        if branch in outlet_of:
            row = outlet_of[branch]
            ends["outlet"] = f"OUT{branch}"
            values = {"R": float(bc.outlet_resistance[row]), "Pd": float(bc.outlet_pressure[row])}
            borders.append({"bc_name": f"OUT{branch}", "bc_type": "RESISTANCE", "bc_values": values})
        vessels.append(
            {
                "vessel_id": branch,
                "vessel_name": f"branch{branch}_seg0",
                "vessel_length": float(model.tree.branches[branch].s_m[-1]),
                "zero_d_element_type": "BloodVessel",
                "zero_d_element_values": {
                    "R_poiseuille": float(model.resistance[branch]),
                    "stenosis_coefficient": kt * float(model.expansion[branch]),
                },
                **({"boundary_conditions": ends} if ends else {}),
            }
        )
    return {
        "description": {"text": f"{RUO_STATEMENT} {FFR_DISCLAIMER} SI units."},
        "simulation_parameters": {
            "number_of_cardiac_cycles": 2,
            "number_of_time_pts_per_cardiac_cycle": 5,
            "absolute_tolerance": 1e-9,
        },
        "boundary_conditions": borders,
        "vessels": vessels,
        "junctions": _junctions(solution, kept),
    }


def _inlet(solution: Solution) -> dict[str, Any]:
    flow, pressure = solution.bc.inlet_flow_m3_s, solution.bc.inlet_pressure_pa
    kind, key, value = ("FLOW", "Q", flow) if flow is not None else ("PRESSURE", "P", pressure)
    return {"bc_name": "INLET", "bc_type": kind, "bc_values": {key: [value, value], "t": [0.0, 1.0]}}


def _junctions(solution: Solution, kept: list[int]) -> list[dict[str, Any]]:
    parents = solution.model.parents
    junctions: list[dict[str, Any]] = []
    for branch in kept:
        daughters = [d for d in kept if parents[d] == branch]
        if daughters:
            junctions.append(
                {
                    "junction_name": f"J{len(junctions)}",
                    "junction_type": "NORMAL_JUNCTION" if len(daughters) > 1 else "internal_junction",
                    "inlet_vessels": [branch],
                    "outlet_vessels": daughters,
                }
            )
    return junctions
