"""What the FFR service needs of the archive: one frozen value, filled by the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from wetread.core.ports import Clock, Database, ResultRepository, StudyIndex, TaskRepository, WorkQueue
from wetread.core.ports.objects import ArtifactStore


@dataclass(frozen=True, slots=True)
class FfrPorts:
    """Studies, tasks and results of the archive, the bytes of attachments, and the durable queue."""

    database: Database
    clock: Clock
    studies: StudyIndex
    tasks: TaskRepository
    results: ResultRepository
    artifacts: ArtifactStore
    work: WorkQueue


def tenant_of(request: Request) -> str:
    """Return the tenant of the credential; the application sets it, nothing in the request can."""
    tenant = request.state.tenant
    assert isinstance(tenant, str)
    return tenant
