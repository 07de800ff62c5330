"""``GET /api/v1/audit``: the audit trail of the caller's tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, BaseModel

from wetread.core.identifiers import check_uid
from wetread.core.ports.access import AccessEntry, AccessFilter, AccessTrail
from wetread.core.ports.database import Database


class AuditEntryOut(BaseModel):
    """``count`` equal accesses by one credential from one address between two times. No patient data."""

    number: int
    at: datetime
    until: datetime
    actor: str
    action: str
    study_uid: str
    outcome: str
    address: str
    count: int
    request_id: str
    digest: str


class AuditOut(BaseModel):
    """Entries, oldest first; ``next`` is the value of ``after`` for those that follow."""

    entries: list[AuditEntryOut]
    next: int


def audit_entry(entry: AccessEntry) -> AuditEntryOut:
    """Return an entry as it is shown."""
    access = entry.access
    return AuditEntryOut(
        number=entry.number,
        at=datetime.fromtimestamp(entry.at, UTC),
        until=datetime.fromtimestamp(entry.until, UTC),
        actor=access.actor,
        action=access.action,
        study_uid=access.study_uid,
        outcome=access.outcome,
        address=access.address,
        count=entry.count,
        request_id=entry.request_id,
        digest=entry.digest,
    )


def router(database: Database, trail: AccessTrail) -> APIRouter:
    """Return the route."""
    api = APIRouter(prefix="/api/v1", tags=["operations"])

    @api.get("/audit", summary="Who accessed what, when, with which outcome")
    async def audit(
        request: Request,
        *,
        after: Annotated[int, Query(ge=0, le=2**62, description="the last number you have seen")] = 0,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
        study: Annotated[str | None, Query(description="Study or workitem UID")] = None,
        actor: Annotated[str | None, Query(max_length=128, description="name of the credential")] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> AuditOut:
        """Entries of the credential's tenant. An access is found here half a second after it happened."""
        wanted = AccessFilter(
            after=after,
            since=since.timestamp() if since else None,
            until=until.timestamp() if until else None,
            study_uid=check_uid(study, "study") if study else None,
            actor=actor,
        )
        found = await run_in_threadpool(_read, database, trail, request.state.tenant, wanted, limit)
        return AuditOut(entries=[audit_entry(entry) for entry in found], next=found[-1].number if found else after)

    return api


def _read(database: Database, trail: AccessTrail, tenant: str, wanted: AccessFilter, limit: int) -> list[AccessEntry]:
    with database.read() as tx:
        return trail.entries(tx, tenant, wanted, limit=limit)
