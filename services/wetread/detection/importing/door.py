"""The door: look at a source, and once an operator has accepted digest and licence, bring it in, in shadow."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ruamel.yaml import YAML

from wetread.core.codes import PRIVATE_SCHEME
from wetread.core.manifest import Manifest
from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.authoring import cards
from wetread.detection.authoring.scaffold import pin_code
from wetread.detection.importing import formats, sandbox
from wetread.detection.importing.bundle_steps import BundleSteps
from wetread.detection.importing.errors import ImportRefused
from wetread.detection.importing.quarantine import Held, copy_out, quarantine
from wetread.detection.recipes.segmentation import Steps

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HIPPODEEP: Final = frozenset({"head", "affine", "hippocampus"})


@dataclass(frozen=True, slots=True)
class Look:
    """What an operator sees before accepting."""

    digest: str
    form: str
    weights: tuple[str, ...]
    files: int
    size: int
    licence: str
    licence_text: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an operator accepted: this digest, under this licence (SPDX id)."""

    digest: str
    licence: str


def look(source: Path) -> Look:
    """Inspect a source in quarantine; nothing of it is run. Raises ImportRefused."""
    with quarantine(source) as held:
        return _look(held, formats.recognise(held))


def bring_in(
    source: Path,
    into: Path,
    name: str,
    accepted: Accepted,
    *,
    shape: tuple[int, ...] | None = None,
    limits: sandbox.Limits | None = None,
) -> list[Path]:
    """Convert a source and write its folders below *into*; return them, the detector (if it became one) first.

    *shape*: sizes of one input item, where the file does not say. Raises ImportRefused.
    """
    if not _NAME.fullmatch(name):
        raise ImportRefused("name_taken", "a name is lower-case letters, digits and '-', at most 63")
    with quarantine(source) as held, TemporaryDirectory(prefix="wetread-import-") as scratch:
        if held.digest != accepted.digest:
            raise ImportRefused("changed")
        if not accepted.licence.strip():
            raise ImportRefused("not_accepted")
        found = formats.recognise(held)
        if any(w.kind != "onnx" for w in found.weights) and not sandbox.torch_is_there():
            raise ImportRefused("torch_missing")
        out = Path(scratch)
        job: dict[str, Any] = {
            "root": str(held.root),
            "out": str(out),
            "weights": [asdict(weight) for weight in found.weights],
            "shape": list(shape or found.shape) or None,
        }
        answer = sandbox.convert(job, limits)
        _check_names(found, answer["networks"])
        entry = _Entry(into, name, accepted, held, found, answer["isolation"])
        roles = {network["role"] for network in answer["networks"]}
        if roles == _HIPPODEEP and len(answer["networks"]) == len(_HIPPODEEP):
            return entry.hippodeep(out, answer["networks"])
        if found.steps and len(answer["networks"]) == 1 and _fits(answer["networks"][0], found.steps.steps):
            return entry.segmentation(out, answer["networks"][0], found.steps)
        return entry.networks(out, answer["networks"])


def _check_names(found: formats.Source, networks: list[dict[str, Any]]) -> None:
    """Refuse a repository whose configuration is of another network than its ONNX file."""
    if found.form != "triton" or found.weights[0].kind != "onnx":
        return
    for side in ("inputs", "outputs"):
        said, has = ({str(n) for n, _ in found.facts[side]}, {t["name"] for t in networks[0][side]})
        if said and not said <= has:
            raise ImportRefused("unknown_format", f"config.pbtxt names {side} that the network does not have")


def _fits(network: Mapping[str, Any], steps: Steps) -> bool:
    """Whether a network reads and answers windows as the steps around it have them."""
    wanted = ([-1, 1, *steps.window], [-1, len(steps.channels), *steps.window])
    tensors = (network["inputs"], network["outputs"])
    return all(len(found) == 1 and found[0]["shape"] == shape for found, shape in zip(tensors, wanted, strict=True))


def _look(held: Held, found: formats.Source) -> Look:
    return Look(
        held.digest,
        found.form,
        tuple(f"{w.path} ({w.kind})" for w in found.weights),
        len(held.files),
        sum(f.size for f in held.files),
        found.licence,
        found.licence_text,
    )


