"""Results to DICOM destinations: what wetread wrote into a study, sent by C-STORE until the destination has it.

The events are the outbox: a result is on the list of a destination in the transaction that moves the destination's
cursor over its event, and leaves it when every instance was accepted. A crash repeats a send; receivers of C-STORE
know an instance by its UID.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from wetread.core.errors import NotFound, Unavailable, WetreadError
from wetread.core.events import Event, EventType
from wetread.core.identifiers import log_ref
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.database import Transaction
from wetread.core.ports.sends import ResultSend, SendState
from wetread.dimse.calling import Caller
from wetread.dimse.peers import Peer
from wetread.dimse.ports import DimsePorts
from wetread.dimse.sending import Sender, proposals, succeeded

log = logging.getLogger(__name__)

FIRST_WAIT: Final = 5.0
LONGEST_WAIT: Final = 600.0
ATTEMPTS: Final = 440
"""Three days of a destination that is away, then the send is dead."""
CLAIM_SECONDS: Final = 120.0
"""A send that is being tried is nobody else's for so long; after a crash it is taken up again then."""
_BATCH: Final = 100


def wait_after(attempts: int) -> float | None:
    """Return the seconds to wait after *attempts* failed attempts; None: give up."""
    if attempts >= ATTEMPTS:
        return None
    return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(attempts - 1, 20)))


class ResultForwarder:
    """One thread for all destinations of this process. ``step`` is one look; several processes may run it."""

    def __init__(self, ports: DimsePorts, destinations: Sequence[Peer], caller: Caller, pause_seconds: float) -> None:
        self._ports = ports
        self._destinations = destinations
        self._caller = caller
        self._pause = pause_seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start the thread, when there is anybody to send to."""
        if self._destinations:
            self._thread = threading.Thread(target=self._run, name="dimse-results", daemon=True)
            self._thread.start()

    def close(self, wait_seconds: float) -> None:
        """Stop after the send that is running."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(wait_seconds)
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            try:
                self.step()
            except WetreadError as error:
                log.warning("results wait: %s", error.slug)
            except Exception as error:
                log.exception("sending results failed", exc_info=error)

    def step(self) -> int:
        """Look for new results and send what is due; return how many sends were tried."""
        tried = 0
        for peer in self._destinations:
            self._collect(peer)
            for send in self._claim(peer):
                if self._stopping.is_set():
                    return tried
                tried += 1
                self._try(peer, send)
        return tried

    def _collect(self, peer: Peer) -> None:
        """Open sends for the results since the last look. A new destination gets what comes from now on."""
        ports = self._ports
        with ports.durable.read() as tx:
            cursor = ports.sends.cursor(tx, peer.tenant, peer.ae)
            if cursor is not None and not self._new(tx, peer, cursor):
                return
        with ports.durable.write() as tx:
            cursor = ports.sends.cursor(tx, peer.tenant, peer.ae)
            if cursor is None:
                ports.sends.move(tx, peer.tenant, peer.ae, ports.events.latest(tx))
                return
            for event in self._new(tx, peer, cursor):
                series = _series_of(event)
                if series:
                    ports.sends.open(tx, self._send_of(peer, event, series))
                cursor = event.cursor
            ports.sends.move(tx, peer.tenant, peer.ae, cursor)

    def _new(self, tx: Transaction, peer: Peer, cursor: int) -> list[Event]:
        return self._ports.events.after(tx, peer.tenant, cursor, limit=_BATCH, types=[EventType.RESULT_READY])

    def _send_of(self, peer: Peer, event: Event, series: tuple[str, ...]) -> ResultSend:
        now = self._ports.clock.now()
        return ResultSend(
            tenant=peer.tenant,
            destination=peer.ae,
            event_id=event.id,
            study_uid=event.subject,
            series_uids=series,
            state=SendState.PENDING,
            attempts=0,
            due_at=now,
            last_error="",
            updated_at=now,
        )

    def _claim(self, peer: Peer) -> list[ResultSend]:
        """Take what is due, one at a time per destination, so that a slow one does not hold claims that run out."""
        ports, now = self._ports, self._ports.clock.now()
        with ports.durable.read() as tx:
            if not ports.sends.due(tx, peer.tenant, peer.ae, now=now, limit=1):
                return []
        with ports.durable.write() as tx:
            claimed = []
            for send in ports.sends.due(tx, peer.tenant, peer.ae, now=now, limit=1):
                mine = replace(send, due_at=now + CLAIM_SECONDS, updated_at=now)
                ports.sends.record(tx, mine)
                claimed.append(mine)
        return claimed

    def _try(self, peer: Peer, send: ResultSend) -> None:
        """Make one attempt and write down what came of it."""
        try:
            self._deliver(peer, send)
        except NotFound:
            done = replace(send, state=SendState.DEAD, last_error="the study or its result was deleted")
        except WetreadError as error:
            done = self._failed(send, error.detail)
        else:
            done = replace(send, state=SendState.SENT, attempts=send.attempts + 1, last_error="")
        now = self._ports.clock.now()
        with self._ports.durable.write() as tx:
            self._ports.sends.record(tx, replace(done, updated_at=now))
        self._ports.meter.sent("result", str(done.state))

    def _failed(self, send: ResultSend, detail: str) -> ResultSend:
        attempts, now = send.attempts + 1, self._ports.clock.now()
        wait = wait_after(attempts)
        reference = log_ref(send.tenant, send.destination, send.event_id)
        if wait is None:
            log.error("result %s is not sent any more: %s", reference, detail)
            return replace(send, state=SendState.DEAD, attempts=attempts, last_error=detail)
        log.warning("result %s could not be sent: %s", reference, detail)
        return replace(send, attempts=attempts, due_at=now + wait, last_error=detail)

    def _deliver(self, peer: Peer, send: ResultSend) -> None:
        """Send all instances of a result. Raises NotFound, and Unavailable for what may be tried again."""
        ports = self._ports
        with ports.database.read() as tx:
            items: list[ArchivedInstance] = []
            for series_uid in send.series_uids:
                items += ports.archive.instances(tx, send.tenant, send.study_uid, series_uid)
        for contexts, group in proposals(items):
            with self._caller.association(peer, contexts) as association:
                sender = Sender(association, ports.decompress)
                for item in group:
                    status = sender.send(item, ports.objects.read(item.ref))
                    if not succeeded(status):
                        msg = f"the destination answered {status:04X}"
                        raise Unavailable(msg)


def _series_of(event: Event) -> tuple[str, ...]:
    """Return the series that a result wrote; none for a shadow run, which nobody outside sees."""
    if event.data.get("shadow"):
        return ()
    stored: Any = event.data.get("stored") or ()
    return tuple(str(series["series_uid"]) for series in stored)
