"""The child process of an import: open the weights, export ONNX, compare. ``python -m`` only; see ``sandbox``.

Reads one JSON job from standard input, writes one JSON answer: the networks with their tensors, or a refusal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from wetread.detection.importing import sandbox
from wetread.detection.importing.errors import ImportRefused

OPSET: Final = 17
TOLERANCE: Final = 1e-4
"""Largest difference of original and export, over the largest value of the output (at least 1)."""
_TYPES: Final = {
    "tensor(float)": ("FP32", np.float32),
    "tensor(float16)": ("FP16", np.float16),
    "tensor(int64)": ("INT64", np.int64),
    "tensor(uint8)": ("UINT8", np.uint8),
}
MOST_OUTPUTS: Final = 16
Arrays = dict[str, np.ndarray]


def convert(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Convert every weight file of the job. Raises ImportRefused."""
    kinds: dict[str, Callable[[Path, Path, Mapping[str, Any]], dict[str, Any]]] = {
        "onnx": _onnx,
        "torchscript": _torchscript,
        "state_dict": _state_dict,
    }
    networks = []
    for number, weight in enumerate(job["weights"]):
        target = Path(job["out"]) / f"{number}.onnx"
        done = kinds[weight["kind"]](Path(job["root"]) / weight["path"], target, job)
        networks.append({"source": weight["path"], "file": target.name, **done})
    return networks


def _onnx(path: Path, target: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    target.write_bytes(path.read_bytes())
    session = _session(target)
    inputs = [_spec(tensor, job.get("shape")) for tensor in session.get_inputs()]
    feeds = _random(inputs)
    first = _run(session, feeds)
    again = _run(session, feeds)
    difference = _difference(first, again)
    if difference > 0:
        raise ImportRefused("not_equivalent", "two runs of the network differ")
    return _answer("", inputs, session, first, 0.0)


def _torchscript(path: Path, target: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    load: Any = torch.jit.load
    try:
        network = load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        raise ImportRefused("weights_damaged") from error
    if not job.get("shape"):
        raise ImportRefused("shape_unknown")
    return _exported(network, "", [int(size) for size in job["shape"]], target)


def _state_dict(path: Path, target: Path, _job: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    from wetread.detection.importing.hippodeep_networks import NETWORKS, role_of

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ImportRefused("weights_damaged") from error
    flat = isinstance(weights, dict) and all(isinstance(value, torch.Tensor) for value in weights.values())
    role = role_of(weights) if flat else None
    if role is None:
        raise ImportRefused("unknown_architecture")
    kind, sizes = NETWORKS[role]
    try:
        return _exported(kind(weights).eval(), role, sizes["input"], target)
    except AttributeError as error:
        raise ImportRefused("unknown_architecture", "layers of the network are missing") from error


def _exported(network: Any, role: str, item: list[int], target: Path) -> dict[str, Any]:
    """Export with fixed names and a free batch axis, and compare with torch on random input, one item and two."""
    import torch

    example = torch.from_numpy(np.random.default_rng(5).standard_normal((2, *item)).astype(np.float32))
    with torch.no_grad():
        names = list(_tensors(network(example)))
        torch.onnx.export(
            network,
            (example,),
            str(target),
            input_names=["x"],
            output_names=names,
            dynamic_axes={name: {0: "n"} for name in ("x", *names)},
            opset_version=OPSET,
            dynamo=False,
        )
        worst = 0.0
        session = _session(target, "conversion_failed")
        for batch in (example, example[:1]):
            expected = {name: value.numpy() for name, value in _tensors(network(batch)).items()}
            worst = max(worst, _difference(expected, _run(session, {"x": batch.numpy()})))
    if worst > TOLERANCE:
        raise ImportRefused("not_equivalent", f"relative difference {worst:.2g}")
    inputs = [("x", "FP32", np.dtype(np.float32), [-1, *item])]
    return _answer(role, inputs, session, _run(session, {"x": example.numpy()}), worst)


def _tensors(answer: Any) -> dict[str, Any]:
    """Name what a network answers: ``y``, or ``y0``, ``y1``, ... for several. Raises ImportRefused."""
    import torch

    if isinstance(answer, torch.Tensor):
        return {"y": answer}
    several = isinstance(answer, tuple | list) and 0 < len(answer) <= MOST_OUTPUTS
    if not several or not all(isinstance(value, torch.Tensor) for value in answer):
        raise ImportRefused("unknown_architecture", "a network that answers with something else than tensors")
    return {f"y{number}": value for number, value in enumerate(answer)}


def _session(path: Path, reason: str = "weights_damaged") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ImportRefused(reason, "the engine cannot open the network") from error


def _spec(tensor: Any, item: list[int] | None) -> tuple[str, str, np.dtype[Any], list[int]]:
    if tensor.type not in _TYPES:
        raise ImportRefused("unknown_operator", f"input of {tensor.type[:40]}")
    name, kind = _TYPES[tensor.type]
    sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
    if item is not None and len(item) == len(sizes) - 1:
        sizes = [sizes[0], *(want if have == -1 else have for have, want in zip(sizes[1:], item, strict=True))]
    if not sizes or -1 in sizes[1:]:
        raise ImportRefused("shape_unknown")
    return tensor.name, name, np.dtype(kind), sizes


def _random(inputs: list[tuple[str, str, np.dtype[Any], list[int]]]) -> Arrays:
    rng = np.random.default_rng(5)
    return {
        name: rng.random([2 if size == -1 else size for size in sizes]).astype(kind) for name, _, kind, sizes in inputs
    }


def _run(session: Any, feeds: Arrays) -> Arrays:
    names = [tensor.name for tensor in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, feeds), strict=True))
    except Exception as error:
        raise ImportRefused("conversion_failed", "the engine cannot run the network") from error


def _difference(one: Arrays, other: Arrays) -> float:
    worst = 0.0
    for name, wanted in one.items():
        found = other[name]
        if found.shape != wanted.shape or not np.isfinite(found).all():
            raise ImportRefused("not_equivalent", "other shapes, or numbers that are none")
        scale = max(1.0, float(np.abs(wanted).max())) if wanted.size else 1.0
        worst = max(worst, float(np.abs(found.astype(np.float64) - wanted).max()) / scale if wanted.size else 0.0)
    return worst


def _answer(role: str, inputs: list[Any], session: Any, outputs: Arrays, difference: float) -> dict[str, Any]:
    types = {tensor.name: _TYPES.get(tensor.type, ("", None))[0] for tensor in session.get_outputs()}
    if not all(types.values()):
        raise ImportRefused("unknown_operator", "an output of a type that is not served")
    return {
        "role": role,
        "opset": OPSET,
        "difference": difference,
        "inputs": [{"name": n, "dtype": d, "shape": [-1, *sizes[1:]]} for n, d, _, sizes in inputs],
        "outputs": [{"name": n, "dtype": types[n], "shape": [-1, *v.shape[1:]]} for n, v in outputs.items()],
    }


def main() -> int:
    """Isolate, convert, answer."""
    job = json.loads(sys.stdin.buffer.read())
    isolation = sandbox.isolate(*job["limits"])
    try:
        answer: dict[str, Any] = {"networks": convert(job), "isolation": isolation}
    except ImportRefused as refusal:
        answer = {"refused": refusal.code, "detail": refusal.detail}
    except MemoryError:
        answer = {"refused": "resources"}
    except Exception as error:  # noqa: BLE001 - whatever a foreign file does, the parent gets an answer
        answer = {"refused": "conversion_failed", "detail": f"ended with {type(error).__name__}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
