"""What the worklist service needs from the outside: one frozen value, filled by the composition root."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import Request

from wetread.core.ports import (
    Clock,
    Database,
    Deliveries,
    DetectorInfo,
    EventLog,
    ReadingClaims,
    ReadingOrder,
    ResultRepository,
    StudyIndex,
    Subscriptions,
    TaskRepository,
    WebhookSender,
    Worklist,
    WorkQueue,
)
from wetread.core.ports.reports import ReportSource


@dataclass(frozen=True, slots=True)
class WorklistPorts:
    """``stopping`` is set when the server is told to stop: open event streams then end at once."""

    database: Database
    clock: Clock
    worklist: Worklist
    order: ReadingOrder
    claims: ReadingClaims
    events: EventLog
    subscriptions: Subscriptions
    deliveries: Deliveries
    tasks: TaskRepository
    results: ResultRepository
    studies: StudyIndex
    work: WorkQueue
    webhooks: WebhookSender
    reports: ReportSource
    detectors: Callable[[], Mapping[str, DetectorInfo]]
    stopping: threading.Event


def tenant_of(request: Request) -> str:
    """Return the tenant of the credential; the application sets it, nothing in the request can."""
    tenant = request.state.tenant
    assert isinstance(tenant, str)
    return tenant


def actor_of(request: Request) -> str:
    """Return the name of the credential; ``local`` on a server without authentication."""
    return str(getattr(request.state, "client", "")) or "local"
