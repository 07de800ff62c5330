"""The audit trail of the DIMSE edge: who searched, received or stored which study. UIDs only, no patient data."""

from __future__ import annotations

from wetread.core.ports.access import Access
from wetread.dimse.peers import Peer
from wetread.dimse.ports import DimsePorts


class Auditor:
    """Takes note of accesses in the trail that the HTTP services write too."""

    def __init__(self, ports: DimsePorts) -> None:
        self._ports = ports

    def record(self, peer: Peer, service: str, study_uid: str, outcome: str, address: str) -> None:
        """Take note: *peer* used *service* (C-STORE, C-FIND, ...) on a study ("" for a search), from *address*."""
        access = Access(peer.tenant, f"ae:{peer.ae}", service, study_uid, outcome, address)
        self._ports.access.note(access, at=self._ports.clock.now())
