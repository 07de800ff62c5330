"""The audit trail of the DIMSE edge: who searched, received or stored which study. UIDs only, no patient data."""

from __future__ import annotations

import logging

from wetread.core.errors import WetreadError
from wetread.core.ports.changes import AuditEntry
from wetread.dimse.peers import Peer
from wetread.dimse.ports import DimsePorts

log = logging.getLogger(__name__)


class Auditor:
    """Appends to the audit log; a database that does not answer is logged and does not end the request."""

    def __init__(self, ports: DimsePorts) -> None:
        self._ports = ports

    def record(self, peer: Peer, action: str, study_uid: str, outcome: str) -> None:
        """Append one entry: *peer* did *action* (query, retrieve, store) to a study ("" for a search)."""
        entry = AuditEntry(
            at=self._ports.clock.now(),
            actor=f"ae:{peer.ae}",
            action=action,
            study_uid=study_uid,
            series_uid="",
            sop_uid="",
            outcome=outcome,
            request_id="",
        )
        try:
            with self._ports.durable.write() as tx:
                self._ports.archive.audit(tx, peer.tenant, entry)
        except WetreadError as error:
            log.error("the audit log cannot be written: %s", error.slug)  # noqa: TRY400 - its cause is no news
