"""Which of the known formats a source in quarantine is, and what it says about itself; everything is read as data."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from wetread.detection.importing import onnx_graph, pickles, triton_config
from wetread.detection.importing.bundle_steps import BundleSteps, Unknowable, steps_of
from wetread.detection.importing.errors import ImportRefused
from wetread.detection.importing.quarantine import Held

Kind = Literal["onnx", "torchscript", "state_dict"]
_MAX_TEXT: Final = 1 << 20
_WEIGHTS: Final = (".onnx", ".pt", ".pth", ".ts")
_TRANSFORMS: Final = frozenset(
    {
        "LoadImaged",
        "EnsureChannelFirstd",
        "EnsureTyped",
        "Orientationd",
        "Spacingd",
        "ScaleIntensityRanged",
        "ScaleIntensityd",
        "NormalizeIntensityd",
        "Activationsd",
        "AsDiscreted",
        "Invertd",
        "SaveImaged",
        "Compose",
        "SlidingWindowInferer",
        "SimpleInferer",
        "Dataset",
        "DataLoader",
        "SupervisedEvaluator",
        "CheckpointLoader",
        "StatsHandler",
    }
)
"""``_target_`` of MONAI that have a counterpart here, or that only feed, load, save or report."""
_LICENCES: Final = (
    ("Apache-2.0", r"apache license.{0,40}2\.0|apache-2\.0"),
    ("MIT", r"\bmit licen[sc]e\b|permission is hereby granted, free of charge"),
    ("BSD-3-Clause", r"\bbsd\b.{0,20}3|neither the name of"),
    ("CC-BY-NC", r"cc[ -]by[ -]nc|noncommercial"),
    ("GPL-3.0", r"gnu general public license.{0,40}3"),
)


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One network's weights in quarantine; ``path`` is relative to its root."""

    path: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Source:
    """A recognised source."""

    form: Literal["monai", "triton", "files"]
    weights: tuple[WeightFile, ...]
    licence: str
    """SPDX id as far as the files say, else ``unknown``."""
    licence_text: str
    """First lines of the licence file, shown to the operator."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Tensor format and transforms of a bundle; what a Triton configuration says."""
    steps: BundleSteps | None = None
    """The steps around a bundle's network, where they could be read."""
    shape: tuple[int, ...] = ()
    """Sizes of one input item by the source's own configuration; empty: it does not say."""


def recognise(held: Held) -> Source:
    """Recognise and inspect. Raises ImportRefused (unknown_format, unknown_transform, and what the checks say)."""
    paths = [file.path for file in held.files]
    licence, text = _licence(held)
    if any(p.endswith("configs/metadata.json") for p in paths):
        weights = _bundle_weights(held)
        facts, steps = _bundle_facts(held)
        shape = (1, *steps.steps.window) if steps else bundle_shape(facts)
        return Source("monai", weights, licence, text, facts, steps, shape)
    if any(Path(p).name == "config.pbtxt" for p in paths):
        return _triton(held, paths, licence, text)
    weights = tuple(_weight(held.root, p) for p in paths if p.endswith(_WEIGHTS))
    if not weights:
        raise ImportRefused("unknown_format")
    return Source("files", weights, licence, text)


def bundle_shape(facts: Mapping[str, Any]) -> tuple[int, ...]:
    """Sizes of one input item by a bundle's ``network_data_format``: channels, then numbers as they stand.

    A rule such as ``8*n`` or ``*`` leaves the size open; then it has to be said. Empty: unknown.
    """
    inputs = facts.get("data_format", {})
    inputs = inputs.get("inputs", {}) if isinstance(inputs, dict) else {}
    image = inputs.get("image", {}) if isinstance(inputs, dict) else {}
    sizes = [image.get("num_channels"), *(image.get("spatial_shape") or [])] if isinstance(image, dict) else []
    return tuple(sizes) if len(sizes) > 1 and all(isinstance(s, int) and 0 < s <= 4096 for s in sizes) else ()


