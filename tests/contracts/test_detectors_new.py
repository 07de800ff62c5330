"""A detector made by ``wetread models new`` passes the contract suite as it is, one folder and nothing else."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from wetread.cli import app
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
