"""What the orchestration needs from outside, in one frozen value that the composition root fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import cached_property

from wetread.core.completeness import CompletenessPolicy
from wetread.core.ports.database import Clock, Database
from wetread.core.ports.events import EventLog, ReadingOrder
from wetread.core.ports.evidence import EvidenceEncoder
from wetread.core.ports.inference import DetectorInfo, DetectorRunner
from wetread.core.ports.ingest import Ingest
from wetread.core.ports.objects import ArtifactStore, ObjectStore
from wetread.core.ports.orchestration import (
    DecisionRepository,
    ExecutorRepository,
    ManifestRepository,
    QuietWatchRepository,
    RuleSetRepository,
    RunControl,
    RunInputRepository,
)
from wetread.core.ports.studies import StudyIndex
from wetread.core.ports.work import ResultRepository, TaskRepository, WorkQueue
from wetread.core.ports.workitems import WorkitemRepository
from wetread.core.workflow import Workflow, rules_digest
from wetread.orchestration.external import external_detectors


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside, by role."""

    database: Database
    clock: Clock
    studies: StudyIndex
    objects: ObjectStore
    artifacts: ArtifactStore
    ingest: Ingest
    tasks: TaskRepository
    results: ResultRepository
    decisions: DecisionRepository
    rule_sets: RuleSetRepository
    inputs: RunInputRepository
    manifests: ManifestRepository
    watches: QuietWatchRepository
    executors: ExecutorRepository
    workitems: WorkitemRepository
    events: EventLog
    reading: ReadingOrder
    queue: WorkQueue
    control: RunControl
    runner: DetectorRunner
    encoder: EvidenceEncoder


@dataclass(frozen=True)
class Rules:
    """The active workflows and policies. ``zone`` is the site's time zone, for ``now.hour`` in conditions."""

    workflows: tuple[Workflow, ...]
    completeness: CompletenessPolicy = field(default_factory=CompletenessPolicy)
    zone: tzinfo = UTC
    early_settle_seconds: float = 1.0
    """An early run waits so long. A sender that cuts a study into several requests and then says that it is complete
    would otherwise have a run started on the first part and killed, which costs more (docs/performance.md)."""

    @cached_property
    def digest(self) -> str:
        """Identity of this rule set; every decision and result carries it."""
        return rules_digest(self.workflows)

    @cached_property
    def need_instances(self) -> bool:
        """Whether any condition looks at single instances: their values are many, and rarely asked for."""
        return any(e.names_instances for workflow in self.workflows for e in workflow.expressions)

    @cached_property
    def external(self) -> Mapping[str, DetectorInfo]:
        """Detectors that only external performers run, by name."""
        return external_detectors(self.workflows)

    @cached_property
    def detectors(self) -> tuple[str, ...]:
        """Every detector that some workflow uses, sorted."""
        return tuple(sorted({name for workflow in self.workflows for name in workflow.detectors}))

    def workflow(self, label: str) -> Workflow | None:
        """Return the active workflow that a task row names (``name@version``), or None when it is gone."""
        name = label.split("@", 1)[0]
        return next((w for w in self.workflows if w.name == name), None)
