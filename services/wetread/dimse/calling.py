"""Associations that we request: with destinations of C-MOVE and of results."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from wetread.core.errors import Unavailable
from wetread.dimse.peers import Peer


class Caller:
    """Requests associations as *entity*; ``tls``: for peers that speak it."""

    def __init__(self, entity: AE, tls: ssl.SSLContext, max_pdu: int) -> None:
        self._entity = entity
        self._tls = tls
        self._max_pdu = max_pdu

    @contextmanager
    def association(self, peer: Peer, contexts: list[PresentationContext]) -> Iterator[Association]:
        """Yield an established association; released at the end, aborted after an error. Raises Unavailable."""
        assert peer.host is not None
        try:
            association = self._entity.associate(
                peer.host,
                peer.port,
                contexts=contexts,
                ae_title=peer.ae,
                max_pdu=self._max_pdu,
                tls_args=(self._tls, peer.host) if peer.tls else None,
            )
        except (OSError, RuntimeError, ValueError) as error:
            msg = "the destination cannot be reached"
            raise Unavailable(msg) from error
        try:
            with self._established(association):
                yield association
        finally:
            # pynetdicom leaves a socket open whose peer is gone.
            transport = association.dul.socket
            if transport is not None and transport.socket is not None:
                transport.socket.close()

    @contextmanager
    def _established(self, association: Association) -> Iterator[None]:
        if not association.is_established:
            msg = "the destination rejected the association" if association.is_rejected else "the destination is away"
            raise Unavailable(msg)
        try:
            yield
        except BaseException:
            association.abort()
            raise
        if association.is_established:
            association.release()
