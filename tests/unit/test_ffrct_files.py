"""Files in and out: tree JSON, VTP, svZeroDSolver input, the command, and real coronary geometry."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct.commands import app
from wetread.ffrct.errors import FfrDocumentInvalid, FfrUnprocessable
from wetread.ffrct.science.branches import arc_length
from wetread.ffrct.science.svzerod import SvZeroDNetwork, SvZeroDSolution, read_svzerod, solve_svzerod
from wetread.ffrct.science.viscous import interval_resistance
from wetread.ffrct.solving import solve_file
from wetread.ffrct.vtp_reader import tree_of_vtp
from wetread.testing.phantoms.vessel_trees import vessel_tree


def write(folder: Path, document: Any, name: str = "case.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def geometry(shared: Path) -> Path:
    return shared / "coronary-flow" / "multimodars"


def test_tree_file_gives_result_polylines_and_a_network_for_peers(tmp_path: Path) -> None:
    document = vessel_tree(9)
    answer = solve_file(write(tmp_path, document), tmp_path / "out", tier="analytic", uq_draws=50)
    assert {path.name for path in answer.written} == {"case.ffr.json", "case.ffr.vtp", "case.svzerod.json"}
    for path in answer.written:
        assert RUO_STATEMENT in path.read_text()
    result = json.loads((tmp_path / "out" / "case.ffr.json").read_text())
    piece = ET.parse(tmp_path / "out" / "case.ffr.vtp").getroot().find("PolyData/Piece")
    assert piece is not None
    assert piece.get("NumberOfLines") == str(len(document["vessels"]))
    written = piece.find("PointData/DataArray[@Name='ffr']")
    assert written is not None
    expected = [value for vessel in result["vessels"] for value in vessel["ffr"]]
    np.testing.assert_allclose([float(v) for v in (written.text or "").split()], expected, rtol=1e-15)


def test_network_for_peers_gives_the_same_heads(tmp_path: Path) -> None:
    """Written as svZeroDSolver input and read back, the analytic network has the same solution."""
    for seed in range(12):
        path = write(tmp_path, vessel_tree(seed))
        result = solve_file(path, tmp_path / "out", tier="analytic", uq_draws=0).result
        case = read_svzerod(json.loads((tmp_path / "out" / "case.svzerod.json").read_text()))
        assert isinstance(case, SvZeroDNetwork)
        solved = solve_svzerod(case)
        assert isinstance(solved, SvZeroDSolution)
        own = sorted(v["ffr_head"][-1] for v in result["vessels"] if v["ffr_head"] and v["ffr_head"][-1] is not None)
        peer = np.sort(solved.pressure_out / solved.pressure_in.max())
        np.testing.assert_allclose(peer, own, rtol=1e-9)


def test_own_polylines_are_read_back_as_the_same_tree(tmp_path: Path) -> None:
    document = vessel_tree(4)
    solve_file(write(tmp_path, document), tmp_path, tier="analytic", uq_draws=0)
    tree = tree_of_vtp((tmp_path / "case.ffr.vtp").read_bytes())
    assert len(tree.vessels) == len(document["vessels"])
    assert sum(v.parent is None for v in tree.vessels) == 1
    assert all(v.radius_kind == "area" for v in tree.vessels)
    total = sum(arc_length(np.array(v["points_mm"]))[-1] for v in document["vessels"])
    assert sum(arc_length(v.points_m)[-1] for v in tree.vessels) * 1e3 == pytest.approx(
        total, abs=0.5 * len(tree.vessels)
    )


def test_peer_file_gives_its_table(shared: Path, tmp_path: Path) -> None:
    source = shared / "coronary-flow" / "svzerod" / "steadyFlow_bifurcationR_R2.json"
    solve_file(source, tmp_path)
    with (tmp_path / "steadyFlow_bifurcationR_R2.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["pressure_in"]) for row in rows] == pytest.approx([3462.5, 1962.5, 1962.5])


@pytest.mark.parametrize(
    "text",
    ["<a/>", "not xml", "<!DOCTYPE x [<!ENTITY y 'z'>]><VTKFile type='PolyData'/>",
     ("<VTKFile type='PolyData'><PolyData><Piece><Points><DataArray format='binary'>AA</DataArray></Points>"
     "</Piece></PolyData></VTKFile>"),
     ("<VTKFile type='PolyData'><PolyData><Piece><Points><DataArray format='ascii'>0 0 0 1 0 0</DataArray></Points>"
     "</Piece></PolyData></VTKFile>")],
)  # fmt: skip
def test_files_that_are_no_centrelines_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FfrDocumentInvalid) as refused:
        solve_file(write(tmp_path, text, "bad.vtp"), tmp_path / "out")
    assert refused.value.code == "schema_invalid"
    assert not (tmp_path / "out").exists()


def test_polyline_that_names_a_missing_point_is_refused(tmp_path: Path) -> None:
    solve_file(write(tmp_path, vessel_tree(4)), tmp_path, tier="analytic", uq_draws=0)
    text = (tmp_path / "case.ffr.vtp").read_text()
    broken = text.replace('Name="connectivity" format="ascii">0 1', 'Name="connectivity" format="ascii">99999 1')
    assert broken != text
    with pytest.raises(FfrDocumentInvalid, match="not there"):
        tree_of_vtp(broken.encode())


def test_command_writes_prints_and_refuses(tmp_path: Path) -> None:
    run = CliRunner()
    path = write(tmp_path, vessel_tree(9))
    done = run.invoke(app, ["solve", str(path), "--out", str(tmp_path / "o"), "--tier", "analytic"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith(RUO_STATEMENT)
    assert "case.ffr.json" in done.output
    machine = run.invoke(app, ["solve", str(path), "--out", str(tmp_path / "o"), "--tier", "analytic", "--json"])
    assert json.loads(machine.output)["schema"] == "wetread.ffr.result/1"
    bad = write(tmp_path, {"vessels": [{"id": "a", "points_mm": [], "radius_mm": []}]}, "bad.json")
    refused = run.invoke(app, ["solve", str(bad), "--out", str(tmp_path / "p"), "--json"])
    assert refused.exit_code == 2
    assert json.loads(refused.output)["code"] == "too_few_points"
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("name", "vessels"), [("lca_cl.vtp", 5), ("rca_cl.vtp", 4)])
def test_real_coronary_trees(shared: Path, name: str, vessels: int) -> None:
    """Real centrelines (no pressures exist): topology, no aorta in the tree, sane heads."""
    tree = tree_of_vtp((geometry(shared) / name).read_bytes())
    assert len(tree.vessels) == vessels
    assert sum(v.parent is None for v in tree.vessels) == 1
    assert all(v.radius_kind == "inscribed" for v in tree.vessels)
    assert max(float(v.radius_m.max()) for v in tree.vessels) < 4e-3
    trunk = tree.vessels[0]
    s = arc_length(trunk.points_m)
    assert trunk.radius_m[0] <= 1.25 * np.median(trunk.radius_m[(s >= 0.010) & (s <= 0.025)])


@pytest.mark.parametrize("name", ["lca_cl.vtp", "rca_cl.vtp"])
def test_real_coronary_trees_have_sane_heads_on_both_tiers(shared: Path, tmp_path: Path, name: str) -> None:
    ends: dict[str, list[float]] = {}
    for tier in ("analytic", "rnsp"):
        result = solve_file(geometry(shared) / name, tmp_path / tier, tier=tier, uq_draws=0).result
        ends[tier] = []
        for vessel in result["vessels"]:
            head = np.array(vessel["ffr_head"], dtype=float)
            assert np.isfinite(head).all()
            assert (head > 0).all()
            assert (head <= 1 + 1e-12).all()
            assert (np.diff(head) <= 1e-12).all()
            assert "inscribed_radius" in vessel["flags"]
            ends[tier].append(head[-1])
        assert result["bc"]["status"] == "estimated"
    difference = np.abs(np.array(ends["analytic"]) - np.array(ends["rnsp"]))
    print(f"{name}: head at the ends {np.round(ends['analytic'], 3)}, largest tier difference {difference.max():.4f}")
    assert 0.0 < difference.max() < 0.05


def test_metres_taken_for_millimetres_are_noticed(shared: Path, tmp_path: Path) -> None:
    tree = tree_of_vtp((geometry(shared) / "lca_cl.vtp").read_bytes())
    vessels = [
        {"id": v.id, "parent": v.parent, "points_mm": v.points_m.tolist(), "radius_mm": v.radius_m.tolist()}
        for v in tree.vessels
    ]
    with pytest.raises(FfrUnprocessable) as refused:
        solve_file(write(tmp_path, {"vessels": vessels}), tmp_path / "out")
    assert refused.value.code == "units_suspect"


def polygon(points: np.ndarray) -> tuple[float, float]:
    """Area and aspect ratio (square root of the ratio of principal second moments) of a closed polygon."""
    x, y = (points - points.mean(axis=0)).T
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    cross = x * y1 - x1 * y
    area = cross.sum() / 2
    cx, cy = ((x + x1) * cross).sum() / (6 * area), ((y + y1) * cross).sum() / (6 * area)
    xx = ((x**2 + x * x1 + x1**2) * cross).sum() / 12 / area - cx**2
    yy = ((y**2 + y * y1 + y1**2) * cross).sum() / 12 / area - cy**2
    xy = ((x * y1 + 2 * x * y + 2 * x1 * y1 + x1 * y) * cross).sum() / 24 / area - cx * cy
    low, high = np.linalg.eigvalsh([[xx, xy], [xy, yy]])
    return abs(area), float(np.sqrt(high / low))


def ivus(shared: Path, state: str, phase: str) -> list[tuple[float, float, float]]:
    """(position mm, area mm2, aspect ratio) of every frame of a pullback, by position."""
    name = "diastolic" if phase == "D" else "systolic"
    table = np.loadtxt(geometry(shared) / f"ivus_{state}" / f"{name}_contours.csv")
    with (geometry(shared) / f"ivus_{state}" / "combined_sorted_manual.csv").open() as stream:
        rows = {int(row["frame"]): row for row in csv.DictReader(stream) if row["phase"] == phase}
    frames = []
    for frame in np.unique(table[:, 0]).astype(int):
        area, aspect = polygon(table[table[:, 0] == frame, 1:3])
        assert area == pytest.approx(float(rows[frame]["lumen_area"]), rel=2e-3)
        frames.append((float(rows[frame]["position"]), area, aspect))
    return sorted(frames)


@pytest.mark.parametrize("phase", ["D", "S"])
def test_drop_of_a_real_lumen_rises_from_rest_to_stress(shared: Path, phase: str) -> None:
    """IVUS lumens of one vessel: the tightest place gets tighter under stress, so the same flow costs more."""
    drops, smallest = [], []
    for state in ("rest", "stress"):
        position, area, aspect = np.array(ivus(shared, state, phase)).T
        smallest.append(area.min())
        near = np.abs(position - position[np.argmin(area)]) <= 5.0
        s = (position[near] - position[near][0]) * 1e-3
        radius = np.sqrt(area[near] / np.pi) * 1e-3
        resistance = interval_resistance(s, radius, aspect[near], 4e-3)
        drops.append(resistance.sum() / s[-1])
        assert aspect.max() > 1.5
    assert smallest[1] < smallest[0]
    assert drops[1] > drops[0]
