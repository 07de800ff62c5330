"""Detectors on a CPU: ONNX Runtime over torch eager per network, peak memory, cores busy in the batch lane.

    make install-torch
    make bench BENCH=detectors [ARGS="--rounds 5 --studies 8 --hippodeep FOLDER"]

The eager network of a bundled detector is that of its train.py with random weights: time does not depend on them.
hippodeep is brought in through the import door from the folder of its state dicts (default: that of the shared data
named by WETREAD_SHARED). Detectors without a network are named as such. Rounds are interleaved, the least time counts.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient, engine_identity
from wetread.core.manifest import TensorSpec
from wetread.core.ports.inference import NetworkFile, RunRequest
from wetread.core.ports.studies import StoredInstance
from wetread.detection.evaluation.measure import case_maker, drive
from wetread.detection.process import WorkerSpec
from wetread.detection.registry import InstalledDetector, bundled_folder, companion, discover, load, read_folder
from wetread.detection.runner import ProcessDetectorRunner
from wetread.testing.phantoms import HeadSpec, make, to_volume
from wetread.testing.phantoms.perfusion import perfusion_phantom
from wetread.testing.phantoms.series import series_of
from wetread.testing.toy_detector import FOLDER_VARIABLE, FolderStore

SEED = 2_900_100
THREADS = 2
BATCH = 8
LARGE: dict[str, dict[str, Any]] = {
    "brain-volumetry": {"pixel_mm": 1.0, "thickness_mm": 1.0},
    "echo-ef": {"view": "a4c", "columns": 800.0, "frame_rate": 60.0, "duration_s": 3.0},
    "ich": {"matrix": 512, "thickness_mm": 0.625, "step_mm": 0.5, "coverage_mm": 162.0, "regular": True},
    "lung-nodule": {"given": {"scan.thickness_mm": 0.5, "scan.overlap": False, "scan.pixel_mm": 0.75}},
    "lvo": {"step_mm": 0.5, "pixel_mm": 0.5},
    "perfusion": {"matrix": 256, "planes": 16},
}
"""What makes the phantom of a detector as large as a study of a hospital: the time in its card is that of one."""


def trained(installed: InstalledDetector) -> Any:
    """Return the module ``train.py`` of a detector folder, which may import its neighbours."""
    sys.path.insert(0, str(installed.folder))
    return companion(installed, "train")


def inputs(specs: tuple[TensorSpec, ...], batch: int) -> dict[str, np.ndarray]:
    """Return random input."""
    rng = np.random.default_rng(3)
    kinds = {"FP32": np.float32, "UINT8": np.uint8}
    return {
        s.name: (rng.random([batch if n == -1 else n for n in s.shape]) * (255 if s.dtype == "UINT8" else 1)).astype(
            kinds[s.dtype]
        )
        for s in specs
    }


def best(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return the least (wall, CPU) seconds of each call over interleaved rounds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: (min(w for w, _ in part[1:]), min(c for _, c in part[1:])) for name, part in times.items()}


def engines(rounds: int, hippodeep: Path) -> None:
    """Print ONNX Runtime and eager for every network of every detector."""
    import torch

    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        for network, eager, batch in pairs(hippodeep, Path(scratch)):
            compare(network, eager, batch, rounds)


def pairs(hippodeep: Path, scratch: Path) -> Iterator[tuple[NetworkFile, Any, int]]:
    """Return every network with its torch twin and batch size; say which detector has none."""
    for name, found in discover().items():
        if not found.networks:
            print(f"{name}: no network", flush=True)
        elif (found.folder / "train.py").is_file():
            yield found.networks[0], trained(found).network().eval(), BATCH
        else:
            print(f"NOT RUN: {name} has no torch twin", flush=True)
    if any(hippodeep.glob("*.pt")):
        yield from imported(hippodeep, scratch)
    else:
        print("NOT RUN: hippodeep needs the folder of its state dicts (--hippodeep or WETREAD_SHARED)", flush=True)


def imported(weights: Path, scratch: Path) -> Iterator[tuple[NetworkFile, Any, int]]:
    """Bring hippodeep in through the door and return its networks with those built from its state dicts."""
    import torch

    from wetread.detection.importing.door import Accepted, bring_in, look
    from wetread.detection.importing.hippodeep_networks import NETWORKS, role_of

    bring_in(weights, scratch, "hippodeep", Accepted(look(weights).digest, "MIT"))
    by_role = {"hippodeep": "hippocampus", "hippodeep__head": "head", "hippodeep__affine": "affine"}
    states = [torch.load(path, map_location="cpu", weights_only=True) for path in weights.glob("*.pt")]
    eager = {role_of(state): NETWORKS[str(role_of(state))][0](state).eval() for state in states}
    for network in discover(str(scratch))["hippodeep"].networks:
        yield network, eager[by_role[network.name]], 1


def compare(network: NetworkFile, eager: Any, batch: int, rounds: int) -> None:
    """Print seconds of both engines on one batch, and their ratio."""
    import torch

    feeds = inputs(network.tensors.inputs, batch)
    client = OnnxRuntimeClient([network], threads=THREADS)
    tensors = [torch.from_numpy(value) for value in feeds.values()]

    def plain() -> object:
        with torch.no_grad():
            return eager(*tensors)

    found = best({"onnxruntime": lambda: client.infer(network.name, feeds), "eager": plain}, rounds)
    (ort, ort_cpu), (torch_, torch_cpu) = found["onnxruntime"], found["eager"]
    print(
        f"{network.name}: batch {batch}, onnxruntime {ort * 1e3:.0f} ms (CPU {ort_cpu * 1e3:.0f}), torch eager "
        f"{torch_ * 1e3:.0f} ms (CPU {torch_cpu * 1e3:.0f}), CPU ratio {torch_cpu / ort_cpu:.2f}",
        flush=True,
    )


def shared_weights() -> Path:
    """Return where the shared data keep hippodeep's state dicts."""
    root = Path(__file__).resolve().parent.parent
    shared = Path(os.environ.get("WETREAD_SHARED", root.parent / "shared"))
    return shared / "data" / "brain-mri" / "hippodeep" / "torchparams"


