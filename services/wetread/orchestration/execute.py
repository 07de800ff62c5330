"""One run of a detector: claim the workitem, run, conclude. The row decides whether the run still counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from wetread.core import tracing
from wetread.core.errors import ComputationFailed, NotApplicable, NotProcessable, WetreadError, WorkitemStateError
from wetread.core.events import EventType
from wetread.core.findings import ResultSet
from wetread.core.identifiers import log_ref
from wetread.core.ports.database import Transaction
from wetread.core.ports.inference import RunRequest
from wetread.core.ports.work import Task
from wetread.core.states import AiState
from wetread.orchestration import workitems
from wetread.orchestration.announce import Announcer
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.runs import IN_FLIGHT, Runs

STALE = "stale"
"""Outcome of a run that was superseded or cancelled before it could count."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A claimed run: what to ask the runner, or the result that is known already."""

    request: RunRequest
    known: ResultSet | None
    started: float


class Execution:
    """Executes runs by id. Every method may be repeated after a crash."""

    def __init__(self, ports: Ports, rules: Rules) -> None:
        self._ports = ports
        self._conclusions = Conclusions(ports, rules)
        self._runs = Runs(ports, rules, self._conclusions)
        self._announce = Announcer(ports.events, ports.clock)

    async def attempt(
        self, run_id: str, timeout_seconds: float, flags: Sequence[str], stamps: Mapping[str, float]
    ) -> str:
        """Run once and conclude; returns the state reached, or ``stale``.

        Raises Unavailable (try again) and ComputationFailed (typed failure).
        """
        begun = await asyncio.to_thread(self._begin, run_id, stamps)
        if begun is None:
            return STALE
        result = begun.known
        if result is None:
            request = begun.request
            attributes: dict[str, tracing.Value] = {
                "wetread.detector": request.detector,
                "wetread.detector.version": request.version,
                "wetread.instances": len(request.instances),
                "wetread.study": log_ref(request.tenant, request.study_uid),
            }
            with tracing.span("detect", attributes=attributes) as span:
                outcome = await self._ports.runner.run(
                    request, timeout_seconds=timeout_seconds, report=partial(self.advance, run_id)
                )
                result = outcome.result
                span.set("wetread.state", str(result.state))
        stamps = {**stamps, "started": begun.started, "inferred": self._ports.clock.now()}
        return await asyncio.to_thread(self._conclude, run_id, result, flags, stamps)

    def advance(self, run_id: str, percent: int) -> None:
        """Write down how far a run is, in its task and its workitem; one that no longer counts changes nothing."""
        with self._ports.database.write() as tx:
            task = self._ports.tasks.by_run(tx, run_id)
            if task is None or task.state is not AiState.RUNNING or percent <= task.progress:
                return
            changed = replace(task, progress=min(percent, 99), updated_at=self._ports.clock.now())
            self._ports.tasks.put(tx, changed)
            if changed.workitem_uid is not None:
                self._conclusions.update_workitem(tx, changed, workitems.progress(changed.progress))

    def fail(self, run_id: str, reason: str, detail: str, stamps: Mapping[str, float], *, dead: bool = False) -> str:
        """End a run without a result: ``failed(reason)``."""
        with self._ports.database.write() as tx:
            task = self._ports.tasks.by_run(tx, run_id)
            if task is None:
                return STALE
            self._conclusions.fail(tx, task, reason, detail, stamps, dead=dead)
            return str(AiState.FAILED)

    def _begin(self, run_id: str, stamps: Mapping[str, float]) -> Begun | None:
        with self._ports.database.write() as tx:
            task = self._ports.tasks.by_run(tx, run_id)
            if task is None or task.state not in IN_FLIGHT or task.input_digest is None:
                return None
            now = self._ports.clock.now()
            if task.workitem_uid is not None:
                try:
                    self._ports.workitems.start(tx, task.tenant, task.workitem_uid)
                except WorkitemStateError:
                    self._conclusions.cancel(tx, task, "ups_request", "called off on the worklist", stamps)
                    return None
            running = replace(
                task, state=AiState.RUNNING, reason=None, detail="", attempt=task.attempt + 1, updated_at=now
            )
            self._ports.tasks.put(tx, running)
            cause = f"attempt {running.attempt}"
            self._announce.task(tx, EventType.TASK_STARTED, running, {**stamps, "started": now}, cause=cause)
            known = self._ports.results.get(tx, task.tenant, task.result_key) if task.result_key else None
            return Begun(self._request(tx, running, now), known[0] if known else None, now)

    def _request(self, tx: Transaction, task: Task, now: float) -> RunRequest:
        assert task.input_digest is not None
        chosen = self._ports.inputs.get(tx, task.tenant, task.input_digest)
        info = self._ports.runner.detectors()[task.detector]
        request = self._runs.request(task, info, chosen.series_uid, task.input_digest, now)
        located = self._ports.studies.locate(tx, task.tenant, task.study_uid, chosen.sop_instance_uids)
        return replace(
            request,
            instances=tuple(located),
            result_key=task.result_key or "",
            preliminary=task.early,
            priors=chosen.priors if info.manifest.input.priors is not None else None,
        )

    def _conclude(self, run_id: str, result: ResultSet, flags: Sequence[str], stamps: Mapping[str, float]) -> str:
        with self._ports.database.write() as tx:
            task = self._ports.tasks.by_run(tx, run_id)
            if task is None or task.state not in IN_FLIGHT:
                return STALE
            return str(self._conclusions.conclude(tx, task, result, stamps, flags=flags).state)


def failure(error: BaseException) -> tuple[str, str, bool]:
    """Return (reason, detail, dead) for what ended a run: every exception has a typed reason."""
    if isinstance(error, ComputationFailed):
        return error.reason, error.detail, False
    if isinstance(error, NotApplicable | NotProcessable):  # the runner should have made a result of it
        return "crashed", f"untyped refusal {error.reason}", False
    if isinstance(error, MemoryError):
        return "out_of_memory", "", False
    if isinstance(error, WetreadError) and not error.transient:
        return "crashed", error.detail, False
    name = type(error).__name__
    if name == "DBOSStepTimeoutError":
        return "timeout", "the run did not end in time", False
    exhausted = name == "DBOSMaxStepRetriesExceeded" or isinstance(error, WetreadError)
    return ("dead_letter", "every attempt failed", True) if exhausted else ("crashed", name, False)
