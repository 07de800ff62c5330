"""C-STORE SCU: stored instances to a peer, byte for byte where it takes the stored transfer syntax (PS3.4 B.2)."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pydicom
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from wetread.core.dicom.header import read_header
from wetread.core.dicom.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE
from wetread.core.errors import NotAcceptable, NotProcessable, Unavailable
from wetread.core.ports.archive import ArchivedInstance
from wetread.dimse import statuses

CONTEXTS: Final = 128
"""Presentation contexts of one association (PS3.8 9.3.2.2: odd numbers of one byte)."""

_QUEUED_PDUS: Final = 32
_NO_CONTEXT: Final = 0x0122


@dataclass(frozen=True, slots=True)
class Originator:
    """The C-MOVE that a sub-operation belongs to."""

    ae: str
    message_id: int


class Sender:
    """Sends instances over one association, as its requestor or (C-GET) as its acceptor."""

    def __init__(
        self, association: Association, decompress: Callable[[bytes], bytes], originator: Originator | None = None
    ) -> None:
        self._association = association
        self._decompress = decompress
        self._originator = originator
        self._message_id = 0
        self._contexts: dict[str, dict[str, int]] = {}
        for context in association.accepted_contexts:
            if context.as_scu and context.context_id is not None:
                of_class = self._contexts.setdefault(str(context.abstract_syntax), {})
                of_class.setdefault(str(context.transfer_syntax[0]), context.context_id)

    def send(self, item: ArchivedInstance, stored: bytes) -> int:
        """Send one PS3.10 file and return the peer's status; 0122 when it accepts no syntax that we can make of it.

        Raises Unavailable when the association ended.
        """
        accepted = self._contexts.get(item.sop_class_uid, {})
        try:
            syntax, file = self._form(item.transfer_syntax_uid, stored, accepted)
        except (NotAcceptable, NotProcessable):
            return _NO_CONTEXT
        data = memoryview(file)[read_header(file).dataset_start :]
        self._message_id = self._message_id % 0xFFFF + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = item.sop_class_uid
        request.AffectedSOPInstanceUID = item.sop_uid
        request.Priority = 2
        if self._originator is not None:
            request.MoveOriginatorApplicationEntityTitle = self._originator.ae
            request.MoveOriginatorMessageID = self._originator.message_id
        request.DataSet = io.BytesIO(data)
        return self._exchange(request, accepted[syntax])

    def _form(self, stored_syntax: str, stored: bytes, accepted: dict[str, int]) -> tuple[str, bytes]:
        """Return transfer syntax and file to send. Raises NotAcceptable."""
        if stored_syntax in accepted:
            return stored_syntax, stored
        if EXPLICIT_LE in accepted:
            return EXPLICIT_LE, self._decompress(stored)
        if IMPLICIT_LE in accepted:
            return IMPLICIT_LE, to_implicit(self._decompress(stored))
        msg = "the peer accepts no transfer syntax of this instance"
        raise NotAcceptable(msg)

    def _exchange(self, request: C_STORE, context_id: int) -> int:
        association = self._association
        if association.is_requestor:
            # pynetdicom's reactor reads messages too: it has to stand still while we wait for ours.
            association._reactor_checkpoint.clear()  # noqa: SLF001 - as its own send_c_store does
            while not association._is_paused and association.is_alive():  # noqa: SLF001
                time.sleep(0.0001)
        try:
            self._transmit(request, context_id)
            _, response = association.dimse.get_msg(block=True)
        finally:
            if association.is_requestor:
                association._reactor_checkpoint.set()  # noqa: SLF001
        if (
            not isinstance(response, C_STORE)
            or response.MessageIDBeingRespondedTo != request.MessageID
            or response.Status is None
        ):
            association.abort(block=False)
            msg = "the peer did not answer a C-STORE"
            raise Unavailable(msg)
        return int(response.Status)

    def _transmit(self, request: C_STORE, context_id: int) -> None:
        """Queue the message in PDUs, never more than a few at a time: a large one is not copied as a whole."""
        association = self._association
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        message.context_id = context_id
        deadline = time.monotonic() + (association.dimse_timeout or 60.0)
        for pdu in message.encode_msg(context_id, association.dimse.maximum_pdu_size):
            while association.dul.to_provider_queue.qsize() > _QUEUED_PDUS:
                if time.monotonic() > deadline or not association.dul.is_alive() or not association.is_established:
                    association.abort(block=False)
                    msg = "the peer does not take what is sent"
                    raise Unavailable(msg)
                time.sleep(0.0005)
            deadline = time.monotonic() + (association.dimse_timeout or 60.0)
            association.dul.send_pdu(pdu)


def to_implicit(file: bytes) -> bytes:
    """Return an Explicit VR Little Endian file in Implicit VR Little Endian. Raises NotAcceptable."""
    target = io.BytesIO()
    try:
        data = pydicom.dcmread(io.BytesIO(file))
        data.file_meta.TransferSyntaxUID = UID(IMPLICIT_LE)
        pydicom.dcmwrite(target, data, implicit_vr=True, little_endian=True, enforce_file_format=True)
    except Exception as error:
        msg = "the instance cannot be written in Implicit VR Little Endian"
        raise NotAcceptable(msg) from error
    return target.getvalue()


def proposals(items: Sequence[ArchivedInstance]) -> Iterator[tuple[list[PresentationContext], list[ArchivedInstance]]]:
    """Cut *items* into what one association can carry, each with the contexts to propose.

    One context per class and stored syntax, and one per class that any peer takes: a peer that refuses the first gets
    the instance decompressed.
    """
    contexts: dict[tuple[str, str], PresentationContext] = {}
    group: list[ArchivedInstance] = []
    for item in items:
        new = {
            key: value
            for key, value in (
                ((item.sop_class_uid, item.transfer_syntax_uid), [item.transfer_syntax_uid]),
                ((item.sop_class_uid, ""), [EXPLICIT_LE, IMPLICIT_LE]),
            )
            if key not in contexts
        }
        if len(contexts) + len(new) > CONTEXTS:
            yield list(contexts.values()), group
            contexts, group = {}, []
            new = {
                (item.sop_class_uid, item.transfer_syntax_uid): [item.transfer_syntax_uid],
                (item.sop_class_uid, ""): [EXPLICIT_LE, IMPLICIT_LE],
            }
        for key, syntaxes in new.items():
            contexts[key] = build_context(key[0], syntaxes)
        group.append(item)
    if group:
        yield list(contexts.values()), group


def succeeded(status: int) -> bool:
    """Return whether a C-STORE status says that the peer has the instance (success or warning, PS3.4 B.2.3)."""
    return status == statuses.SUCCESS or status & 0xF000 == 0xB000
