"""Tables of distributions: the digest that cards quote, and the file, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from wetread.detection.authoring.cards import evidence_of
from wetread.testing.parameter_tables import as_yaml, evidence_id
from wetread.testing.phantoms import chest_parameters, cta_parameters, echo_parameters, parameters

MODELS = Path(__file__).resolve().parents[2] / "models"
TABLE = {"generator": "g/1", "base": {"b": [1, 2], "a": {"choice": {0.6: 0.5, 1.0: 0.5}}}, "sets": {"s0": {}}}


@pytest.mark.parametrize(
    ("name", "table", "known"),
    [
        ("ich", parameters.as_mapping(), "pe-ddb3f1469ad3d0aa"),
        ("lung-nodule", chest_parameters.as_mapping(), "pe-dab97168e98dec38"),
        ("lvo", cta_parameters.DISTRIBUTIONS, "pe-70c4713bde4f8cf7"),
        ("echo-ef", echo_parameters.DISTRIBUTIONS, "pe-7471c6ed85ee25ca"),
    ],
)
def test_evidence_ids_of_released_cards_never_change(name, table, known) -> None:
    assert evidence_id(table) == evidence_of(MODELS / name) == known
    assert json.loads((MODELS / name / "model-card.json").read_text("utf-8"))["phantom_evidence_id"] == known


def test_the_id_is_of_the_content_whatever_its_order(tmp_path) -> None:
    turned = {name: TABLE[name] for name in reversed(TABLE)}
    assert evidence_id(turned) == evidence_id(TABLE)
    assert evidence_id(TABLE | {"generator": "g/2"}) != evidence_id(TABLE)
    assert evidence_of(tmp_path) == ""
    (tmp_path / "phantom.yaml").write_text(as_yaml(TABLE, "# heading\n"), "utf-8")
    assert evidence_of(tmp_path) == evidence_id(TABLE)


def test_the_file_is_the_table_under_its_heading() -> None:
    text = as_yaml(TABLE, "# what it is\n")
    assert text.startswith("# what it is\ngenerator: g/1\n")
    assert YAML(typ="safe").load(text) == TABLE
    assert "  b: [1, 2]\n" in text
