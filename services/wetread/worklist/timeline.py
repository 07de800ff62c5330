"""The timeline of a study: its events in order, with the stamps of each stage and the typed reason of each end."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from wetread.core.events import Event
from wetread.core.identifiers import check_uid
from wetread.core.instants import iso_utc
from wetread.core.states import AiState
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of


def router(ports: WorklistPorts) -> APIRouter:
    """Return the route, without its ``/api/v1`` prefix."""
    api = APIRouter(tags=["worklist"])

    @api.get("/studies/{study_uid}/timeline")
    def timeline(
        request: Request, study_uid: str, *, limit: Annotated[int, Query(ge=1, le=1000)] = 200
    ) -> schemas.TimelineOut:
        """What happened to a study and when, oldest first. A long story shows its latest events."""
        tenant, uid = tenant_of(request), check_uid(study_uid)
        with ports.database.read() as tx:
            received = ports.studies.summary(tx, tenant, uid).received_at
            found = ports.events.of_study(tx, tenant, uid, limit=limit + 1)
        return schemas.TimelineOut(
            study_uid=uid,
            received_at=iso_utc(received),
            events=[moment(event, received) for event in found[-limit:]],
            more=len(found) > limit,
        )

    return api


def moment(event: Event, received_at: float) -> schemas.MomentOut:
    """Return one event as an entry of a timeline that begins at *received_at* (Unix seconds)."""
    data, stamps = event.data, event.stamps
    start = stamps.get("received")
    state = data.get("state")
    return schemas.MomentOut(
        id=event.id,
        cursor=event.cursor,
        type=event.type,
        at=iso_utc(event.time),
        offset_s=round(event.time - received_at, 3),
        detector=data.get("detector"),
        state=AiState(state) if state in set(AiState) else None,
        reason=data.get("reason") or None,
        text=str(data.get("text") or data.get("detail") or ""),
        shadow=bool(data.get("shadow")),
        stamps={stage: iso_utc(at) for stage, at in sorted(stamps.items(), key=lambda item: item[1])},
        stages={} if start is None else {s: round(at - start, 3) for s, at in stamps.items() if s != "received"},
    )
