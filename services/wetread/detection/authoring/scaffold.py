"""``wetread models new``: a complete detector folder that runs, is tested and measured from its first minute."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final, Literal

from ruamel.yaml import YAML

from wetread.core.codes import CONCEPTS
from wetread.core.errors import ConfigurationError
from wetread.core.manifest import Manifest
from wetread.core.ports.inference import InferenceClient, NetworkFile
from wetread.detection.authoring import cards, golden
from wetread.detection.evaluation.measure import run, write_rows
from wetread.detection.evaluation.summary import spec90
from wetread.detection.registry import PINS, read_folder
from wetread.testing.onnx_bytes import elementwise_model

Kind = Literal["rule", "network"]
KINDS: Final[tuple[Kind, ...]] = ("rule", "network")
TUNING_CASES: Final = 24
TEST_CASES: Final = 24
_SPLIT_START: Final = {"tune": 1_000_000, "s0": 2_000_000}
_SIGNAL: Final = {"CT": ("-1000.0", "1040.0"), "MR": ("20.0", "600.0")}
"""Intensity of air, and of tissue above it: HU, or what an MR image stores."""
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_PLAIN: Final = ("cases.py", "phantom.yaml", "gates.yaml", "workflow.yaml", "test_detector.py", "CHANGELOG.md")
Engine = Callable[[Sequence[NetworkFile]], InferenceClient]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the new detector is to be."""

    name: str
    kind: Kind = "rule"
    modality: str = "CT"
    body_part: str = "ABDOMEN"
    finding: str = "nodule"
    title: str = ""


