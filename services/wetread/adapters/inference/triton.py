"""Networks behind the Open Inference Protocol by gRPC: Triton, KServe. One client; what it may use, the server says.

Capabilities come from the server's ``extensions``, never from its name. Every request has an id and a deadline.
Results are those of the network, so a request may be sent twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import uuid4

import numpy as np

from wetread.adapters.inference.shared_memory import Regions
from wetread.adapters.inference.tensors import DTYPES, batches, checked, joined, zeros
from wetread.core import tracing
from wetread.core.detector import Array, Tensors
from wetread.core.errors import ComputationFailed, ConfigurationError, Unavailable
from wetread.core.manifest import TensorSpec
from wetread.core.ports.inference import NetworkFile

_log = logging.getLogger(__name__)

Lane = Literal["stat", "routine"]
_PRIORITY: Final = {"stat": 1, "routine": 2}
_INFER: Final = "inference.GRPCInferenceService/ModelInfer"
_RPC: Final = {
    "rpc.system": "grpc",
    "rpc.service": "inference.GRPCInferenceService",
    "rpc.method": "ModelInfer",
}
_RETRIES: Final = 2
_SHARED_FROM: Final = 64 << 10
"""Smaller requests are as fast on the wire."""
_UNLIMITED: Final = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def server_identity(url: str, *, wait_seconds: float = 60.0) -> str:
    """Return name and version of the server: part of every result key. Raises Unavailable, ConfigurationError."""
    client = _client(url)
    try:
        found = _when_ready(client, wait_seconds)
        return f"{found.name} {found.version} fp32"
    finally:
        client.close()


class OipClient:
    """``InferenceClient`` on a server. ``grpc://host:port``; ``grpcs`` with TLS. Not shared between threads.

    ``shared_memory``: use it when the server offers it and runs on this machine.
    """

    def __init__(
        self,
        url: str,
        networks: Sequence[NetworkFile],
        *,
        lane: Lane = "routine",
        timeout_seconds: float = 60.0,
        shared_memory: bool = True,
    ) -> None:
        self._url = url
        self._networks = {network.name: network for network in networks}
        self._priority = _PRIORITY[lane]
        self._timeout = timeout_seconds
        self._share = shared_memory and _is_here(url)
        self._open: tuple[Any, frozenset[str], str] | None = None
        self._regions: Regions | None = None
        self._unfit: set[str] = set()
        """Networks that the server lacked, or had with other tensors, when they were compared last."""

    @property
    def engine(self) -> str:
        """Identity of the server. Raises Unavailable while it does not answer."""
        return self._connected()[2]

    @property
    def capabilities(self) -> frozenset[str]:
        """Extensions that the server announces."""
        return self._connected()[1]

    def warm_up(self) -> None:
        """Wait for the server, compare every network with its manifest and run it once.

        A network that the server lacks, or has with other tensors, fails its own runs and no others; it is compared
        again when it is asked for. Raises ComputationFailed("model_unavailable"): no answer, or none of the networks.
        """
        faults: list[ComputationFailed] = []
        try:
            for network in self._networks.values():
                try:
                    self._fit(network)
                    self.infer(network.name, {spec.name: zeros(spec) for spec in network.tensors.inputs})
                except ComputationFailed as error:
                    if error.reason != "model_unavailable":
                        raise
                    _log.warning("a network cannot be used: %s", error.detail)
                    self._unfit.add(network.name)
                    faults.append(error)
        except Unavailable as error:
            raise ComputationFailed("model_unavailable", error.detail) from error
        if faults and len(faults) == len(self._networks):
            raise faults[0]

    def _fit(self, network: NetworkFile) -> None:
        """Compare a network with its manifest. Raises ComputationFailed("model_unavailable"), Unavailable."""
        client = self._connected()[0]
        with _translated(network.name):
            metadata = client.get_model_metadata(network.name, client_timeout=self._timeout)
        _compare(network, "input", network.tensors.inputs, metadata.inputs)
        _compare(network, "output", network.tensors.outputs, metadata.outputs)
        self._unfit.discard(network.name)

    def infer(self, network: str, tensors: Tensors) -> Tensors:
        """Run *network* on a batch, at most ``max_batch`` items at a time.

        Raises Unavailable (server gone, queue full) or ComputationFailed: model_unavailable, timeout, crashed.
        """
        known = self._networks.get(network)
        if known is None:
            raise ComputationFailed("model_unavailable", f"no network is called {network!r}")
        names = [spec.name for spec in known.tensors.outputs]
        feeds = checked(tensors, known)
        if network in self._unfit:
            self._fit(known)
        return joined(names, [self._request(known, batch) for batch in batches(feeds, known.max_batch)])

    def close(self) -> None:
        """Give shared memory back and close the connection."""
        if self._regions is not None:
            self._regions.close()
            self._regions = None
        if self._open is not None:
            self._open[0].close()
            self._open = None

    def _connected(self) -> tuple[Any, frozenset[str], str]:
        if self._open is None:
            client = _client(self._url)
            found = _when_ready(client, self._timeout)
            extensions = frozenset(found.extensions)
            self._open = client, extensions, f"{found.name} {found.version} fp32"
            if self._share and "system_shared_memory" in extensions:
                self._regions = Regions(client)
        return self._open

    def _request(self, network: NetworkFile, feeds: dict[str, Array]) -> list[Array]:
        identity, deadline = uuid4().hex, time.monotonic() + self._timeout
        attempt = 0
        while True:
            client = self._connected()[0]
            try:
                return self._send(client, network, feeds, identity, deadline - time.monotonic())
            except Unavailable as error:
                attempt += 1
                full = "queue" in error.detail
                if full or attempt > _RETRIES or time.monotonic() >= deadline:
                    raise
                self.close()  # the server was replaced: its regions are gone with it

    def _send(
        self, client: Any, network: NetworkFile, feeds: dict[str, Array], identity: str, seconds: float
    ) -> list[Array]:
        from tritonclient import grpc

        count = len(next(iter(feeds.values())))
        inputs = [
            grpc.InferInput(spec.name, list(feeds[spec.name].shape), spec.dtype) for spec in network.tensors.inputs
        ]
        outputs = [grpc.InferRequestedOutput(spec.name) for spec in network.tensors.outputs]
        take: Callable[[Any], list[Array]] = lambda result: [  # noqa: E731 - replaced below
            np.array(result.as_numpy(spec.name)) for spec in network.tensors.outputs
        ]
        sizes = [(count, *spec.shape[1:]) for spec in network.tensors.outputs]
        fixed = all(size >= 0 for shape in sizes for size in shape)
        large = sum(value.nbytes for value in feeds.values()) >= _SHARED_FROM
        with _translated(network.name):
            if self._regions is not None and fixed and large:
                kinds = [DTYPES[spec.dtype] for spec in network.tensors.outputs]
                take = self._regions.attach(inputs, list(feeds.values()), outputs, sizes, kinds)
            else:
                for entry, spec in zip(inputs, network.tensors.inputs, strict=True):
                    entry.set_data_from_numpy(feeds[spec.name])
            with tracing.span(_INFER, kind="client", attributes=_RPC | {"wetread.network": network.name}):
                traceparent = tracing.current()
                result = client.infer(
                    network.name,
                    inputs,
                    outputs=outputs,
                    request_id=identity,
                    priority=self._priority,
                    client_timeout=max(seconds, 0.001),
                    headers=None if traceparent is None else {"traceparent": traceparent},
                )
            return take(result)


def _client(url: str) -> Any:
    parts = urlsplit(url)
    if parts.scheme not in {"grpc", "grpcs"} or not parts.hostname or parts.port is None:
        msg = "an inference server is grpc://host:port or grpcs://host:port"
        raise ConfigurationError(msg)
    try:
        from tritonclient import grpc
    except ImportError as error:
        msg = "an inference server needs the extra triton: pip install 'wetread[triton]'"
        raise ConfigurationError(msg) from error
    address = f"{parts.hostname}:{parts.port}"
    return grpc.InferenceServerClient(address, ssl=parts.scheme == "grpcs", channel_args=_UNLIMITED)


def _when_ready(client: Any, seconds: float) -> Any:
    """Return the server's metadata once it answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with _translated(""):
                return client.get_server_metadata(client_timeout=2)
        except (Unavailable, ComputationFailed) as error:
            if time.monotonic() >= deadline:
                msg = "the inference server does not answer"
                raise Unavailable(msg) from error
            time.sleep(0.1)


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}


