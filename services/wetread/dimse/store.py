"""C-STORE SCP: instances of any SOP class into the ingest; the response follows the durability point (PS3.4 B)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset

from wetread.core.dicom.file_meta import file_meta
from wetread.core.errors import StorageFull, WetreadError
from wetread.core.facts import Source
from wetread.core.identifiers import is_uid, log_ref
from wetread.core.ports.ingest import InstanceOutcome
from wetread.dimse import statuses
from wetread.dimse.audit import Auditor
from wetread.dimse.peers import Peer
from wetread.dimse.ports import DimsePorts
from wetread.dimse.quotas import Quotas
from wetread.dimse.received import ReceivedDataset

if TYPE_CHECKING:
    from wetread.dimse.upper_layer import BoundedAssociation

log = logging.getLogger(__name__)


class StoreService:
    """Handles C-STORE requests of all associations; each association is one transfer."""

    def __init__(self, ports: DimsePorts, quotas: Quotas) -> None:
        self._ports = ports
        self._quotas = quotas
        self._auditor = Auditor(ports)

    def __call__(self, event: Any) -> Dataset:
        """Answer one request (``evt.EVT_C_STORE``)."""
        started = time.perf_counter()
        received: ReceivedDataset = event.request.DataSet
        try:
            refused = self._refused(event.assoc.peer, received)
            if refused is not None:
                status, comment = refused
                event.assoc.stored["", status] += 1
            else:
                status, comment = self._store(event, received)
        finally:
            received.discard()
        self._ports.meter.request("C-STORE", status, time.perf_counter() - started)
        answer = Dataset()
        answer.Status = status
        if comment:
            answer.ErrorComment = comment
        return answer

    def ended(self, association: BoundedAssociation) -> None:
        """Write down what an association stored, however it ended."""
        for (study_uid, status), count in association.stored.items():
            outcome = f"{status:04X}, {count} instances"
            self._auditor.record(association.peer, "C-STORE", study_uid, outcome, association.address)

    def _refused(self, peer: Peer, received: ReceivedDataset) -> tuple[int, str] | None:
        """Return status and comment of a request that is refused whatever it brings."""
        if "store" not in peer.may:
            return statuses.NOT_AUTHORIZED, "this application entity may not store"
        if received.refused:
            if received.too_large:
                self._ports.meter.limited("size")
            return statuses.OUT_OF_RESOURCES, received.refused[:64]
        if not self._quotas.pace(peer):
            return statuses.OUT_OF_RESOURCES, "more requests per second than are allowed"
        full = self._quotas.room(peer, received.size)
        return (statuses.OUT_OF_RESOURCES, full[:64]) if full else None

    def _store(self, event: Any, received: ReceivedDataset) -> tuple[int, str]:
        association: BoundedAssociation = event.assoc
        peer: Peer = association.peer
        request = event.request
        sop_class, sop_instance = str(request.AffectedSOPClassUID or ""), str(request.AffectedSOPInstanceUID or "")
        if not is_uid(sop_class) or not is_uid(sop_instance):
            return statuses.DOES_NOT_MATCH, "the request names no SOP class and instance"
        syntax = str(event.context.transfer_syntax)
        part = received.view(file_meta(sop_class, sop_instance, syntax))
        if association.transfer is None:
            association.transfer = self._ports.intake.begin(
                peer.tenant, Source(ae=peer.ae, client=peer.ae, site=peer.site)
            )
        try:
            outcome: InstanceOutcome = association.transfer.store(
                part, sop_class_uid=sop_class, sop_instance_uid=sop_instance
            )
        except StorageFull as error:
            return statuses.OUT_OF_RESOURCES, error.detail[:64]
        except WetreadError as error:
            return statuses.PROCESSING_FAILURE, error.detail[:64]
        except Exception as error:
            log.exception("an instance could not be stored", exc_info=error)
            return statuses.PROCESSING_FAILURE, "internal error"
        status, comment = statuses.store_status(outcome)
        association.stored[outcome.study_instance_uid or "", status] += 1
        if outcome.failure_reason is None:
            self._ports.meter.received(received.size)
        else:
            log.warning("C-STORE refused with %04X", status, extra={"peer": log_ref(peer.ae)})
        return status, comment
