"""The answers of the provider API as values. Fields that a newer server adds are ignored."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from wetread.core.priority import Priority
from wetread.core.reading_order import Band
from wetread.core.states import FINAL, AiState, StudyAiState


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Reason(_Answer):
    """Why a study stands where it stands. ``source``: order, rule, ai or manual."""

    source: str
    text: str
    priority: Priority
    at: datetime
    detector: str | None = None
    finding_id: str | None = None


class TaskState(_Answer):
    """State of one detector on a listed study."""

    detector: str
    version: str
    state: AiState
    reason: str | None
    shadow: bool
    attempt: int
    progress: int
    due_at: datetime
    updated_at: datetime


class Ai(_Answer):
    """The study's summary and one entry per detector."""

    state: StudyAiState
    tasks: tuple[TaskState, ...]


class Reading(_Answer):
    """Who reads a study or has read it."""

    reader: str
    since: datetime
    read_at: datetime | None


class WorklistItem(_Answer):
    """One study in reading order."""

    study_uid: str
    patient_id: str
    modality: str
    description: str
    received_at: datetime
    due_at: datetime
    priority: Priority
    reasons: tuple[Reason, ...]
    ai: Ai
    band: Band = Band.NORMAL
    reading: Reading | None = None


class WorklistPage(_Answer):
    """A page; ``next`` is the cursor of the following one, None on the last."""

    items: tuple[WorklistItem, ...]
    next: str | None
    ruo: str


class Measurement(_Answer):
    """A number with its UCUM unit."""

    code: str
    meaning: str
    value: float
    unit: str


class KeyImage(_Answer):
    """The image that shows a finding best; ``frame`` counts from 1, ``plane`` from 0."""

    sop_instance_uid: str
    frame: int
    plane: int


class Feedback(_Answer):
    """What readers said of a finding; ``verdict`` is accepted, rejected, edited or None."""

    acknowledged_at: datetime | None
    acknowledged_by: str | None
    verdict: str | None
    reason: str
    changes: dict[str, Any]
    verdict_at: datetime | None
    verdict_by: str | None


class FindingFeedback(_Answer):
    """What stands about one finding after a reader's word."""

    study_uid: str
    finding_id: str
    feedback: Feedback
    ruo: str


class MeasurementEdit(BaseModel):
    """A corrected measurement: code and unit are those of the finding."""

    model_config = ConfigDict(frozen=True)

    code: str
    value: float
    unit: str


class Change(_Answer):
    """What became of a finding since an earlier result. ``stable``: no change beyond the error of measuring."""

    course: str
    prior_study_uid: str
    prior_result_key: str
    prior_date: date
    prior_finding_id: str | None


class Prior(_Answer):
    """An earlier result that a run was handed."""

    study_uid: str
    result_key: str
    study_date: date


class Priors(_Answer):
    """Earlier results that a run was handed, newest first, and why others of the Patient ID were not."""

    results: tuple[Prior, ...]
    left_out: tuple[str, ...]


class Finding(_Answer):
    """One thing that a detector saw."""

    finding_id: str
    code: str
    scheme: str
    meaning: str
    state: str
    types: tuple[str, ...]
    score: float | None
    volume_ml: float | None
    measurements: tuple[Measurement, ...]
    key_image: KeyImage | None
    change: Change | None = None
    feedback: Feedback | None = None


class Stored(_Answer):
    """A series of result objects in the study."""

    modality: str
    series_uid: str


class RecordedResult(_Answer):
    """A result as it was recorded. Pending, failed and not applicable never mean negative."""

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
    quality: tuple[str, ...]
    priors: Priors | None = None
    findings: tuple[Finding, ...]
    stored: tuple[Stored, ...]
    ruo: str


class Result(RecordedResult):
    """A detector's standing on a study. While a run is pending again, ``previous`` is the result before it."""

    attempt: int
    progress: int
    updated_at: datetime | None
    previous: RecordedResult | None = None


class Findings(_Answer):
    """One entry per detector, whatever became of it."""

    study_uid: str
    state: StudyAiState
    results: tuple[Result, ...]
    ruo: str

    @property
    def final(self) -> bool:
        """Whether every detector that readers see has answered; rules that want nothing have answered, too."""
        visible = [result for result in self.results if not result.shadow]
        if not visible:
            return self.state is not StudyAiState.PENDING
        return all(result.state in FINAL for result in visible)


class Manifest(_Answer):
    """The study will be evaluated with this signal."""

    study_uid: str
    generation: int
    signal: str


