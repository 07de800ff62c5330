"""Which engine runs the networks, by URL: ONNX Runtime in process, or a server of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wetread.core.ports.inference import NetworkFile

if TYPE_CHECKING:
    from wetread.detection.worker_ports import WarmInferenceClient
    from wetread.settings import Settings


def engine_identity(settings: Settings) -> str:
    """Return the identity of the engine; asks the server when there is one. Raises Unavailable."""
    if settings.inference_url is None:
        from wetread.adapters.inference.onnxruntime import engine_identity as in_process

        return in_process()
    from wetread.adapters.inference.triton import server_identity

    return server_identity(settings.inference_url)


def inference_client(settings: Settings, networks: Sequence[NetworkFile]) -> WarmInferenceClient:
    """Return the client of *networks*; connects when first used."""
    if settings.inference_url is None:
        from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient

        return OnnxRuntimeClient(networks, threads=settings.inference_threads)
    from wetread.adapters.inference.triton import OipClient

    return OipClient(settings.inference_url, networks, lane=settings.inference_lane)
