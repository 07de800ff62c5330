"""The JSON of the provider API as types: OpenAPI is generated from here. Times are UTC, ISO 8601."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wetread.core.events import EventType
from wetread.core.priority import Priority
from wetread.core.reading_order import Band
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import AiState, StudyAiState

Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]
RuoStatement = Annotated[str, Field(description="Research-use-only statement.")]


class ReasonOut(BaseModel):
    """Why a study stands where it stands. ``source``: order, rule, ai or manual."""

    source: str
    text: str
    priority: Priority
    at: str
    detector: str | None = None
    finding_id: str | None = None


class TaskOut(BaseModel):
    """State of one detector on a study. ``reason`` is typed wherever the state has one."""

    detector: str
    version: str
    state: AiState
    reason: str | None
    shadow: bool
    attempt: int
    progress: int
    due_at: str
    updated_at: str


class AiOut(BaseModel):
    """The study's summary (shadow tasks left out) and one entry per detector."""

    state: StudyAiState
    tasks: list[TaskOut]


class ReadingOut(BaseModel):
    """Who reads a study or has read it."""

    reader: str
    since: str
    read_at: str | None


class WorklistItemOut(BaseModel):
    study_uid: str
    patient_id: str
    modality: str
    description: str
    received_at: str
    due_at: str
    priority: Priority
    reasons: list[ReasonOut]
    ai: AiOut
    band: Band
    reading: ReadingOut | None


class WorklistOut(BaseModel):
    """A page in reading order; ``next`` goes into ``?cursor=``."""

    items: list[WorklistItemOut]
    next: str | None
    ruo: RuoStatement = RUO_STATEMENT


class RaiseIn(BaseModel):
    """A person raises a study. Nobody can lower one."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class AssignIn(BaseModel):
    """``reader``: who takes the study; the credential's own name when left out."""

    model_config = ConfigDict(extra="forbid")

    reader: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    reason: Annotated[str, Field(max_length=200)] = ""


class ReasonIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=200)] = ""


class VerdictIn(BaseModel):
    """Why a reader agrees or does not. A rejection needs a reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=500)] = ""


class MeasurementEditIn(BaseModel):
    """A measurement of the finding as the reader has it: same code and unit, another value."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Annotated[str, Field(min_length=1, max_length=32)]


class EditIn(BaseModel):
    """What a reader corrects in a finding, and why. The recorded result itself never changes."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    laterality: Literal["left", "right", "bilateral"] | None = None
    measurements: Annotated[list[MeasurementEditIn], Field(max_length=32)] = []
    comment: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.laterality is None and not self.measurements and not self.comment:
            msg = "an edit changes the side, a measurement or the comment"
            raise ValueError(msg)
        return self


class FeedbackOut(BaseModel):
    """What readers said of a finding. ``verdict``: accepted, rejected or edited; the latest one counts."""

    acknowledged_at: str | None
    acknowledged_by: str | None
    verdict: Literal["accepted", "rejected", "edited"] | None
    reason: str
    changes: dict[str, Any]
    verdict_at: str | None
    verdict_by: str | None


class FindingFeedbackOut(BaseModel):
    study_uid: str
    finding_id: str
    feedback: FeedbackOut
    ruo: RuoStatement = RUO_STATEMENT


class MeasurementOut(BaseModel):
    code: str
    meaning: str
    value: float
    unit: str


class KeyImageOut(BaseModel):
    sop_instance_uid: str
    frame: int
    plane: int


class ChangeOut(BaseModel):
    """What became of a finding since an earlier result. ``stable``: no change beyond the error of measuring."""

    course: Literal["grown", "stable", "shrunk", "new"]
    prior_study_uid: str
    prior_result_key: str
    prior_date: str
    prior_finding_id: str | None


class PriorOut(BaseModel):
    study_uid: str
    result_key: str
    study_date: str


class PriorsOut(BaseModel):
    """Earlier results that a run was handed, newest first, and why others of the Patient ID were not."""

    results: list[PriorOut]
    left_out: list[str]


class FindingOut(BaseModel):
    finding_id: str
    code: str
    scheme: str
    meaning: str
    state: str
    types: list[str]
    score: float | None
    volume_ml: float | None
    measurements: list[MeasurementOut]
    key_image: KeyImageOut | None
    change: ChangeOut | None = None
    feedback: FeedbackOut | None = None


class StoredOut(BaseModel):
    modality: str
    series_uid: str


class RecordedResultOut(BaseModel):
    """A result as it was recorded."""

    detector: str
    version: str
    state: AiState
    reason: str | None
    detail: str
    score: float | None
    threshold: float | None
    shadow: bool
    preliminary: bool
    model_digest: str | None
    quality: list[str]
    priors: PriorsOut | None = None
    findings: list[FindingOut]
    stored: list[StoredOut]
    ruo: RuoStatement = RUO_STATEMENT


class ResultOut(RecordedResultOut):
    """A detector's standing on the study. While a re-run is pending, ``previous`` keeps the last result."""

    attempt: int
    progress: int
    updated_at: str | None
    previous: RecordedResultOut | None = None


