"""Sends a schedule of studies by STOW-RS over some associations, and keeps what became of every request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from dicomweb.connection import Answer, Connection
from dicomweb.instances import Place, Template
from dicomweb.load import STOW_TYPE, multipart

from stress_hour.images import Images, places
from stress_hour.mix import Transaction

ATTEMPTS: Final = 8
_AGAIN: Final = frozenset({429, 502, 503, 504})
_FAILED_INSTANCES: Final = "00081198"
_STORED_INSTANCES: Final = "00081199"
_LONGEST_PAUSE: Final = 30.0


@dataclass(slots=True)
class Sent:
    """One study as its sender saw it. Times in Unix seconds.

    ``refusals``: answers that were no success, with the reason they gave. ``accepted``: SOP Instance UIDs that the
    server said it has stored. ``gave_up``: a request was refused until the last attempt.
    """

    transaction: Transaction
    places: list[Place]
    templates: Sequence[Template]
    due_at: float = 0.0
    first_byte_at: float = 0.0
    last_byte_at: float = 0.0
    answered_at: float = 0.0
    size: int = 0
    refusals: list[str] = field(default_factory=list)
    accepted: set[str] = field(default_factory=set)
    gave_up: bool = False

    @property
    def study_uid(self) -> str:
        """Study Instance UID."""
        return self.places[0].study_uid

    @property
    def complete(self) -> bool:
        """Whether the server took every instance."""
        return len(self.accepted) == len(self.places)


class Senders:
    """*associations* threads that take the next due study each; every study goes over an association of its own.

    *batch*: instances per STOW request. *announce*: say after each study how many instances it has, as ``wetread send``
    does; without it 10 s of silence mean that it is complete. *done* is called in the sender's thread.
    """

    def __init__(
        self,
        port: int,
        images: Images,
        *,
        run: int,
        associations: int,
        batch: int,
        announce: bool,
        done: Callable[[Sent], None],
    ) -> None:
        self._port = port
        self._images = images
        self._run = run
        self._batch = batch
        self._announce = announce
        self._done = done
        self._lock = threading.Lock()
        self._pending: list[Transaction] = []
        self._failures: list[BaseException] = []
        self._associations = associations
        self._sending: dict[int, float] = {}
        self.begun_at = 0.0

    def send(self, transactions: Sequence[Transaction]) -> None:
        """Send all, each not before its time; returns when the last one was answered."""
        self._pending = sorted(transactions, key=lambda one: -one.at)
        self.begun_at = time.time()
        threads = [threading.Thread(target=self._work) for _ in range(self._associations)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def open_since(self) -> list[float]:
        """Return when the first byte of each study went out that is being sent, in Unix seconds."""
        with self._lock:
            return list(self._sending.values())

    def _work(self) -> None:
        try:
            while (transaction := self._next()) is not None:
                due = self.begun_at + transaction.at
                time.sleep(max(0.0, due - time.time()))
                sent = Sent(transaction, places(transaction, run=self._run), self._images.of(transaction), due)
                with self._lock:
                    sent.first_byte_at = self._sending[transaction.number] = time.time()
                connection = self._study(Connection(self._port), sent)
                if self._announce and sent.complete:
                    body = json.dumps({"instances": len(sent.places)}).encode()
                    path = f"/api/v1/studies/{sent.study_uid}/manifest"
                    answer = connection.post(path, "application/json", [body], len(body))
                    sent.refusals += [f"manifest {answer.status}"] if answer.status >= 300 else []
                connection.close()
                self._done(sent)
                with self._lock:
                    del self._sending[transaction.number]
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            self._failures.append(error)

    def _next(self) -> Transaction | None:
        with self._lock:
            return self._pending.pop() if self._pending and not self._failures else None

    def _study(self, connection: Connection, sent: Sent) -> Connection:
        for first in range(0, len(sent.places), self._batch):
            chosen = slice(first, first + self._batch)
            pieces, size = multipart(sent.templates[chosen], sent.places[chosen])
            connection = self._request(connection, sent, pieces, size)
            sent.size += size
        return connection

    def _request(
        self, connection: Connection, sent: Sent, pieces: Sequence[bytes | memoryview], size: int
    ) -> Connection:
        """Send one request until it is taken; what is sent twice is recognised by the server."""
        for attempt in range(ATTEMPTS):
            try:
                answer = connection.post("/dicom-web/studies", STOW_TYPE, pieces, size)
            except OSError as error:
                sent.refusals.append(type(error).__name__)
                connection.close()
                time.sleep(min(_LONGEST_PAUSE, 0.25 * 2**attempt))
                connection = Connection(self._port)
                continue
            sent.last_byte_at, sent.answered_at = answer.sent_at, time.time()
            if answer.status in {200, 202}:
                stored, failed = outcome(answer)
                sent.accepted |= stored
                sent.refusals += [f"instance {reason}" for reason in failed]
                if not failed:
                    return connection
            else:
                sent.refusals.append(str(answer.status))
                if answer.status not in _AGAIN:
                    break
            time.sleep(min(_LONGEST_PAUSE, float(answer.headers.get("retry-after", 0.25 * 2**attempt))))
        sent.gave_up = True
        return connection


def outcome(answer: Answer) -> tuple[set[str], list[str]]:
    """Return the SOP Instance UIDs that a STOW answer says are stored, and the failure reasons of the others."""
    body = json.loads(answer.body)
    stored = {item["00081155"]["Value"][0] for item in body.get(_STORED_INSTANCES, {}).get("Value", ())}
    failed = body.get(_FAILED_INSTANCES, {}).get("Value", ())
    return stored, [f"{item['00081197']['Value'][0]:04X}" for item in failed]
