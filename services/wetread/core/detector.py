"""The detector contract: pure functions from header facts and a volume to findings (``models/<name>/detector.py``).

A detector never opens a file, a socket or a DICOM object. The runner assembles the volume, drives ``steps`` and
answers each ``Request`` with the named network's outputs, so any engine can serve it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wetread.core.facts import StudyFacts
from wetread.core.manifest import Card, Manifest
from wetread.core.priors import NO_PRIORS, PriorFinding, PriorResult, Priors

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8]
Tensors = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One source image plane: SOP instance and 1-based frame number (PS3.3 C.7.6.16)."""

    sop_instance_uid: str
    frame: int = 1


@dataclass(frozen=True, slots=True)
class Volume:
    """Parallel image planes in patient space, in order along their common normal; spacing may be irregular.

    ``voxels[k, i, j]``: plane k, row i, column j; CT in Hounsfield units.
    The centre of voxel (k, i, j) in LPS mm is ``origins[k] + j * pixel_spacing[1] * row_direction
    + i * pixel_spacing[0] * column_direction`` (PS3.3 C.7.6.2.1.1). Gantry tilt shows as origins that shift
    within the plane: nothing is resampled here.
    """

    voxels: FloatArray
    origins: npt.NDArray[np.float64]
    """[plane, 3] Image Position (Patient), LPS mm."""
    row_direction: npt.NDArray[np.float64]
    """Unit vector along increasing column index."""
    column_direction: npt.NDArray[np.float64]
    """Unit vector along increasing row index."""
    pixel_spacing: tuple[float, float]
    """mm between rows, mm between columns."""
    weights_mm: npt.NDArray[np.float64]
    """[plane] slab that each plane stands for: half the distance to both neighbours. Volumes use this, never
    Slice Thickness."""
    frames: tuple[FrameRef, ...]
    tilt_deg: float = 0.0
    flags: tuple[str, ...] = ()
    """Quality flags, such as ``holes_bridged`` or ``frame_of_reference_inconsistent``."""

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Unit normal of the planes, along increasing plane index."""
        return np.asarray(np.cross(self.row_direction, self.column_direction), dtype=np.float64)

    @property
    def positions_mm(self) -> npt.NDArray[np.float64]:
        """[plane] position of each plane along the normal."""
        return np.asarray(self.origins @ self.normal, dtype=np.float64)

    @property
    def voxel_volumes_ml(self) -> npt.NDArray[np.float64]:
        """[plane] volume that one voxel of each plane stands for, in mL."""
        return self.weights_mm * (self.pixel_spacing[0] * self.pixel_spacing[1] / 1000.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicVolume(Volume):
    """The same planes imaged again and again while a tracer passes: a volume with a time axis.

    ``voxels`` is the first time point and ``frames`` are its images, so a mask lies on planes that exist as images.
    """

    dynamic: FloatArray
    """[time, plane, row, column]; CT in Hounsfield units, MR in signal."""
    times_s: npt.NDArray[np.float64]
    """[time, plane] seconds since the first image, rising along time; planes may be imaged one after the other."""
    modality: str
    """CT or MR: what a change of the values means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cine(Volume):
    """One ultrasound clip: the same plane again and again, with no place in the patient.

    ``voxels`` [frame, row, column] is brightness 0..255. ``origins``, ``weights_mm`` and ``pixel_spacing`` are not
    numbers, so that nothing is computed from them by mistake: only ``calibration`` knows millimetres.
    """

    times_s: npt.NDArray[np.float64]
    """[frame] seconds since the first frame, rising."""
    timed: bool
    """False when no header says how long a frame takes, and a usual rate stands in."""
    coloured: npt.NDArray[np.bool_]
    """[row, column] pixels that are coloured in many frames: flow, overlays."""
    calibration: CineCalibration | None = None
    """None when the header gives none that can be trusted."""


@dataclass(frozen=True, slots=True)
class CineCalibration:
    """Pixel size of a region of a clip (PS3.3 C.8.5.5), whose box lies inside the picture."""

    mm: tuple[float, float]
    """mm between rows, mm between columns."""
    box: tuple[int, int, int, int]
    """First row, first column, last row, last column."""


