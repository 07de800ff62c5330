"""What a worker process of ``detection`` needs from the outside; the composition root makes it inside the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wetread.core.ports.inference import InferenceClient, NetworkFile
from wetread.core.ports.objects import ArtifactStore, ObjectStore
from wetread.core.ports.pixels import FrameDecoder


class WarmInferenceClient(InferenceClient, Protocol):
    """An engine that can be made ready before the first study."""

    def warm_up(self) -> None:
        """Open every network. Raises ComputationFailed("model_unavailable")."""


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """What a worker process needs from the outside, made in the process itself by the composition root."""

    objects: ObjectStore
    artifacts: ArtifactStore
    decoder: FrameDecoder
    inference: Callable[[Sequence[NetworkFile]], WarmInferenceClient]
    threads: int = 2