class MomentOut(BaseModel):
    """One event of a study. ``reason`` is the typed reason of a task's end, or why a study was raised.

    ``offset_s``: seconds since the study's first images came. ``stages``: seconds from the receipt of the last byte
    that led to this event (``received``) to each stage that the work has passed.
    """

    id: str
    cursor: int
    type: EventType
    at: str
    offset_s: float
    detector: str | None
    state: AiState | None
    reason: str | None
    text: str
    shadow: bool
    stamps: dict[str, str]
    stages: dict[str, float]


class TimelineOut(BaseModel):
    """What happened to a study, oldest first; ``more``: older events than the limit allows were left out."""

    study_uid: str
    received_at: str
    events: list[MomentOut]
    more: bool
    ruo: RuoStatement = RUO_STATEMENT


class TaskRowOut(BaseModel):
    """One detector on one study, as operators see it. ``dead``: given up after the last attempt."""

    study_uid: str
    detector: str
    version: str
    state: AiState
    reason: str | None
    detail: str
    dead: bool
    retryable: bool
    shadow: bool
    workflow: str
    priority: Priority
    due_at: str | None
    attempt: int
    runs: int
    progress: int
    workitem_uid: str | None
    input_digest: str | None
    result_key: str | None
    updated_at: str


class TasksOut(BaseModel):
    """Tasks, latest change first."""

    tasks: list[TaskRowOut]


class TaskDetailOut(TaskRowOut):
    """A task with what happened to it, oldest first."""

    events: list[MomentOut]


class RetryIn(BaseModel):
    """Why another run is asked for; it stays in the study's timeline."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=200)] = ""


class FindingsOut(BaseModel):
    """One entry per detector, whatever became of it: pending and failed ones are listed, never left out."""

    study_uid: str
    state: StudyAiState
    results: list[ResultOut]
    ruo: RuoStatement = RUO_STATEMENT


class EventOut(BaseModel):
    """A CloudEvents 1.0 event; ``cursor`` is its place in the stream, ``traceparent`` its trace, if it has one."""

    specversion: str
    id: str
    source: str
    type: EventType
    subject: str
    time: str
    datacontenttype: str
    cursor: int
    traceparent: str | None = None
    data: dict[str, Any]


class EventsOut(BaseModel):
    """Events after the cursor; ``next`` is the cursor to go on from, the same as given when nothing is new."""

    events: list[EventOut]
    next: int


class SubscriptionIn(BaseModel):
    """A webhook receiver. No types: every type. Without secrets of your own one is made for you."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, Field(max_length=2048)]
    types: list[EventType] = []
    include_patient: bool = False
    secrets: Annotated[list[str], Field(max_length=2)] = []


class SubscriptionOut(BaseModel):
    id: str
    url: str
    types: list[EventType]
    include_patient: bool
    active: bool
    created_at: str


class SubscriptionWithSecrets(SubscriptionOut):
    """Shown once, when secrets are made: they cannot be read again."""

    secrets: list[str]


class SubscriptionsOut(BaseModel):
    subscriptions: list[SubscriptionOut]


class DeliveryOut(BaseModel):
    event_id: str
    state: str
    attempts: int
    last_error: str
    sent_at: str | None
    next_attempt_at: str | None
    updated_at: str


class DeliveriesOut(BaseModel):
    deliveries: list[DeliveryOut]


class TestDeliveryOut(BaseModel):
    """Outcome of a signed sample."""

    __test__ = False

    delivered: bool
    status: int | None
    detail: str


class ManifestIn(BaseModel):
    """What the sender says the study consists of: a count, or the UIDs."""

    model_config = ConfigDict(extra="forbid")

    instances: Annotated[int, Field(ge=1)] | None = None
    sop_instance_uids: Annotated[list[Uid], Field(min_length=1, max_length=100_000)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.instances is None) == (self.sop_instance_uids is None):
            msg = "give either instances or sop_instance_uids"
            raise ValueError(msg)
        return self


class ManifestOut(BaseModel):
    """The study will be evaluated with this signal."""

    study_uid: str
    generation: int
    signal: str


class OperatingPointOut(BaseModel):
    name: str
    threshold: float
    set: str
    sensitivity: float
    specificity: float


class DetectorOut(BaseModel):
    """An installed detector: what it is for, what it is not for, and what it was measured with."""

    name: str
    version: str
    title: str
    intended_use: str
    not_for: list[str]
    modality: list[str]
    findings: list[str]
    model_digest: str
    shadow: bool
    operating_points: list[OperatingPointOut]
    default_operating_point: str | None
    phantom_evidence_id: str


class DetectorsOut(BaseModel):
    detectors: list[DetectorOut]
    ruo: RuoStatement = RUO_STATEMENT
