"""The import door: what it lets in, and hostile sources, each refused with its own reason before anything runs."""

from __future__ import annotations

import collections
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.cli import app
from wetread.core.ports.inference import NetworkFile
from wetread.detection.importing import onnx_graph, pickles
from wetread.detection.importing.door import Accepted, bring_in, look
from wetread.detection.importing.errors import REASONS, ImportRefused
from wetread.detection.importing.formats import bundle_shape
from wetread.detection.importing.quarantine import quarantine
from wetread.detection.registry import read_network
from wetread.testing.onnx_bytes import _bytes, _integer, elementwise_model

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = elementwise_model("Sigmoid", input_name="x", output_name="p", shape=(-1, 1, 8, 8))


def reason_of(call, *arguments, **options):
    with pytest.raises(ImportRefused) as refused:
        call(*arguments, **options)
    assert refused.value.code in REASONS
    return refused.value.code


def graph_with(tensor=b"", domain=b"", opset_domain=b""):
    node = _bytes(1, b"x") + _bytes(2, b"p") + _bytes(4, b"Sigmoid") + (_bytes(7, domain) if domain else b"")
    graph = _bytes(1, node) + (_bytes(5, tensor) if tensor else b"")
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, opset_domain) + _integer(2, 17))


def external(location):
    entry = _bytes(1, b"location") + _bytes(2, location)
    return _integer(1, 4) + _integer(2, 1) + _bytes(13, entry) + _integer(14, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (graph_with(external(b"../../etc/passwd")), "path_outside"),
        (graph_with(external(b"/etc/passwd")), "path_outside"),
        (graph_with(external(b"..\\secret")), "path_outside"),
        (graph_with(external(b"weights.bin")), "external_data"),
        (graph_with(_integer(1, 4) + _integer(14, 1)), "external_data"),
        (graph_with(_integer(1, 1 << 20) + _integer(1, 1 << 20)), "tensor_too_large"),
        (graph_with(_integer(1, 1 << 62)), "tensor_too_large"),
        (graph_with(domain=b"my.plugin"), "unknown_operator"),
        (graph_with(opset_domain=b"my.plugin"), "unknown_operator"),
        (WEIGHTS[:40], "weights_damaged"),
        (b"\xff" * 64, "weights_damaged"),
        (b"", "weights_damaged"),
    ],
)
def test_hostile_onnx_is_refused_before_an_engine_sees_it(tmp_path, data, reason):
    (tmp_path / "model.onnx").write_bytes(data)
    assert reason_of(look, tmp_path / "model.onnx") == reason


def test_an_honest_file_is_summarised():
    summary = onnx_graph.check(WEIGHTS)
    assert (summary.opset, summary.operators, summary.parameters) == (17, {"Sigmoid"}, 0)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/wetread-should-not-exist",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_a_pickle_that_names_anything_but_tensors_is_refused(tmp_path, protocol, packed):
    data = pickle.dumps({"weight": Bomb()}, protocol=protocol)
    path = tmp_path / "model.pt"
    if packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/data.pkl", data)
    else:
        path.write_bytes(data)
    assert reason_of(look, path) == "code_in_weights"


def test_a_name_hidden_in_the_stack_is_refused_too(tmp_path):
    data = pickle.dumps(collections.OrderedDict, protocol=4)  # harmless, but by STACK_GLOBAL, which torch never writes
    (tmp_path / "model.pt").write_bytes(data)
    assert reason_of(pickles.check, tmp_path / "model.pt") == "code_in_weights"
    (tmp_path / "model.pt").write_bytes(b"\x80\x02}q\x00(X\x03")
    assert reason_of(pickles.check, tmp_path / "model.pt") == "weights_damaged"


def zipped(path, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/"), data)
    return path


def test_paths_that_lead_out_of_an_archive_are_refused(tmp_path):
    for number, name in enumerate(("../evil.onnx", "/evil.onnx", "a/../../evil.onnx", "C:\\evil.onnx")):
        path = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, WEIGHTS)
        assert reason_of(look, path) == "path_outside"
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("../evil.onnx")
        entry.size = len(WEIGHTS)
        archive.addfile(entry, io.BytesIO(WEIGHTS))
    assert reason_of(look, path) == "path_outside"
    assert not (tmp_path.parent / "evil.onnx").exists()


def test_links_are_refused_wherever_they_are(tmp_path):
    target = tmp_path / "real.onnx"
    target.write_bytes(WEIGHTS)
    (tmp_path / "link.onnx").symlink_to(target)
    assert reason_of(look, tmp_path / "link.onnx") == "link"
    assert reason_of(look, tmp_path) == "link"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        path = tmp_path / "linked.tar"
        with tarfile.open(path, "w") as archive:
            entry = tarfile.TarInfo("model.onnx")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        assert reason_of(look, path) == "link"
    info = zipfile.ZipInfo("model.onnx")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "linked.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert reason_of(look, tmp_path / "linked.zip") == "link"


