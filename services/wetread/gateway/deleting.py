"""DELETE of studies, series and instances: soft, audited, told by the change feed (not in PS3.18; ADR 0204)."""

from __future__ import annotations

import time
from collections.abc import Callable

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from wetread.core.errors import NotFound
from wetread.core.ports.archive import Archive
from wetread.core.ports.changes import AuditEntry, Removal, RemovedInstance
from wetread.core.ports.database import Database, Transaction
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.retrieval import path_of, tenant_of


class DeleteEndpoint:
    """``DELETE`` of a study, series or instance path: 204, 404 when unknown, 410 when deleted before."""

    def __init__(
        self, database: Database, archive: Archive, ingest: GroupIngest, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._archive = archive
        self._ingest = ingest
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        """Delete what the path names."""
        path = path_of(request)
        await run_sync(self._delete, tenant_of(request), path, _actor(request), _request_id(request))
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    def _delete(self, tenant: str, path: tuple[str, str | None, str | None], actor: str, request_id: str) -> None:
        def choose(tx: Transaction) -> Removal:
            found = self._archive.instances(tx, tenant, *path)
            members = tuple(RemovedInstance(item.series_uid, item.sop_uid, item.ref.locator) for item in found)
            return Removal(*path, instances=members, at=self._clock(), by=actor, request_id=request_id)

        try:
            self._ingest.remove(tenant, choose)
        except NotFound as error:
            entry = AuditEntry(
                at=self._clock(),
                actor=actor,
                action="delete",
                study_uid=path[0],
                series_uid=path[1] or "",
                sop_uid=path[2] or "",
                outcome=error.slug,
                request_id=request_id,
            )
            with self._database.write() as tx:
                self._archive.audit(tx, tenant, entry)
            raise


def _actor(request: Request) -> str:
    """Return the name of the credential; without authentication there is only this machine."""
    return str(getattr(request.state, "client", "") or "local")


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
