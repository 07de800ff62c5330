"""A detector made by ``wetread models new`` passes the contract suite as it is, one folder and nothing else."""

from __future__ import annotations

import json
from io import BytesIO
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from wetread.cli import app
from wetread.detection.evaluation import plots
from wetread.detection.registry import discover
from wetread.testing.contracts.detector import DetectorContract
from wetread.testing.contracts.folder_suite import objects_of
from wetread.testing.contracts.strange import strange_files as write_strange_files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    into = tmp_path_factory.mktemp("detectors")
    options = ["--kind", "network", "--into", str(into), "--modality", "MR", "--body-part", "KNEE"]
    answer = CliRunner().invoke(app, ["models", "new", "dense-spots", *options])
    assert answer.exit_code == 0, answer.output
    return into / "dense-spots"


class TestNewFolder(DetectorContract):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, made):
        return made

    @pytest.fixture(scope="class")
    @classmethod
    def objects(cls, made):
        return objects_of(made)

    @pytest.fixture(scope="class")
    @classmethod
    def strange_files(cls, tmp_path_factory):
        return write_strange_files(tmp_path_factory.mktemp("strange"))


def test_it_is_found_as_a_third_partys_and_starts_in_shadow(made):
    found = discover(str(made.parent))["dense-spots"]
    card = json.loads((made / "model-card.json").read_text())
    assert found.info.card.shadow
    assert card["metrics"]["s0"]["n"] == 24
    assert card["performance_on_patients"] == "unknown"
    assert card["phantom_evidence_id"].startswith("pe-")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Bad_Name"], "lower-case"),
        (["dense-spots"], "there already"),
        (["other", "--kind", "magic"], "unknown kind"),
        (["other", "--modality", "US"], "modality"),
        (["other", "--finding", "unicorn"], "coded concept"),
        (["other", "--body-part", "a b"], "body part"),
    ],
)
def test_what_cannot_be_made_is_said(made, arguments, said):
    answer = CliRunner().invoke(app, ["models", "new", *arguments, "--into", str(made.parent)])
    assert answer.exit_code == 2
    assert said in answer.output
    assert not (made.parent / "other").exists()


def test_it_is_measured_and_its_card_follows_from_its_cases(made, tmp_path, monkeypatch):
    monkeypatch.setenv("WETREAD_DETECTORS", str(made.parent))
    run = CliRunner()
    order = ["models", "evaluate", "dense-spots", "--set", "s0", "--set", "s3", "--n", "8", "--out", str(tmp_path)]
    first = run.invoke(app, order)
    assert first.exit_code == 0, first.output
    rows = (tmp_path / "cases.csv").read_text()
    assert run.invoke(app, order).exit_code == 0
    assert (tmp_path / "cases.csv").read_text() == rows, "a second run resumes: not even the seconds change"
    assert rows.count("\n") == 17
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["worst_shift_set"]["set"] == "s3"
    assert metrics["drift_baseline"]["refusal_rate"] == 0
    assert "phantom figure" in (tmp_path / "card.md").read_text()
    for name in ("roc", "froc", "calibration"):
        drawing = ET.fromstring((tmp_path / f"{name}.svg").read_text())
        assert "Research use only" in "".join(drawing.itertext())
    assert run.invoke(app, ["models", "card", "dense-spots", "--check"]).exit_code == 0
    card = json.loads((made / "model-card.json").read_text())
    card["metrics"]["s0"]["auc"]["value"] = 0.5
    boastful = made / "model-card.json"
    kept = boastful.read_text()
    boastful.write_text(json.dumps(card))
    assert run.invoke(app, ["models", "card", "dense-spots", "--check"]).exit_code == 1
    boastful.write_text(kept)
    assert run.invoke(app, [*order[:2], "absent", *order[3:]]).exit_code == 2
    assert run.invoke(app, [*order[:3], "--set", "s9", "--out", str(tmp_path)]).exit_code == 2


def test_a_golden_case_is_written_anew_from_its_own_recipe(made, monkeypatch):
    monkeypatch.setenv("WETREAD_DETECTORS", str(made.parent))
    path, order = made / "golden.yaml", ["models", "test", "dense-spots", "--update-golden"]
    first, packed = path.read_text(), (made / "golden.npz").read_bytes()
    assert CliRunner().invoke(app, order).exit_code == 2, "without a reason"
    recipe = YAML(typ="safe").load(first)
    recipe |= {"input": {"split": "s3", "seed": 3_200_000}, "tolerance": {**recipe["tolerance"], "dice": 0.99}}
    YAML().dump(recipe, path)
    answer = CliRunner().invoke(app, [*order, "--reason", "harder", "--seed", "3200003"])
    assert answer.exit_code == 0, answer.output
    again = YAML(typ="safe").load(path)
    assert again["input"] == {"split": "s3", "seed": 3_200_003}, "all but the seed stays"
    assert (again["tolerance"]["dice"], again["reason"]) == (0.99, "harder")
    assert again["expected"] != recipe["expected"]
    path.write_text("reason: of its own\nexpected: {volume: 3}\n")
    answer = CliRunner().invoke(app, [*order, "--reason", "any"])
    assert (answer.exit_code, "form of its own" in answer.output) == (2, True)
    path.unlink()
    assert CliRunner().invoke(app, [*order, "--reason", "lost"]).exit_code == 0
    assert YAML(typ="safe").load(path)["input"] == {"split": "s0", "seed": 2_000_000}
    path.write_text(first)
    (made / "golden.npz").write_bytes(packed)


def test_gates_decide_over_the_exit_code(made, tmp_path, monkeypatch):
    monkeypatch.setenv("WETREAD_DETECTORS", str(made.parent))
    gates = made / "gates.yaml"
    kept = gates.read_text()
    gates.write_text("schema: wetread.gates/1\nsets:\n  s0: {auc: 1.01}\n")
    order = ["models", "evaluate", "dense-spots", "--n", "6", "--out", str(tmp_path), "--gate"]
    answer = CliRunner().invoke(app, order)
    gates.write_text(kept)
    assert answer.exit_code == 1
    assert "s0: auc" in answer.output


def test_an_example_picture_shows_both_regions():
    plane = np.tile(np.arange(32, dtype=np.float32), (32, 1))
    region = np.zeros((32, 32), dtype=np.uint8)
    region[8:20, 8:20] = 1
    picture = np.asarray(Image.open(BytesIO(plots.example_png(plane, region, np.roll(region, 6), "one"))))
    assert ((picture[..., 0] == 230) & (picture[..., 1] == 60)).any()
    assert ((picture[..., 1] == 200) & (picture[..., 0] == 60)).any()
