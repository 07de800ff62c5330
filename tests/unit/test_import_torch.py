"""TorchScript, state dicts and bundles of them through the whole door, with networks made here (extra ``torch``).

Slow: every conversion loads torch in a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_import_bundle import CONFIG, INFERENCE, METADATA, ball, bundle
from typer.testing import CliRunner

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.cli import app
from wetread.core.ports.inference import NetworkFile
from wetread.detection.artifact import read_mask
from wetread.detection.commands import detect
from wetread.detection.importing import sandbox
from wetread.detection.importing.door import Accepted, bring_in, look
from wetread.detection.importing.errors import REASONS, ImportRefused
from wetread.detection.importing.formats import WeightFile
from wetread.detection.registry import discover, read_network
from wetread.testing.phantoms.series import series_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.server("torch"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),  # people's files are of that form
]
ITEM = (1, 8, 8)


def small():
    """A network with everything that an export may get wrong: padding, running statistics, softmax."""
    import torch

    torch.manual_seed(4)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ELU(), torch.nn.Conv2d(4, 2, 1),
        torch.nn.Softmax(dim=1),
    )  # fmt: skip
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2.0)
    return network.eval()


def script(network, path: Path, *, traced: bool = False) -> Path:
    import torch

    made = torch.jit.trace(network, torch.zeros(2, *ITEM)) if traced else torch.jit.script(network)
    made.save(str(path))
    return path


def answer(folder: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """What the imported network says, served as any other."""
    network = read_network(folder)
    file = NetworkFile(network.name, folder / network.model.file, network.model.sha256, 4, network.tensors)
    return dict(OnnxRuntimeClient([file]).infer(network.name, {network.tensors.inputs[0].name: x}))


def refusal(source: Path, into: Path, **options) -> str:
    with pytest.raises(ImportRefused) as refused:
        bring_in(source, into, "foreign", Accepted(look(source).digest, "MIT"), **options)
    assert refused.value.code in REASONS
    assert not into.exists() or list(into.iterdir()) == []
    return refused.value.code


@pytest.mark.parametrize("traced", [False, True])
def test_torchscript_comes_in_and_says_the_same(tmp_path, traced) -> None:
    import torch

    network = small()
    path = script(network, tmp_path / "net.pt", traced=traced)
    seen = look(path)
    assert (seen.form, seen.weights) == ("files", ("net.pt (torchscript)",))
    (folder,) = bring_in(path, tmp_path / "in", "foreign", Accepted(seen.digest, "MIT"), shape=ITEM)
    x = np.random.default_rng(2).standard_normal((3, *ITEM)).astype(np.float32)
    with torch.no_grad():
        assert answer(folder, x)["y"] == pytest.approx(network(torch.from_numpy(x)).numpy(), abs=1e-5)
    card = json.loads((folder / "model-card.json").read_text())
    assert card["shadow"] is True
    assert card["origin"]["equivalence"]["max_relative_difference"] < 1e-5
    assert card["origin"]["licence_accepted"] == "MIT"


def test_torchscript_needs_sizes_and_gives_every_output(tmp_path) -> None:
    import torch

    class Two(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x), x.mean(dim=(1, 2, 3))

    path = script(Two(), tmp_path / "two.ts")
    assert refusal(path, tmp_path / "in") == "shape_unknown"
    (folder,) = bring_in(path, tmp_path / "in", "two", Accepted(look(path).digest, "MIT"), shape=ITEM)
    x = np.random.default_rng(2).standard_normal((2, *ITEM)).astype(np.float32)
    found = answer(folder, x)
    assert found["y0"] == pytest.approx(np.maximum(x, 0))
    assert found["y1"] == pytest.approx(x.mean(axis=(1, 2, 3)), abs=1e-6)


class Noisy:
    """Made inside the tests: torch is not there to derive from when this file is read."""

    @staticmethod
    def network():
        import torch

        class Network(torch.nn.Module):
            def forward(self, x):
                return x + torch.randn_like(x)

        return Network()


def test_a_network_that_torch_and_the_engine_answer_differently_is_refused(tmp_path) -> None:
    path = script(Noisy.network(), tmp_path / "noisy.ts")
    assert refusal(path, tmp_path / "in", shape=ITEM) == "not_equivalent"


def test_damaged_and_disguised_archives_are_refused_and_run_nothing(tmp_path) -> None:
    """Torchscript by its file names, a program by its pickle: torch's own reader refuses it."""
    marker = tmp_path / "executed"
    disguised = tmp_path / "disguised.pt"
    with zipfile.ZipFile(disguised, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"net/{name}", pickle.dumps(bomb(marker), protocol=2))
        archive.writestr("net/version", "3\n")
        archive.writestr("net/code/__torch__.py", "import os\nos.system('touch " + str(marker) + "')\n")
    assert refusal(disguised, tmp_path / "in", shape=ITEM) == "weights_damaged"
    whole = script(small(), tmp_path / "net.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    assert refusal(tmp_path / "half.pt", tmp_path / "in", shape=ITEM) in {"weights_damaged", "code_in_weights"}
    assert not marker.exists()


# --- pickles ---------------------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def bomb(marker: Path) -> dict:
    return {"weight": Bomb(marker)}


def test_a_malicious_pickle_is_refused_twice_and_never_executed(tmp_path) -> None:
    """The door reads it and refuses; and the conversion, were it reached, refuses to load it. The bomb itself works."""
    import torch

    marker, plain, packed = tmp_path / "executed", tmp_path / "plain.pt", tmp_path / "packed.pt"
    plain.write_bytes(pickle.dumps(bomb(marker), protocol=2))
    torch.save(bomb(marker), packed)
    for path in (plain, packed):
        with pytest.raises(ImportRefused) as refused:
            look(path)
        assert refused.value.code == "code_in_weights"
        command = ["models", "import", str(path), "--accept", "--sha256", "0" * 64, "--licence", "MIT"]
        done = CliRunner().invoke(app, [*command, "--name", "evil", "--into", str(tmp_path / "in")])
        assert done.exit_code == 2
        job = {"root": str(tmp_path), "out": str(tmp_path), "weights": [asdict(WeightFile(path.name, "state_dict"))]}
        with pytest.raises(ImportRefused) as late:
            sandbox.convert({**job, "shape": None})
        assert late.value.code == "weights_damaged"
    assert not marker.exists(), "nothing was executed"
    assert not (tmp_path / "in").exists()
    done = subprocess.run(
        [sys.executable, "-c", f"import pickle; pickle.load(open({str(plain)!r}, 'rb'))"], check=False
    )
    assert done.returncode == 0
    assert marker.is_dir(), "the test's own proof: loading it anywhere else does execute it"


# --- state dicts -----------------------------------------------------------------------------------------------------


def affine_weights():
    """The smallest weights that the affine network of hippodeep can have: one channel, real shapes."""
    import torch

    torch.manual_seed(6)
    weights = {}
    for layer, inputs, size in (("convaff1", 2, 3), ("convaff2", 1, 3), ("convaff3", 1, 3), ("convaff4", 1, 3)):
        weights[f"{layer}.weight"] = torch.randn(1, inputs, size, size, size)
        weights[f"{layer}.bias"] = torch.randn(1)
    for layer, edge in ((2, 32), (3, 16), (4, 8)):
        weights[f"bnaff{layer}.weight"], weights[f"bnaff{layer}.bias"] = torch.rand(2, 1, edge, edge, edge)
    weights["convaff5.weight"], weights["convaff5.bias"] = torch.randn(1, 1, 1, 1, 1), torch.randn(1)
    weights["convaff6.weight"], weights["convaff6.bias"] = torch.randn(12, 1, 4, 4, 4), torch.randn(12)
    return weights


@pytest.mark.parametrize("legacy", [False, True])
def test_the_state_dict_of_a_known_network_comes_in_and_says_the_same(tmp_path, legacy) -> None:
    import torch

    from wetread.detection.importing.hippodeep_networks import AffineNetwork

    weights, path = affine_weights(), tmp_path / "affine.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    seen = look(path)
    assert seen.weights == ("affine.pt (state_dict)",)
    (folder,) = bring_in(path, tmp_path / "in", "affine", Accepted(seen.digest, "MIT"))
    x = np.random.default_rng(2).standard_normal((2, 2, 64, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = AffineNetwork(weights).eval()(torch.from_numpy(x)).numpy()
    assert answer(folder, x)["y"] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_weights_without_a_network_are_no_model(tmp_path) -> None:
    import torch

    for name, content in {
        "stranger.pt": small().state_dict(),
        "nested.pt": {"state_dict": affine_weights(), "epoch": 3},
        "list.pt": [torch.zeros(2)],
        "broken.pt": {k: v for k, v in affine_weights().items() if "convaff3" not in k},
    }.items():
        torch.save(content, tmp_path / name)
        assert refusal(tmp_path / name, tmp_path / "in") == "unknown_architecture"


# --- bundles and repositories of them --------------------------------------------------------------------------------


class Shifted:
    """Bright voxels, one voxel further along the first axis: only the right axes put the mask where it belongs."""

    @staticmethod
    def network():
        import torch

        network = torch.nn.Conv3d(1, 2, 3, padding=1)
        with torch.no_grad():
            network.weight.zero_()
            network.bias.zero_()
            network.weight[1, 0, 0, 1, 1] = 4.0  # reads its neighbour at the lower index
        return network.eval()


def test_a_torchscript_bundle_becomes_a_detector_with_the_right_axes(tmp_path) -> None:
    import torch

    metadata = json.loads(json.dumps(METADATA))
    channels = {"num_channels": 2, "channel_def": {"0": "background", "1": "bright region"}}
    metadata["network_data_format"]["outputs"]["pred"] = channels
    inference = json.loads(json.dumps(INFERENCE))
    inference["pixdim"] = [2.0, 2.0, 2.5]
    steps = inference["postprocessing"]["transforms"]
    steps[1:2] = [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "argmax": True}]
    torch.jit.trace(Shifted.network(), torch.zeros(1, 1, 16, 16, 16)).save(str(tmp_path / "model.ts"))
    source = bundle(tmp_path / "source", inference, (tmp_path / "model.ts").read_bytes(), "model.ts")
    (source / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (source / "models" / "model.pt").write_bytes(b"not looked at: there is a model.ts")
    bring_in(source, tmp_path / "in", "bright", Accepted(look(source).digest, "Apache-2.0"))
    assert discover(str(tmp_path / "in"))["bright"].info.manifest.input.modality == ("CT",)
    volume, scratch = ball(), tmp_path / "series"
    scratch.mkdir()
    for number, data in enumerate(series_of(volume, seed=3, modality="CT")):
        (scratch / f"{number}.dcm").write_bytes(data)
    detect(
        "bright",
        scratch,
        decoder=PydicomFrameDecoder(),
        inference=lambda networks: OnnxRuntimeClient(networks, threads=1),
        detectors=str(tmp_path / "in"),
        out=tmp_path / "out",
    )
    (path,) = (tmp_path / "out").glob("*.npz")
    found, truth = np.argwhere(read_mask(path.read_bytes())), np.argwhere(volume.voxels > 100)
    moved = found.mean(axis=0) - truth.mean(axis=0)
    # each voxel reads its neighbour to the left (axes RAS): the mask moves to the right, which is one column less here
    assert moved == pytest.approx((0.0, 0.0, -1.0), abs=0.15)


def test_a_bundle_of_bare_weights_is_refused(tmp_path) -> None:
    import torch

    torch.save(small().state_dict(), tmp_path / "model.pt")
    source = bundle(tmp_path / "source", INFERENCE, (tmp_path / "model.pt").read_bytes(), "model.pt")
    with pytest.raises(ImportRefused) as refused:
        look(source)
    assert refused.value.code == "unknown_architecture"


def test_a_repository_of_torchscript_takes_its_sizes_from_its_configuration(tmp_path) -> None:
    import torch

    network, version = small(), tmp_path / "net" / "1"
    version.mkdir(parents=True)
    script(network, version / "model.pt")
    (tmp_path / "net" / "config.pbtxt").write_text(CONFIG.replace("onnxruntime_onnx", "pytorch_libtorch"))
    seen = look(tmp_path / "net")
    assert (seen.form, seen.weights) == ("triton", ("1/model.pt (torchscript)",))
    (folder,) = bring_in(tmp_path / "net", tmp_path / "in", "net", Accepted(seen.digest, "MIT"))
    x = np.random.default_rng(2).standard_normal((1, *ITEM)).astype(np.float32)
    with torch.no_grad():
        assert answer(folder, x)["y"] == pytest.approx(network(torch.from_numpy(x)).numpy(), abs=1e-5)


def test_digest_and_licence_are_asked_by_the_command(tmp_path) -> None:
    path, into = script(small(), tmp_path / "net.pt"), tmp_path / "in"
    digest = look(path).digest
    base = ["models", "import", str(path), "--accept", "--name", "net", "--into", str(into), "--shape", "1,8,8"]
    for given, reason in (
        (["--sha256", "0" * 64, "--licence", "MIT"], "changed"),
        (["--sha256", digest], "not_accepted"),
    ):
        done = CliRunner().invoke(app, [*base, *given])
        assert (done.exit_code, reason in done.output) == (2, True)
        assert not into.exists()
    done = CliRunner().invoke(app, [*base, "--sha256", digest, "--licence", "MIT"])
    assert done.exit_code == 0, done.output
    assert (into / "net" / "1" / "model.onnx").is_file()
    again = CliRunner().invoke(app, [*base, "--sha256", digest, "--licence", "MIT"])
    assert "name_taken" in again.output
