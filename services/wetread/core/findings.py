"""The finding object: one source of every encoding (SR, SEG, SC, JSON, notifications)."""

from __future__ import annotations

from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState

CHAMBER_VOLUMES = frozenset({"18026-5", "18148-7"})
"""LOINC codes of the left ventricle's volume at end of diastole and systole: the two are never added up."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Code(_Value):
    """A coded concept (PS3.3 8.8)."""

    value: str
    scheme: str
    meaning: str


class Measurement(_Value):
    """A coded number with its UCUM unit."""

    code: Code
    value: float
    unit: str
    method: str = ""
    uncertainty: float | None = None


class Score(_Value):
    """A detector's score beside the threshold it was judged by.

    A score is called a score, never a probability of disease in patients.
    """

    value: float
    threshold: float
    operating_point: str
    calibrated: bool = False


class KeyImage(_Value):
    """The plane that shows a finding best."""

    sop_instance_uid: str
    frame: int = 1
    plane: int
    """Index into the selected instances, in order along the normal."""


class Change(_Value):
    """What became of a finding since an earlier result of the same detector (``Run.priors``)."""

    course: Literal["grown", "stable", "shrunk", "new"]
    """``stable``: no change beyond the error of measuring; ``new``: the earlier result holds no such finding."""
    prior_study_uid: str
    prior_result_key: str
    prior_date: date
    prior_finding_id: str | None = None


class Finding(_Value):
    """One finding of one run. ``label`` is its voxel value in the run's mask (None: no region)."""

    schema_: Literal["wetread.finding/1"] = Field(default="wetread.finding/1", alias="schema")
    finding_id: str
    tracking_uid: str
    code: Code
    state: Literal["positive", "negative", "indeterminate", "measured"]
    preliminary: bool = False
    types: tuple[str, ...] = ()
    score: Score | None = None
    measurements: tuple[Measurement, ...] = ()
    laterality: str = ""
    site: str = ""
    label: int | None = None
    key_image: KeyImage | None = None
    quality: tuple[str, ...] = ()
    predecessor: str | None = None
    change: Change | None = None
    ruo: str = RUO_STATEMENT

    def volume_ml(self) -> float | None:
        """Return the finding's volume in mL, if it has one. What a chamber holds at one moment is no amount of it."""
        volumes = (m.value for m in self.measurements if m.unit == "mL" and m.code.value not in CHAMBER_VOLUMES)
        return next(volumes, None)


class PriorReference(_Value):
    """An earlier result that a run was handed."""

    study_uid: str
    result_key: str
    study_date: date


class RunPriors(_Value):
    """The earlier results that a run was handed, newest first, and why others of the Patient ID were not.

    A reason comes without a study: it may be another patient's.
    """

    results: tuple[PriorReference, ...] = ()
    left_out: tuple[str, ...] = ()


class Run(_Value):
    """What ran, on what, with what: enough to repeat it and to recognise it. Digests are SHA-256 hex."""

    result_key: str
    tenant: str
    study_uid: str
    series_uid: str | None
    """The selected series; None when nothing could be selected."""
    detector: str
    version: str
    title: str = ""
    model_digest: str
    params_digest: str
    input_digest: str
    rules_digest: str
    software: str
    engine: str
    phantom_evidence_id: str = ""
    started_at: float
    """Unix seconds UTC, recorded once: every attempt writes byte-identical objects."""
    shadow: bool = False
    priors: RunPriors | None = None
    """None: the detector asks for none, or was run without an archive."""


class StoredAttachment(_Value):
    """A document or picture of a result and the artifact key of its bytes."""

    name: str
    media_type: str
    key: str
    capture: bool = False
    """Also written into the study as Secondary Capture."""


class StoredMap(_Value):
    """A parameter map of a result: its quantity, its unit, and the artifact that holds its values."""

    name: str
    """Key of the code dictionary, and of the array in the artifact."""
    unit: str
    key: str


class StoredExplanation(_Value):
    """The map of where a score came from: how it was made, what it leaves out, and the artifact that holds it."""

    method: Literal["cam", "occlusion"]
    note: str = ""
    key: str
    """Artifact key (.npz): ``values`` [plane, row, column] and ``grid``, rows of LPS mm: origin, row direction, column
    direction, spacing between planes, rows and columns."""


class ResultSet(_Value):
    """The outcome of one run, whatever it was: a study is never left without an answer."""

    run: Run
    state: AiState
    reason: str | None = None
    detail: str = ""
    preliminary: bool = False
    score: Score | None = None
    findings: tuple[Finding, ...] = ()
    quality: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()
    """The selected instances in order along the normal (the planes of the mask)."""
    mask_key: str | None = None
    """Artifact key of the label mask (.npz, array ``mask`` [plane, row, column] uint8)."""
    attachments: tuple[StoredAttachment, ...] = ()
    maps: tuple[StoredMap, ...] = ()
    explanation: StoredExplanation | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    """Seconds per stage."""


class StoredSeries(_Value):
    """One series of result objects as stored in the study."""

    modality: str
    series_uid: str
    sop_instance_uids: tuple[str, ...]


DOCUMENT_MODALITIES = (
    "SR",
    "SEG",
    "ANN",
    "KO",
    "PR",
    "DOC",
    "PLAN",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "REG",
    "RWV",
    "ECG",
)
"""Modalities whose objects are not pictures: a list or page never asks for their rendered form."""


def result_json(result: ResultSet, stored: tuple[StoredSeries, ...]) -> dict[str, Any]:
    """Return the result in the form of the findings API and of ``wetread demo --json``."""
    return {
        "detector": result.run.detector,
        "version": result.run.version,
        "state": str(result.state),
        "reason": result.reason,
        "detail": result.detail,
        "score": result.score.value if result.score else None,
        "threshold": result.score.threshold if result.score else None,
        "shadow": result.run.shadow,
        "preliminary": result.preliminary,
        "model_digest": result.run.model_digest,
        "quality": list(result.quality),
        "priors": result.run.priors.model_dump(mode="json") if result.run.priors else None,
        "findings": [
            {
                "finding_id": f.finding_id,
                "code": f.code.value,
                "scheme": f.code.scheme,
                "meaning": f.code.meaning,
                "state": f.state,
                "types": list(f.types),
                "score": f.score.value if f.score else None,
                "volume_ml": f.volume_ml(),
                "measurements": [
                    {"code": m.code.value, "meaning": m.code.meaning, "value": m.value, "unit": m.unit}
                    for m in f.measurements
                ],
                "key_image": f.key_image.model_dump() if f.key_image else None,
                "change": f.change.model_dump(mode="json") if f.change else None,
            }
            for f in result.findings
        ],
        "stored": [{"modality": s.modality, "series_uid": s.series_uid} for s in stored],
        "ruo": RUO_STATEMENT,
    }
