"""``detector.yaml`` and ``model-card.json`` as types: the manifest drives rules, selection, workitem codes and docs.

Unknown keys are errors. The JSON Schema of both is generated from here (``wetread.schemas``) and committed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Semver = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
NetworkName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}(__[a-z0-9-]{1,32})?$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BodyPart(_Strict):
    """Accepted body parts; ``image_content`` means an image check confirms what tags say (tags lie)."""

    any: tuple[str, ...]
    sources: tuple[Literal["tags", "image_content"], ...] = Field(default=("tags",), alias="from")


class SeriesNeeds(_Strict):
    """What a series must offer. Millimetres and degrees."""

    min_slices: int = 1
    max_step_mm: float | None = None
    """Largest distance between neighbouring planes: holes up to it are bridged and flagged, larger ones refuse."""
    max_step_ratio: float | None = None
    """Largest step over the median step, for detectors that need a regular stack (1.5 refuses every hole)."""
    coverage_mm: float | None = None
    orientation: Literal["axial", "coronal", "sagittal", "any"] = "any"
    max_tilt_deg: float | None = None
    kernels_prefer: tuple[str, ...] = ()


class TimeNeeds(_Strict):
    """What a series must offer that images the same planes again and again. Seconds."""

    min_points: int = 2
    max_step_s: float | None = None
    """Largest time between two images of one plane."""
    min_duration_s: float | None = None


class CineNeeds(_Strict):
    """What a clip must offer: frames of one plane in one multi-frame object."""

    min_frames: Annotated[int, Field(ge=2)] = 2
    max_frames: Annotated[int, Field(ge=2)] = 600
    """Frames beyond are left out and flagged."""


class PriorNeeds(_Strict):
    """Earlier results of the same detector for the same patient, handed in as values; no image is read again."""

    results: Annotated[int, Field(ge=1, le=10)]
    """At most so many, the newest."""


class LossyPolicy(_Strict):
    allowed: bool = True
    max_ratio: float | None = None
    flag: bool = True


class InputNeeds(_Strict):
    """The selected input. Each refusal maps to one reason of the state table."""

    modality: tuple[str, ...]
    body_part: BodyPart | None = None
    contrast: Literal["absent", "present", "any"] = "any"
    series: SeriesNeeds = SeriesNeeds()
    time: TimeNeeds | None = None
    """Given: the detector reads a dynamic series, and its volume is a ``DynamicVolume``."""
    cine: CineNeeds | None = None
    """Given: the detector reads one ultrasound clip, and its volume is a ``Cine``."""
    lossy: LossyPolicy = LossyPolicy()
    priors: PriorNeeds | None = None
    """Given: the detector is handed earlier results (``Context.priors``)."""
    select: str


class TensorSpec(_Strict):
    name: str
    dtype: Literal["FP32", "FP16", "INT64", "UINT8"] = "FP32"
    shape: tuple[int, ...]
    """-1 is the batch axis."""


class TensorSpecs(_Strict):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class ModelFile(_Strict):
    """The network: ONNX weights pinned by SHA-256."""

    file: str
    sha256: Sha256
    opset: int
    engines: tuple[str, ...]
    max_batch: int = 16
    instances: int = 1
    tolerance: float = 1e-5


class FindingSpec(_Strict):
    code: tuple[str, str]
    """(scheme, value), such as ("SCT", "1386000")."""
    types: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    regions: tuple[Literal["mask", "contour", "box", "point", "line"], ...] = ()


class TriagePolicy(_Strict):
    positive_class: Literal["stat", "urgent", "routine"] | None = None
    needs_operating_point: str | None = None


class Resources(_Strict):
    cpu: float = 1
    memory_mb: int
    gpu_memory_mb: int | None = None
    timeout_s: float = 60
    target_s: float | None = None


class Explanation(_Strict):
    method: Literal["cam", "occlusion", "rule", "none"] = "none"
    output: Literal["seg_fractional", "json", "none"] = "none"


class Licence(_Strict):
    code: str
    weights: str
    training_data: str


class Manifest(_Strict):
    """One detector: identity, needs, tensors, findings, resources (``wetread.detector/1``)."""

    schema_: Literal["wetread.detector/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    version: Semver
    title: str
    intended_use: str
    not_for: tuple[str, ...]
    input: InputNeeds
    tensors: TensorSpecs | None = None
    model: ModelFile | None = None
    networks: tuple[NetworkName, ...] = ()
    """Further networks: folders beside this one, each with ``network.yaml`` and weights, no code."""
    findings: tuple[FindingSpec, ...]
    triage: TriagePolicy = TriagePolicy()
    resources: Resources
    explanation: Explanation = Explanation()
    licence: Licence
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters a workflow may set in ``with:``, with their defaults."""


class NetworkManifest(_Strict):
    """``network.yaml``: a network without a detector's code, alone or named by a detector (``wetread.network/1``)."""

    schema_: Literal["wetread.network/1"] = Field(alias="schema")
    name: NetworkName
    version: Semver
    tensors: TensorSpecs
    model: ModelFile
    licence: Licence
    origin: str = ""
    """Digest of what it was imported from; empty: made here."""


class OperatingPoint(_Strict):
    """A threshold chosen on the tuning split, with what it gave there."""

    name: str
    threshold: float
    set: str
    sensitivity: float
    specificity: float


class Card(BaseModel):
    """The parts of ``model-card.json`` that code reads; everything else in it is for people and is kept."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    version: Semver
    operating_points: tuple[OperatingPoint, ...] = ()
    default_operating_point: str | None = None
    phantom_evidence_id: str = ""
    """Digest of ``phantom.yaml``: what the training and evaluation phantoms were drawn from."""
    shadow: bool = False
    """True while the detector may not notify anyone (a gate was missed)."""

    def operating_point(self, name: str | None = None) -> OperatingPoint | None:
        """Return the operating point *name*, or the default one; None when the card has none."""
        wanted = name or self.default_operating_point
        return next((p for p in self.operating_points if p.name == wanted), None)
