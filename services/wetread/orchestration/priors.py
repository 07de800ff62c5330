"""Earlier results as a part of a run's input: looked up when a run is planned, sealed into its digest (ADR 0304)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wetread.core.facts import StudyFacts
from wetread.core.ports.database import Transaction
from wetread.core.ports.work import Task
from wetread.core.priors import choose_priors
from wetread.orchestration.plan import Plan, StudyPlan, Verdict
from wetread.orchestration.ports import Ports


def with_priors(tx: Transaction, ports: Ports, plan: StudyPlan, tasks: Sequence[Task]) -> StudyPlan:
    """Return the plans with the earlier results that their detectors ask for. Other detectors cost nothing.

    *tasks*: of the study. A run in flight on the same images keeps what it was handed: nobody waits for a prior.
    """
    of = {task.detector: task for task in tasks}
    return replace(plan, plans=tuple(_sealed(tx, ports, plan.study, p, of.get(p.detector)) for p in plan.plans))


def _sealed(tx: Transaction, ports: Ports, study: StudyFacts, plan: Plan, task: Task | None) -> Plan:
    if plan.verdict is not Verdict.RUN or plan.spec is None or plan.spec.external:
        return plan
    info = ports.runner.detectors()[plan.detector]
    needs = info.manifest.input.priors
    if needs is None:
        return plan
    if task is not None and task.run_id is not None and task.input_digest is not None:
        kept = ports.inputs.get(tx, task.tenant, task.input_digest).priors
        if kept.sealed(plan.digest) == task.input_digest:
            return replace(plan, priors=kept, digest=task.input_digest)
    found = ports.results.of_patient(tx, study.tenant, study.study_instance_uid, plan.detector)
    if found is None:
        return plan
    this, candidates = found
    shadow = plan.spec.shadow or info.card.shadow
    priors = choose_priors(this, candidates, version=info.version, shadow=shadow, limit=needs.results)
    return replace(plan, priors=priors, digest=priors.sealed(plan.digest))
