"""What the slide service needs of the archive: one frozen value, filled by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from wetread.core.ports import Clock, Database, ResultRepository, StudyIndex, TaskRepository, WorkQueue
from wetread.core.ports.objects import ArtifactStore


@dataclass(frozen=True, slots=True)
class SlidePorts:
    """Studies, tasks and results of the archive, the bytes of attachments, the durable queue, the viewer's files."""

    database: Database
    clock: Clock
    studies: StudyIndex
    tasks: TaskRepository
    results: ResultRepository
    artifacts: ArtifactStore
    work: WorkQueue
    models: frozenset[str]
    """Names of the installed tile models."""
    viewer: Path
    """Folder of the OHIF package, which carries dicom-microscopy-viewer."""


def tenant_of(request: Request) -> str:
    """Return the tenant of the credential; the application sets it, nothing in the request can."""
    tenant = request.state.tenant
    assert isinstance(tenant, str)
    return tenant
