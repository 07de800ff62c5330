"""Arterial networks of openBF through the steady solver: topology and scale, no reference pressures exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from wetread.ffrct.science.network import Network, solve_network
from wetread.ffrct.science.problems import Problem
from wetread.ffrct.science.topology import orient_edges, outlets_of


def read(folder: Path, name: str) -> tuple[dict[str, Any], float]:
    path = folder / "coronary-flow" / "openbf" / name
    document = YAML(typ="safe").load(path.read_text())
    series = np.loadtxt(next(path.parent.glob(f"{path.stem}*_inlet.dat")))
    mean = float(np.trapezoid(series[:, 1], series[:, 0]) / (series[-1, 0] - series[0, 0]))
    return document, mean


def build(document: dict[str, Any], mean_flow: float) -> Network | Problem:
    """Friction 2 (gamma + 2) pi mu, linear taper, steady Windkessel R1 (+ R2)."""
    vessels = document["network"]
    parents = orient_edges([v["sn"] for v in vessels], [v["tn"] for v in vessels], "/network")
    if isinstance(parents, Problem):
        return parents
    resistance = []
    for vessel in vessels:
        start = float(vessel.get("Rp", vessel.get("R0")))
        end = float(vessel.get("Rd", start))
        gamma = float(vessel.get("gamma_profile", vessel.get("gamma profile", 9)))
        taper = (start**2 + start * end + end**2) / (3 * start**3 * end**3)
        resistance.append(2 * (gamma + 2) * float(document["blood"]["mu"]) / np.pi * float(vessel["L"]) * taper)
    outlets = outlets_of(parents)
    rest = [float(vessels[o].get("R1", 0.0)) + float(vessels[o].get("R2", 0.0)) for o in outlets]
    return Network(
        parents, np.array(resistance), np.zeros(len(parents)), np.array(rest), np.zeros(len(rest)), inlet_flow=mean_flow
    )


@pytest.mark.parametrize(
    ("name", "segments", "outlets"),
    [
        ("boileau2015/adan56/adan56.yaml", 77, 31),
        ("matthys2007/invitro_model.yaml", 37, 16),
        ("boileau2015/ibif/ibif.yaml", 3, 2),
        ("boileau2015/cca/cca.yaml", 1, 1),
        ("boileau2015/uta/uta.yaml", 1, 1),
    ],
)
def test_arterial_trees_solve(shared: Path, name: str, segments: int, outlets: int) -> None:
    network = build(*read(shared, name))
    assert isinstance(network, Network)
    assert len(network.parents) == segments
    assert len(network.outlet_resistance) == outlets
    solved = solve_network(network)
    assert solved.converged.all()
    assert solved.outlet_flow.sum() == pytest.approx(network.inlet_flow, rel=1e-12)
    # Mean arterial pressure of a human or a bench model: tens to two hundred mmHg.
    assert 20 < solved.inlet_pressure[0] / 133.322 < 250


def test_circle_of_willis_is_refused_as_cyclic(shared: Path) -> None:
    found = build(*read(shared, "alastruey2007/circle_of_willis.yaml"))
    assert isinstance(found, Problem)
    assert found.code == "tree_cyclic"
