"""The orchestration service: durable workflows, quiet timers, outcomes and take-over in one worker process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from wetread.core.service import Service
from wetread.core.workqueue import MAX_RECOVERY_ATTEMPTS, QUEUES
from wetread.orchestration.app import DurableApplication, register_orchestration
from wetread.orchestration.compose import Composition
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.execute import Execution
from wetread.orchestration.external import ExternalRunner
from wetread.orchestration.held import ABANDONED_SECONDS, HeldEvaluations
from wetread.orchestration.lanes import Signals
from wetread.orchestration.loops import (
    HEARTBEAT_SECONDS,
    OUTCOMES_SECONDS,
    Leases,
    Outcomes,
    Periodic,
)
from wetread.orchestration.operations import Operations
from wetread.orchestration.ports import Ports, Rules

EVALUATES: Final = "control"
"""The queue whose takers also look after runs that ended without their code."""
_UPKEEP_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Orchestration:
    """What ``build`` needs. The DBOS tables must exist (``adapters.workqueue.dbos.create_queue_schema``)."""

    ports: Ports
    rules: Rules
    queue_url: str
    """SQLAlchemy URL of the database, the same one as the index: the outbox depends on it."""
    executor_id: str = "worker"
    queues: tuple[str, ...] = tuple(QUEUES)
    """What this process takes work from; others take the rest."""
    workflows: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """One-step durable workflows of other services that run in this process, such as the webhook ``deliver``."""
    drain_seconds: int = 0
    max_recovery_attempts: int = MAX_RECOVERY_ATTEMPTS
    held: HeldEvaluations | None = None
    """Looked through for what a dead process has left."""
    upkeep: Callable[[], None] | None = None
    """Called every hour by the processes that evaluate: what the deployment as a whole has to look after."""
    signals: Signals | None = None
    """Opens the change signal that wakes the lanes; None: each looks by itself at its polling interval."""


def build(orchestration: Orchestration) -> Service:
    """Return the service; nothing is opened before its lifespan begins."""
    rules = orchestration.rules
    ports = replace(orchestration.ports, runner=ExternalRunner(orchestration.ports.runner, rules.external))

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        evaluator, execution, composition = Evaluator(ports, rules), Execution(ports, rules), Composition(ports, rules)
        application = DurableApplication(
            orchestration.queue_url,
            executor_id=orchestration.executor_id,
            queues=orchestration.queues,
            max_recovery_attempts=orchestration.max_recovery_attempts,
            signals=orchestration.signals,
        )
        operations = Operations(ports, rules, evaluator)
        register_orchestration(application, evaluator, execution, composition, operations)
        for name, function in orchestration.workflows.items():
            application.register_step(name, function)
        leases = Leases(ports, orchestration.executor_id, application.take_over)
        loops = [
            Periodic("heartbeat", leases.beat, HEARTBEAT_SECONDS),
            Periodic("take-over", leases.take_over_expired, HEARTBEAT_SECONDS),
        ]
        if EVALUATES in orchestration.queues:
            outcomes = Outcomes(ports, rules, evaluator, execution, composition)
            loops.append(Periodic("outcomes", outcomes.check, OUTCOMES_SECONDS))
            if orchestration.upkeep is not None:
                loops.append(Periodic("upkeep", orchestration.upkeep, _UPKEEP_SECONDS))
            if orchestration.held is not None:
                loops.append(Periodic("held-evaluations", orchestration.held.release_abandoned, ABANDONED_SECONDS))
        await asyncio.to_thread(application.launch)
        for loop in loops:
            loop.start()
        try:
            yield
        finally:
            for loop in loops:
                await asyncio.to_thread(loop.stop)
            await asyncio.to_thread(application.destroy, drain_seconds=orchestration.drain_seconds)

    return Service(name="orchestration", queues=orchestration.queues, lifespan=lifespan)
