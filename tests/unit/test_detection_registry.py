"""Detector folders: found, checked, pinned, loaded under a name of their own."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest

from wetread.core.detector import BaseDetector
from wetread.core.errors import ConfigurationError
from wetread.detection.registry import PINS, discover, load, read_folder
from wetread.testing.toy_detector import write_toy


def pin(folder):
    line = f"{hashlib.sha256((folder / 'detector.py').read_bytes()).hexdigest()}  {folder.name}/detector.py\n"
    with (folder.parent / PINS).open("a") as file:
        file.write(line)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_folder_is_a_detector(tmp_path):
    write_toy(tmp_path, "toy")
    write_toy(tmp_path, "second-toy")
    found = discover(bundled=tmp_path)
    assert sorted(found) == ["second-toy", "toy"]
    toy = found["toy"]
    assert (toy.info.version, toy.info.card.phantom_evidence_id) == ("1.0.0", "toy")
    assert toy.networks[0].path == (tmp_path / "toy" / "1" / "model.onnx").resolve()
    assert toy.networks[0].max_batch == 4


def test_an_empty_or_missing_bundle_has_no_detectors(tmp_path):
    assert discover(bundled=tmp_path) == {}
    assert discover(bundled=tmp_path / "absent") == {}


def test_detectors_of_two_folders_do_not_share_a_module(tmp_path):
    write_toy(tmp_path, "toy")
    write_toy(tmp_path, "second-toy")
    found = discover(bundled=tmp_path)
    one, two = load(found["toy"]), load(found["second-toy"])
    assert isinstance(one, BaseDetector)
    assert type(one) is not type(two)
    assert type(one).__module__ in sys.modules
    assert not list(tmp_path.rglob("__pycache__"))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("detector.yaml", "wetread.detector/1", "wetread.detector/9"),
        ("detector.yaml", "title:", "titel:"),
        ("detector.yaml", "name: toy", "name: other"),
        ("detector.yaml", "1/model.onnx", "../../model.onnx"),
        ("model-card.json", '"1.0.0"', '"1.0.1"'),
        ("model-card.json", "{", "["),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(tmp_path, path, old, new):
    folder = write_toy(tmp_path)
    edit(folder / path, old, new)
    with pytest.raises(ConfigurationError):
        discover(bundled=tmp_path)


def test_changed_or_missing_weights_are_refused(tmp_path):
    folder = write_toy(tmp_path)
    (folder / "1" / "model.onnx").write_bytes(b"other")
    with pytest.raises(ConfigurationError, match="weights"):
        read_folder(folder)
    (folder / "1" / "model.onnx").unlink()
    with pytest.raises(ConfigurationError):
        read_folder(folder)


def test_the_model_digest_follows_code_weights_and_operating_points(tmp_path):
    digests = set()
    for change in ("none", "code", "threshold", "manifest"):
        folder = write_toy(tmp_path / change)
        if change == "code":
            edit(folder / "detector.py", "60.0", "61.0")
        if change == "threshold":
            card = json.loads((folder / "model-card.json").read_text())
            card["operating_points"][0]["threshold"] = 0.6
            (folder / "model-card.json").write_text(json.dumps(card))
        if change == "manifest":
            edit(folder / "detector.yaml", "min_slices: 3", "min_slices: 4")
        digests.add(read_folder(folder).info.model_digest)
    assert len(digests) == 4
    assert read_folder(write_toy(tmp_path / "again")).info.model_digest in digests


@pytest.mark.parametrize(
    "code", ["import nothing_like_this", "Detector = 3", "class Detector:\n    pass", "raise SystemError"]
)
def test_code_without_a_detector_is_a_configuration_error(tmp_path, code):
    folder = write_toy(tmp_path)
    (folder / "detector.py").write_text(code)
    with pytest.raises(ConfigurationError):
        load(read_folder(folder))


def test_third_party_code_runs_only_when_its_hash_is_pinned(tmp_path):
    folder = write_toy(tmp_path / "theirs")
    with pytest.raises(ConfigurationError, match="not pinned"):
        discover(str(folder.parent), bundled=tmp_path / "ours")
    pin(folder)
    assert list(discover(str(folder.parent), bundled=tmp_path / "ours")) == ["toy"]
    edit(folder / "detector.py", "60.0", "61.0")
    with pytest.raises(ConfigurationError, match="not pinned"):
        discover(str(folder.parent), bundled=tmp_path / "ours")


def test_a_name_is_taken_once_and_a_missing_folder_is_said(tmp_path):
    write_toy(tmp_path / "ours")
    pin(write_toy(tmp_path / "theirs"))
    with pytest.raises(ConfigurationError, match="two detectors"):
        discover(str(tmp_path / "theirs"), bundled=tmp_path / "ours")
    with pytest.raises(ConfigurationError, match="does not exist"):
        discover(str(tmp_path / "nowhere"), bundled=tmp_path / "ours")
