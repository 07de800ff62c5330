"""The DICOM upper layer of pynetdicom with our limits: nothing that a peer sends grows without bound or waits for ever.

What pynetdicom (3.0) leaves open and this module closes: a PDU may claim 4 GiB; a half-sent PDU or TLS handshake
blocks; a message collects in memory without limit; an undecodable command kills the receiving thread silently.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final, cast

from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from wetread.dimse.received import ReceivedDataset

log = logging.getLogger(__name__)

_LARGEST_CONTROL_PDU: Final = 1 << 20
"""128 presentation contexts with every known transfer syntax take about 200 kB."""
_LARGEST_COMMAND: Final = 64 << 10
_QUEUED_MESSAGES: Final = 8
"""Without an asynchronous operations window a peer has one request open (PS3.7 D.3.3.3)."""
_SLOWEST: Final = 16 << 10
"""Bytes per second below which a PDU is given up."""
_RECEIVE: Final = 256 << 10
_INVALID_PDU: Final = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
"""A-ABORT by the provider, reason: invalid PDU parameter value (PS3.8 9.3.8)."""
_QUICK_ACK: Final = getattr(socket, "TCP_QUICKACK", None)
"""Peers that write a message in two pieces under Nagle wait for our acknowledgement: 40 ms per response, measured with
getscu. Linux forgets the option, so it is set at each receipt."""


def configure() -> None:
    """Set what pynetdicom has as process-wide switches: any storage SOP class, and no data sets in logs."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    # Its messages quote titles, addresses and values that peers sent; what operators need is logged by us.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """``dataset`` makes the buffer of one message of a peer. Seconds and bytes."""

    max_pdu: int
    idle_seconds: float
    handshake_seconds: float
    connections: int
    dataset: Callable[[Any], ReceivedDataset]


class BoundedSocket(AssociationSocket):
    """The transport of one accepted association: PDUs of bounded length, received in bounded time."""

    limits: Limits

    def recv(self, nr_bytes: int) -> bytearray:
        """Return *nr_bytes* bytes, fewer when the peer closed. Raises OSError for what is too large or too slow.

        The upper layer reads the six bytes of a PDU header, then the length that they claim.
        """
        connection = cast("socket.socket", self.socket)
        if nr_bytes > max(_LARGEST_CONTROL_PDU, self.limits.max_pdu):
            connection.sendall(_INVALID_PDU)
            msg = "a PDU is larger than was negotiated"
            raise OSError(msg)
        deadline = time.monotonic() + self.limits.idle_seconds + nr_bytes / _SLOWEST
        received = bytearray(nr_bytes)
        view, at = memoryview(received), 0
        while at < nr_bytes:
            count = connection.recv_into(view[at : at + _RECEIVE])
            if not count:
                break
            if _QUICK_ACK is not None and isinstance(connection, socket.socket):
                connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
            at += count
            if at < nr_bytes and time.monotonic() > deadline:
                msg = "a PDU takes too long to arrive"
                raise TimeoutError(msg)
        view.release()
        del received[at:]
        return received

    def _shutdown_socket(self) -> None:
        """Close; pynetdicom leaves a socket open whose peer is gone."""
        connection = cast("socket.socket", self.socket)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


class _Command(BytesIO):
    """The command set of one message while it arrives."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > _LARGEST_COMMAND:
            msg = "a command set is too large"
            raise OSError(msg)
        return super().write(data)


class BoundedDimse(DIMSEServiceProvider):
    """Collects messages of one association within the limits; whatever is not DIMSE ends it with A-ABORT."""

    def __init__(self, assoc: Association, limits: Limits) -> None:
        super().__init__(assoc)
        self._limits = limits

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one P-DATA."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.encoded_command_set = _Command()
            self.message.data_set = self._limits.dataset(cast("BoundedAssociation", self.assoc).peer)
        try:
            super().receive_primitive(primitive)
        except Exception:  # noqa: BLE001 - pynetdicom raises whatever the bytes made it stumble over
            self._give_up()
        if self.msg_queue.qsize() > _QUEUED_MESSAGES:
            self._give_up()

    def discard(self) -> None:
        """Give back what has arrived and nobody will ask for any more."""
        half, self.message = self.message, None
        waiting = [half.data_set] if half is not None else []
        while not self.msg_queue.empty():
            _, message = self.msg_queue.get(block=False)
            waiting.append(getattr(message, "DataSet", None))
        for data in waiting:
            if isinstance(data, ReceivedDataset):
                data.discard()

    def _give_up(self) -> None:
        log.warning("association aborted: not a DIMSE message")
        self.discard()
        self.dul.event_queue.put("Evt19")


