"""The whole chain from a folder of DICOM: FFR near the truth, and every image code with advice and without a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from wetread.cli import app
from wetread.ffrct.endtoend import compare, geometry
from wetread.ffrct.solving import solve_request
from wetread.testing.phantoms.coronary import write_phantom


def run(folder: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["ffr", "ct", str(folder), "--out", str(out), "--json", *options])


@pytest.mark.slow
def test_a_folder_gives_ffr_near_the_truth_and_every_file(tmp_path: Path) -> None:
    truth = write_phantom(20_200, tmp_path / "ct", severity=(0.4, 0.6), stenoses=2)
    flow = str(truth["tree"]["patient"]["q_hyp_ml_min"])
    done = run(tmp_path / "ct", tmp_path / "out", "--flow", flow)
    assert done.exit_code == 0, done.output
    result = json.loads(done.output.splitlines()[-1])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"ffr.json", "tree.json", "tree.png", "tree.glb", "tree.vtp", "01-sr.dcm", "02-seg.dcm"} <= names
    assert len([name for name in names if name.endswith("-sc.dcm")]) == 3
    tree = json.loads((tmp_path / "out" / "tree.json").read_text())
    assert {"LM", "LAD", "LCx", "RCA"} <= {vessel["label"] for vessel in tree["vessels"]}
    quick = {"tier": "auto", "uq_draws": 0}
    true = solve_request({"tree": {**truth["tree"], "options": quick}})
    readings = compare(truth, true, true, tree, result)
    errors = [abs(r["found"] - r["true"]) for r in readings if r["found"] is not None]
    assert len(errors) == len(readings)
    assert float(np.mean(errors)) <= 0.03
    shape = geometry(truth, tree)
    assert shape["overlap"] >= 0.9
    assert shape["distance_mm"] <= 0.3
    assert abs(shape["diameter_bias_mm"]) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "overrides"),
    [
        ("no_contrast", {"lumen_hu": 40.0, "ventricle_hu": 45.0}),
        ("not_cardiac", {"pericardium": False}),
        ("motion", {"step_mm": 3.0}),
        ("motion", {"motion_mm": 5.0}),
        ("no_ostia", {"coronaries": False}),
        ("too_calcified", {"size": "short", "wall_calcium": 0.8}),
        ("missing_slices", {"missing_slices": 6}),
        ("slice_too_thick", {"thickness_mm": 3.0}),
    ],
)
def test_images_that_cannot_be_used_are_refused_by_code(tmp_path: Path, code: str, overrides: dict[str, Any]) -> None:
    write_phantom(20_201, tmp_path / "ct", **overrides)
    done = run(tmp_path / "ct", tmp_path / "out")
    assert done.exit_code == 2
    problem = json.loads(done.output.splitlines()[-1])
    assert problem["code"] == code
    assert problem["detail"]
    assert "ffr" not in {key for key in problem if problem[key] is not None}
    assert not (tmp_path / "out").exists()
