"""Evaluations of studies that are still arriving: one in a while instead of one per commit (ADR 0207).

A sender that stores one instance per request makes a commit, and so an evaluation, of each; all but the last are
overtaken before they say anything. The first one of a study is queued at once, with the commit. What follows it closely
is held in a row of the same transaction, where the next commit takes its place, and queued a moment later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from wetread.core import tracing
from wetread.core.identifiers import digest
from wetread.core.ports.database import Clock, Database, Transaction
from wetread.core.ports.orchestration import HeldEvaluation, HeldEvaluationRepository
from wetread.core.ports.work import WorkQueue
from wetread.core.workqueue import EVALUATE

_log = logging.getLogger(__name__)

HELD_SECONDS: Final = 0.5
ABANDONED_SECONDS: Final = 5.0
"""What is held for so long is held by nobody: its process died."""
_AT_A_TIME: Final = 500
_REMEMBERED: Final = 1000


class HeldEvaluations:
    """Decides which evaluations are held, and queues them afterwards in a thread of its own, begun when needed.

    Thread-safe. ``close`` queues what is held and ends the thread; what a kill leaves behind is queued by whichever
    process calls ``release_abandoned``. ``seconds``: how long evaluations are held at most.
    """

    def __init__(
        self,
        database: Database,
        held: HeldEvaluationRepository,
        queue: WorkQueue,
        clock: Clock,
        *,
        seconds: float = HELD_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._held = held
        self._queue = queue
        self._clock = clock
        self._seconds = seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._queued: dict[tuple[str, str], float] = {}
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def submit(self, tx: Transaction, evaluation: HeldEvaluation) -> None:
        """Queue an evaluation, or hold it because one of its study was queued just now; either way within *tx*."""
        key, now = (evaluation.tenant, evaluation.study_uid), self._monotonic()
        with self._lock:
            before = self._queued.get(key)
            if before is None or now - before >= self._seconds:
                self._note(key, now)
                hold = False
            else:
                hold = True
        if not hold:
            self._enqueue(tx, evaluation)
            return
        self._held.put(tx, evaluation, self._clock.now())
        # The thread looks when the time is up. Should this transaction still be open then, it waits for its end.
        self._begin()
        self._some.set()

    def release(self) -> int:
        """Queue all that is held; return how many."""
        return self._release(self._clock.now())

    def release_abandoned(self) -> None:
        """Queue what a process that died had held."""
        count = self._release(self._clock.now() - ABANDONED_SECONDS)
        if count:
            _log.warning("queued evaluations that a dead process had held", extra={"evaluations": count})

    def close(self) -> None:
        """Queue what is held and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            self._some.set()
            thread.join()

    def _release(self, until: float) -> int:
        total = 0
        while True:
            with self._database.write() as tx:
                taken = self._held.take(tx, until=until, limit=_AT_A_TIME)
                for evaluation in taken:
                    self._enqueue(tx, evaluation)
            now = self._monotonic()
            with self._lock:
                for evaluation in taken:
                    self._note((evaluation.tenant, evaluation.study_uid), now)
            total += len(taken)
            if len(taken) < _AT_A_TIME:
                return total

    def _enqueue(self, tx: Transaction, evaluation: HeldEvaluation) -> None:
        arguments = evaluation.arguments
        signal = (arguments["generation"], arguments["signal"])
        with tracing.continued(evaluation.trace):
            self._queue.enqueue(
                tx,
                workflow=EVALUATE,
                workflow_id=digest(EVALUATE, evaluation.tenant, evaluation.study_uid, *signal),
                queue="control",
                due=evaluation.due,
                arguments=arguments,
            )

    def _note(self, key: tuple[str, str], now: float) -> None:
        """Remember when an evaluation of a study was queued last."""
        if len(self._queued) >= _REMEMBERED:
            self._queued = {known: at for known, at in self._queued.items() if now - at < self._seconds}
        self._queued[key] = now

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="held-evaluations", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._some.wait()
            stopping = self._stopping.wait(self._seconds)
            self._some.clear()
            try:
                self.release()
            except Exception as error:
                _log.warning("held evaluations wait for the database", extra={"error": type(error).__name__})
                self._some.set()
            if stopping:
                return
