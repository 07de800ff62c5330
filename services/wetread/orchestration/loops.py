"""The loops beside the queues: they must run when the queues do not.

``outcomes`` turns durable workflows that ended without our code into typed states; ``heartbeat`` and ``take_over``
hand the work of dead executors on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from wetread.core.errors import NotFound
from wetread.core.ports.database import Transaction
from wetread.core.ports.orchestration import DeadWork
from wetread.core.ports.work import Task
from wetread.core.states import AiState
from wetread.core.workqueue import COMPOSE, EVALUATE, QUIET
from wetread.orchestration.compose import Composition
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.execute import Execution
from wetread.orchestration.ports import Ports, Rules

_log = logging.getLogger(__name__)

HEARTBEAT_SECONDS: Final = 5.0
LEASE_SECONDS: Final = 30.0
OUTCOMES_SECONDS: Final = 2.0
_LOOK_BACK_SECONDS: Final = 24 * 3600.0
_SETTLE_SECONDS: Final = 10.0
"""How long an ended workflow may lead the row that it wrote: reads of both are not one snapshot."""

_REASONS: Final = {
    "CANCELLED": ("timeout", "the run was cancelled by its time limit"),
    "ERROR": ("crashed", "the run ended with an error"),
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": ("dead_letter", "the run ended its process again and again"),
    "SUCCESS": ("crashed", "the run ended without an outcome"),
}


class Periodic:
    """A thread that calls a function again and again; an error is logged and the next round tries again."""

    def __init__(self, name: str, function: Callable[[], None], seconds: float) -> None:
        self._name = name
        self._function = function
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start; the first call comes at once."""
        self._thread = threading.Thread(target=self._loop, name=f"loop-{self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the call in progress."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._function()
            except Exception as error:
                _log.warning("loop failed", extra={"loop": self._name, "error": type(error).__name__})
            self._stop.wait(self._seconds)


class Outcomes:
    """Maps workflows that ended without running our code (killed too often, cancelled, broken) to typed states."""

    def __init__(
        self, ports: Ports, rules: Rules, evaluator: Evaluator, execution: Execution, composition: Composition
    ) -> None:
        self._ports = ports
        self._rules = rules
        self._evaluator = evaluator
        self._execution = execution
        self._composition = composition
        self._conclusions = Conclusions(ports, rules)
        self._since: float | None = None

    def check(self) -> None:
        """Look once."""
        now = self._ports.clock.now()
        self._runs(now)
        since = self._since if self._since is not None else now - _LOOK_BACK_SECONDS
        for work in self._ports.control.dead((EVALUATE, QUIET, COMPOSE), since=since - _SETTLE_SECONDS):
            self._bury(work)
        self._since = now

    def _runs(self, now: float) -> None:
        with self._ports.database.read() as tx:
            waiting = {t.run_id: t for t in self._ports.tasks.in_flight(tx) if t.run_id}
        for run_id, state in self._ports.control.end_states(list(waiting)).items():
            if state == "SUCCESS" and now - waiting[run_id].updated_at < _SETTLE_SECONDS:
                continue
            reason, detail = _REASONS[state]
            self._execution.fail(run_id, reason, detail, {}, dead=reason == "dead_letter")

    def _bury(self, work: DeadWork) -> None:
        arguments = work.arguments
        if work.name == COMPOSE:
            self._composition.give_up(arguments["tenant"], arguments["result_key"], _REASONS[work.state][1])
        elif work.name == QUIET:
            self._evaluator.revive(arguments["tenant"], arguments["study_uid"], int(arguments["sequence"]))
        else:
            self._fail_evaluation(arguments, work.state)

    def _fail_evaluation(self, arguments: Mapping[str, Any], state: str) -> None:
        tenant, study_uid, generation = arguments["tenant"], arguments["study_uid"], int(arguments["generation"])
        reason, detail = _REASONS[state]
        with self._ports.database.write() as tx:
            try:
                present = self._ports.studies.summary(tx, tenant, study_uid).generation
            except NotFound:
                return
            if present != generation or self._ports.decisions.signals(tx, tenant, study_uid, generation):
                return  # another evaluation has decided, or will
            for detector in self._rules.detectors:
                self._fail_waiting(tx, tenant, study_uid, detector, reason, detail)

    def _fail_waiting(
        self, tx: Transaction, tenant: str, study_uid: str, detector: str, reason: str, detail: str
    ) -> None:
        task = self._ports.tasks.get(tx, tenant, study_uid, detector)
        if task is None:
            info = self._ports.runner.detectors()[detector]
            task = Task(tenant, study_uid, detector, info.version, AiState.AWAITING_IMAGES)
            self._ports.tasks.put(tx, replace(task, updated_at=self._ports.clock.now()))
        if task.state is AiState.AWAITING_IMAGES:
            self._conclusions.fail(tx, task, reason, f"evaluation: {detail}", {}, dead=reason == "dead_letter")


class Leases:
    """The lease of one executor, and the take-over of those whose lease ran out."""

    def __init__(self, ports: Ports, executor_id: str, take_over: Callable[[list[str]], int]) -> None:
        self._ports = ports
        self._executor_id = executor_id
        self._take_over = take_over

    def beat(self) -> None:
        """Renew the lease."""
        with self._ports.database.write() as tx:
            now = self._ports.clock.now()
            self._ports.executors.beat(tx, self._executor_id, "orchestration", now=now, lease_seconds=LEASE_SECONDS)

    def take_over_expired(self) -> None:
        """As the leader: hand the work of expired executors back to its queues, then forget them."""
        now = self._ports.clock.now()
        with self._ports.database.write() as tx:
            if not self._ports.executors.lead(tx, self._executor_id, now=now, lease_seconds=LEASE_SECONDS):
                return
            expired = [e for e in self._ports.executors.expired(tx, now=now) if e != self._executor_id]
        if not expired:
            return
        count = self._take_over(expired)
        _log.warning("took over work of dead executors", extra={"executors": len(expired), "workflows": count})
        with self._ports.database.write() as tx:
            for executor in expired:
                self._ports.executors.remove(tx, executor)
