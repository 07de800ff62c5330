"""Engines: in process, on a real Triton (wire and shared memory), on a real KServe server; all the same numbers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.adapters.inference.triton import OipClient, server_identity
from wetread.adapters.inference.triton_repository import render
from wetread.bootstrap.networks import installed_networks
from wetread.core.errors import ComputationFailed, ConfigurationError, Unavailable
from wetread.core.manifest import TensorSpec, TensorSpecs
from wetread.core.ports.inference import NetworkFile
from wetread.detection.registry import discover
from wetread.pathology.tile_model import load_tile_model
from wetread.testing.contracts.inference import InferenceContract, numbers, sigmoid_network
from wetread.testing.servers.kserve import kserve
from wetread.testing.servers.process import free_port
from wetread.testing.servers.triton import TritonServer, triton

_SLOW = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [np.from_dlpack(pb_utils.get_input_tensor_by_name(r, "x")) for r in requests]
        time.sleep(0.03 + 0.002 * sum(len(x) for x in inputs))
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("p", np.array(x))]) for x in inputs
        ]
"""


@dataclass(frozen=True)
class Served:
    server: TritonServer
    net: NetworkFile
    slow: NetworkFile
    ich: NetworkFile
    tiles: NetworkFile

    def client(self, network: NetworkFile, **options: object) -> OipClient:
        return OipClient(self.server.url, [network], **options)  # type: ignore[arg-type]


def ich_network() -> NetworkFile:
    (network,) = discover("")["ich"].networks
    return network


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder, out = tmp_path_factory.mktemp("networks"), tmp_path_factory.mktemp("rendered") / "repository"
    net, ich = sigmoid_network(folder), ich_network()
    line = TensorSpecs(inputs=(TensorSpec(name="x", shape=(-1, 4)),), outputs=(TensorSpec(name="p", shape=(-1, 4)),))
    slow = replace(sigmoid_network(folder, name="slow"), max_batch=4, tensors=line)
    tiles = load_tile_model("he-tile").network
    assert render([net, slow, ich, tiles], out, "python") == ["net", "slow", "ich", "he-tile"]
    (out / "slow/1/model.py").write_text(_SLOW)
    with triton(out, ["net", "slow", "ich", "he-tile"]) as server:
        yield Served(server, net, slow, ich, tiles)


@pytest.fixture(scope="module")
def kserve_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, NetworkFile]]:
    network = sigmoid_network(tmp_path_factory.mktemp("kserve"))
    with kserve(network.path) as url:
        yield url, network


class TestInProcess(InferenceContract):
    @pytest.fixture
    def client(self, tmp_path: Path) -> OnnxRuntimeClient:
        return OnnxRuntimeClient([sigmoid_network(tmp_path)])


@pytest.mark.server("triton")
class TestTritonByWire(InferenceContract):
    @pytest.fixture
    def client(self, served: Served) -> Iterator[OipClient]:
        client = served.client(served.net, shared_memory=False)
        yield client
        client.close()


@pytest.mark.server("triton")
class TestTritonBySharedMemory(InferenceContract):
    @pytest.fixture
    def client(self, served: Served) -> Iterator[OipClient]:
        client = served.client(served.net)
        client.warm_up()
        assert client._regions is not None
        yield client
        client.close()


@pytest.mark.server("kserve")
class TestKServe(InferenceContract):
    @pytest.fixture
    def client(self, kserve_url: tuple[str, NetworkFile]) -> Iterator[OipClient]:
        client = OipClient(kserve_url[0], [kserve_url[1]])
        client.warm_up()
        yield client
        client.close()


@pytest.mark.server("kserve")
def test_what_a_server_cannot_do_is_not_asked_of_it(kserve_url: tuple[str, NetworkFile]) -> None:
    client = OipClient(kserve_url[0], [kserve_url[1]])
    assert "system_shared_memory" not in client.capabilities
    assert client._regions is None
    assert client.engine.startswith("kserve ")
    client.close()


@pytest.mark.server("triton")
@pytest.mark.parametrize("shared_memory", [True, False])
def test_the_detector_network_gives_the_same_on_triton_as_in_process(served: Served, shared_memory: bool) -> None:
    slabs = np.random.default_rng(3).normal(size=(2, 15, 256, 256)).astype(np.float32)
    client = served.client(served.ich, shared_memory=shared_memory)
    client.warm_up()
    here, there = OnnxRuntimeClient([served.ich]).infer("ich", {"slabs": slabs}), client.infer("ich", {"slabs": slabs})
    client.close()
    assert here.keys() == there.keys()
    assert max(float(np.abs(here[name] - there[name]).max()) for name in here) == 0.0


