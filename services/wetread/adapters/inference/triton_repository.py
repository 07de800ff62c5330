"""A Triton model repository of the installed networks, written for one target; configurations are built as messages."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from wetread.core.errors import ConfigurationError
from wetread.core.manifest import TensorSpec
from wetread.core.ports.inference import NetworkFile

Target = Literal["python", "onnxruntime"]
TARGETS: Final[tuple[Target, ...]] = ("python", "onnxruntime")

STAT_PRIORITY: Final = 1
ROUTINE_PRIORITY: Final = 2


def render(
    networks: Sequence[NetworkFile],
    out: Path,
    target: Target,
    *,
    gpu: bool | None = None,
    instances: int = 1,
    threads: int = 2,
) -> list[str]:
    """Write a complete repository into the empty folder *out* and return the names of its models.

    ``gpu`` None: what the target is for (``onnxruntime`` GPU pods, ``python`` CPU). Raises ConfigurationError.
    """
    if out.exists() and any(out.iterdir()):
        msg = f"{out} is not empty: a stray folder in a model repository ends Triton"
        raise ConfigurationError(msg)
    for network in networks:
        folder = out / network.name / "1"
        folder.mkdir(parents=True)
        shutil.copyfile(network.path, folder / "model.onnx")
        if target == "python":
            source = files("wetread.adapters.inference").joinpath("triton_python/model.py")
            (folder / "model.py").write_bytes(source.read_bytes())
        text = config_text(network, target, gpu=target != "python" if gpu is None else gpu, instances=instances,
                           threads=threads)  # fmt: skip
        (out / network.name / "config.pbtxt").write_text(text, "utf-8")
    return [network.name for network in networks]


def config_text(
    network: NetworkFile, target: Target, *, gpu: bool = False, instances: int = 1, threads: int = 2
) -> str:
    """Return the ``config.pbtxt`` of a network. Raises ConfigurationError without the extra ``triton``."""
    pb, text_format = _messages()
    config = pb.ModelConfig(name=network.name, backend=target, max_batch_size=network.max_batch)
    config.version_policy.latest.num_versions = 1
    for specs, entries in ((network.tensors.inputs, config.input), (network.tensors.outputs, config.output)):
        for spec in specs:
            entries.add(name=spec.name, data_type=getattr(pb, f"TYPE_{spec.dtype}"), dims=spec.shape[1:])
    kind = pb.ModelInstanceGroup.KIND_GPU if gpu else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=instances, kind=kind)
    # No delay: full batches form by themselves while an instance is busy. Two levels: the wait of a STAT request does
    # not grow with the queue of the others.
    config.dynamic_batching.priority_levels = ROUTINE_PRIORITY
    config.dynamic_batching.default_priority_level = ROUTINE_PRIORITY
    if target == "python":
        config.parameters["threads"].string_value = str(threads)
    warm_up = config.model_warmup.add(name="zeros", batch_size=1)
    for spec in network.tensors.inputs:
        _zero(warm_up.inputs[spec.name], spec, pb)
    return str(text_format.MessageToString(config))


def _zero(entry: Any, spec: TensorSpec, pb: Any) -> None:
    entry.data_type = getattr(pb, f"TYPE_{spec.dtype}")
    entry.dims.extend(1 if size == -1 else size for size in spec.shape[1:])
    entry.zero_data = True


def _messages() -> tuple[Any, Any]:
    try:
        from google.protobuf import text_format
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        msg = "rendering a model repository needs the extra triton: pip install 'wetread[triton]'"
        raise ConfigurationError(msg) from error
    return model_config_pb2, text_format
