"""Reading svZeroDSolver files: every steady case equals its closed form and the peer's stored result."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wetread.ffrct.outputs.svzerod import COLUMNS, result_csv
from wetread.ffrct.science.problems import Problem
from wetread.ffrct.science.svzerod import SvZeroDNetwork, SvZeroDSolution, read_svzerod, solve_svzerod

# Flow, pressure in, pressure out per vessel, from the closed forms written in the files.
CLOSED_FORMS = {
    "steadyFlow_R_R": [(5.0, 1100.0, 600.0)],
    "steadyFlow_RLC_R": [(5.0, 1100.0, 600.0)],
    "steadyFlow_stenosis_R": [(5.0, 3600.0, 600.0)],
    "steadyFlow_R_coronary": [(5.0, 2000.0, 1500.0)],
    "steadyFlow_bifurcationR_R1": [(5.0, 1100.0, 600.0), (2.5, 600.0, 350.0), (2.5, 600.0, 350.0)],
    "steadyFlow_bifurcationR_R2": [(5.0, 3462.5, 1962.5), (3.825, 1962.5, 432.5), (1.175, 1962.5, 1375.0)],
    "steadyFlow_blood_vessel_junction": [(5.0, 3462.5, 1962.5), (3.825, 1580.0, 432.5), (1.175, 1727.5, 1375.0)],
}


def load(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "coronary-flow" / "svzerod" / f"{name}.json").read_text())


def network(document: dict[str, Any]) -> SvZeroDNetwork:
    case = read_svzerod(document)
    assert isinstance(case, SvZeroDNetwork), case
    return case


def solved(document: dict[str, Any]) -> SvZeroDSolution:
    solution = solve_svzerod(network(document))
    assert isinstance(solution, SvZeroDSolution), solution
    return solution


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_steady_case_equals_its_closed_form(shared: Path, name: str) -> None:
    answer = solved(load(shared, name))
    computed = np.column_stack([answer.flow, answer.pressure_in, answer.pressure_out])
    np.testing.assert_allclose(computed, CLOSED_FORMS[name], rtol=1e-8)
    assert answer.iterations <= 8
    assert answer.residual <= 1e-10


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_steady_case_equals_the_stored_result_of_the_peer(shared: Path, name: str) -> None:
    answer = solved(load(shared, name))
    table = load(shared, f"results/result_{name}")
    last = {table["name"][key]: key for key in sorted(table["name"], key=int)}
    assert set(last) == set(answer.names)
    for row, vessel in enumerate(answer.names):
        peer = [table[column][last[vessel]] for column in ("flow_in", "flow_out", "pressure_in", "pressure_out")]
        own = [answer.flow[row], answer.flow[row], answer.pressure_in[row], answer.pressure_out[row]]
        np.testing.assert_allclose(own, peer, rtol=1e-8)


def test_block_names_parse_to_the_same_network(shared: Path) -> None:
    by_id = network(load(shared, "steadyFlow_bifurcationR_R1"))
    by_name = network(load(shared, "steadyFlow_bifurcationR_R1_blockNames"))
    assert by_id.names == by_name.names
    for field in ("parents", "resistance", "quadratic", "outlet_resistance", "outlet_pressure"):
        np.testing.assert_array_equal(getattr(by_id.network, field), getattr(by_name.network, field))


def test_defined_period_parses_to_the_same_network(shared: Path) -> None:
    name = "pulsatileFlow_CStenosis_steadyPressure"
    plain, defined = network(load(shared, name)), network(load(shared, f"{name}_definedPeriod"))
    assert plain.network.inlet_flow == defined.network.inlet_flow
    np.testing.assert_array_equal(plain.network.quadratic, defined.network.quadratic)


def test_pulsatile_coronary_means_equal_the_steady_network(shared: Path) -> None:
    answer = solved(load(shared, "pulsatileFlow_R_coronary"))
    assert network(load(shared, "pulsatileFlow_R_coronary")).pulsatile_mean
    # The file gives the inflow to five digits of its mean over a sampled sine.
    np.testing.assert_allclose([answer.flow[0], answer.pressure_in[0], answer.pressure_out[0]], [2.2, 880.0, 660.0],
                               rtol=1e-6)  # fmt: skip


def test_loss_law_holds_in_both_directions_of_flow(shared: Path) -> None:
    """Stored pulsatile result: P_in = Q_out |Q_out| + 0.1, the steady law at every instant."""
    case = network(load(shared, "pulsatileFlow_CStenosis_steadyPressure"))
    table = load(shared, "results/result_pulsatileFlow_CStenosis_steadyPressure")
    flow = np.array([table["flow_out"][key] for key in table["flow_out"]])
    pressure = np.array([table["pressure_in"][key] for key in table["pressure_in"]])
    assert flow.min() < -0.9 < 0.9 < flow.max()
    n = case.network
    steady = n.quadratic[0] * flow * np.abs(flow) + n.resistance[0] * flow + n.outlet_pressure[0]
    assert np.abs(steady - pressure).max() <= 0.0033


def test_result_table_has_the_columns_of_the_peer(shared: Path) -> None:
    answer = solved(load(shared, "steadyFlow_bifurcationR_R2"))
    rows = list(csv.reader(io.StringIO(result_csv(answer))))
    assert tuple(rows[0]) == COLUMNS == ("name", "time", "flow_in", "flow_out", "pressure_in", "pressure_out")
    assert [row[0] for row in rows[1:]] == ["branch0_seg0", "branch1_seg0", "branch2_seg0"]
    np.testing.assert_allclose([float(v) for v in rows[2][1:]], [0.0, 3.825, 3.825, 1962.5, 432.5])


def minimal(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "boundary_conditions": [
            {"bc_name": "IN", "bc_type": "PRESSURE", "bc_values": {"P": 1000.0}},
            {"bc_name": "OUT", "bc_type": "RCR", "bc_values": {"Rp": 40.0, "Rd": 60.0, "C": 1e-4, "Pd": 100.0}},
        ],
        "vessels": [
            {
                "vessel_id": 7,
                "vessel_name": "a",
                "zero_d_element_type": "BloodVessel",
                "zero_d_element_values": {"R_poiseuille": 50.0},
                "boundary_conditions": {"inlet": "IN", "outlet": "OUT"},
            }
        ],
    }
    return document | changes


def test_pressure_inlet_and_rcr_outlet() -> None:
    answer = solved(minimal())
    assert answer.flow[0] == pytest.approx(900.0 / 150.0, rel=1e-12)


def test_vessels_in_any_order_keep_their_own_pressures(shared: Path) -> None:
    document = load(shared, "steadyFlow_bifurcationR_R2")
    document["vessels"] = document["vessels"][::-1]
    answer = solved(document)
    assert answer.names == ("branch2_seg0", "branch1_seg0", "branch0_seg0")
    np.testing.assert_allclose(answer.pressure_in, [1962.5, 1962.5, 3462.5], rtol=1e-12)


def refusal(document: Any) -> Problem:
    found = read_svzerod(document)
    assert isinstance(found, Problem)
    return found


def test_what_a_steady_tree_cannot_hold_is_refused_by_code() -> None:
    vessel = minimal()["vessels"][0]
    other = vessel | {"vessel_id": 8, "vessel_name": "b"}
    third = vessel | {"vessel_id": 9, "vessel_name": "c"}
    loop = minimal(
        vessels=[vessel, other, third],
        junctions=[{"junction_name": "J", "inlet_vessels": [7, 8], "outlet_vessels": [9]}],
    )
    assert refusal(loop).code == "tree_cyclic"
    assert refusal(minimal(vessels=[vessel | {"zero_d_element_type": "Valve"}])).code == "tier_unavailable"
    assert refusal(minimal(vessels=[vessel | {"boundary_conditions": {"inlet": "IN"}}])).code == "bc_invalid"
    assert refusal(minimal(vessels=[vessel | {"boundary_conditions": {"outlet": "OUT"}}])).code == "bc_invalid"
    assert refusal({"vessels": "none"}).code == "schema_invalid"
    swapped = vessel | {"boundary_conditions": {"inlet": "OUT", "outlet": "IN"}}
    assert refusal(minimal(vessels=[swapped])).code == "bc_invalid"


def test_network_without_any_resistance_has_no_unique_flow() -> None:
    document = minimal()
    document["vessels"][0]["zero_d_element_values"] = {"R_poiseuille": 0.0}
    document["boundary_conditions"][1] = {"bc_name": "OUT", "bc_type": "PRESSURE", "bc_values": {"P": 0.0}}
    found = solve_svzerod(network(document))
    assert isinstance(found, Problem)
    assert found.code == "bc_invalid"


def test_vessel_with_a_quadratic_loss_only_has_a_flow() -> None:
    document = minimal()
    document["vessels"][0]["zero_d_element_values"] = {"stenosis_coefficient": 10.0}
    document["boundary_conditions"][1] = {"bc_name": "OUT", "bc_type": "PRESSURE", "bc_values": {"P": 0.0}}
    assert solved(document).flow[0] == pytest.approx(10.0, rel=1e-10)
