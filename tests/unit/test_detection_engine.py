"""ONNX Runtime in process: pinned weights, checked tensors, batches, identity."""

from __future__ import annotations

import hashlib

import numpy as np
import onnxruntime
import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient, engine_identity
from wetread.core.errors import ComputationFailed
from wetread.core.manifest import TensorSpec, TensorSpecs
from wetread.core.ports.inference import NetworkFile
from wetread.testing.onnx_bytes import elementwise_model


def network(tmp_path, *, shape=(-1, 3), max_batch=2, sha256=None, spec=None):
    weights = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=shape)
    path = tmp_path / "model.onnx"
    path.write_bytes(weights)
    side = (spec or TensorSpec(name="x", shape=(-1, 3)),)
    tensors = TensorSpecs(inputs=side, outputs=(TensorSpec(name="p", shape=(-1, 3)),))
    return NetworkFile("net", path, sha256 or hashlib.sha256(weights).hexdigest(), max_batch, tensors)


def reason_of(call):
    with pytest.raises(ComputationFailed) as caught:
        call()
    return caught.value.reason


def test_batches_larger_than_the_manifest_allows_are_split_and_joined(tmp_path, monkeypatch):
    seen = []
    real = OnnxRuntimeClient._run

    def counting(session, names, feeds):
        seen.append(len(feeds["x"]))
        return real(session, names, feeds)

    monkeypatch.setattr(OnnxRuntimeClient, "_run", staticmethod(counting))
    values = np.linspace(-3, 3, 15, dtype=np.float32).reshape(5, 3)
    outputs = OnnxRuntimeClient([network(tmp_path)], threads=1).infer("net", {"x": values})
    assert seen == [2, 2, 1]
    assert outputs["p"] == pytest.approx(1 / (1 + np.exp(-values)), abs=1e-6)


def test_the_same_batch_gives_the_same_bytes(tmp_path):
    values = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    first, second = (OnnxRuntimeClient([network(tmp_path)]).infer("net", {"x": values})["p"] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_warm_up_opens_every_network_and_refuses_changed_weights(tmp_path):
    OnnxRuntimeClient([network(tmp_path)]).warm_up()
    assert reason_of(OnnxRuntimeClient([network(tmp_path, sha256="0" * 64)]).warm_up) == "model_unavailable"
    missing = network(tmp_path)
    missing.path.unlink()
    assert reason_of(OnnxRuntimeClient([missing]).warm_up) == "model_unavailable"


def test_weights_that_are_no_model_are_refused(tmp_path):
    broken = network(tmp_path, sha256=hashlib.sha256(b"no model").hexdigest())
    broken.path.write_bytes(b"no model")
    assert reason_of(OnnxRuntimeClient([broken]).warm_up) == "model_unavailable"


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(name="y", shape=(-1, 3)),
        TensorSpec(name="x", shape=(-1, 4)),
        TensorSpec(name="x", shape=(-1, 3, 1)),
        TensorSpec(name="x", dtype="INT64", shape=(-1, 3)),
    ],
)
def test_a_model_with_other_tensors_than_the_manifest_is_not_served(tmp_path, spec):
    client = OnnxRuntimeClient([network(tmp_path, spec=spec)])
    assert reason_of(client.warm_up) == "model_unavailable"


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"x": np.zeros((2, 3), np.float64)},
        {"x": np.zeros((2, 4), np.float32)},
        {"x": np.zeros(3, np.float32)},
        {"x": np.zeros((2, 3), np.float32), "y": np.zeros((2, 3), np.float32)},
        {"x": np.zeros((0, 3), np.float32)},
    ],
)
def test_tensors_that_break_the_contract_are_our_failure(tmp_path, tensors):
    client = OnnxRuntimeClient([network(tmp_path)])
    assert reason_of(lambda: client.infer("net", tensors)) == "crashed"


def test_an_unknown_network_is_unavailable(tmp_path):
    assert reason_of(lambda: OnnxRuntimeClient([]).infer("net", {})) == "model_unavailable"


def test_identity_names_engine_version_precision_and_device(tmp_path):
    assert engine_identity() == f"onnxruntime {onnxruntime.__version__} fp32 cpu"
    assert OnnxRuntimeClient([network(tmp_path)]).engine == engine_identity()