@dataclass(frozen=True, slots=True)
class Applicability:
    """Whether a detector is wanted for a study. ``reason`` is typed (workflow-and-results: not_applicable)."""

    applicable: bool
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class InputSet:
    """The images a detector wants, in no particular order, all of one series.

    ``completeness``: ``incomplete`` (wait), ``enough`` (an early run may start) or ``complete``; decided by
    geometry here, the other signals are the orchestration's.
    """

    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    completeness: Literal["incomplete", "enough", "complete"]
    reason: str = ""
    """Why this series and not another, for the explanation."""
    lacking: str = ""
    """Typed reason (not_processable) that the study ends with if no more images come; empty: it can be run."""


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the engine to run one network on a batch (first axis of every tensor)."""

    network: str
    tensors: Tensors


@dataclass(frozen=True, slots=True)
class Measure:
    """A number with its UCUM unit. ``name`` is a key of the code dictionary (``core.codes``)."""

    name: str
    value: float
    unit: str
    method: str = ""
    uncertainty: float | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a thing since an earlier result that was handed in (``Context.priors``)."""

    course: Literal["grown", "stable", "shrunk", "new"]
    prior: PriorResult
    finding: PriorFinding | None = None
    """What it was then; None when it is new."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing a detector saw, before it gets identity and encodings."""

    code: str
    """Key of the code dictionary, such as ``intracranial_hemorrhage``."""
    state: Literal["positive", "negative", "indeterminate", "measured"]
    score: float | None = None
    types: tuple[str, ...] = ()
    """Sub-types by falling weight, such as ``IPH``, ``SAH``."""
    measures: tuple[Measure, ...] = ()
    label: int | None = None
    """Value of this observation's voxels in ``Result.mask``."""
    key_plane: int | None = None
    """Index of the plane that shows it best."""
    laterality: Literal["", "left", "right", "bilateral"] = ""
    """Side of the patient; empty when the finding has none."""
    site: str = ""
    change: Change | None = None
    """Of a detector that asks for earlier results; None when there is none to compare with."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document or picture beside the findings, such as a result as JSON or a curved reformat as PNG."""

    name: str
    """File name of letters, digits, ``.`` and ``-``."""
    media_type: str
    data: bytes
    capture: bool = False
    """A PNG that also goes into the study as Secondary Capture; the statement of research use is drawn in it."""


@dataclass(frozen=True, slots=True)
class ParameterMap:
    """A measured quantity at every voxel, which becomes a Parametric Map object (PS3.3 A.75)."""

    name: str
    """Key of the code dictionary (``core.codes``), such as ``cerebral_blood_flow``."""
    values: FloatArray
    """[plane, row, column] on the planes of the source volume; NaN where nothing was computed."""
    unit: str
    """UCUM unit of the dictionary."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a score came from: a coarse map on a grid of the detector's own. Never a reason why something is disease.

    The centre of cell (k, i, j) in LPS mm is ``origin_mm + k * spacing_mm[0] * normal + i * spacing_mm[1] *
    column_direction + j * spacing_mm[2] * row_direction``, with the normal row x column.
    """

    method: Literal["cam", "occlusion"]
    values: FloatArray
    """[plane, row, column] of that grid, 0 (gave nothing to the score) to 1."""
    origin_mm: npt.NDArray[np.float64]
    row_direction: npt.NDArray[np.float64]
    """Unit vector along increasing column index."""
    column_direction: npt.NDArray[np.float64]
    """Unit vector along increasing row index."""
    spacing_mm: tuple[float, float, float]
    """mm between planes, rows and columns."""
    note: str = ""
    """What made the score beside the map, in words for a reader."""

    def cells(self, points_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the place of points [..., (x, y, z)], LPS mm, as fractions of cells [..., (plane, row, column)]."""
        normal = np.cross(self.row_direction, self.column_direction)
        axes = np.stack([normal, self.column_direction, self.row_direction], axis=1) / np.asarray(self.spacing_mm)
        return np.asarray((points_mm - self.origin_mm) @ axes, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Result:
    """What a detector says about one volume."""

    state: Literal["positive", "negative", "indeterminate", "measured"]
    observations: tuple[Observation, ...] = ()
    score: float | None = None
    threshold: float | None = None
    mask: LabelArray | None = None
    """[plane, row, column] on the planes of the source volume; 0 is background."""
    explanation: Explanation | None = None
    """Where the score of a positive came from; a map of zeros is none."""
    flags: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    maps: tuple[ParameterMap, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """What ``postprocess`` may know beside the tensors."""

    volume: Volume
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The ``with:`` block of the workflow, checked against the manifest."""
    priors: Priors = NO_PRIORS
    """Earlier results, for a detector whose manifest asks for them (``input.priors``)."""


class BaseDetector(ABC):
    """Base of every ``detector.py``: the folder's module defines a subclass named ``Detector``.

    Methods raise NotApplicable or NotProcessable with a typed reason; anything else is our own failure.
    """

    def __init__(self, manifest: Manifest, card: Card) -> None:
        self.manifest = manifest
        self.card = card

    @abstractmethod
    def applicable(self, study: StudyFacts) -> Applicability:
        """Decide from headers whether this study is a case for the detector (< 1 ms)."""

    @abstractmethod
    def select(self, study: StudyFacts) -> InputSet:
        """Choose the input images. Raises NotApplicable or NotProcessable."""

    @abstractmethod
    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Yield requests to networks, be sent their outputs, return the result."""


class SingleNetworkDetector(BaseDetector):
    """A detector whose computation is preprocess -> one network -> postprocess."""

    @abstractmethod
    def preprocess(self, volume: Volume) -> Tensors:
        """Turn the volume into the network's input batch."""

    @abstractmethod
    def postprocess(self, outputs: Tensors, context: Context) -> Result:
        """Turn the network's outputs into a result on the source planes."""

    def steps(self, volume: Volume, context: Context) -> Generator[Request, Tensors, Result]:
        """Run the one network on what ``preprocess`` made."""
        outputs = yield Request(self.manifest.name, self.preprocess(volume))
        return self.postprocess(outputs, context)
