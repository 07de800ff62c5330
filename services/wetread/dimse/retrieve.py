"""C-MOVE and C-GET SCP over the archive (PS3.4 C.4.2, C.4.3).

Served by ourselves instead of pynetdicom's own loop, which decodes and re-encodes every data set: an instance goes out
as the bytes that were stored wherever the receiver takes its transfer syntax.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.dsutils import decode, encode

from wetread.core.dicomweb.query import MAXIMUM
from wetread.core.errors import InvalidInput, NotFound, Unavailable, WetreadError
from wetread.core.ports.archive import ArchivedInstance
from wetread.dimse import statuses
from wetread.dimse.audit import Auditor
from wetread.dimse.calling import Caller
from wetread.dimse.identifier import PATIENT_ROOT, STUDY_ROOT, retrieve_query
from wetread.dimse.peers import Peer, PeerBook
from wetread.dimse.ports import DimsePorts
from wetread.dimse.quotas import Quotas
from wetread.dimse.sending import Originator, Sender, proposals, succeeded

if TYPE_CHECKING:
    from wetread.dimse.upper_layer import BoundedAssociation

log = logging.getLogger(__name__)

PATIENT_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.1.2"
PATIENT_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.1.3"
STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"

_LEVELS: Final = {
    PATIENT_ROOT_MOVE: PATIENT_ROOT,
    PATIENT_ROOT_GET: PATIENT_ROOT,
    STUDY_ROOT_MOVE: STUDY_ROOT,
    STUDY_ROOT_GET: STUDY_ROOT,
}
_SUBOPERATIONS: Final = 0xFFFF
"""Counts of sub-operations are unsigned shorts."""


@dataclass(slots=True)
class _Progress:
    """Sub-operations so far."""

    remaining: int = 0
    completed: int = 0
    failed: int = 0
    warned: int = 0
    failures: list[str] = field(default_factory=list)

    def count(self, item: ArchivedInstance, status: int) -> None:
        self.remaining -= 1
        if status == statuses.SUCCESS:
            self.completed += 1
        elif succeeded(status):
            self.warned += 1
        else:
            self.failed += 1
            self.failures.append(item.sop_uid)

    def give_up(self, items: Sequence[ArchivedInstance]) -> None:
        """Count what could not be tried as failed."""
        for item in items:
            self.count(item, statuses.PROCESSING_FAILURE)

    @property
    def final(self) -> int:
        """Status of the final response (PS3.4 tables C.4-2, C.4-3)."""
        if not self.failed and not self.warned:
            return statuses.SUCCESS
        if not self.completed and not self.warned:
            return statuses.OUT_OF_RESOURCES_SUBOPERATIONS
        return statuses.WARNING_SUBOPERATIONS


class _Exchange:
    """One C-MOVE or C-GET request and its responses."""

    def __init__(self, association: BoundedAssociation, request: Any, context: Any) -> None:
        self.association = association
        self.request = request
        self._context = context
        self.progress = _Progress()

    @property
    def cancelled(self) -> bool:
        """Whether C-CANCEL came for this request."""
        return self.request.MessageID in self.association.dimse.cancel_req

    @property
    def alive(self) -> bool:
        """Whether anybody is there to be answered."""
        return bool(self.association.dul.is_alive()) and not self.association.acse.is_aborted()

    def identifier(self) -> Dataset:
        """Return the request's identifier. Raises InvalidInput."""
        syntax = self._context.transfer_syntax[0]
        try:
            return decode(self.request.Identifier, syntax.is_implicit_VR, syntax.is_little_endian)
        except Exception as error:
            msg = "the identifier cannot be read"
            raise InvalidInput(msg) from error

    def respond(self, status: int, comment: str = "") -> None:
        """Send a response with the counts as they are."""
        progress = self.progress
        response = type(self.request)()
        response.MessageIDBeingRespondedTo = self.request.MessageID
        response.AffectedSOPClassUID = self.request.AffectedSOPClassUID
        response.Status = status
        if status in (statuses.PENDING, statuses.CANCELLED):
            response.NumberOfRemainingSuboperations = progress.remaining
        response.NumberOfCompletedSuboperations = progress.completed
        response.NumberOfFailedSuboperations = progress.failed
        response.NumberOfWarningSuboperations = progress.warned
        if comment:
            response.ErrorComment = comment[:64]
        if progress.failures and status != statuses.PENDING:
            failed = Dataset()
            failed.FailedSOPInstanceUIDList = progress.failures
            syntax = self._context.transfer_syntax[0]
            encoded = encode(failed, syntax.is_implicit_VR, syntax.is_little_endian)
            response.Identifier = BytesIO(encoded or b"")
        self.association.dimse.send_msg(response, self._context.context_id)