def _triton(held: Held, paths: list[str], licence: str, text: str) -> Source:
    """Read one model of a repository: its configuration as data, the weights of its highest version."""
    configurations = [p for p in paths if Path(p).name == "config.pbtxt"]
    if len(configurations) > 1:
        raise ImportRefused("unknown_format", "a repository of several models: bring one model's folder")
    model = PurePosixPath(configurations[0]).parent
    said = triton_config.read((held.root / configurations[0]).read_bytes())
    suffix = ".onnx" if said.kind == "onnx" else ".pt"
    versions = [PurePosixPath(p) for p in paths if p.endswith(suffix) and PurePosixPath(p).parent.parent == model]
    numbered = [p for p in versions if p.parent.name.isdecimal()]
    if not numbered:
        raise ImportRefused(
            "unknown_format", "the repository holds no weights of the kind that its configuration names"
        )
    weight = _weight(held.root, str(max(numbered, key=lambda p: int(p.parent.name))))
    if weight.kind != said.kind:
        raise ImportRefused("unknown_architecture", "a Triton repository with bare weights")
    facts = {"backend": said.backend, "inputs": said.inputs, "outputs": said.outputs}
    shape = said.inputs[0][1] if len(said.inputs) == 1 and -1 not in said.inputs[0][1] else ()
    return Source("triton", (weight,), licence, text, facts, shape=tuple(shape))


def _weight(root: Path, path: str) -> WeightFile:
    file = root / path
    if path.endswith(".onnx"):
        onnx_graph.check(file.read_bytes())
        return WeightFile(path, "onnx")
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("constants.pkl") or "/code/" in name for name in archive.namelist()):
                return WeightFile(path, "torchscript")
    pickles.check(file)
    return WeightFile(path, "state_dict")


def _bundle_weights(held: Held) -> tuple[WeightFile, ...]:
    found = [f.path for f in held.files if f.path.endswith(_WEIGHTS)]
    for wanted in (".onnx", ".ts"):
        for path in found:
            if path.endswith(wanted):
                return (_weight(held.root, path),)
    if not found:
        raise ImportRefused("unknown_format", "the bundle holds no weights")
    for path in found:
        _weight(held.root, path)
    raise ImportRefused("unknown_architecture", "the bundle has neither model.ts nor model.onnx")


def _bundle_facts(held: Held) -> tuple[dict[str, Any], BundleSteps | None]:
    """Read the bundle's configuration as data: nothing that begins with ``$`` is ever evaluated."""
    contents: dict[str, Any] = {}
    for name in ("metadata", "inference"):
        path = next((f.path for f in held.files if f.path.endswith(f"configs/{name}.json")), None)
        if path is None:
            continue
        data = (held.root / path).read_bytes()
        try:
            contents[name] = json.loads(data) if len(data) <= _MAX_TEXT else None
        except (ValueError, RecursionError) as error:
            raise ImportRefused("unknown_format", f"configs/{name}.json cannot be read") from error
    metadata = contents.get("metadata")
    if not isinstance(metadata, dict):
        raise ImportRefused("unknown_format", "configs/metadata.json is no object")
    inference = contents.get("inference") or {}
    for target in sorted(_targets(inference)):
        if target.rpartition(".")[2] not in _TRANSFORMS and not target.startswith("monai.networks."):
            raise ImportRefused("unknown_transform", f"{target[:80]} has no counterpart here")
    listed = inference.get("preprocessing", {}) if isinstance(inference, dict) else {}
    facts = {
        "version": str(metadata.get("version", "")),
        "task": str(metadata.get("task", ""))[:200],
        "data_format": metadata.get("network_data_format", {}),
        "preprocessing": listed.get("transforms", []) if isinstance(listed, dict) else [],
    }
    try:
        steps = steps_of(inference if isinstance(inference, dict) else {}, metadata)
    except Unknowable as reason:
        return facts | {"steps": f"not mapped: {reason}"}, None
    return facts | {"steps": "mapped"}, steps


def _targets(node: Any, depth: int = 0) -> set[str]:
    if depth > 64:
        raise ImportRefused("unknown_format", "a configuration nested too deeply")
    if isinstance(node, dict):
        own = {str(node["_target_"])} if "_target_" in node else set()
        return own.union(*(_targets(value, depth + 1) for value in node.values())) if node else own
    if isinstance(node, list):
        return set().union(*(_targets(value, depth + 1) for value in node)) if node else set()
    return set()


def _licence(held: Held) -> tuple[str, str]:
    for pattern in (r"licen[sc]e", r"copying", r"readme"):
        for file in held.files:
            if re.search(pattern, Path(file.path).name, re.IGNORECASE) and file.size <= _MAX_TEXT:
                text = (held.root / file.path).read_text("utf-8", "replace")
                name = next((spdx for spdx, mark in _LICENCES if re.search(mark, text.lower(), re.DOTALL)), "unknown")
                if pattern != "readme" or name != "unknown":
                    return name, "\n".join(text.splitlines()[:12])
    return "unknown", ""