class Moment(_Answer):
    """One event of a study's timeline. ``stages``: seconds from the last received byte to each stage passed."""

    id: str
    cursor: int
    type: str
    at: datetime
    offset_s: float
    detector: str | None
    state: AiState | None
    reason: str | None
    text: str
    shadow: bool
    stamps: dict[str, datetime]
    stages: dict[str, float]


class Timeline(_Answer):
    """What happened to a study, oldest first; ``more``: older events were left out."""

    study_uid: str
    received_at: datetime
    events: tuple[Moment, ...]
    more: bool
    ruo: str


class Task(_Answer):
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
    due_at: datetime | None
    attempt: int
    runs: int
    progress: int
    workitem_uid: str | None
    input_digest: str | None
    result_key: str | None
    updated_at: datetime


class Tasks(_Answer):
    """Tasks, latest change first."""

    tasks: tuple[Task, ...]


class TaskDetail(Task):
    """A task with what happened to it, oldest first."""

    events: tuple[Moment, ...]


class Requested(_Answer):
    """An accepted request on a task. ``state``: the task's when it was asked; it changes within a moment."""

    study_uid: str
    detector: str
    verb: str
    state: AiState | None


class Renotified(_Answer):
    """How many events are delivered again, and to how many receivers in all."""

    events: int
    deliveries: int


class StudyExplanation(_Answer):
    """Decisions on a study, replayed from recorded facts (docs/workflows.md says what is in each)."""

    study_uid: str
    decisions: tuple[dict[str, Any], ...]
    ruo: str


class OperatingPoint(_Answer):
    """A threshold with what it gave on held-out phantoms; never a claim about patients."""

    name: str
    threshold: float
    set: str
    sensitivity: float
    specificity: float


class Detector(_Answer):
    """One detector of the server and what its card says."""

    name: str
    version: str
    title: str
    intended_use: str
    not_for: tuple[str, ...]
    modality: tuple[str, ...]
    findings: tuple[str, ...]
    model_digest: str
    shadow: bool
    operating_points: tuple[OperatingPoint, ...]
    default_operating_point: str | None
    phantom_evidence_id: str


class Detectors(_Answer):
    """All detectors."""

    detectors: tuple[Detector, ...]
    ruo: str


class Clock(_Answer):
    """Percentiles of one duration in seconds; None without studies."""

    studies: int
    p50_s: float | None
    p90_s: float | None
    p95_s: float | None


class SlaRow(_Answer):
    """One group. ``in_target``: share read within the target of the class, of those read or past it."""

    group: dict[str, str]
    studies: int
    clocks: dict[str, Clock]
    in_target: float | None


class Sla(_Answer):
    """Turnaround of the studies received in a time; ``definitions`` says what each clock measures."""

    since: datetime
    until: datetime
    definitions: dict[str, str]
    targets_s: dict[str, float]
    rows: tuple[SlaRow, ...]


class ModelUsage(_Answer):
    """Runs of one version of a detector, and their seconds."""

    detector: str
    version: str
    finished: int
    failed: int
    seconds: float


class Usage(_Answer):
    """What was used in a time. ``gb_hours``: 10^9 bytes times hours."""

    since: datetime
    until: datetime
    studies: int
    gb_hours: float
    models: tuple[ModelUsage, ...]


class Event(_Answer):
    """A CloudEvents 1.0 event; ``cursor`` is its place in the stream. De-duplicate by ``id``."""

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    cursor: int
    traceparent: str | None = None
    data: dict[str, Any]


class Events(_Answer):
    """Events after a cursor; ``next`` is the cursor to go on from."""

    events: tuple[Event, ...]
    next: int


class Subscription(_Answer):
    """A webhook receiver; no types means every type."""

    id: str
    url: str
    types: tuple[str, ...]
    include_patient: bool
    active: bool
    created_at: datetime


class SubscriptionWithSecrets(Subscription):
    """Shown once: the secrets cannot be read again."""

    secrets: tuple[str, ...]


class Subscriptions(_Answer):
    """All subscriptions of the tenant."""

    subscriptions: tuple[Subscription, ...]


class Delivery(_Answer):
    """What became of one event for one subscription."""

    event_id: str
    state: str
    attempts: int
    last_error: str
    sent_at: datetime | None
    next_attempt_at: datetime | None
    updated_at: datetime


class Deliveries(_Answer):
    """Deliveries, newest first."""

    deliveries: tuple[Delivery, ...]


class TestDelivery(_Answer):
    """Outcome of a signed sample."""

    __test__ = False

    delivered: bool
    status: int | None
    detail: str