class RetrieveService:
    """Serves C-MOVE and C-GET of all associations."""

    def __init__(self, ports: DimsePorts, quotas: Quotas, book: PeerBook, caller: Caller) -> None:
        self._ports = ports
        self._quotas = quotas
        self._book = book
        self._caller = caller
        self._audit = Auditor(ports)

    def __call__(self, association: BoundedAssociation, request: C_MOVE | C_GET, context: Any) -> None:
        """Answer one request to its final response."""
        started = time.perf_counter()
        moves = isinstance(request, C_MOVE)
        exchange = _Exchange(association, request, context)
        status, comment = self._serve(exchange, association.peer, moves=moves)
        if exchange.alive:
            exchange.respond(status, comment)
        self._ports.meter.request("C-MOVE" if moves else "C-GET", status, time.perf_counter() - started)

    def _serve(self, exchange: _Exchange, peer: Peer, *, moves: bool) -> tuple[int, str]:
        if "retrieve" not in peer.may:
            return statuses.NOT_AUTHORIZED, "this application entity may not retrieve"
        if not self._quotas.pace(peer):
            return statuses.OUT_OF_RESOURCES_SUBOPERATIONS, "more requests per second than are allowed"
        destination = None
        if moves:
            destination = self._book.destination(peer.tenant, str(exchange.request.MoveDestination or ""))
            if destination is None:
                return statuses.DESTINATION_UNKNOWN, "the move destination is not known"
        try:
            items = self._resolve(peer.tenant, exchange)
        except InvalidInput as error:
            return statuses.DOES_NOT_MATCH, error.detail
        except WetreadError as error:
            return statuses.OUT_OF_RESOURCES, error.detail
        if len(items) > _SUBOPERATIONS:
            return statuses.OUT_OF_RESOURCES_SUBOPERATIONS, f"more than {_SUBOPERATIONS} instances"
        exchange.progress.remaining = len(items)
        if destination is None:
            comment = self._send(exchange, Sender(exchange.association, self._ports.decompress), items, "get")
        else:
            comment = self._move(exchange, peer, destination, items)
        status = statuses.CANCELLED if exchange.cancelled and exchange.progress.remaining else exchange.progress.final
        where = f" to {destination.ae}" if destination else ""
        for study_uid in dict.fromkeys(item.study_uid for item in items):
            self._audit.record(
                peer, "C-MOVE" if moves else "C-GET", study_uid, f"{status:04X}{where}", exchange.association.address
            )
        return status, comment

    def _move(self, exchange: _Exchange, peer: Peer, destination: Peer, items: Sequence[ArchivedInstance]) -> str:
        originator = Originator(peer.ae, exchange.request.MessageID)
        comment = ""
        for contexts, group in proposals(items):
            if exchange.cancelled or not exchange.alive:
                break
            try:
                with self._caller.association(destination, contexts) as association:
                    sender = Sender(association, self._ports.decompress, originator)
                    comment = self._send(exchange, sender, group, "move") or comment
            except Unavailable as error:
                comment = error.detail
                exchange.progress.give_up(group)
        return comment

    def _send(self, exchange: _Exchange, sender: Sender, items: Sequence[ArchivedInstance], purpose: str) -> str:
        """Send *items* with a pending response after each; return what went wrong with the association, if anything."""
        for number, item in enumerate(items):
            if exchange.cancelled or not exchange.alive:
                return ""
            try:
                status = sender.send(item, self._ports.objects.read(item.ref))
            except Unavailable as error:
                exchange.progress.give_up(items[number:])
                return error.detail
            except WetreadError as error:  # a damaged record: this instance fails, the others go on
                log.error("an instance could not be sent: %s", error.slug)  # noqa: TRY400
                status = statuses.PROCESSING_FAILURE
            exchange.progress.count(item, status)
            self._ports.meter.sent(purpose, "sent" if succeeded(status) else "failed")
            if exchange.progress.remaining:
                exchange.respond(statuses.PENDING)
        return ""

    def _resolve(self, tenant: str, exchange: _Exchange) -> list[ArchivedInstance]:
        """Return the instances that the identifier names, none when nothing matches. Raises InvalidInput."""
        levels = _LEVELS.get(str(exchange.request.AffectedSOPClassUID))
        if levels is None:
            msg = "the SOP class is not one of the accepted models"
            raise InvalidInput(msg)
        level, query = retrieve_query(exchange.identifier(), levels)
        wanted: dict[tuple[str, str | None], set[str]] = {}
        archive = self._ports.archive
        found: list[ArchivedInstance] = []
        with self._ports.database.read() as tx:
            offset = 0
            while True:
                paged = replace(query, limit=MAXIMUM[query.level], offset=offset)
                page = archive.search(tx, tenant, paged, study_uid=None, series_uid=None)
                for match in page.matches:
                    wanted.setdefault((match.study_uid, match.series_uid), set()).add(match.sop_uid or "")
                offset += len(page.matches)
                if not page.remaining or not page.matches or offset > _SUBOPERATIONS:
                    break
            for (study_uid, series_uid), chosen in wanted.items():
                with _gone():
                    below = archive.instances(tx, tenant, study_uid, series_uid)
                    found += [item for item in below if level != "IMAGE" or item.sop_uid in chosen]
        return found


@contextmanager
def _gone() -> Iterator[None]:
    """Something that was deleted in the meantime is not there."""
    try:
        yield
    except NotFound:
        return