def example(installed: InstalledDetector) -> Any:
    """Return the input of one large case of a folder."""
    options = LARGE.get(installed.info.name, {})
    if installed.info.name == "perfusion":
        return perfusion_phantom(SEED, **options).to_volume()
    return case_maker(installed)("s0", SEED, **options).volume


def memory(name: str) -> int:
    """Run one large case of a detector in this process; print its seconds and its peak resident memory.

    Not from ``getrusage``: a process is born with the peak of the one that forked it, which has torch in it.
    """
    installed = read_folder(bundled_folder() / name)
    detector, engine = load(installed), OnnxRuntimeClient(installed.networks, threads=THREADS)
    volume = example(installed)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew here
    before = _resident("VmHWM")
    began = time.perf_counter()
    drive(detector, engine, volume)
    seconds = time.perf_counter() - began
    size = " x ".join(str(count) for count in volume.voxels.shape)
    print(
        f"{name}: {size}, {seconds:.2f} s, peak {_resident('VmHWM'):.0f} MiB "
        f"(input, weights and libraries {before:.0f}), manifest {detector.manifest.resources.memory_mb} MB",
        flush=True,
    )
    return 0


def _resident(kind: str) -> float:
    """Return a resident size of this process from /proc, in MiB."""
    found = re.search(rf"^{kind}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def lane(studies: int) -> float:
    """Run a batch of head CTs on two worker processes and print the share of both cores that they kept busy."""
    volume, _ = to_volume(make(SEED, HeadSpec(split="s0", thickness_mm=2.5, step_mm=2.5, regular=True)))
    objects = series_of(volume, seed=SEED, body_part="HEAD")
    with tempfile.TemporaryDirectory() as scratch:
        store = FolderStore(Path(scratch))
        refs = store.append("default", [(b"", [data]) for data in objects])
        instances = tuple(
            StoredInstance(f"1.2.{k}", "1.2.3", ref, f"h{k}", "1.2.840.10008.1.2.1") for k, ref in enumerate(refs)
        )
        spec = WorkerSpec(
            "wetread.testing.toy_detector:folder_ports", environment={FOLDER_VARIABLE: scratch}, threads=1
        )
        runner = ProcessDetectorRunner(spec, engine=engine_identity(), encoder_version="1", processes=2)
        version = runner.detectors()["ich"].version
        runner.start()

        async def batch(count: int, first: int) -> None:
            requests = [
                RunRequest("default", f"1.2.9.{first + k}", "1.2.3", "ich", version, instances, started_at=1.0)
                for k in range(count)
            ]
            await asyncio.gather(*(runner.run(request) for request in requests))

        try:
            asyncio.run(batch(2, 0))
            wall, cpu = time.perf_counter(), _children_cpu()
            asyncio.run(batch(studies, 2))
            wall, cpu = time.perf_counter() - wall, _children_cpu() - cpu
        finally:
            runner.close()
    share = cpu / wall / 2
    print(
        f"batch lane: {studies} studies of {len(objects)} slices on 2 processes: {wall / studies:.2f} s per study, "
        f"{share:.0%} of two cores busy (the last one ends alone)",
        flush=True,
    )
    return share


def _children_cpu() -> float:
    """CPU seconds of this process's living children."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str]) -> int:
    """Run the parts; exit code 0."""
    parser = argparse.ArgumentParser(prog="detectors")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--studies", type=int, default=8)
    parser.add_argument("--hippodeep", type=Path, default=shared_weights(), help="folder of hippodeep's state dicts")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.memory:
        return memory(given.memory)
    print(f"seed {SEED}, {given.rounds} rounds, {THREADS} threads")
    if importlib.util.find_spec("torch") is None:
        print("NOT RUN: engines against torch eager need the extra torch (make install-torch)")
    else:
        engines(given.rounds, given.hippodeep)
    for folder in sorted(path.parent for path in bundled_folder().glob("*/cases.py")):
        if (folder / "detector.yaml").is_file():
            subprocess.run([sys.executable, __file__, "--memory", folder.name], check=True)
    lane(given.studies)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
