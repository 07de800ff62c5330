"""The evaluation of a study: facts and signals in, changed tasks and queued work out, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from wetread.core.completeness import SIGNALS, Evidence, StudyManifest, Timing
from wetread.core.errors import NotFound, Unprocessable
from wetread.core.events import EventType
from wetread.core.facts import StudyFacts
from wetread.core.identifiers import digest
from wetread.core.ports.database import Transaction
from wetread.core.ports.events import Reason
from wetread.core.ports.orchestration import Decision, QuietWatch
from wetread.core.ports.work import Task
from wetread.core.priority import Priority, due_at
from wetread.core.workqueue import EVALUATE, QUIET, asked_for
from wetread.orchestration.announce import Announcer, Stamps
from wetread.orchestration.conclusions import Conclusions
from wetread.orchestration.explain import recorded
from wetread.orchestration.plan import History, StudyPlan, Verdict, plan_study
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.priors import with_priors
from wetread.orchestration.requests import Requests
from wetread.orchestration.runs import Runs, Situation

_OVERTAKEN: Final = frozenset({"commit", "transfer_end"})
"""Signals of one commit group: a later group brings its own."""
_ASKED: Final = ("request:retry", "request:rerun", "request:re-evaluate")
"""Signals of people: their stamps begin at the request."""
_SETTLED: Final = frozenset({"transfer_end", "quiet_series", "quiet_study", "max_wait", "manifest"})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation led to. ``cancel``: runs to cancel now that the transaction is committed."""

    outcome: str
    cancel: tuple[str, ...] = ()