class _Entry:
    """Writes the folders of one import."""

    def __init__(
        self, into: Path, name: str, accepted: Accepted, held: Held, found: formats.Source, isolation: list[str]
    ) -> None:
        self._into, self._name, self._accepted = into, name, accepted
        self._held, self._found, self._isolation = held, found, isolation

    def networks(self, out: Path, networks: list[dict[str, Any]]) -> list[Path]:
        """Write every network as a folder without code: served, and named by the ``networks`` of a detector."""
        many = len(networks) > 1
        names = [f"{self._name}__{k}" if many else self._name for k in range(len(networks))]
        self._free(names)
        return [self._network(out, n, network) for n, network in zip(names, networks, strict=True)]

    def hippodeep(self, out: Path, networks: list[dict[str, Any]]) -> list[Path]:
        """Write the whole detector: its three networks are known here, with what goes before and after them."""
        by_role = {network["role"]: network for network in networks}
        further = [f"{self._name}__head", f"{self._name}__affine"]
        self._free([self._name, *further])
        folders = [self._network(out, n, by_role[n.rpartition("__")[2]]) for n in further]
        folder = self._into / self._name
        main = by_role["hippocampus"]
        manifest = self._manifest(out, folder, main, further)
        (folder / "detector.py").write_text(_CODE, "utf-8")
        (folder / "workflow.yaml").write_text(_WORKFLOW.replace("NAME", self._name), "utf-8")
        card = cards.draft(
            Manifest.model_validate(manifest),
            failure_modes=[
                "Nothing was measured on patients here: one public example proves the route, not the biology.",
                "Children, large lesions, strong motion, images after contrast agent: outside what the authors show.",
            ],
        )
        cards.write(folder, card | self._origin(networks))
        pin_code(folder)
        return [folder, *folders]

    def segmentation(self, out: Path, network: Mapping[str, Any], bundle: BundleSteps) -> list[Path]:
        """Write a bundle whose steps are known here as a detector that measures the regions it names."""
        self._free([self._name])
        folder = self._into / self._name
        content = self._content(out, folder, network) | {
            "title": f"Regions of an imported bundle ({self._name}), never measured here",
            "intended_use": "Research on an imported model. Research use only.",
            "not_for": ["diagnosis", "patient care"],
            "input": {
                "modality": [bundle.modality],
                "series": {"min_slices": 3, "max_step_ratio": 1.5},
                "lossy": {"allowed": True, "max_ratio": 10},
                "select": "thinnest_soft",
            },
            "findings": [
                {"code": [PRIVATE_SCHEME, "imported-region"], "measurements": ["volume"], "regions": ["mask"]}
            ],
            "resources": {"cpu": 2, "memory_mb": 6000, "timeout_s": 600},
        }
        _dump(folder / "detector.yaml", content)
        (folder / "detector.py").write_text(_SEGMENTATION.replace("STEPS_READ", repr(bundle.steps)), "utf-8")
        modes = ["Nothing of it was measured here; what its authors state is theirs.", "Sampling at borders is ours."]
        cards.write(
            folder, cards.draft(Manifest.model_validate(content), failure_modes=modes) | self._origin([network])
        )
        pin_code(folder)
        return [folder]

    def _free(self, names: list[str]) -> None:
        if any((self._into / name).exists() for name in names):
            raise ImportRefused("name_taken")

    def _network(self, out: Path, name: str, network: Mapping[str, Any]) -> Path:
        folder = self._into / name
        content = {
            "schema": "wetread.network/1",
            "name": name,
            "version": "1.0.0",
            "tensors": {"inputs": network["inputs"], "outputs": network["outputs"]},
            "model": self._weights(out, folder, network),
            "licence": self._licence(),
            "origin": self._held.digest,
        }
        _dump(folder / "network.yaml", content)
        card = {
            "schema": "wetread.card/1",
            "name": name,
            "version": "1.0.0",
            "ruo": RUO_STATEMENT,
            "title": f"Imported network {name}",
            "shadow": True,
            "performance_on_patients": "unknown",
        }
        (folder / "model-card.json").write_text(cards.text(card | self._origin([network])), "utf-8")
        return folder

    def _weights(self, out: Path, folder: Path, network: Mapping[str, Any]) -> dict[str, Any]:
        target = folder / "1" / "model.onnx"
        copy_out(out / network["file"], target)
        return {
            "file": "1/model.onnx",
            "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
            "opset": network["opset"],
            "engines": ["onnxruntime", "triton", "kserve"],
            "max_batch": 4,
            "tolerance": 1e-4,
        }

    def _manifest(self, out: Path, folder: Path, main: Mapping[str, Any], further: list[str]) -> dict[str, Any]:
        content = self._content(out, folder, main) | {
            "title": "Hippocampal volumes on T1 MR (imported: hippodeep)",
            "intended_use": "Research on hippocampal volume. Research use only.",
            "not_for": ["diagnosis", "patient care", "normative comparison", "images after contrast agent"],
            "input": {
                "modality": ["MR"],
                "body_part": {"any": ["HEAD", "BRAIN", "SKULL"], "from": ["tags", "image_content"]},
                "contrast": "absent",
                "series": {"min_slices": 60, "max_step_mm": 2.5, "max_step_ratio": 1.5, "coverage_mm": 130},
                "lossy": {"allowed": True, "max_ratio": 10},
                "select": "thinnest_soft",
            },
            "networks": further,
            "findings": [{"code": ["SCT", "5366008"], "measurements": ["volume"], "regions": ["mask"]}],
            "resources": {"cpu": 2, "memory_mb": 2000, "timeout_s": 120, "target_s": 10},
        }
        _dump(folder / "detector.yaml", content)
        return content

    def _content(self, out: Path, folder: Path, network: Mapping[str, Any]) -> dict[str, Any]:
        """What every imported detector's manifest says."""
        return {
            "schema": "wetread.detector/1",
            "name": self._name,
            "version": "1.0.0",
            "tensors": {"inputs": network["inputs"], "outputs": network["outputs"]},
            "model": self._weights(out, folder, network),
            "licence": self._licence(),
        }

    def _licence(self) -> dict[str, str]:
        return {"code": "Apache-2.0", "weights": self._accepted.licence, "training_data": "unknown: imported"}

    def _origin(self, networks: list[dict[str, Any]] | list[Mapping[str, Any]]) -> dict[str, Any]:
        worst = max(float(network["difference"]) for network in networks)
        return {
            "origin": {
                "kind": "imported",
                "form": self._found.form,
                "digest": self._held.digest,
                "files": [asdict(file) for file in self._held.files],
                "licence_found": self._found.licence,
                "licence_accepted": self._accepted.licence,
                "isolation": self._isolation,
                "equivalence": {"against": "the original in torch, random input", "max_relative_difference": worst},
                "bundle": dict(self._found.facts),
            },
            "origin_notes": [
                f"Imported ({self._found.form}), digest {self._held.digest}.",
                "In shadow until an operator promotes it. What its authors state about accuracy is theirs.",
            ],
        }


_CODE: Final = '''"""Hippocampal volumes on T1 MR: imported networks, our pre- and post-processing."""

from __future__ import annotations

from wetread.detection.recipes.hippodeep import Detector

__all__ = ["Detector"]
'''
_SEGMENTATION: Final = '''"""Segmentation by an imported network; its steps were read from a bundle, as data."""

from __future__ import annotations

from wetread.detection.recipes.segmentation import Normalise, Orient, Scale, Segmentation, Spacing, Steps

__all__ = ["Detector", "Normalise", "Orient", "Scale", "Spacing"]


class Detector(Segmentation):
    """The bundle's steps around its network."""

    STEPS = STEPS_READ
'''
_WORKFLOW: Final = """# Which studies NAME reads. In shadow: its results are stored, but raise and notify nothing.
workflow: NAME
version: 1
on:
  event: study.stable
  when: any(s.modality == 'MR' and like(s.body_part, '*HEAD*', '*BRAIN*') for s in series)
priority: {base: routine}
tasks:
  NAME: {uses: "detector/NAME@^1", timeout: 120s, shadow: true}
  report: {uses: evidence/standard, needs: [NAME]}
"""


def _dump(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(dict(content), file)
