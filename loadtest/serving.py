"""Model serving: a real Triton beside ONNX Runtime in process, for the ICH network; batching; emergency lane.

``make bench BENCH=serving ARGS="--rounds 3"``. Needs the extra ``triton`` and ``make servers``
(docs/operations/serving.md). Part one: interleaved rounds of in process, shared memory and wire at batch 1, 4, 8. Part
two: scheduling alone, on a network that sleeps 20 ms and 5 ms per item: what batching buys, and how long STAT requests
wait behind closed-loop clients.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.adapters.inference.triton import OipClient
from wetread.adapters.inference.triton_repository import render
from wetread.core.manifest import TensorSpec, TensorSpecs
from wetread.core.ports.inference import NetworkFile
from wetread.detection.registry import discover
from wetread.testing.contracts.inference import sigmoid_network
from wetread.testing.servers.triton import TritonServer, triton

SEED = 20_260_301
BATCHES = (1, 4, 8)
_SLEEPER = """
import time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [np.from_dlpack(pb_utils.get_input_tensor_by_name(r, "x")) for r in requests]
        time.sleep(0.020 + 0.005 * sum(len(x) for x in inputs))
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("p", np.array(x))]) for x in inputs]
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="serving")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=3, help="calls of a round, per engine and batch")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a scheduling measurement")
    given = parser.parse_args(arguments)
    (ich,) = discover("")["ich"].networks
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "repository"
        levels, plain = _sleeper(Path(folder), "levels"), _sleeper(Path(folder), "plain")
        render([ich, levels, plain], out, "python")
        for network in (levels, plain):
            (out / network.name / "1/model.py").write_text(_SLEEPER)
        config = out / "plain/config.pbtxt"
        config.write_text(re.sub(r"dynamic_batching \{.*?\n\}\n", "", config.read_text(), flags=re.DOTALL))
        with triton(out, ["ich", "levels", "plain"]) as server:
            goals = _engines(server, ich, given.rounds, given.calls)
            goals += _scheduling(server, levels, plain, given.seconds)
    print("\ngoals")
    for what, value, limit, at_most in goals:
        met = value <= limit if at_most else value >= limit
        print(f"{what}: {value:.2f} ({'<=' if at_most else '>='} {limit:g}) {'met' if met else 'MISSED'}")
    return 0 if all(value <= limit if at_most else value >= limit for _, value, limit, at_most in goals) else 1


Goal = tuple[str, float, float, bool]
"""What, value, limit, whether the value has to be at most that."""


def _sleeper(folder: Path, name: str) -> NetworkFile:
    line = TensorSpecs(inputs=(TensorSpec(name="x", shape=(-1, 4)),), outputs=(TensorSpec(name="p", shape=(-1, 4)),))
    return replace(sigmoid_network(folder, name=name), max_batch=8, tensors=line)


def _engines(server: TritonServer, ich: NetworkFile, rounds: int, calls: int) -> list[Goal]:
    here = OnnxRuntimeClient([ich], threads=2)
    shared, wire = OipClient(server.url, [ich]), OipClient(server.url, [ich], shared_memory=False)
    engines = {"in process": here, "shared memory": shared, "wire": wire}
    for engine in engines.values():
        engine.warm_up()
    random = np.random.default_rng(SEED)
    print(f"network ich, {rounds} interleaved rounds of {calls} calls, seed {SEED}, 2 threads each; {shared.engine}")
    print("batch  engine         median ms  min ms  items/s  ratio of throughput  added ms  max abs diff")
    goals: list[Goal] = []
    for batch in BATCHES:
        [line] = ich.tensors.inputs
        slabs = {line.name: random.normal(size=(batch, *line.shape[1:])).astype(np.float32)}
        times: dict[str, list[float]] = {name: [] for name in engines}
        expected = here.infer("ich", slabs)
        worst = dict.fromkeys(engines, 0.0)
        for _ in range(rounds):
            for name, engine in engines.items():
                for _ in range(calls):
                    began = time.perf_counter()
                    result = engine.infer("ich", slabs)
                    times[name].append(time.perf_counter() - began)
                difference = max(float(np.abs(expected[key] - result[key]).max()) for key in expected)
                worst[name] = max(worst[name], difference)
        base = median(times["in process"])
        for name, seconds in times.items():
            middle = median(seconds)
            print(
                f"{batch:5d}  {name:13s}  {middle * 1e3:9.0f}  {min(seconds) * 1e3:6.0f}  {batch / middle:7.1f}"
                f"  {base / middle:19.2f}  {(middle - base) * 1e3:8.0f}  {worst[name]:.1e}"
            )
        slower = median(times["shared memory"]) / base
        goals.append((f"time, Triton by shared memory over in process, batch {batch}", slower, 1.2, True))
        goals.append((f"max abs diff to in process, batch {batch}", max(worst.values()), 0.0, True))
    shared.close()
    wire.close()
    return goals


def _scheduling(server: TritonServer, levels: NetworkFile, plain: NetworkFile, seconds: float) -> list[Goal]:
    print(f"\nscheduling: 20 ms + 5 ms per item, max batch 8, one instance, {seconds:g} s each")
    print("network  clients  routine/s  mean batch  STAT median ms  STAT p95 ms")
    found: dict[tuple[str, int], tuple[float, float, float]] = {}
    for network in (plain, levels):
        for clients in (0, 16, 32):
            before = _statistics(server, network.name)
            rate, stat = _loaded(server, network, clients, seconds)
            after = _statistics(server, network.name)
            batch = (after[0] - before[0]) / max(after[1] - before[1], 1)
            stat.sort()
            p95 = stat[int(0.95 * (len(stat) - 1))]
            found[network.name, clients] = rate, batch, p95
            print(f"{network.name:7s}  {clients:7d}  {rate:9.0f}  {batch:10.1f}"
                  f"  {median(stat) * 1e3:14.0f}  {p95 * 1e3:11.0f}")  # fmt: skip
    return [
        ("requests per second, batching over none", found["levels", 16][0] / found["plain", 16][0], 3, False),
        ("mean batch by the server's statistics, 16 clients", found["levels", 16][1], 4, False),
        ("STAT p95, 32 clients over idle", found["levels", 32][2] / found["levels", 0][2], 4, True),
        ("STAT p95, 32 clients over 16", found["levels", 32][2] / found["levels", 16][2], 1.2, True),
    ]


def _loaded(server: TritonServer, network: NetworkFile, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Return (routine requests per second, times of STAT requests sent one after the other)."""
    stop, done = threading.Event(), []
    values = {"x": np.ones((1, 4), np.float32)}

    def repeat(note: Callable[[float], None], lane: str) -> None:
        client = OipClient(server.url, [network], lane=lane)  # type: ignore[arg-type]
        while not stop.is_set():
            began = time.perf_counter()
            client.infer(network.name, values)
            note(time.perf_counter() - began)
        client.close()

    stat: list[float] = []
    threads = [threading.Thread(target=repeat, args=(done.append, "routine")) for _ in range(clients)]
    threads.append(threading.Thread(target=repeat, args=(stat.append, "stat")))
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    rate = len(done) / (time.perf_counter() - began)
    for thread in threads:
        thread.join()
    return rate, stat


def _statistics(server: TritonServer, model: str) -> tuple[int, int]:
    with urllib.request.urlopen(f"{server.http}/v2/models/{model}/stats") as answer:
        (found,) = json.load(answer)["model_stats"]
    return int(found["inference_count"]), int(found["execution_count"])
