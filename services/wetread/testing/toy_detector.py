"""A complete detector folder in miniature, for tests of the registry, the engine and the runner.

It marks voxels brighter than a threshold. Its ``behave`` parameter lets tests ask for every kind of trouble.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.errors import CorruptRecord, NotFound, Unavailable
from wetread.core.ports.inference import NetworkFile
from wetread.core.ports.objects import ObjectRef
from wetread.detection.worker_ports import WorkerPorts
from wetread.testing.onnx_bytes import elementwise_model

FOLDER_VARIABLE = "WETREAD_TEST_STORE"
"""Environment variable that tells ``folder_ports`` where instances and artifacts lie."""

CODE = '''"""Marks voxels brighter than a threshold: a detector for tests."""

import os
import time

import numpy as np

from wetread.core.detector import BaseDetector, Change, Explanation, Measure, Observation, Request, Result
from wetread.core.dicom import selection
from wetread.core.errors import NotProcessable

LEVELS = {"explain": 0.5, "explain nothing": 0.0, "explain too much": 1.5}


class Detector(BaseDetector):
    """Everything above 60 HU is bright."""

    def applicable(self, study):
        return selection.applicable(self.manifest.input, study)

    def select(self, study):
        return selection.select(self.manifest.input, study)

    def steps(self, volume, context):
        behave = context.parameters["behave"]
        if behave == "hang":
            time.sleep(3600)
        if behave == "die":
            os._exit(9)
        if behave == "raise":
            raise KeyError("patient name")
        if behave == "memory":
            np.ones((1 << 40,), dtype=np.uint8)
        if behave == "refuse":
            raise NotProcessable("motion", "the patient moved")
        outputs = yield Request("toy", {"x": volume.voxels[:, None] - 60.0})
        if behave == "contradict":
            return Result("positive", mask=np.zeros((1, 1, 1), np.uint8))
        if behave == "nothing":
            return None
        mask = (outputs["p"][:, 0] > 0.5).astype(np.uint8)
        bright = float((mask.sum(axis=(1, 2)) * volume.voxel_volumes_ml).sum())
        state = "positive" if bright > 0 else "negative"
        seen = Observation(
            "intracranial_hemorrhage",
            state,
            score=float(outputs["p"].max()),
            measures=(Measure("volume", bright, "mL"),),
            label=1 if bright > 0 else None,
            change=next((Change("stable", prior, prior.findings[0]) for prior in context.priors.results), None),
        )
        explanation = None
        if behave in LEVELS:
            cells = np.full((2, 3, 4), LEVELS[behave], np.float32)
            corner, across, down = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
            explanation = Explanation("occlusion", cells, corner, across, down, (5.0, 2.0, 1.0), "Toys only.")
        score = float(outputs["p"].max())
        return Result(state, (seen,), score, 0.5, mask, explanation, flags=("toy",))
'''


def write_toy(root: Path, name: str = "toy", **changes: Any) -> Path:
    """Write the detector folder *name* under *root* and return it. *changes* go over the manifest's top level."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    weights = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=(-1, 1, 8, 8))
    (folder / "1" / "model.onnx").write_bytes(weights)
    (folder / "detector.py").write_text(CODE.replace('Request("toy"', f'Request("{name}"'), "utf-8")
    manifest: dict[str, Any] = {
        "schema": "wetread.detector/1",
        "name": name,
        "version": "1.0.0",
        "title": "Bright voxels",
        "intended_use": "Tests only. Research use only.",
        "not_for": ["patients"],
        "input": {
            "modality": ["CT"],
            "contrast": "absent",
            "series": {"min_slices": 3, "max_step_mm": 12.5, "orientation": "axial"},
            "select": "thinnest_soft",
        },
        "tensors": {
            "inputs": [{"name": "x", "shape": [-1, 1, 8, 8]}],
            "outputs": [{"name": "p", "shape": [-1, 1, 8, 8]}],
        },
        "model": {
            "file": "1/model.onnx",
            "sha256": hashlib.sha256(weights).hexdigest(),
            "opset": 17,
            "engines": ["onnxruntime"],
            "max_batch": 4,
        },
        "findings": [{"code": ["SCT", "1386000"], "measurements": ["volume_ml"], "regions": ["mask"]}],
        "resources": {"memory_mb": 200, "timeout_s": 30},
        "licence": {"code": "Apache-2.0", "weights": "Apache-2.0", "training_data": "none"},
        "parameters": {"behave": "well"},
        **changes,
    }
    with (folder / "detector.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(manifest, file)
    point = {"name": "half", "threshold": 0.5, "set": "tune", "sensitivity": 1.0, "specificity": 1.0}
    card = {"name": name, "version": manifest["version"], "operating_points": [point]}
    card |= {"default_operating_point": "half", "phantom_evidence_id": "toy"}
    (folder / "model-card.json").write_text(json.dumps(card), "utf-8")
    return folder


class FolderStore:
    """Reads instances and keeps artifacts as plain files of one folder: for worker processes under test."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def append(self, tenant: str, records: Sequence[tuple[bytes, Sequence[bytes | memoryview]]]) -> list[ObjectRef]:
        """Store records; the locator is the file name."""
        refs = []
        for _, chunks in records:
            data = b"".join(chunks)
            name = hashlib.sha256(tenant.encode() + data).hexdigest()
            (self._root / name).write_bytes(data)
            refs.append(ObjectRef(name, len(data)))
        return refs

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        """Return payload bytes."""
        if ref.locator == "unavailable":
            raise Unavailable("the store is down")
        try:
            data = (self._root / ref.locator).read_bytes()
        except OSError as error:
            raise CorruptRecord("no such record") from error
        return data[start:] if length is None else data[start : start + length]

    def scan(self, after: Sequence[str] = ()) -> Iterator[tuple[str, bytes, ObjectRef]]:  # noqa: ARG002 - the port's
        """Nothing to scan: this store keeps no descriptions."""
        return iter(())

    def put(self, tenant: str, key: str, data: bytes) -> None:
        """Store an artifact."""
        (self._root / self._name(tenant, key)).write_bytes(data)

    def get(self, tenant: str, key: str) -> bytes:
        """Return an artifact. Raises NotFound."""
        try:
            return (self._root / self._name(tenant, key)).read_bytes()
        except OSError as error:
            raise NotFound("no such artifact") from error

    @staticmethod
    def _name(tenant: str, key: str) -> str:
        return hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest() + ".artifact"


def folder_ports() -> WorkerPorts:
    """Return worker ports over the folder that the environment names."""
    store = FolderStore(Path(os.environ[FOLDER_VARIABLE]))

    def engine(networks: Sequence[NetworkFile]) -> OnnxRuntimeClient:
        return OnnxRuntimeClient(networks, threads=1)

    return WorkerPorts(store, store, PydicomFrameDecoder(), engine, threads=1)
