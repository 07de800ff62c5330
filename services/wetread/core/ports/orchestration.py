"""What the orchestration remembers beside tasks and results: decisions, inputs, manifests, quiet timers, executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wetread.core.completeness import StudyManifest
from wetread.core.ports.database import Transaction
from wetread.core.priors import NO_PRIORS, Priors


@dataclass(frozen=True, slots=True)
class Decision:
    """One evaluation of the rules on a study: the trace says why each detector runs, waits or does not apply."""

    tenant: str
    study_uid: str
    generation: int
    signal: str
    at: float
    rules_digest: str
    trace: Mapping[str, Any]
    kept_facts: Mapping[str, Any] | None = None
    """The name space that the conditions saw (``orchestration.explain``); given when it is put, not when it is read."""


class DecisionRepository(Protocol):
    """Decision traces by (study, generation, signal)."""

    def put(self, tx: Transaction, decision: Decision) -> None:
        """Insert or replace (the same signal may be evaluated twice)."""

    def signals(self, tx: Transaction, tenant: str, study_uid: str, generation: int) -> frozenset[str]:
        """Return the signals that were evaluated for a generation of a study."""

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> list[Decision]:
        """Return all decisions of a study, oldest first."""

    def facts(self, tx: Transaction, decision: Decision) -> Mapping[str, Any] | None:
        """Return the facts that a decision was made on; None when they were not kept."""


class RuleSetRepository(Protocol):
    """Every set of workflows that ever decided, by digest: a decision can be replayed after the rules have changed."""

    def put(self, tx: Transaction, digest: str, workflows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """Keep a set; *workflows* is asked only when the digest is new."""

    def get(self, tx: Transaction, digest: str) -> Sequence[Mapping[str, Any]] | None:
        """Return the workflow models of a set, or None."""


@dataclass(frozen=True, slots=True)
class RunInput:
    """The exact input of a run, by its digest: messages carry the digest, never thousands of UIDs."""

    tenant: str
    digest: str
    study_uid: str
    series_uid: str
    sop_instance_uids: tuple[str, ...]
    priors: Priors = NO_PRIORS
    """Earlier results that the run is handed; the digest covers them."""


class RunInputRepository(Protocol):
    """Inputs by digest; kept with the results so that a run can be repeated and a dead letter examined."""

    def put(self, tx: Transaction, run_input: RunInput) -> None:
        """Store; the same digest again is ignored."""

    def get(self, tx: Transaction, tenant: str, digest: str) -> RunInput:
        """Return an input. Raises NotFound."""


class ManifestRepository(Protocol):
    """What senders say their studies hold."""

    def put(self, tx: Transaction, tenant: str, study_uid: str, manifest: StudyManifest, at: float) -> None:
        """Insert or replace."""

    def get(self, tx: Transaction, tenant: str, study_uid: str) -> StudyManifest | None:
        """Return the latest manifest, or None."""


@dataclass(frozen=True, slots=True)
class QuietWatch:
    """A quiet timer in flight for a study. ``sequence`` counts its wake-ups: it is part of the next one's id."""

    tenant: str
    study_uid: str
    sequence: int
    since: float
    """When this burst of images began: the longest wait counts from here."""


class QuietWatchRepository(Protocol):
    """At most one timer per study; its row and its queued wake-up change in one transaction."""

    def get(self, tx: Transaction, tenant: str, study_uid: str) -> QuietWatch | None:
        """Return the timer in flight, or None."""

    def put(self, tx: Transaction, watch: QuietWatch) -> None:
        """Insert or replace."""

    def delete(self, tx: Transaction, tenant: str, study_uid: str) -> None:
        """Forget the timer: the study is quiet."""


@dataclass(frozen=True, slots=True)
class HeldEvaluation:
    """An evaluation that is not in the queue yet. ``due``: its place there. ``arguments``: what it is called with.

    ``trace``: the traceparent that it goes on with.
    """

    tenant: str
    study_uid: str
    due: float
    arguments: Mapping[str, Any]
    trace: str | None = None


class HeldEvaluationRepository(Protocol):
    """At most one held evaluation per study: the newest."""

    def put(self, tx: Transaction, held: HeldEvaluation, now: float) -> None:
        """Insert, or take the place of the one that is there, which keeps the time since when it is held."""

    def take(self, tx: Transaction, *, until: float, limit: int) -> Sequence[HeldEvaluation]:
        """Remove and return those held since *until* or before, oldest first."""


class ExecutorRepository(Protocol):
    """Which worker processes are alive: leases that they renew, and one leader that takes over from the dead."""

    def beat(self, tx: Transaction, executor: str, service: str, *, now: float, lease_seconds: float) -> None:
        """Renew an executor's lease."""

    def lead(self, tx: Transaction, executor: str, *, now: float, lease_seconds: float) -> bool:
        """Take or keep the leadership; False while another living executor has it."""

    def expired(self, tx: Transaction, *, now: float) -> list[str]:
        """Return the executors whose lease has run out."""

    def remove(self, tx: Transaction, executor: str) -> None:
        """Forget an executor (its work was handed on, or it ended in order)."""


@dataclass(frozen=True, slots=True)
class DeadWork:
    """A durable workflow that ended without success: ERROR, CANCELLED or MAX_RECOVERY_ATTEMPTS_EXCEEDED."""

    workflow_id: str
    name: str
    state: str
    arguments: Mapping[str, Any]


class RunControl(Protocol):
    """What people, supersession and the outcomes loop may do to durable work. Never inside a transaction of ours."""

    def cancel(self, workflow_ids: Sequence[str]) -> None:
        """Cancel; finished and unknown ids are ignored."""

    def move(self, workflow_ids: Sequence[str], queue: str) -> None:
        """Move those that still wait to another queue; running, finished and unknown ids are ignored."""

    def end_states(self, workflow_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the end states of those that have ended, SUCCESS included."""

    def dead(self, names: Sequence[str], *, since: float) -> Sequence[DeadWork]:
        """Return workflows of these names that ended without success since a Unix time."""
