"""What every engine has to do (port ``InferenceClient``). Subclass with a ``client`` of the network below."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wetread.core.errors import ComputationFailed
from wetread.core.manifest import TensorSpec, TensorSpecs
from wetread.core.ports.inference import InferenceClient, NetworkFile
from wetread.testing.onnx_bytes import elementwise_model

WIDTH = 32768


def sigmoid_network(folder: Path, *, name: str = "net") -> NetworkFile:
    """Write and describe a network of one float input ``x`` [n, 32768] and its sigmoid ``p``."""
    weights = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=(-1, WIDTH))
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights)
    specs = TensorSpecs(
        inputs=(TensorSpec(name="x", shape=(-1, WIDTH)),), outputs=(TensorSpec(name="p", shape=(-1, WIDTH)),)
    )
    return NetworkFile(name, path, hashlib.sha256(weights).hexdigest(), 128, specs)


def numbers(count: int, *, seed: int = 1) -> Any:
    """Return a batch of random input."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


class InferenceContract:
    """Subclasses define the fixture ``client`` on ``sigmoid_network``."""

    @pytest.mark.parametrize("count", [1, 3, 130])
    def test_known_numbers(self, client: InferenceClient, count: int) -> None:
        """What comes back is the network of what was sent, also beyond the largest batch (17 MB)."""
        values = numbers(count)
        result = client.infer("net", {"x": values})["p"]
        assert result.dtype == np.float32
        assert result.shape == values.shape
        np.testing.assert_allclose(result, 1 / (1 + np.exp(-values)), atol=1e-6)

    def test_same_input_same_bytes(self, client: InferenceClient) -> None:
        """Two equal calls are equal to the bit, whatever else was in between."""
        first = client.infer("net", {"x": numbers(5)})["p"]
        client.infer("net", {"x": numbers(7, seed=2)})
        assert client.infer("net", {"x": numbers(5)})["p"].tobytes() == first.tobytes()

    def test_a_batch_is_its_items(self, client: InferenceClient) -> None:
        """A batch of n gives what n single calls give."""
        values = numbers(4)
        whole = client.infer("net", {"x": values})["p"]
        for number in range(4):
            np.testing.assert_array_equal(
                client.infer("net", {"x": values[number : number + 1]})["p"][0], whole[number]
            )

    def test_answers_stay_valid(self, client: InferenceClient) -> None:
        """An answer is the caller's own: the next call does not change it."""
        first = client.infer("net", {"x": numbers(2)})["p"]
        kept = first.copy()
        client.infer("net", {"x": numbers(2, seed=9)})
        np.testing.assert_array_equal(first, kept)

    def test_views_are_sent_right(self, client: InferenceClient) -> None:
        """An array that is not contiguous is sent as what it shows."""
        values = numbers(6)[::2]
        np.testing.assert_allclose(client.infer("net", {"x": values})["p"], 1 / (1 + np.exp(-values)), atol=1e-6)

    @pytest.mark.parametrize(
        ("network", "tensors", "reason"),
        [
            ("other", {"x": np.zeros((1, WIDTH), np.float32)}, "model_unavailable"),
            ("net", {"y": np.zeros((1, WIDTH), np.float32)}, "crashed"),
            ("net", {"x": np.zeros((1, WIDTH), np.float64)}, "crashed"),
            ("net", {"x": np.zeros((1, WIDTH), ">f4")}, "crashed"),
            ("net", {"x": np.zeros((1, 3), np.float32)}, "crashed"),
            ("net", {"x": np.zeros(WIDTH, np.float32)}, "crashed"),
            ("net", {"x": np.zeros((0, WIDTH), np.float32)}, "crashed"),
        ],
        ids=["network", "name", "dtype", "byte order", "dimension", "rank", "empty"],
    )
    def test_wrong_input_is_refused(
        self, client: InferenceClient, network: str, tensors: dict[str, Any], reason: str
    ) -> None:
        """Tensors other than the manifest's are a defect of the detector, and typed as one."""
        with pytest.raises(ComputationFailed) as caught:
            client.infer(network, tensors)
        assert caught.value.reason == reason
