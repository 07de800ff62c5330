"""A small world for orchestration tests: real SQL task tables, fakes around them, a queue that tests drive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from tests.databases import database_at
from tests.orchestration_detectors import FakeRunner
from tests.orchestration_fakes import (
    STUDY,
    TENANT,
    FakeClock,
    FakeEncoder,
    FakeIngest,
    FakeObjects,
    FakeQueue,
    FakeReading,
    FakeStudies,
    FakeWorkitems,
    Queued,
    TableEvents,
)

from wetread.adapters.index.decisions import SqlDecisions, SqlManifests, SqlQuietWatches, SqlRuleSets, SqlRunInputs
from wetread.adapters.index.executors import SqlExecutors
from wetread.adapters.index.results import SqlResults
from wetread.adapters.index.tasks import SqlTasks
from wetread.core.completeness import CompletenessPolicy
from wetread.core.errors import ComputationFailed
from wetread.core.events import Event
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.findings import ResultSet
from wetread.core.identifiers import digest
from wetread.core.ports.ingest import StudyChange
from wetread.core.workflow import Workflow, WorkflowModel, check_workflow
from wetread.core.workqueue import COMPOSE, EVALUATE, OPERATE, QUIET, RUN
from wetread.orchestration.compose import Composition
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.execute import Execution, failure
from wetread.orchestration.operations import Operations
from wetread.orchestration.outbox import Arrivals, DurableOutbox
from wetread.orchestration.ports import Ports, Rules
from wetread.orchestration.requests import Requests

HEAD_RULE = """
any(s.modality == 'CT' and (like(s.body_part, '*HEAD*') or s.body_part is None) and s.contrast is not True
    for s in series)