class BoundedDul(DULServiceProvider):
    """The upper layer's thread. Events that the state machine has no place for end the association, not the thread."""

    def run_reactor(self) -> None:
        """Run until the connection ends."""
        try:
            super().run_reactor()
        except InvalidEventError:
            # A response to a request that came before the peer broke the rules: there is nobody to send it to.
            self.assoc.is_aborted = True
            self.assoc.is_established = False
            self.assoc._kill = True  # noqa: SLF001 - as pynetdicom does for other errors of this thread
            cast("AssociationSocket", self.socket).close()


class BoundedAssociation(Association):
    """An accepted association. ``peer`` is set when it has been admitted, ``transfer`` by its first C-STORE."""

    def __init__(self, ae: AE, limits: Limits) -> None:
        super().__init__(ae, "acceptor")
        self.dul = BoundedDul(self)
        self.acse_timeout = ae.acse_timeout
        self.network_timeout = ae.network_timeout
        self.dimse: BoundedDimse = BoundedDimse(self, limits)
        self.certificate: str | None = None
        self.peer: Any = None
        self.transfer: Any = None
        self.stored: Counter[tuple[str, int]] = Counter()
        """Instances by study and status, for the audit trail."""
        self.ended: Callable[[BoundedAssociation], None] = lambda _self: None
        """Called at the end of the association's thread."""
        self.services: dict[type, Callable[[Any, Any, Any], None]] = {}
        """Services of our own, by request: called with association, request and presentation context."""

    @property
    def address(self) -> str:
        """Where the peer is."""
        return str(cast("Any", self.requestor.address_info).address)

    def run_reactor(self) -> None:
        """Serve until the association has ended, however it does."""
        try:
            super().run_reactor()
        finally:
            self.dimse.discard()
            self.ended(self)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        service = self.services.get(type(msg))
        context = self._accepted_cx.get(context_id)
        if service is None or context is None or not msg.is_valid_request:
            super()._serve_request(msg, context_id)
            return
        self.dimse.cancel_req = {}
        self._is_paused = True
        try:
            service(self, msg, context)
        except Exception as error:
            log.exception("association aborted: internal error", exc_info=error)
            self.abort(block=False)
        self._is_paused = False
        self.dimse.cancel_req = {}


class _Handler(RequestHandler):
    """One connection: address, TLS and then the association, on its own thread."""

    server: DicomServer

    def handle(self) -> None:
        """Start the association of an admitted connection."""
        server = self.server
        if not server.welcome(self.client_address[0]) or len(server.active_associations) >= server.limits.connections:
            server.counted("refused")
            server.shutdown_request(self.request)
            return
        self.request.settimeout(server.limits.handshake_seconds)
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.tls is not None:
            try:
                self.request = server.tls.wrap_socket(self.request, server_side=True)
            except (OSError, ValueError):
                server.counted("tls-failed")
                server.shutdown_request(self.request)
                return
        self.request.settimeout(server.limits.idle_seconds)
        super().handle()

    def _create_association(self) -> Association:
        from wetread.dimse.tls import fingerprint

        server = self.server
        assoc = BoundedAssociation(self.ae, server.limits)
        assoc._server = server  # noqa: SLF001 - as pynetdicom's own handler does
        assoc.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        transport = BoundedSocket(assoc, client_socket=self.request)
        transport.limits = server.limits
        assoc.set_socket(transport)
        assoc.certificate = fingerprint(self.request)
        assoc.acceptor.maximum_length = server.limits.max_pdu
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = self.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = self.ae.implementation_version_name
        assoc.acceptor.supported_contexts = deepcopy(server.contexts)
        assoc.requestor.address_info = self.remote
        server.prepare(assoc)
        return assoc


class DicomServer(ThreadedAssociationServer):
    """The listener. ``welcome``: whether an address may connect; ``prepare``: binds handlers to a new association."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        contexts: list[Any],
        *,
        tls: ssl.SSLContext | None,
        limits: Limits,
        welcome: Callable[[str], bool],
        prepare: Callable[[BoundedAssociation], None],
        counted: Callable[[str], None],
    ) -> None:
        self.tls = tls
        self.limits = limits
        self.welcome = welcome
        self.prepare = prepare
        self.counted = counted
        super().__init__(ae, address, ae.ae_title, contexts, request_handler=_Handler)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    def open(self) -> None:
        """Accept connections on a thread of its own."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="dimse-accept", daemon=True)
        self._thread.start()

    def close(self, drain_seconds: float) -> None:
        """Accept nothing more, let running associations finish for a while, abort the rest."""
        self._stop_accepting()
        deadline = time.monotonic() + drain_seconds
        while self.active_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        for association in self.active_associations:
            association.abort()

    def _stop_accepting(self) -> None:
        if self._thread is None:
            return
        from socketserver import BaseServer

        BaseServer.shutdown(self)
        self._thread.join()
        self._thread = None
        cast("socket.socket", self.socket).close()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Log that a connection failed, without what the peer sent."""
        log.warning("a connection failed before its association")
