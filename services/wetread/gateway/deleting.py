"""DELETE of studies, series and instances: soft, audited, told by the change feed (not in PS3.18; ADR 0204)."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response

from wetread.core.errors import InvalidInput, NotFound, Unprocessable
from wetread.core.ports.archive import Archive
from wetread.core.ports.changes import KEY_SECONDS, AuditEntry, Removal, RemovedInstance, joined
from wetread.core.ports.database import Database, Transaction
from wetread.gateway.ingest import GroupIngest
from wetread.gateway.retrieval import path_of, tenant_of

_KEY: Final = re.compile(r'"([!#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')


class DeleteEndpoint:
    """``DELETE`` of a study, series or instance path: 204, 404 when unknown, 410 when deleted before.

    With an ``Idempotency-Key`` a repetition of what was done is answered 204 again, for ``KEY_SECONDS``.
    """

    def __init__(
        self, database: Database, archive: Archive, ingest: GroupIngest, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._archive = archive
        self._ingest = ingest
        self._clock = clock

    async def __call__(self, request: Request) -> Response:
        """Delete what the path names."""
        path, key = path_of(request), idempotency_key(request.headers.getlist("idempotency-key"))
        await run_sync(self._delete, tenant_of(request), path, key, _actor(request), _request_id(request))
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    def _delete(
        self, tenant: str, path: tuple[str, str | None, str | None], key: str, actor: str, request_id: str
    ) -> None:
        def choose(tx: Transaction) -> Removal:
            if key:
                self._refuse_done(tx, tenant, path, key)
            found = self._archive.instances(tx, tenant, *path)
            members = tuple(RemovedInstance(item.series_uid, item.sop_uid, item.ref.locator) for item in found)
            return Removal(*path, instances=members, at=self._clock(), by=actor, request_id=request_id, key=key)

        def told(outcome: str) -> None:
            entry = AuditEntry(
                at=self._clock(),
                actor=actor,
                action="delete",
                study_uid=path[0],
                series_uid=path[1] or "",
                sop_uid=path[2] or "",
                outcome=outcome,
                request_id=request_id,
            )
            with self._database.write() as tx:
                self._archive.audit(tx, tenant, entry)

        try:
            self._ingest.remove(tenant, choose)
        except _DoneBefore:
            told("repeated")
        except NotFound as error:
            told(error.slug)
            raise

    def _refuse_done(self, tx: Transaction, tenant: str, path: tuple[str, str | None, str | None], key: str) -> None:
        """Raise _DoneBefore when this very request was done, Unprocessable when the key was another request's."""
        done = self._archive.removed_by_key(tx, tenant, key, since=self._clock() - KEY_SECONDS)
        if done is None:
            return
        if done != joined(*path):
            raise Unprocessable("idempotency-key-reused", "the Idempotency-Key was used for another deletion")
        raise _DoneBefore


class _DoneBefore(Exception):  # noqa: N818 - not an error: nothing is left to do
    """The deletion was done, by a request that had the same key."""


def idempotency_key(values: Sequence[str]) -> str:
    """Return the digest of a request's ``Idempotency-Key``, empty without one. Raises InvalidInput.

    A string of visible characters, in quotes (RFC 9651 3.3.3) or, as most clients send it, bare. Only the digest is
    kept: a key may be made of anything.
    """
    if not values:
        return ""
    found = _KEY.fullmatch(values[0].strip(" \t")) if len(values) == 1 else None
    if found is None:
        msg = "Idempotency-Key is one string of 1 to 255 visible ASCII characters"
        raise InvalidInput(msg)
    return hashlib.sha256((found[1] or found[2]).encode()).hexdigest()


def _actor(request: Request) -> str:
    """Return the name of the credential; without authentication there is only this machine."""
    return str(getattr(request.state, "client", "") or "local")


def _request_id(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))