def test_what_is_packed_too_tightly_stops_at_its_real_size(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("configs/metadata.json", b"0" * 3_000_000)

    def hold(**limits):
        with quarantine(tmp_path / "bomb.zip", **limits):
            pass

    assert (tmp_path / "bomb.zip").stat().st_size < 10_000
    assert reason_of(hold, max_bytes=1_000_000) == "too_large"
    assert reason_of(hold, max_files=0) == "too_many_files"
    (tmp_path / "bomb.zip").write_bytes((tmp_path / "bomb.zip").read_bytes()[:-40])
    assert reason_of(look, tmp_path / "bomb.zip") in {"archive_damaged", "unknown_format"}


BUNDLE = {"network_data_format": {"inputs": {"image": {"num_channels": 1, "spatial_shape": [8, 8]}}}, "version": "1"}


@pytest.mark.parametrize(
    ("metadata", "inference", "reason"),
    [
        (BUNDLE, {"a": [{"_target_": "os.system"}]}, "unknown_transform"),
        (BUNDLE, {"transforms": [{"_target_": "monai.transforms.Lambdad"}]}, "unknown_transform"),
        ([], {}, "unknown_format"),
        ("not json", {}, "unknown_format"),
    ],
)
def test_a_bundle_is_read_as_data(tmp_path, metadata, inference, reason):
    path = zipped(
        tmp_path / "bundle.zip",
        b__configs__metadata_json="",
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/configs/metadata.json", metadata if isinstance(metadata, str) else json.dumps(metadata))
        archive.writestr("b/configs/inference.json", json.dumps(inference))
        archive.writestr("b/models/model.onnx", WEIGHTS)
    assert reason_of(look, path) == reason


def test_other_refusals_have_their_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert reason_of(look, tmp_path / "absent") == "not_found"
    assert reason_of(look, tmp_path / "notes.txt") == "unknown_format"
    path = zipped(tmp_path / "b.zip", configs__metadata="")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("configs/metadata.json", json.dumps(BUNDLE))
    assert reason_of(look, path) == "unknown_format"
    assert bundle_shape({"data_format": BUNDLE["network_data_format"]}) == (1, 8, 8)
    open_size = {"inputs": {"image": {"num_channels": 1, "spatial_shape": ["8*n", 8]}}}
    assert bundle_shape({"data_format": open_size}) == ()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b/configs/metadata.json", json.dumps(BUNDLE))
        steps = {"transforms": [{"_target_": "Spacingd", "pixdim": "$__import__('os').system('false')"}]}
        archive.writestr("b/configs/inference.json", json.dumps({"preprocessing": steps}))
        archive.writestr("b/models/model.onnx", WEIGHTS)
        archive.writestr("b/LICENSE", "Apache License\nVersion 2.0, January 2004")
    return path


@pytest.fixture(scope="module")
def brought(bundle, tmp_path_factory):
    into = tmp_path_factory.mktemp("detectors")
    return bring_in(bundle, into, "foreign", Accepted(look(bundle).digest, "Apache-2.0"))


def test_a_bundle_comes_in_as_a_network_in_shadow_that_the_engine_serves(brought):
    [folder] = brought
    network = read_network(folder)
    card = json.loads((folder / "model-card.json").read_text())
    assert card["shadow"] is True
    assert card["origin"]["licence_found"] == "Apache-2.0"
    assert card["origin"]["digest"] == network.origin
    assert "no sockets, no programs" in card["origin"]["isolation"]
    assert card["origin"]["bundle"]["preprocessing"][0]["pixdim"].startswith("$"), "kept as text, never evaluated"
    file = NetworkFile("foreign", folder / network.model.file, network.model.sha256, 4, network.tensors)
    x = np.linspace(-3, 3, 2 * 64, dtype=np.float32).reshape(2, 1, 8, 8)
    answer = OnnxRuntimeClient([file]).infer("foreign", {"x": x})["p"]
    assert answer == pytest.approx(1 / (1 + np.exp(-x)), abs=1e-6)


def test_only_what_was_accepted_comes_in(bundle, brought, tmp_path):
    digest = look(bundle).digest
    assert reason_of(bring_in, bundle, tmp_path, "foreign", Accepted("0" * 64, "MIT")) == "changed"
    assert reason_of(bring_in, bundle, tmp_path, "foreign", Accepted(digest, " ")) == "not_accepted"
    assert reason_of(bring_in, bundle, tmp_path, "../x", Accepted(digest, "MIT")) == "name_taken"
    assert list(tmp_path.iterdir()) == []


def test_the_command_shows_before_it_takes(bundle, tmp_path):
    run = CliRunner()
    seen = run.invoke(app, ["models", "import", str(bundle)])
    assert seen.exit_code == 1
    assert look(bundle).digest in seen.output
    assert "Apache License" in seen.output
    refused = run.invoke(app, ["models", "import", str(tmp_path / "absent")])
    assert refused.exit_code == 2
    assert "not_found" in refused.output
    bare = run.invoke(app, ["models", "import", str(bundle), "--accept", "--name", "x"])
    assert bare.exit_code == 2
    assert "--into" in bare.output


def test_the_child_reaches_nothing_and_starts_nothing():
    code = """
import socket, subprocess, os, resource
from wetread.detection.importing.sandbox import isolate
isolate(1 << 30, 30, 1 << 20)
for deed in (lambda: socket.create_connection(("127.0.0.1", 9)), lambda: subprocess.run(["true"]),
             lambda: os.system("true"), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        deed()
    except PermissionError:
        continue
    raise SystemExit(1)
try:
    bytearray(2 << 30)
except MemoryError:
    raise SystemExit(0)
raise SystemExit(2)
"""
    path = os.pathsep.join(p for p in sys.path if p)
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False).returncode == 0


def test_every_reason_is_documented():
    text = (ROOT / "docs" / "detectors.md").read_text("utf-8")
    assert [reason for reason in REASONS if f"`{reason}`" not in text] == []