"""


def workflow(**changes: Any) -> Workflow:
    content: dict[str, Any] = {
        "workflow": "head-ct",
        "version": 1,
        "on": {"event": "study.changed", "when": HEAD_RULE},
        "priority": {"base": "urgent", "stat_if": "source.ae == 'CT_ER'"},
        "tasks": {"ich": {"uses": "detector/ich@^0", "timeout": "30s"}, "report": {"uses": "evidence/standard"}},
        "triage": [
            {
                "if": "result('ich').state in ('positive', 'preliminary_positive')",
                "then": {"raise_to": "stat", "notify": "stroke-team", "reason": "suspected haemorrhage"},
            }
        ],
    }
    return check_workflow(WorkflowModel.model_validate(content | changes))


class World:
    """Everything wired; ``deliver`` stores images, ``settle`` lets queue and time run."""

    def __init__(
        self,
        folder: Path,
        *,
        rules: Rules | None = None,
        policy: CompletenessPolicy | None = None,
        runner: FakeRunner | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.database = database_at(folder / "world.db")
        self.database.create_schema()
        self.studies = FakeStudies()
        self.runner = runner or FakeRunner(self.clock)
        self.runner._clock = self.clock
        self.queue = FakeQueue(self.clock)
        self.workitems = FakeWorkitems()
        self.reading = FakeReading()
        self.encoder = FakeEncoder()
        self.ingest = FakeIngest(self.studies)
        self.events = TableEvents()
        self.rules = rules or Rules((workflow(),), policy or CompletenessPolicy(), early_settle_seconds=0.0)
        self.ports = Ports(
            database=self.database,
            clock=self.clock,
            studies=self.studies,
            objects=FakeObjects(),  # type: ignore[arg-type]
            artifacts=None,  # type: ignore[arg-type]
            ingest=self.ingest,
            tasks=SqlTasks(),
            results=SqlResults(self.clock),
            decisions=SqlDecisions(),
            rule_sets=SqlRuleSets(),
            inputs=SqlRunInputs(),
            manifests=SqlManifests(),
            watches=SqlQuietWatches(),
            executors=SqlExecutors(),
            workitems=self.workitems,
            events=self.events,  # type: ignore[arg-type]
            reading=self.reading,
            queue=self.queue,
            control=self.queue,
            runner=self.runner,
            encoder=self.encoder,
        )
        self.evaluator = Evaluator(self.ports, self.rules)
        self.execution = Execution(self.ports, self.rules)
        self.composition = Composition(self.ports, self.rules)
        self.operations = Operations(self.ports, self.rules, self.evaluator)
        self.requests = Requests(self.database, self.ports.tasks, self.ports.events, self.queue, self.clock)
        arrivals = Arrivals(self.studies, self.ports.decisions)
        self.outbox = DurableOutbox(self.ports.events, self.reading, self.queue, self.clock, arrivals=arrivals)

    def use(self, runner: Any) -> None:
        """Wire everything anew around another runner."""
        self.ports = replace(self.ports, runner=runner)
        self.evaluator = Evaluator(self.ports, self.rules)
        self.execution = Execution(self.ports, self.rules)
        self.composition = Composition(self.ports, self.rules)
        self.operations = Operations(self.ports, self.rules, self.evaluator)

    def close(self) -> None:
        self.database.close()

    # --- images ----------------------------------------------------------------------------------------------------

    def deliver(
        self,
        numbers: Sequence[int],
        *,
        series: str = "1.2.3.1",
        study: str = STUDY,
        transfer_end: bool = False,
        modality: str = "CT",
        body_part: str = "HEAD",
        contrast: bool | None = False,
        source: Source | None = None,
        content: str = "",
        declared: int | None = None,
    ) -> None:
        """Commit one group of slices."""
        change = self.index(
            numbers,
            series=series,
            study=study,
            modality=modality,
            body_part=body_part,
            contrast=contrast,
            source=source,
            content=content,
            declared=declared,
        )
        with self.database.write() as tx:
            self.outbox.study_changed(tx, replace(change, transfer_end=transfer_end))

    def index(
        self,
        numbers: Sequence[int],
        *,
        series: str = "1.2.3.1",
        study: str = STUDY,
        modality: str = "CT",
        body_part: str = "HEAD",
        contrast: bool | None = False,
        source: Source | None = None,
        content: str = "",
        declared: int | None = None,
    ) -> StudyChange:
        """Put slices into the index without telling anybody."""
        source = source or Source()
        now = self.clock.now()
        key = (TENANT, study)
        first = key not in self.studies.studies
        facts = self.studies.studies.get(key) or StudyFacts(TENANT, study, (), received_at=now, source=source)
        known = {s.series_instance_uid: s for s in facts.series}
        old = known.get(series) or SeriesFacts(series, modality, (), body_part=body_part, contrast=contrast)
        slices = {i.sop_instance_uid: i for i in old.instances}
        before = dict(slices)
        for number in numbers:
            uid = f"{series}.{number}"
            slices[uid] = InstanceFacts(
                uid, CTImageStorage, digest(uid, content), ExplicitVRLittleEndian, instance_number=number
            )
        known[series] = replace(old, instances=tuple(slices.values()), declared_instances=declared)
        new = sum(uid not in before for uid in slices)
        replaced = sum(before.get(uid, i) != i for uid, i in slices.items())
        generation = facts.generation + 1
        changed = replace(facts, series=tuple(known.values()), generation=generation)
        self.studies.studies[key] = replace(changed, last_received_at=now) if new or replaced else changed
        return StudyChange(
            *(TENANT, study, generation, first),
            transfer_end=False,
            new_instances=new,
            source=source,
            received_at=now,
            replaced_instances=replaced,
        )

    # --- time ------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run the next ready item of the queue."""
        for item in self.queue.ready():
            if item.workflow not in {EVALUATE, QUIET, RUN, COMPOSE, OPERATE}:
                continue
            item.done = True
            self.execute(item)
            return True
        return False

    def execute(self, item: Queued) -> None:
        arguments = item.arguments
        if item.workflow == EVALUATE:
            self.evaluator.cancel(self.evaluator.evaluate(**arguments))
        elif item.workflow == QUIET:
            self.evaluator.cancel(self.evaluator.wake(**arguments))
        elif item.workflow == COMPOSE:
            again = arguments.get("again", False)
            try:
                stored = self.composition.store(arguments["tenant"], arguments["result_key"], again=again)
            except ComputationFailed as error:
                self.composition.give_up(arguments["tenant"], arguments["result_key"], str(error))
                return
            self.composition.note(arguments["tenant"], arguments["result_key"], stored, arguments["stamps"])
        elif item.workflow == OPERATE:
            self.operations.finish(self.operations.perform(**arguments))
        else:
            self._run(arguments)

    def _run(self, arguments: dict[str, Any]) -> None:
        for attempt in range(arguments["attempts"]):
            try:
                asyncio.run(
                    self.execution.attempt(
                        arguments["run_id"], arguments["timeout_seconds"], arguments["flags"], arguments["stamps"]
                    )
                )
                return
            except Exception as error:  # noqa: BLE001
                last = attempt == arguments["attempts"] - 1
                if last or not getattr(error, "transient", False):
                    reason, detail, dead = failure(error)
                    self.execution.fail(arguments["run_id"], reason, detail, arguments["stamps"], dead=dead)
                    return

    def drain(self) -> None:
        """Run everything that is ready now; time stands still but for inference."""
        while self.step():
            pass

    def advance(self, seconds: float) -> None:
        """Let time pass, running what becomes ready on the way."""
        until = self.clock.time + seconds
        while True:
            self.drain()
            following = self.queue.next_at()
            if following is None or following > until:
                break
            self.clock.time = max(self.clock.time, following)
        self.clock.time = max(self.clock.time, until)
        self.drain()

    def settle(self) -> None:
        """Let time pass until nothing is queued any more."""
        for _ in range(400):
            self.drain()
            following = self.queue.next_at()
            if following is None:
                return
            self.clock.time = max(self.clock.time, following)
        raise AssertionError("the queue never became empty")

    # --- looking ---------------------------------------------------------------------------------------------------

    @contextmanager
    def reads(self):
        with self.database.read() as tx:
            yield tx

    def task(self, detector: str = "ich", study: str = STUDY):
        with self.reads() as tx:
            return self.ports.tasks.get(tx, TENANT, study, detector)

    def current(self, study: str = STUDY) -> list[ResultSet]:
        with self.reads() as tx:
            return [r for r, _ in self.ports.results.current(tx, TENANT, study)]

    def stored(self, study: str = STUDY):
        with self.reads() as tx:
            return [s for _, s in self.ports.results.current(tx, TENANT, study)]

    def log(self, *kinds: str) -> list[Event]:
        with self.reads() as tx:
            found = self.events.after(tx, TENANT, 0, limit=10_000)
        return [e for e in found if not kinds or str(e.type) in kinds]
