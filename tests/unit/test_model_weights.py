"""Training folders write what they trained: the exported graph answers as the torch module does (extra ``torch``)."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.detection.registry import bundled_folder, companion, read_folder

pytestmark = [pytest.mark.slow, pytest.mark.server("torch"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.mark.parametrize("name", ["echo-ef", "lung-nodule"])
def test_an_export_is_the_network_and_is_pinned(name, tmp_path):
    import torch

    folder = shutil.copytree(bundled_folder() / name, tmp_path / name)
    before = read_folder(folder)
    training = companion(before, "train")
    torch.manual_seed(11)
    network = training.network().eval()
    torch.save(network.state_dict(), tmp_path / "last.pt")
    training.export(tmp_path)
    after = read_folder(folder)  # refuses weights that are not those of the manifest
    assert after.info.model_digest != before.info.model_digest
    manifest = after.info.manifest
    (given,) = manifest.tensors.inputs
    tensor = np.random.default_rng(3).standard_normal((3, *given.shape[1:])).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(tensor))
    found = OnnxRuntimeClient(after.networks, threads=1).infer(name, {given.name: tensor})
    for output, value in zip(manifest.tensors.outputs, expected, strict=True):
        assert found[output.name] == pytest.approx(value.numpy(), abs=1e-4)
