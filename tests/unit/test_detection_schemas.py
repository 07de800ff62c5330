"""The committed JSON Schemas are those of the manifest types, and say what the types say."""

from __future__ import annotations

import json

import jsonschema
import pytest
from ruamel.yaml import YAML

from wetread.detection.schemas import rendered, schema_folder, write
from wetread.testing.toy_detector import write_toy


def test_committed_schemas_are_fresh():
    for name, text in rendered().items():
        assert (schema_folder() / name).read_text("utf-8") == text, "run: python -m wetread.detection.schemas"


def test_writing_gives_the_rendered_files(tmp_path):
    write(tmp_path / "schemas")
    assert {p.name: p.read_text() for p in (tmp_path / "schemas").iterdir()} == rendered()


def test_a_manifest_validates_and_an_unknown_key_does_not(tmp_path):
    schema = json.loads(rendered()["detector.schema.json"])
    manifest = YAML(typ="safe").load((write_toy(tmp_path) / "detector.yaml").read_text())
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "surprise": 1}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "input": {**manifest["input"], "slices": 1}}, schema)


def test_a_card_validates_with_parts_for_people(tmp_path):
    schema = json.loads(rendered()["model-card.schema.json"])
    card = json.loads((write_toy(tmp_path) / "model-card.json").read_text())
    jsonschema.validate({**card, "known failure modes": "many"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**card, "version": "one"}, schema)