class Evaluator:
    """Evaluates studies by the active rules."""

    def __init__(self, ports: Ports, rules: Rules) -> None:
        self._ports = ports
        self._rules = rules
        self._conclusions = Conclusions(ports, rules)
        self._runs = Runs(ports, rules, self._conclusions)
        self._announce = Announcer(ports.events, ports.clock)
        self._requests = Requests(ports.database, ports.tasks, ports.events, ports.queue, ports.clock)

    def evaluate(
        self,
        tenant: str,
        study_uid: str,
        generation: int,
        signal: str,
        stamps: Stamps,
        manifest: StudyManifest | None = None,
    ) -> Evaluation:
        """Evaluate in a transaction of its own; a *manifest* that came with the signal is kept first."""
        self._ports.runner.prepare()
        with self._ports.database.write() as tx:
            if manifest is not None:
                self._ports.manifests.put(tx, tenant, study_uid, manifest, self._ports.clock.now())
            return self.evaluate_in(tx, tenant, study_uid, generation, signal, stamps)

    def evaluate_in(
        self, tx: Transaction, tenant: str, study_uid: str, generation: int, signal: str, stamps: Stamps
    ) -> Evaluation:
        """Evaluate in the caller's transaction. An evaluation that newer images have overtaken does nothing."""
        try:
            present = self._ports.studies.summary(tx, tenant, study_uid).generation
            kind = signal.split(":", 1)[0]
            if kind in _OVERTAKEN and present > generation:
                return Evaluation("overtaken")
            facts = self._ports.studies.facts(tx, tenant, study_uid)
        except NotFound:
            return Evaluation("no such study")
        return self._evaluate(tx, facts, generation, signal, stamps)

    def _evaluate(self, tx: Transaction, facts: StudyFacts, generation: int, signal: str, stamps: Stamps) -> Evaluation:
        tenant, study_uid, present = facts.tenant, facts.study_instance_uid, facts.generation
        situation = self._situation(tx, facts, generation, signal, stamps)
        plan, now = situation.study, situation.now
        self._note(tx, plan, present, signal, now)
        self._raise_by_rule(tx, plan)
        cancel = self._runs.apply(tx, situation)
        if plan.whole.level == "complete":
            by = {"by": plan.whole.by}
            self._announce.study(tx, EventType.STUDY_STABLE, tenant, study_uid, present, by, situation.stamps)
        self._watch(tx, tenant, study_uid, plan, now)
        return Evaluation(plan.whole.level, tuple(cancel))

    def rerun(self, tx: Transaction, task: Task, *, unless_same: bool = False) -> tuple[str, ...]:
        """Start a finished task again on its study as it is now; returns the ids of runs to cancel.

        A study or an input that today's rules refuse stays as it is; *unless_same*: one that was read already, too.
        """
        try:
            facts = self._ports.studies.facts(tx, task.tenant, task.study_uid)
        except NotFound:
            return ()
        situation = self._situation(tx, facts, facts.generation, "request:rerun", {})
        plan = next((p for p in situation.study.plans if p.detector == task.detector), None)
        if plan is None or plan.verdict is not Verdict.RUN or (unless_same and plan.digest == task.input_digest):
            return ()
        return tuple(self._runs.restart(tx, plan, task, situation))

    def _situation(self, tx: Transaction, facts: StudyFacts, generation: int, signal: str, stamps: Stamps) -> Situation:
        """Return what is known of a study and what should become of it. Nothing is written."""
        tenant, study_uid, present = facts.tenant, facts.study_instance_uid, facts.generation
        kind = signal.split(":", 1)[0]
        now = self._ports.clock.now()
        # What a person asks for begins with the request: the images came long before.
        begun = {"requested": now} if signal.startswith(_ASKED) else {"received": facts.last_received_at}
        stamps = {**begun, **stamps, "evaluated": now}
        signals = self._ports.decisions.signals(tx, tenant, study_uid, present)
        seen = {s.split(":", 1)[0] for s in signals}
        if generation == present or kind not in _OVERTAKEN | {"quiet_series", "quiet_study"}:
            seen.add(kind)
        evidence = Evidence(frozenset(seen & set(SIGNALS)), self._ports.manifests.get(tx, tenant, study_uid))
        tasks = self._ports.tasks.of_study(tx, tenant, study_uid)
        history = History(
            tasks,
            [result for result, _ in self._ports.results.current(tx, tenant, study_uid)],
            asked_for({*signals, signal}),
        )
        plan = plan_study(facts, evidence, self._rules, self._ports.runner, history, now=now)
        plan = with_priors(tx, self._ports, plan, tasks)
        return Situation(
            study=plan,
            tasks={task.detector: task for task in tasks},
            timing=self._rules.completeness.timing(facts.source),
            arriving_since=facts.received_at,
            transfer_open=not seen & _SETTLED,
            stamps=stamps,
            now=now,
        )

    def cancel(self, evaluation: Evaluation) -> None:
        """Cancel the runs that the evaluation superseded; after its commit."""
        if evaluation.cancel:
            self._ports.control.cancel(evaluation.cancel)

    # --- quiet timer -----------------------------------------------------------------------------------------------

    def wake(self, tenant: str, study_uid: str, sequence: int) -> Evaluation:
        """The quiet timer of a study rings: evaluate what silence proves, and set it again while there is more."""
        self._ports.runner.prepare()
        with self._ports.database.write() as tx:
            watch = self._ports.watches.get(tx, tenant, study_uid)
            if watch is None or watch.sequence != sequence:
                return Evaluation("replaced")
            try:
                facts = self._ports.studies.facts(tx, tenant, study_uid)
            except NotFound:
                self._ports.watches.delete(tx, tenant, study_uid)
                return Evaluation("no such study")
            now = self._ports.clock.now()
            timing = self._rules.completeness.timing(facts.source)
            idle = now - facts.last_received_at
            signal = _silence(idle, now - watch.since, timing)
            seen = self._ports.decisions.signals(tx, tenant, study_uid, facts.generation)
            evaluation = Evaluation("not quiet yet")
            if signal is not None and signal not in seen:
                evaluation = self._evaluate(tx, facts, facts.generation, signal, {})
            if evaluation.outcome != "complete":
                self._set(tx, watch, idle, timing, now)
            return evaluation

    def revive(self, tenant: str, study_uid: str, sequence: int) -> bool:
        """Set a quiet timer again whose wake-up was lost; False when another one has replaced it."""
        with self._ports.database.write() as tx:
            watch = self._ports.watches.get(tx, tenant, study_uid)
            if watch is None or watch.sequence != sequence:
                return False
            try:
                facts = self._ports.studies.facts(tx, tenant, study_uid)
            except NotFound:
                self._ports.watches.delete(tx, tenant, study_uid)
                return False
            now = self._ports.clock.now()
            timing = self._rules.completeness.timing(facts.source)
            self._set(tx, watch, now - facts.last_received_at, timing, now)
            return True

    def _watch(self, tx: Transaction, tenant: str, study_uid: str, plan: StudyPlan, now: float) -> None:
        """Keep the quiet timer in flight while the study may still grow, and forget it once it is complete."""
        if plan.whole.level == "complete":
            self._ports.watches.delete(tx, tenant, study_uid)
        elif self._ports.watches.get(tx, tenant, study_uid) is None:
            timing = self._rules.completeness.timing(plan.study.source)
            watch = QuietWatch(tenant, study_uid, 0, now)
            self._set(tx, watch, now - plan.study.last_received_at, timing, now)

    def _set(self, tx: Transaction, watch: QuietWatch, idle: float, timing: Timing, now: float) -> None:
        limits = [limit - idle for limit in (timing.quiet_series, timing.quiet_study) if limit > idle]
        delay = max(0.05, min([*(limits or [timing.quiet_study]), watch.since + timing.max_wait - now]))
        following = QuietWatch(watch.tenant, watch.study_uid, watch.sequence + 1, watch.since)
        self._ports.watches.put(tx, following)
        self._ports.queue.enqueue(
            tx,
            workflow=QUIET,
            workflow_id=digest(QUIET, watch.tenant, watch.study_uid, watch.since, following.sequence),
            queue="control",
            due=due_at(now, Priority.STAT),
            arguments={"tenant": watch.tenant, "study_uid": watch.study_uid, "sequence": following.sequence},
            delay_seconds=delay,
        )

    # --- manifest --------------------------------------------------------------------------------------------------

    def post_manifest(self, tenant: str, study_uid: str, manifest: StudyManifest) -> None:
        """Take the sender's list of a study, which may come before its images, and evaluate.

        Raises Unprocessable (``manifest``) for one that says nothing.
        """
        problem = manifest.problem()
        if problem:
            raise Unprocessable("manifest", problem)
        with self._ports.database.write() as tx:
            now = self._ports.clock.now()
            self._ports.manifests.put(tx, tenant, study_uid, manifest, now)
            try:
                generation = self._ports.studies.summary(tx, tenant, study_uid).generation
            except NotFound:
                return
            signal = f"manifest:{digest(manifest.model_dump(mode='json'))[:16]}"
            self._ports.queue.enqueue(
                tx,
                workflow=EVALUATE,
                workflow_id=digest(EVALUATE, tenant, study_uid, generation, signal),
                queue="control",
                due=due_at(now, Priority.STAT),
                arguments={
                    "tenant": tenant,
                    "study_uid": study_uid,
                    "generation": generation,
                    "signal": signal,
                    "stamps": {},
                },
            )

    # --- parts -----------------------------------------------------------------------------------------------------

    def _note(self, tx: Transaction, plan: StudyPlan, generation: int, signal: str, now: float) -> None:
        study = plan.study
        models = (w.model.model_dump(mode="json", by_alias=True) for w in self._rules.workflows)
        self._ports.rule_sets.put(tx, self._rules.digest, lambda: list(models))
        self._ports.decisions.put(
            tx,
            Decision(
                study.tenant,
                study.study_instance_uid,
                generation,
                signal,
                now,
                self._rules.digest,
                plan.as_json(),
                recorded(plan.names, plan.results) if plan.names is not None else None,
            ),
        )

    def _raise_by_rule(self, tx: Transaction, plan: StudyPlan) -> None:
        """A matched workflow gives the study its class before any image is read."""
        study = plan.study
        for item in plan.plans:
            if item.workflow is None or not item.wanted:
                continue
            before = self._ports.reading.priority(tx, study.tenant, study.study_instance_uid)
            if before is None or before[0].rank <= item.priority.rank:
                continue
            reason = Reason("rule", f"workflow {item.workflow.name}", item.priority, self._ports.clock.now())
            if self._ports.reading.raise_to(tx, study.tenant, study.study_instance_uid, reason):
                self._requests.expedite(tx, study.tenant, study.study_instance_uid)


def _silence(idle: float, waited: float, timing: Timing) -> str | None:
    """Return what *idle* seconds without images, or *waited* seconds in all, prove."""
    if waited >= timing.max_wait:
        return "max_wait"
    if idle >= timing.quiet_study:
        return "quiet_study"
    return "quiet_series" if idle >= timing.quiet_series else None
