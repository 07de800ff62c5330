"""Ports: what the services need from the outside, one small protocol each. Adapters implement them."""

from __future__ import annotations

from wetread.core.ports.database import Clock, Database, Transaction
from wetread.core.ports.events import EventLog, ReadingOrder, WebhookSender
from wetread.core.ports.evidence import EncodedObject, EvidenceEncoder, EvidenceInput
from wetread.core.ports.inference import DetectorInfo, DetectorRunner, InferenceClient, RunOutcome, RunRequest
from wetread.core.ports.ingest import Ingest, IngestReport, InstanceOutcome, Outbox, StudyChange
from wetread.core.ports.notifications import Deliveries, Delivery, DeliveryState, Subscription, Subscriptions
from wetread.core.ports.objects import ArtifactStore, ObjectRef, ObjectStore
from wetread.core.ports.studies import StoredInstance, StudyIndex, StudySummary
from wetread.core.ports.work import ResultRepository, Task, TaskRepository, WorkQueue
from wetread.core.ports.workitems import Workitem, WorkitemRepository
from wetread.core.ports.worklist import (
    ImageReference,
    Reading,
    ReadingClaims,
    Worklist,
    WorklistFilter,
    WorklistItem,
    WorklistPage,
    WorklistTask,
)

__all__ = [
    "ArtifactStore",
    "Clock",
    "Database",
    "Deliveries",
    "Delivery",
    "DeliveryState",
    "DetectorInfo",
    "DetectorRunner",
    "EncodedObject",
    "EventLog",
    "EvidenceEncoder",
    "EvidenceInput",
    "ImageReference",
    "InferenceClient",
    "Ingest",
    "IngestReport",
    "InstanceOutcome",
    "ObjectRef",
    "ObjectStore",
    "Outbox",
    "Reading",
    "ReadingClaims",
    "ReadingOrder",
    "ResultRepository",
    "RunOutcome",
    "RunRequest",
    "StoredInstance",
    "StudyChange",
    "StudyIndex",
    "StudySummary",
    "Subscription",
    "Subscriptions",
    "Task",
    "TaskRepository",
    "Transaction",
    "WebhookSender",
    "WorkQueue",
    "Workitem",
    "WorkitemRepository",
    "Worklist",
    "WorklistFilter",
    "WorklistItem",
    "WorklistPage",
    "WorklistTask",
]
