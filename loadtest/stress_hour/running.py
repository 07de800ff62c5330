"""One run: a schedule against a server, every study followed to its end, fetched, compared and, if wanted, deleted."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dicomweb.connection import Connection

from stress_hour.checking import Checked, retrieve
from stress_hour.following import Course, Follower
from stress_hour.images import Images
from stress_hour.mix import Transaction
from stress_hour.reclaiming import reclaim, stored_bytes
from stress_hour.sending import Senders, Sent
from stress_hour.watching import Usage, Watch
from wetread.commands.up import Supervisor

READY_SECONDS: Final = 300.0
"""Longest start of a server under test: machines that run benchmarks may be busy."""
_RECLAIM_EVERY: Final = 20


@dataclass(slots=True)
class Study:
    """What is known of one transaction. ``deleted``: checked, deleted, and gone (410 or 404) when asked for again."""

    sent: Sent
    course: Course | None = None
    checked: Checked | None = None
    deleted: bool = False


@dataclass(slots=True)
class Outcome:
    """What a run led to. ``seconds``: from the first study's time to the last check."""

    studies: list[Study]
    usage: Usage
    seconds: float
    sending_seconds: float
    stored_bytes: int
    reclaimed_bytes: int


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run is done. *run*: keeps its identifiers apart from those of other runs against the same server.

    *batch*: instances per STOW request. *announce*: senders say how many instances a study has. *patience*: seconds
    without any study ending, after which the rest is silent.
    """

    run: int = 1
    associations: int = 4
    batch: int = 64
    announce: bool = False
    delete: bool = False
    patience: float = 300.0


def drive(server: Supervisor, data: Path, transactions: Sequence[Transaction], images: Images, terms: Terms) -> Outcome:
    """Send *transactions* to *server*, whose data folder is *data*, and see every study through."""
    port = int(server.url.rpartition(":")[2])
    bench = _Run(port, data, terms)
    roots = [child.process.pid for child in server.children]
    began = time.monotonic()
    with Watch(roots, data) as watch, Follower(server.url, bench.ended) as follower:
        bench.start()
        senders = Senders(
            port,
            images,
            run=terms.run,
            associations=terms.associations,
            batch=terms.batch,
            announce=terms.announce,
            done=lambda sent: bench.sent(sent, follower),
        )
        senders.send(transactions)
        sending = time.monotonic() - began
        follower.wait(terms.patience)
        if follower.failure is not None:
            raise follower.failure
        bench.finish(follower)
        took = time.monotonic() - began
        usage = watch.now()
    return Outcome(list(bench.studies.values()), usage, took, sending, stored_bytes(data), bench.reclaimed)


@dataclass
class _Run:
    """The studies of a run and the thread that checks those that have ended."""

    port: int
    data: Path
    terms: Terms
    studies: dict[str, Study] = field(default_factory=dict)
    reclaimed: int = 0
    _ended: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    _failures: list[BaseException] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._check_all, daemon=True)
        self._thread.start()

    def sent(self, sent: Sent, follower: Follower) -> None:
        self.studies[sent.study_uid] = Study(sent)
        if sent.accepted:
            follower.watch(sent.study_uid, sent.last_byte_at)

    def ended(self, study_uid: str, course: Course) -> None:
        self.studies[study_uid].course = course
        self._ended.put(study_uid)

    def finish(self, follower: Follower) -> None:
        """Check what has not ended as well: its images have to be there all the same."""
        for study_uid, course in follower.courses.items():
            if not course.ended:
                self.studies[study_uid].course = course
                self._ended.put(study_uid)
        self._ended.put(None)
        assert self._thread is not None
        self._thread.join()
        if self._failures:
            raise self._failures[0]

    def _check_all(self) -> None:
        try:
            connection = Connection(self.port)
            done = 0
            while (study_uid := self._ended.get()) is not None:
                self._check(connection, self.studies[study_uid])
                done += 1
                if self.terms.delete and done % _RECLAIM_EVERY == 0:
                    self._reclaim()
            connection.close()
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            self._failures.append(error)

    def _check(self, connection: Connection, study: Study) -> None:
        sent = study.sent
        pairs = [pair for pair in zip(sent.places, sent.templates, strict=True) if pair[0].sop_uid in sent.accepted]
        study.checked = retrieve(connection, [place for place, _ in pairs], [template for _, template in pairs])
        ended = study.course is not None and study.course.ended
        if self.terms.delete and ended and not study.checked.lost:
            path = f"/dicom-web/studies/{sent.study_uid}"
            study.deleted = connection.delete(path).status == 204 and connection.get(path).status in {404, 410}

    def _reclaim(self) -> None:
        open_since = [study.sent.first_byte_at for study in list(self.studies.values()) if not study.deleted]
        # A study that is being sent is not in the list yet: it began less than a sender's longest time ago.
        self.reclaimed += reclaim(self.data, [*open_since, time.time() - 60.0])
