"""The DIMSE edge as a service: a listener on its own port beside the HTTP face of the process."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

from anyio.to_thread import run_sync
from fastapi import APIRouter
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.presentation import build_context

from wetread.core.dicom.file_meta import IMPLEMENTATION_CLASS_UID
from wetread.core.dicom.transfer_syntax import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from wetread.core.errors import ConfigurationError
from wetread.core.service import Service
from wetread.dimse.admission import Admission
from wetread.dimse.calling import Caller
from wetread.dimse.find import PATIENT_ROOT_FIND, STUDY_ROOT_FIND, FindService
from wetread.dimse.peers import Peer, PeerBook, load_peers
from wetread.dimse.ports import DimsePorts
from wetread.dimse.quotas import Quotas
from wetread.dimse.received import ReceivedDataset
from wetread.dimse.results import ResultForwarder
from wetread.dimse.retrieve import (
    PATIENT_ROOT_GET,
    PATIENT_ROOT_MOVE,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    RetrieveService,
)
from wetread.dimse.settings import DimseSettings
from wetread.dimse.store import StoreService
from wetread.dimse.tls import client_context, ends_of, server_context
from wetread.dimse.upper_layer import BoundedAssociation, DicomServer, Limits, configure

log = logging.getLogger(__name__)

VERIFICATION: Final = "1.2.840.10008.1.1"
SERVICES: Final = (
    VERIFICATION,
    PATIENT_ROOT_FIND,
    PATIENT_ROOT_MOVE,
    PATIENT_ROOT_GET,
    STUDY_ROOT_FIND,
    STUDY_ROOT_MOVE,
    STUDY_ROOT_GET,
)
"""SOP classes that we provide besides storage, which is of any class."""
_SYNTAXES: Final = [EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE]


class Edge:
    """One listening application entity. ``open`` and ``close`` block."""

    def __init__(self, ports: DimsePorts, settings: DimseSettings) -> None:
        self.ports = ports
        self.settings = settings
        mutual = settings.tls is not None and settings.tls.authorities is not None
        self.book: PeerBook = load_peers(settings.peers, settings.ae_title, mutual_tls=mutual)
        self.server: DicomServer | None = None
        self.caller = Caller(self.entity(), client_context(settings.tls), settings.max_pdu)
        self.forwarder = ResultForwarder(ports, self.book.result_destinations, self.caller, settings.forward_seconds)
        self._quotas = Quotas(ports, settings)
        self._admission = Admission(self.book, ports, self._quotas, settings.max_associations)
        self._store = StoreService(ports, self._quotas)
        self._find = FindService(ports, self._quotas, self.book.ae_title, settings.find_matches)
        self._retrieve = RetrieveService(ports, self._quotas, self.book, self.caller)

    def entity(self) -> AE:
        """Return our application entity with its timeouts, as acceptor and as requestor."""
        entity = AE(ae_title=self.book.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = "WETREAD"
        entity.maximum_pdu_size = self.settings.max_pdu
        entity.maximum_associations = self.settings.max_associations * 2  # Admission decides, this is a fence
        entity.acse_timeout = self.settings.association_seconds
        entity.dimse_timeout = self.settings.response_seconds
        entity.network_timeout = self.settings.idle_seconds
        entity.connection_timeout = self.settings.association_seconds
        return entity

    def open(self) -> None:
        """Index what a crash left behind, then listen. Raises ConfigurationError."""
        configure()
        tls = server_context(self.settings.tls) if self.settings.tls else None
        self.ports.intake.recover()
        limits = Limits(
            max_pdu=self.settings.max_pdu,
            idle_seconds=self.settings.idle_seconds,
            handshake_seconds=self.settings.association_seconds,
            connections=self.settings.max_associations * 2 + 16,
            dataset=self._dataset,
        )
        contexts = [build_context(uid, _SYNTAXES) for uid in SERVICES]
        try:
            self.server = DicomServer(
                self.entity(),
                (self.settings.host, self.settings.port),
                contexts,
                tls=tls,
                limits=limits,
                welcome=self.book.reachable_from,
                prepare=self._prepare,
                counted=self.ports.meter.association,
            )
        except OSError as error:
            msg = f"the DIMSE port {self.settings.port} cannot be bound: {error.strerror}"
            raise ConfigurationError(msg) from error
        self.server.open()
        if self.settings.tls is not None:
            self.ports.meter.certificates(ends_of(self.settings.tls))
        self.forwarder.open()
        log.info("DIMSE edge is listening", extra={"port": self.server.port, "tls": tls is not None})

    def close(self) -> None:
        """Stop listening, let associations finish, abort what does not."""
        self._quotas.close()
        if self.server is not None:
            self.server.close(self.settings.drain_seconds)
            self.server = None
        self.forwarder.close(self.settings.drain_seconds)

    def _dataset(self, peer: Peer) -> ReceivedDataset:
        settings = self.settings
        return ReceivedDataset(
            settings.scratch, limit=self._quotas.object_bytes(peer), spool=settings.spool_bytes, room=self._has_room
        )

    def _has_room(self) -> bool:
        folder = self.settings.scratch
        if folder is None:
            return True
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free >= self.settings.free_bytes

    def _prepare(self, association: BoundedAssociation) -> None:
        """Bind our handlers to a new association."""
        association.bind(evt.EVT_REQUESTED, self._admission)
        association.bind(evt.EVT_C_STORE, self._store)
        association.bind(evt.EVT_C_ECHO, self._echo)
        association.bind(evt.EVT_C_FIND, self._find)
        association.bind(evt.EVT_RELEASED, self._released)
        association.bind(evt.EVT_CONN_CLOSE, self._closed)
        association.ended = self._ended
        association.services = {C_MOVE: self._retrieve, C_GET: self._retrieve}

    def _ended(self, association: BoundedAssociation) -> None:
        self._store.ended(association)
        if association.peer is not None:
            self._quotas.leave(association.peer)

    def _echo(self, _event: Any) -> int:
        self.ports.meter.request("C-ECHO", 0, 0.0)
        return 0

    def _closed(self, event: Any) -> None:
        """End an association that was closed before its request: pynetdicom would go on waiting for that."""
        association: BoundedAssociation = event.assoc
        if association.peer is None:
            association.dul.to_user_queue.put(cast("Any", None))

    def _released(self, event: Any) -> None:
        """The end of a transfer: only a release says that the sender was done, an abort does not."""
        if event.assoc.transfer is not None:
            try:
                event.assoc.transfer.end()
            except Exception as error:
                log.exception("the end of a transfer could not be told", exc_info=error)


def build(ports: DimsePorts, settings: DimseSettings | None = None) -> Service:
    """Return the service. Its HTTP face is the one that every process has: health and metrics."""
    edge = Edge(ports, settings or DimseSettings())

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await run_sync(edge.open)
        try:
            yield
        finally:
            await run_sync(partial(edge.close))

    return Service(name="dimse", http=APIRouter(), lifespan=lifespan)
