"""Running detectors: the engine behind one call, and the runner that drives a whole detector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from wetread.core.detector import Applicability, InputSet, Tensors
from wetread.core.facts import StudyFacts
from wetread.core.findings import ResultSet
from wetread.core.manifest import Card, Manifest, TensorSpecs
from wetread.core.ports.studies import StoredInstance
from wetread.core.priors import Priors


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """One network as an in-process engine loads it: weights on disk, pinned by hash."""

    name: str
    path: Path
    sha256: str
    max_batch: int
    tensors: TensorSpecs


class InferenceClient(Protocol):
    """One network on one batch; ONNX Runtime in process, Triton or KServe behind the Open Inference Protocol."""

    @property
    def engine(self) -> str:
        """Identity and precision of the engine, part of every result key."""

    def infer(self, network: str, tensors: Tensors) -> Tensors:
        """Run a batch. Raises Unavailable (retry) or ComputationFailed."""


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """An installed detector as rules and results see it."""

    name: str
    version: str
    manifest: Manifest
    card: Card
    model_digest: str
    kind: Literal["volume", "slide"] = "volume"
    """What it reads: a volume at once, or a whole slide tile by tile."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run: what to read and with which parameters. References only."""

    tenant: str
    study_uid: str
    series_uid: str
    detector: str
    version: str
    instances: tuple[StoredInstance, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rules_digest: str = ""
    input_digest: str = ""
    result_key: str = ""
    started_at: float = 0.0
    shadow: bool = False
    preliminary: bool = False
    priors: Priors | None = None
    """Earlier results that the detector is handed; the input digest covers them. None: it asks for none."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run: the result set (mask stored as an artifact)."""

    result: ResultSet


Report = Callable[[int], None]
"""Takes the percentage that is done; whoever reports does it once a second or less."""


class DetectorChooser(Protocol):
    """What detectors say from headers alone: whether they apply, and which images they would read."""

    def detectors(self) -> Mapping[str, DetectorInfo]:
        """Return the installed detectors by name."""

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        """Ask the detector, headers only."""

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        """Ask the detector for its input. Raises NotApplicable or NotProcessable."""


class DetectorRunner(DetectorChooser, Protocol):
    """Runs detectors in worker processes that can be killed."""

    def prepare(self) -> None:
        """Load what its answers from headers need: seconds, the first time.

        Whoever is about to make others wait for him (a write transaction) calls it before.
        """

    def result_key(self, request: RunRequest) -> str:
        """Return the identity of the run's result.

        SHA-256 over tenant, study, detector, version, model, parameters, engine, encoder version, input digest.
        """

    async def run(
        self, request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        """Run to a result set; typed refusals become results with their reason.

        ``report`` is told how far it is, from a thread of the runner; runs of seconds say nothing.

        Raises ComputationFailed(timeout | crashed | out_of_memory | model_unavailable).
        """

    def names(self) -> Sequence[str]:
        """Return the names of installed detectors."""
