"""Earlier results as a part of a run's input: looked up when a run is planned, sealed into its digest (ADR 0304)."""

from __future__ import annotations

from dataclasses import replace

from wetread.core.ports.database import Transaction
from wetread.core.priors import choose_priors
from wetread.orchestration.plan import Plan, StudyPlan, Verdict
from wetread.orchestration.ports import Ports


def with_priors(tx: Transaction, ports: Ports, plan: StudyPlan) -> StudyPlan:
    """Return the plans with the earlier results that their detectors ask for. Other detectors cost nothing."""
    study = plan.study
    plans = tuple(_sealed(tx, ports, study.tenant, study.study_instance_uid, item) for item in plan.plans)
    return replace(plan, plans=plans)


def _sealed(tx: Transaction, ports: Ports, tenant: str, study_uid: str, plan: Plan) -> Plan:
    if plan.verdict is not Verdict.RUN or plan.spec is None or plan.spec.external:
        return plan
    info = ports.runner.detectors()[plan.detector]
    needs = info.manifest.input.priors
    if needs is None:
        return plan
    found = ports.results.of_patient(tx, tenant, study_uid, plan.detector)
    if found is None:
        return plan
    this, candidates = found
    shadow = plan.spec.shadow or info.card.shadow
    priors = choose_priors(this, candidates, version=info.version, shadow=shadow, limit=needs.results)
    return replace(plan, priors=priors, digest=priors.sealed(plan.digest))
