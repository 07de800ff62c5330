"""The DBOS application of a worker process: registers the durable workflows, launches, drains.

Rules (docs/adr/0301): portable JSON, one application version for all builds, every workflow on a named queue, no
child workflows, small steps that return references.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer
from dbos._context import get_local_dbos_context
from dbos._core import StepOptions

from wetread.core import tracing
from wetread.core.completeness import StudyManifest
from wetread.core.errors import ConfigurationError, WetreadError
from wetread.core.workqueue import (
    APPLICATION,
    APPLICATION_VERSION,
    COMPOSE,
    EVALUATE,
    LONG_LANES,
    MAX_RECOVERY_ATTEMPTS,
    OPERATE,
    QUEUES,
    QUIET,
    RUN,
    SHORT_LANES,
)
from wetread.orchestration.compose import Composition
from wetread.orchestration.evaluate import Evaluation, Evaluator
from wetread.orchestration.execute import Execution, failure
from wetread.orchestration.lanes import Lanes, Signals, listen_to_none, running_lanes, unfinished
from wetread.orchestration.operations import Afterwards, Operations

_log = logging.getLogger(__name__)

Durable = Callable[..., Any]
_TIMEOUT_GRACE_SECONDS: Final = 10.0
"""The runner ends a run itself; the step's own limit is the net below it."""
_DRAIN_LOOK_SECONDS: Final = 0.05


def queued_trace() -> str | None:
    """Return the traceparent that the running workflow was queued with; also after a crash: it is in its row.

    DBOS shows it to its own tracer alone, which wants a global provider; so this reads its context
    (``tests/contracts`` runs it on both databases).
    """
    context = get_local_dbos_context()
    carrier = context.start_options.otel_carrier if context is not None else None
    return tracing.parse(str(carrier.get("traceparent", ""))) if isinstance(carrier, dict) else None


def _in_trace(name: str, function: Durable) -> Durable:
    """Return the workflow function with a span around it that goes on in the trace of whoever queued it."""
    if not tracing.enabled():
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(**arguments: Any) -> Any:
            with tracing.span(name, kind="consumer", parent=queued_trace()):
                return await function(**arguments)

        return awaited

    @functools.wraps(function)
    def called(**arguments: Any) -> Any:
        with tracing.span(name, kind="consumer", parent=queued_trace()):
            return function(**arguments)

    return called


def _step(options: StepOptions, function: Durable, *arguments: Any, **keywords: Any) -> Any:
    """Run a checkpointed step; its span is there once per attempt, and not when a replay passes over it."""
    return DBOS.run_step(options, tracing.traced(options["name"] or "step", function), *arguments, **keywords)


def _transient(error: BaseException) -> bool:
    return isinstance(error, WetreadError) and error.transient


def _retried(name: str, attempts: int = 4, interval: float = 0.5) -> StepOptions:
    """Return step options: transient errors are tried again, permanent ones never."""
    return {
        "name": name,
        "retries_allowed": attempts > 1,
        "max_attempts": max(1, attempts),
        "interval_seconds": interval,
        "backoff_rate": 3.0,
        "should_retry": _transient,
    }


class DurableApplication:
    """One per process (DBOS is a process-wide singleton). ``register`` before ``launch``."""

    def __init__(
        self,
        url: str,
        *,
        executor_id: str,
        queues: Sequence[str] = tuple(QUEUES),
        max_recovery_attempts: int = MAX_RECOVERY_ATTEMPTS,
        signals: Signals | None = None,
    ) -> None:
        self._url = url
        self._executor_id = executor_id
        self._long = tuple(name for name in LONG_LANES if name in queues)
        self._short = tuple(name for name in SHORT_LANES if name in queues)
        self._lanes = Lanes(queues, signals)
        self._max_recovery_attempts = max_recovery_attempts
        self._workflows: dict[str, Durable] = {}
        self._launched = False

    def register_step(self, name: str, function: Durable) -> None:
        """Make *function* the one step of the durable workflow *name*: transient errors are tried again.

        Which trace it belongs to, it knows better than the row: a delivery is queued by the delivery before it.
        """

        def workflow(**arguments: Any) -> Any:
            return DBOS.run_step(_retried(name), function, **arguments)

        self._add(name, workflow)

    def register(self, name: str, function: Durable) -> None:
        """Make *function* the durable workflow *name*. It is called with the enqueued arguments by keyword.

        Raises ConfigurationError for a second function of the same name.
        """
        self._add(name, _in_trace(name, function))

    def _add(self, name: str, function: Durable) -> None:
        if name in self._workflows:
            msg = f"durable workflow {name} is registered twice"
            raise ConfigurationError(msg)
        self._workflows[name] = function

    def launch(self) -> None:
        """Start taking work. Work that this executor id left behind is taken up again at once."""
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self._url,
            "application_version": APPLICATION_VERSION,
            "executor_id": self._executor_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            "run_migrations": False,
        }
        library = logging.getLogger("dbos")
        if not library.handlers:  # it would write lines of its own beside our log
            library.addHandler(logging.NullHandler())
        DBOS(config=config)
        for name, function in self._workflows.items():
            DBOS.workflow(name=name, max_recovery_attempts=self._max_recovery_attempts)(function)
        listen_to_none()
        DBOS.launch()
        self._launched = True
        self._lanes.start()

    def destroy(self, *, drain_seconds: int = 0) -> None:
        """Stop in two steps of together *drain_seconds*, close. What is left stays recoverable.

        First no new inference, but what follows from running one (its report, its notification) is still taken; once
        those lanes are empty too, none.
        """
        if not self._launched:
            return
        self._launched = False
        deadline = time.monotonic() + drain_seconds
        self._lanes.stop(self._long)
        while time.monotonic() < deadline and (running_lanes(self._long) or unfinished(self._short)):
            time.sleep(_DRAIN_LOOK_SECONDS)
        self._lanes.stop()
        DBOS.destroy(destroy_registry=True)

    def take_over(self, executor_ids: Sequence[str]) -> int:
        """Hand the unfinished work of dead executors back to its queues; returns how much there was.

        The only caller of DBOS's private recovery: unlike ``resume_workflow`` it keeps the attempt count, so a
        poison task dies in the end.
        """
        return len(DBOS._recover_pending_workflows(list(executor_ids)))  # noqa: SLF001 - see the docstring