@pytest.mark.server("triton", "openslide")
def test_the_rows_of_a_slide_are_the_same_on_triton_as_in_process(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chunk worker of every pool, with nothing changed but the setting: same rows, embeddings too."""
    from dataclasses import asdict

    import pyarrow.parquet as pq
    from tests.pathology_world import bigger, written

    from wetread.bootstrap.pathology import chunk_worker
    from wetread.pathology.chunk import Chunk, TileReading

    slide, rows = written(tmp_path, spec=bigger()), []
    corners = np.array([[x, y] for y in range(512, 1536, 256) for x in range(512, 1536, 256)], dtype=np.int32)
    reading = TileReading(0, (256, 256), 256, 0.5, (1.0, 1.0), (1.0, 1.0))
    for name, url in (("here", None), ("there", served.server.url)):
        if url is not None:
            monkeypatch.setenv("WETREAD_INFERENCE_URL", url)
        (tmp_path / name).mkdir()
        worker = chunk_worker(
            {
                "location": [str(slide)],
                "native": True,
                "reading": asdict(reading),
                "model": str(served.tiles.path.parent.parent),
                "embeddings": True,
                "parts": str(tmp_path / name),
            }
        )
        assert worker(Chunk(0, corners)).done == len(corners)
        worker.close()
        (part,) = (tmp_path / name).glob("part-*.parquet")
        rows.append(pq.read_table(part))
    here, there = rows
    assert here.equals(there)
    assert max(here.column("p_dense").to_pylist()) > 0.9


@pytest.mark.server("triton")
def test_a_server_whose_network_is_another_is_refused(served: Served) -> None:
    shorter = TensorSpecs(inputs=(TensorSpec(name="x", shape=(-1, 5)),), outputs=served.net.tensors.outputs)
    renamed = TensorSpecs(inputs=served.net.tensors.inputs, outputs=(TensorSpec(name="q", shape=(-1, 5)),))
    for network in (replace(served.net, tensors=shorter), replace(served.net, tensors=renamed),
                    replace(served.net, name="absent")):  # fmt: skip
        client = served.client(network)
        with pytest.raises(ComputationFailed) as caught:
            client.warm_up()
        assert caught.value.reason == "model_unavailable"
        client.close()


@pytest.mark.server("triton")
def test_a_network_that_the_server_lacks_fails_its_own_runs_only(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    client = OipClient(served.server.url, [replace(served.net, name="absent"), served.net])
    client.warm_up()
    assert "the server has no network absent" in caplog.text
    assert client.infer("net", {"x": numbers(3)})["p"].shape[0] == 3
    with pytest.raises(ComputationFailed) as caught:
        client.infer("absent", {"x": numbers(3)})
    assert caught.value.reason == "model_unavailable"
    client.close()


@pytest.mark.server("triton")
def test_a_deadline_ends_a_call_and_not_the_client(served: Served) -> None:
    client = served.client(served.slow, timeout_seconds=0.5)
    values = {"x": np.ones((1, 4), np.float32)}
    client.infer("slow", values)
    client._timeout = 0.005
    with pytest.raises(ComputationFailed) as caught:
        client.infer("slow", values)
    assert caught.value.reason == "timeout"
    client._timeout = 5.0
    np.testing.assert_array_equal(client.infer("slow", values)["p"], values["x"])
    client.close()


def shared_files() -> set[str]:
    return {path.name for path in Path("/dev/shm").glob(f"wetread-{os.getpid()}-*")}


@pytest.mark.server("triton")
def test_no_region_is_left_behind(served: Served) -> None:
    client = served.client(served.net)
    for count in [1, 40, 2, 100, 3] * 4:
        client.infer("net", {"x": numbers(count)})
    assert shared_files()
    client.close()
    assert not shared_files()
    with urllib.request.urlopen(f"{served.server.http}/v2/systemsharedmemory/status") as answer:
        assert json.load(answer) == []


@pytest.mark.server("triton")
def test_regions_of_a_worker_that_was_killed_are_removed(served: Served) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    orphan = Path(f"/dev/shm/wetread-{gone.pid}-abc")
    orphan.write_bytes(b"x")
    client = served.client(served.net)
    client.warm_up()
    client.close()
    assert not orphan.exists()


@pytest.mark.server("triton")
def test_an_emergency_does_not_wait_for_the_queue(served: Served) -> None:
    """16 clients keep the queue full: batches form by themselves, and STAT requests overtake it."""
    stop = threading.Event()
    times: dict[str, list[float]] = {"stat": [], "routine": []}
    values = {"x": np.ones((1, 4), np.float32)}

    def keep_asking() -> None:
        client = served.client(served.slow)
        while not stop.is_set():
            began = time.perf_counter()
            client.infer("slow", values)
            times["routine"].append(time.perf_counter() - began)
        client.close()

    threads = [threading.Thread(target=keep_asking) for _ in range(16)]
    for thread in threads:
        thread.start()
    client = served.client(served.slow, lane="stat")
    time.sleep(0.3)
    for _ in range(12):
        began = time.perf_counter()
        client.infer("slow", values)
        times["stat"].append(time.perf_counter() - began)
    stop.set()
    for thread in threads:
        thread.join()
    client.close()
    assert np.median(times["stat"]) < 0.75 * np.median(times["routine"])
    with urllib.request.urlopen(f"{served.server.http}/v2/models/slow/stats") as answer:
        (found,) = json.load(answer)["model_stats"]
    assert found["inference_count"] > 1.5 * found["execution_count"], "requests share batches without any delay"


@pytest.mark.slow
@pytest.mark.server("triton")
def test_a_killed_server_is_unavailable_and_comes_back_without_a_new_client(tmp_path: Path) -> None:
    network, out, port = sigmoid_network(tmp_path / "n"), tmp_path / "r", free_port()
    render([network], out, "python")
    values = {"x": numbers(3)}
    with triton(out, ["net"], port=port) as server:
        client = OipClient(server.url, [network], timeout_seconds=1.0)
        client.warm_up()
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            client.infer("net", values)
    with triton(out, ["net"], port=port):
        client._timeout = 10.0
        np.testing.assert_allclose(client.infer("net", values)["p"], 1 / (1 + np.exp(-values["x"])), atol=1e-6)
        client.close()


@pytest.mark.parametrize("url", ["http://h:1", "grpc://h", "grpc://:1", "triton"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="grpc://host:port"):
        server_identity(url)


def test_a_server_that_is_not_there_is_said_after_the_wait() -> None:
    with pytest.raises(Unavailable):
        server_identity("grpc://127.0.0.1:1", wait_seconds=0.2)


def test_without_a_server_its_client_is_not_imported() -> None:
    code = (
        "import sys; from wetread.bootstrap.engines import engine_identity; from wetread.settings import Settings;"
        "engine_identity(Settings()); assert not {'tritonclient', 'grpc'} & set(sys.modules)"
    )
    services = Path(__file__).resolve().parents[2] / "services"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": str(services)})


# --- the repository ---


def test_a_rendered_repository_holds_models_and_nothing_else(tmp_path: Path) -> None:
    render([ich_network()], tmp_path / "r", "onnxruntime")
    found = {str(path.relative_to(tmp_path / "r")) for path in (tmp_path / "r").rglob("*") if path.is_file()}
    assert found == {"ich/config.pbtxt", "ich/1/model.onnx"}
    with pytest.raises(ConfigurationError, match="not empty"):
        render([ich_network()], tmp_path / "r", "python")


def test_the_configuration_is_a_message_with_priorities_and_warm_up(tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as pb

    render([ich_network()], tmp_path / "r", "onnxruntime", instances=2)
    text = (tmp_path / "r/ich/config.pbtxt").read_text()
    config = text_format.Parse(text, pb.ModelConfig())
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 16)
    assert [tuple(entry.dims) for entry in config.input] == [(15, 256, 256)]
    assert (config.instance_group[0].kind, config.instance_group[0].count) == (pb.ModelInstanceGroup.KIND_GPU, 2)
    batching = config.dynamic_batching
    assert (batching.priority_levels, batching.default_priority_level) == (2, 2)
    assert batching.max_queue_delay_microseconds == 0
    assert config.model_warmup[0].inputs["slabs"].zero_data
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text + "\nunknown_field: 1\n", pb.ModelConfig())


def test_committed_configurations_are_those_of_the_onnxruntime_target(tmp_path: Path) -> None:
    for network in installed_networks(""):
        render([network], tmp_path / network.name, "onnxruntime")
        committed = network.path.parent.parent / "config.pbtxt"
        rendered = tmp_path / network.name / network.name / "config.pbtxt"
        assert committed.read_text() == rendered.read_text(), "run: wetread models render --target onnxruntime"
    shutil.rmtree(tmp_path)


def test_numpy_calls_of_the_backend_are_not_used() -> None:
    """They give wrong values under NumPy 2; DLPack is right."""
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("models/**/*.py"), root / "services/wetread/adapters/inference/triton_python/model.py"]
    assert [path.name for path in files if ".as_numpy(" in path.read_text()] == []
