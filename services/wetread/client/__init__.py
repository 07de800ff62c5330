"""Typed client of a wetread server: worklist, findings, events, webhooks and UPS-RS workitems; sync and async.

Imports the core and httpx only. For images use dicomweb-client against ``<url>/dicom-web``.
"""

from __future__ import annotations

from wetread.client.asynchronous import AsyncClient, AsyncWorkitems
from wetread.client.models import (
    Ai,
    Deliveries,
    Delivery,
    Event,
    Events,
    Finding,
    Findings,
    KeyImage,
    Manifest,
    Measurement,
    Moment,
    Reason,
    RecordedResult,
    Renotified,
    Requested,
    Result,
    Stored,
    StudyExplanation,
    Subscription,
    Subscriptions,
    SubscriptionWithSecrets,
    Task,
    TaskDetail,
    Tasks,
    TaskState,
    TestDelivery,
    Timeline,
    WorklistItem,
    WorklistPage,
)
from wetread.client.synchronous import Client, Workitems
from wetread.client.workitem import Claim, Code, NewWorkitem, Performed, References, Workitem
from wetread.core.errors import WetreadError
from wetread.core.webhook_signature import verify_signature

__all__ = [
    "Ai",
    "AsyncClient",
    "AsyncWorkitems",
    "Claim",
    "Client",
    "Code",
    "Deliveries",
    "Delivery",
    "Event",
    "Events",
    "Finding",
    "Findings",
    "KeyImage",
    "Manifest",
    "Measurement",
    "Moment",
    "NewWorkitem",
    "Performed",
    "Reason",
    "RecordedResult",
    "References",
    "Renotified",
    "Requested",
    "Result",
    "Stored",
    "StudyExplanation",
    "Subscription",
    "SubscriptionWithSecrets",
    "Subscriptions",
    "Task",
    "TaskDetail",
    "TaskState",
    "Tasks",
    "TestDelivery",
    "Timeline",
    "WetreadError",
    "Workitem",
    "Workitems",
    "WorklistItem",
    "WorklistPage",
    "verify_signature",
]