@contextmanager
def _translated(network: str) -> Iterator[None]:
    """No type of the client library leaves this file."""
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        status, message = str(error.status() or ""), str(error.message() or "")
        if "NOT_FOUND" in status or "unknown model" in message:
            raise ComputationFailed("model_unavailable", f"the server has no network {network}") from error
        if "DEADLINE_EXCEEDED" in status:
            raise ComputationFailed("timeout", f"network {network} did not answer in time") from error
        if "UNAVAILABLE" in status:
            full = "maximum queue size" in message
            raise Unavailable(
                "the queue of the inference server is full" if full else "the inference server does not answer"
            ) from error
        raise ComputationFailed("crashed", f"the server refused the batch for {network}") from error


def _compare(network: NetworkFile, side: str, specs: Sequence[TensorSpec], found: Sequence[Any]) -> None:
    """Raise unless the server's tensors are those of the manifest: names, types, ranks, fixed dimensions."""
    by_name = {tensor.name: tensor for tensor in found}
    for spec in specs:
        tensor = by_name.get(spec.name)
        fits = (
            tensor is not None
            and tensor.datatype == spec.dtype
            and len(tensor.shape) == len(spec.shape)
            and all(have in {-1, want} for want, have in zip(spec.shape[1:], tensor.shape[1:], strict=True))
        )
        if not fits or (side == "input" and len(by_name) != len(specs)):
            detail = f"{side} {spec.name!r} of {network.name} on the server is not as its manifest says"
            raise ComputationFailed("model_unavailable", detail)
