"""Who gets an association, and with which transfer syntaxes (PS3.8 7.1, PS3.7 annex D)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast

from pynetdicom import evt

from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from wetread.core.identifiers import log_ref
from wetread.dimse.audit import Auditor
from wetread.dimse.peers import CONGESTED, PeerBook, Refusal
from wetread.dimse.ports import DimsePorts
from wetread.dimse.quotas import Quotas

if TYPE_CHECKING:
    from wetread.dimse.upper_layer import BoundedAssociation

log = logging.getLogger(__name__)

_UNCOMPRESSED: Final = (EXPLICIT_LE, IMPLICIT_LE)


class Admission:
    """Decides on each A-ASSOCIATE-RQ, before pynetdicom negotiates it."""

    def __init__(self, book: PeerBook, ports: DimsePorts, quotas: Quotas, max_associations: int) -> None:
        self._book = book
        self._meter = ports.meter
        self._auditor = Auditor(ports)
        self._quotas = quotas
        self._max = max_associations

    def __call__(self, event: Any) -> None:
        """Reject, or set the association's peer (``evt.EVT_REQUESTED``)."""
        association: BoundedAssociation = event.assoc
        # pynetdicom types these as optional; they are set when a request has been received.
        request, server = cast("Any", association.requestor.primitive), cast("Any", association._server)  # noqa: SLF001
        address = association.address
        decided = self._book.admit(
            str(request.calling_ae_title), str(request.called_ae_title), address, association.certificate
        )
        established = sum(other.is_established for other in server.active_associations)
        if established >= self._max:
            decided = CONGESTED
        refused = None if isinstance(decided, Refusal) else self._quotas.enter(decided)
        if refused is not None and not isinstance(decided, Refusal):
            self._auditor.record(decided, "A-ASSOCIATE", "", "rejected, limit reached", address)
            decided = refused
        if isinstance(decided, Refusal):
            self._meter.association("rejected")
            log.warning("association rejected: %s", decided.why, extra={"address": log_ref(address)})
            association.acse.send_reject(decided.result, decided.source, decided.diagnostic)
            association.is_rejected = True
            evt.trigger(association, evt.EVT_REJECTED, {})
            association.kill()
            return
        association.peer = decided
        prefer_uncompressed(request.presentation_context_definition_list, association.requestor.role_selection)
        self._meter.association("accepted")


def prefer_uncompressed(contexts: Any, roles: Any) -> None:
    """Put what we can always send first where the peer wants to receive over this association (C-GET).

    A context has one accepted syntax. As storage SCU the peer's first choice is right: it is stored as received.
    """
    for context in contexts:
        role = roles.get(context.abstract_syntax)
        if role is None or not role.scp_role:
            continue
        offered = list(context.transfer_syntax)
        first = next((uid for uid in _UNCOMPRESSED if uid in offered), None)
        if first is not None:
            context.transfer_syntax = [first, *(uid for uid in offered if uid != first)]
