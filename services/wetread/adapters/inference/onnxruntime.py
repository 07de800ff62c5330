"""ONNX Runtime in process: the default engine. Deterministic for one version, precision and thread count."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from wetread.adapters.inference.tensors import batches, checked, joined, zeros
from wetread.core.detector import Array, Tensors
from wetread.core.errors import ComputationFailed
from wetread.core.manifest import TensorSpec
from wetread.core.ports.inference import NetworkFile

_TYPES: Final = {
    "FP32": "tensor(float)",
    "FP16": "tensor(float16)",
    "INT64": "tensor(int64)",
    "UINT8": "tensor(uint8)",
}


def engine_identity() -> str:
    """Return the identity of this engine without loading it: part of every result key."""
    return f"onnxruntime {version('onnxruntime')} fp32 cpu"


class OnnxRuntimeClient:
    """``InferenceClient`` with one session per network, opened on first use and kept."""

    def __init__(self, networks: Sequence[NetworkFile], *, threads: int = 2) -> None:
        self._networks = {network.name: network for network in networks}
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    @property
    def engine(self) -> str:
        """Identity and precision of the engine."""
        return engine_identity()

    def warm_up(self) -> None:
        """Open every session and run it once on zeros, so that the first study is as fast as the next.

        Raises ComputationFailed("model_unavailable").
        """
        for name, network in self._networks.items():
            self.infer(name, {spec.name: zeros(spec) for spec in network.tensors.inputs})

    def infer(self, network: str, tensors: Tensors) -> Tensors:
        """Run *network* on a batch, at most ``max_batch`` items at a time.

        Raises ComputationFailed: model_unavailable (unknown network, wrong hash, not the tensors of the manifest),
        out_of_memory, crashed (the detector sent other tensors than its manifest says, or the engine failed).
        """
        session, known = self._session(network), self._networks[network]
        feeds = checked(tensors, known)
        names = [spec.name for spec in known.tensors.outputs]
        return joined(names, [self._run(session, names, batch) for batch in batches(feeds, known.max_batch)])

    @staticmethod
    def _run(session: Any, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        try:
            outputs: list[Array] = session.run(names, feeds)
        except Exception as error:
            if isinstance(error, MemoryError) or "allocate" in str(error):
                raise ComputationFailed("out_of_memory", "the engine ran out of memory") from error
            raise ComputationFailed("crashed", "the engine refused the batch") from error
        return outputs

    def _session(self, name: str) -> Any:
        session = self._sessions.get(name)
        if session is None:
            network = self._networks.get(name)
            if network is None:
                raise ComputationFailed("model_unavailable", f"no network is called {name!r}")
            session = self._sessions[name] = _open(network, self._threads)
        return session


def _open(network: NetworkFile, threads: int) -> Any:
    import onnxruntime

    try:
        weights = network.path.read_bytes()
    except OSError as error:
        raise ComputationFailed("model_unavailable", f"the weights of {network.name} cannot be read") from error
    if hashlib.sha256(weights).hexdigest() != network.sha256:
        raise ComputationFailed("model_unavailable", f"the weights of {network.name} are not those of its manifest")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # Idle threads sleep instead of spinning: the web process shares these cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ComputationFailed("model_unavailable", f"the engine cannot load {network.name}") from error
    _compare(network, "input", network.tensors.inputs, session.get_inputs())
    _compare(network, "output", network.tensors.outputs, session.get_outputs())
    return session


def _compare(network: NetworkFile, side: str, specs: Sequence[TensorSpec], found: Sequence[Any]) -> None:
    """Raise unless the model's tensors are those of the manifest: names, types, ranks, fixed dimensions."""
    by_name = {tensor.name: tensor for tensor in found}
    extra = set(by_name) - {spec.name for spec in specs} if side == "input" else set()
    if extra:
        raise ComputationFailed("model_unavailable", f"{network.name} wants inputs its manifest does not name")
    for spec in specs:
        tensor = by_name.get(spec.name)
        fits = (
            tensor is not None
            and tensor.type == _TYPES[spec.dtype]
            and len(tensor.shape) == len(spec.shape)
            and all(
                not isinstance(have, int) or want == have
                for want, have in zip(spec.shape, tensor.shape, strict=True)
                if want != -1
            )
        )
        if not fits:
            detail = f"{side} {spec.name!r} of {network.name} is not as its manifest says"
            raise ComputationFailed("model_unavailable", detail)