def register_orchestration(
    application: DurableApplication,
    evaluator: Evaluator,
    execution: Execution,
    composition: Composition,
    operations: Operations,
) -> None:
    """Register the durable workflows of the orchestration."""
    _register_control(application, evaluator)
    application.register(RUN, _run_task(execution))
    application.register(COMPOSE, _compose_results(composition))
    application.register(OPERATE, _operate_task(operations))


def _register_control(application: DurableApplication, evaluator: Evaluator) -> None:
    def finished(evaluation: Evaluation) -> dict[str, Any]:
        return {"outcome": evaluation.outcome, "cancel": list(evaluation.cancel)}

    def clean_up(done: Mapping[str, Any]) -> str:
        if done["cancel"]:
            superseded = Evaluation(done["outcome"], tuple(done["cancel"]))
            _step(_retried("cancel"), lambda: evaluator.cancel(superseded))
        return str(done["outcome"])

    def evaluate_study(
        tenant: str,
        study_uid: str,
        generation: int,
        signal: str,
        stamps: dict[str, float] | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> str:
        def decide() -> dict[str, Any]:
            listed = StudyManifest.model_validate(manifest) if manifest is not None else None
            return finished(evaluator.evaluate(tenant, study_uid, generation, signal, stamps or {}, listed))

        return clean_up(_step(_retried("decide"), decide))

    def study_quiet(tenant: str, study_uid: str, sequence: int) -> str:
        def wake() -> dict[str, Any]:
            return finished(evaluator.wake(tenant, study_uid, sequence))

        return clean_up(_step(_retried("wake"), wake))

    application.register(EVALUATE, evaluate_study)
    application.register(QUIET, study_quiet)


def _run_task(execution: Execution) -> Durable:
    async def run_task(
        run_id: str,
        timeout_seconds: float,
        attempts: int,
        backoff_seconds: float,
        flags: list[str],
        stamps: dict[str, float],
    ) -> str:
        options = _retried("infer", attempts, backoff_seconds)
        options["preemptible"] = True
        options["timeout_seconds"] = timeout_seconds + _TIMEOUT_GRACE_SECONDS
        try:
            attempt = tracing.traced("infer", execution.attempt)
            return await DBOS.run_step_async(options, attempt, run_id, timeout_seconds, flags, stamps)
        except Exception as error:
            reason, detail, dead = failure(error)
            _log.warning("run failed", extra={"run": run_id[:12], "reason": reason, "error": type(error).__name__})

        async def fail() -> str:
            return await asyncio.to_thread(execution.fail, run_id, reason, detail, stamps, dead=dead)

        return await DBOS.run_step_async(_retried("fail"), tracing.traced("fail", fail))

    return run_task


def _operate_task(operations: Operations) -> Durable:
    def operate_task(tenant: str, study_uid: str, detector: str, verb: str, text: str, reason: str) -> str:
        def perform() -> dict[str, Any]:
            return asdict(operations.perform(tenant, study_uid, detector, verb, text, reason))

        done = _step(_retried("perform"), perform)
        afterwards = Afterwards(done["outcome"], tuple(done["cancel"]), tuple(done["expedite"]))
        _step(_retried("finish"), lambda: operations.finish(afterwards))
        return afterwards.outcome

    return operate_task


def _compose_results(composition: Composition) -> Durable:
    def compose_results(tenant: str, result_key: str, stamps: dict[str, float], again: bool = False) -> str:
        try:
            stored = _step(_retried("store"), composition.store, tenant, result_key, again=again)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}" if isinstance(error, WetreadError) else type(error).__name__
            _log.warning("report failed", extra={"result": result_key[:12], "error": type(error).__name__})
            _step(_retried("give up"), composition.give_up, tenant, result_key, detail)
            return "no report"
        _step(_retried("note"), composition.note, tenant, result_key, stored, stamps)
        return "stored"

    return compose_results
