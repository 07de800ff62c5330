"""Tensors against a manifest, before any engine or wire sees them: names, types, ranks, fixed dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from wetread.core.detector import Array, Tensors
from wetread.core.errors import ComputationFailed
from wetread.core.manifest import TensorSpec
from wetread.core.ports.inference import NetworkFile

DTYPES: Final[dict[str, type[np.generic]]] = {
    "FP32": np.float32,
    "FP16": np.float16,
    "INT64": np.int64,
    "UINT8": np.uint8,
}


def checked(tensors: Tensors, network: NetworkFile) -> dict[str, Array]:
    """Return contiguous inputs of one batch. Raises ComputationFailed("crashed"): the detector is wrong."""
    feeds: dict[str, Array] = {}
    for spec in network.tensors.inputs:
        tensor = tensors.get(spec.name)
        if (
            tensor is None
            or tensor.dtype != DTYPES[spec.dtype]
            or tensor.ndim != len(spec.shape)
            or any(want not in {-1, have} for want, have in zip(spec.shape, tensor.shape, strict=True))
        ):
            detail = f"tensor {spec.name!r} for {network.name} is not as its manifest says"
            raise ComputationFailed("crashed", detail)
        feeds[spec.name] = np.ascontiguousarray(tensor)
    if len({len(value) for value in feeds.values()}) != 1 or set(tensors) != set(feeds):
        raise ComputationFailed("crashed", f"tensors for {network.name} do not belong together")
    if not len(next(iter(feeds.values()))):
        raise ComputationFailed("crashed", f"an empty batch was sent to network {network.name}")
    return feeds


def batches(feeds: dict[str, Array], size: int) -> Iterator[dict[str, Array]]:
    """Cut inputs into batches of at most *size*."""
    for start in range(0, len(next(iter(feeds.values()))), size):
        yield {name: value[start : start + size] for name, value in feeds.items()}


def joined(names: Sequence[str], parts: Sequence[Sequence[Array]]) -> Tensors:
    """Return the outputs of all batches as one."""
    whole = list(parts[0]) if len(parts) == 1 else [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
    return dict(zip(names, whole, strict=True))


def zeros(spec: TensorSpec) -> Array:
    """Return a batch of one for warming up."""
    return np.zeros([1 if size == -1 else size for size in spec.shape], dtype=DTYPES[spec.dtype])