def create(wanted: Wanted, into: Path, engine: Engine, *, pin: bool) -> Path:
    """Write the folder ``into/NAME``, choose its operating point, write its golden case and card; return the folder.

    *pin*: also write the hash of its code into ``detectors.sha256`` beside it (third-party folders run only pinned).
    Raises ConfigurationError: a bad name, an unknown kind, modality or finding, or the folder is there already.
    """
    _check(wanted)
    folder = into / wanted.name
    if folder.exists():
        raise ConfigurationError(f"{wanted.name} is there already")
    folder.mkdir(parents=True)
    words = _words(wanted)
    _render(folder / "detector.py", f"detector_{wanted.kind}.py", words)
    for name in _PLAIN:
        _render(folder / name, name, words)
    manifest = _manifest(wanted, folder)
    with (folder / "detector.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(manifest, file)
    card = cards.draft(
        Manifest.model_validate(manifest),
        evidence=cards.evidence_of(folder),
        failure_modes=["Made by `wetread models new`: knows balls in an even body, and nothing about patients."],
    )
    provisional = {"name": "spec90", "threshold": 0.0, "set": "tune", "sensitivity": 1.0, "specificity": 0.0}
    cards.write(folder, card | {"operating_points": [provisional], "default_operating_point": "spec90"})
    _measure(folder, card, engine)
    if pin:
        pin_code(folder)
    return folder


def pin_code(folder: Path) -> None:
    """Write the hash of the folder's ``detector.py`` into ``detectors.sha256`` beside it, in place of an older one."""
    path = folder.parent / PINS
    entry = f"{folder.name}/detector.py"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    kept = [line for line in lines if line.split(maxsplit=1)[1:] != [entry]]
    kept.append(f"{hashlib.sha256((folder / 'detector.py').read_bytes()).hexdigest()}  {entry}")
    path.write_text("\n".join(kept) + "\n", "utf-8")


def _check(wanted: Wanted) -> None:
    if not _NAME.fullmatch(wanted.name):
        raise ConfigurationError("a detector's name is lower-case letters, digits and '-', at most 63")
    if wanted.kind not in KINDS:
        raise ConfigurationError(f"unknown kind {wanted.kind}; known: {', '.join(KINDS)}")
    if wanted.modality not in _SIGNAL:
        raise ConfigurationError(f"no start for modality {wanted.modality}; there is one for {', '.join(_SIGNAL)}")
    if wanted.finding not in CONCEPTS:
        raise ConfigurationError(f"no coded concept is called {wanted.finding!r} (wetread.core.codes)")
    if not re.fullmatch(r"[A-Z]{2,16}", wanted.body_part):
        raise ConfigurationError("a body part is a word of capitals, such as ABDOMEN (PS3.16 annex L)")


def _words(wanted: Wanted) -> dict[str, str]:
    offset, scale = _SIGNAL[wanted.modality]
    return {
        "name": wanted.name,
        "title": _title(wanted),
        "finding": wanted.finding,
        "modality": wanted.modality,
        "body_part": wanted.body_part,
        "offset": offset,
        "scale": scale,
        "salt": str(zlib.crc32(wanted.name.encode())),
    }


def _title(wanted: Wanted) -> str:
    return wanted.title or f"{CONCEPTS[wanted.finding].code.meaning} on {wanted.modality} (new, phantom-trained)"


def _render(path: Path, template: str, words: dict[str, str]) -> None:
    text = files("wetread.detection.authoring").joinpath(f"templates/{template}.tmpl").read_text("utf-8")
    path.write_text(Template(text).substitute(words), "utf-8")


def _manifest(wanted: Wanted, folder: Path) -> dict[str, Any]:
    code = CONCEPTS[wanted.finding].code
    manifest: dict[str, Any] = {
        "schema": "wetread.detector/1",
        "name": wanted.name,
        "version": "0.1.0",
        "title": _title(wanted),
        "intended_use": "Being developed. Research use only.",
        "not_for": ["diagnosis", "patient care"],
        "input": {
            "modality": [wanted.modality],
            "body_part": {"any": [wanted.body_part], "from": ["tags"]},
            "series": {"min_slices": 8, "max_step_mm": 10, "orientation": "axial"},
            "select": "thinnest_soft",
        },
        "findings": [{"code": [code.scheme, code.value], "measurements": ["volume"], "regions": ["mask"]}],
        "triage": {"needs_operating_point": "spec90"},
        "resources": {"cpu": 1, "memory_mb": 1000, "timeout_s": 60},
        "licence": {"code": "Apache-2.0", "weights": "none", "training_data": "phantoms only, see phantom.yaml"},
    }
    if wanted.kind == "network":
        weights = elementwise_model("Sigmoid", input_name="tiles", output_name="prob", shape=(-1, 1, 64, 64))
        (folder / "1").mkdir()
        (folder / "1" / "model.onnx").write_bytes(weights)
        shape = [-1, 1, 64, 64]
        manifest["tensors"] = {
            "inputs": [{"name": "tiles", "shape": shape}],
            "outputs": [{"name": "prob", "shape": shape}],
        }
        manifest["model"] = {
            "file": "1/model.onnx",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "opset": 17,
            "engines": ["onnxruntime", "triton", "kserve"],
        }
        manifest["licence"]["weights"] = "Apache-2.0"
    return manifest


def _measure(folder: Path, card: dict[str, Any], engine: Engine) -> None:
    """Choose the operating point on tuning cases, then measure test cases with it."""
    installed = read_folder(folder)
    start = _SPLIT_START["tune"]
    tuning = list(run(installed, engine(installed.networks), "tune", range(start, start + TUNING_CASES)))
    card |= {"operating_points": [spec90(tuning)], "default_operating_point": "spec90"}
    cards.write(folder, card)
    installed, start = read_folder(folder), _SPLIT_START["s0"]
    rows = list(run(installed, engine(installed.networks), "s0", range(start, start + TEST_CASES)))
    write_rows(folder / "cases.csv", [*tuning, *rows])
    cards.write(folder, cards.measured(folder, card, [*tuning, *rows]))
    positive = next((r["seed"] for r in rows if r["truth"]), start)
    golden.write(
        read_folder(folder),
        engine(installed.networks),
        {"split": "s0", "seed": int(positive)},
        reason="the first version",
    )
