"""A small world for orchestration tests: real SQL task tables, fakes around them, a clock that jumps, a queue we drive."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import insert, select

from wetread.adapters.index.database import SqlDatabase, connection_of
from wetread.adapters.index.decisions import SqlDecisions, SqlManifests, SqlQuietWatches, SqlRunInputs
from wetread.adapters.index.executors import SqlExecutors
from wetread.adapters.index.results import SqlResults
from wetread.adapters.index.tables import events as events_table
from wetread.adapters.index.tasks import SqlTasks
from wetread.core.completeness import CompletenessPolicy
from wetread.core.detector import Applicability, InputSet
from wetread.core.errors import ComputationFailed, NotFound, WorkitemStateError
from wetread.core.events import Event, EventType
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.findings import Code, Finding, Measurement, ResultSet, Run, Score
from wetread.core.identifiers import derived_uid, digest
from wetread.core.manifest import Card, Manifest
from wetread.core.ports.events import Reason
from wetread.core.ports.evidence import EncodedObject, EvidenceInput
from wetread.core.ports.inference import DetectorInfo, RunOutcome, RunRequest
from wetread.core.ports.ingest import IngestReport, InstanceOutcome, StudyChange
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StoredInstance, StudySummary
from wetread.core.ports.workitems import Workitem
from wetread.core.priority import Priority, due_at
from wetread.core.states import AiState
from wetread.core.workflow import Workflow, WorkflowModel, check_workflow
from wetread.core.workqueue import COMPOSE, EVALUATE, QUIET, RUN
from wetread.orchestration.compose import Composition
from wetread.orchestration.evaluate import Evaluator
from wetread.orchestration.execute import Execution, failure
from wetread.orchestration.outbox import DurableOutbox
from wetread.orchestration.ports import Ports, Rules

TENANT = "default"
STUDY = "1.2.3"
T0 = 1_790_000_000.0


class FakeClock:
    def __init__(self, now: float = T0) -> None:
        self.time = now

    def now(self) -> float:
        return self.time


class FakeStudies:
    """StudyIndex in memory: facts by study; results of our own as marked series."""

    def __init__(self) -> None:
        self.studies: dict[tuple[str, str], StudyFacts] = {}

    def facts(self, tx: Any, tenant: str, study_uid: str) -> StudyFacts:
        try:
            return self.studies[tenant, study_uid]
        except KeyError:
            raise NotFound("no such study") from None

    def summary(self, tx: Any, tenant: str, study_uid: str) -> StudySummary:
        facts = self.facts(tx, tenant, study_uid)
        count = sum(len(s.instances) for s in facts.series)
        modalities = tuple(sorted({s.modality for s in facts.series}))
        return StudySummary(
            study_uid, "P1", "Doe^Jane", modalities, facts.description, facts.received_at, count, facts.generation
        )

    def locate(
        self, tx: Any, tenant: str, study_uid: str, sop_instance_uids: Sequence[str] | None = None
    ) -> list[StoredInstance]:
        facts = self.facts(tx, tenant, study_uid)
        found = {
            i.sop_instance_uid: StoredInstance(
                i.sop_instance_uid,
                s.series_instance_uid,
                ObjectRef(f"{study_uid}/{s.series_instance_uid}/{i.sop_instance_uid}", 1000),
                i.content_hash,
                i.transfer_syntax_uid,
            )
            for s in facts.series
            for i in s.instances
        }
        return [found[uid] for uid in (sop_instance_uids if sop_instance_uids is not None else found)]


class FakeObjects:
    """ObjectStore that makes a small CT instance for any address."""

    def read(self, ref: ObjectRef, start: int = 0, length: int | None = None) -> bytes:
        study, series, sop = ref.locator.split("/")
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = sop
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, sop
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = study, series, "CT"
        dataset.Rows = dataset.Columns = 2
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = 15, 1, 0
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.RescaleIntercept, dataset.RescaleSlope = -1000, 2
        dataset.PixelData = bytes([1, 0, 2, 0, 3, 0, 4, 0])
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        data = buffer.getvalue()
        return data[start : None if length is None else start + length]


class FakeIngest:
    """Notes stored reports and adds them to the study as series of our own."""

    def __init__(self, studies: FakeStudies) -> None:
        self.stored: list[str] = []
        self.writes = 0
        self.failure: int | None = None
        self._studies = studies

    def store(
        self, tenant: str, parts: Any, *, source: Source, study_uid: str | None = None, own_result: bool = False
    ) -> IngestReport:
        assert own_result
        assert study_uid is not None
        outcomes = []
        for part in parts:
            item = json.loads(bytes(part))
            uid = item["sop"]
            if self.failure is not None:
                outcomes.append(InstanceOutcome("1.2", uid, study_uid, failure_reason=self.failure))
                continue
            self.writes += 1
            duplicate = uid in self.stored
            if not duplicate:
                self.stored.append(uid)
                facts = self._studies.studies[tenant, study_uid]
                instance = InstanceFacts(uid, "1.2.840.10008.5.1.4.1.1.88.34", digest(uid), "1.2.840.10008.1.2.1")
                own = SeriesFacts(item["series"], item["modality"], (instance,), detector_result=True)
                self._studies.studies[tenant, study_uid] = replace(facts, series=(*facts.series, own))
            outcomes.append(InstanceOutcome("1.2", uid, study_uid, duplicate=duplicate))
        return IngestReport(tuple(outcomes))


class FakeEncoder:
    version = "1"

    def __init__(self) -> None:
        self.seen: list[EvidenceInput] = []

    def encode(self, evidence: EvidenceInput) -> list[EncodedObject]:
        self.seen.append(evidence)
        result = evidence.result
        roles = [("sr", "SR")] + ([("seg", "SEG"), ("sc", "OT")] if result.state is AiState.POSITIVE else [])
        out = []
        for role, modality in roles:
            sop = derived_uid(result.run.result_key, role, 0)
            series = derived_uid(result.run.result_key, role)
            body = {
                "sop": sop,
                "series": series,
                "modality": modality,
                "state": str(result.state),
                "started": result.run.started_at,
                "preliminary": result.preliminary,
            }
            out.append(EncodedObject(role, modality, "1.2", sop, series, json.dumps(body).encode()))
        return out


class FakeWorkitems:
    """The UPS state machine of our own performer, with the rules of the standard that matter here."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[str]] = {}

    def _move(self, uid: str, state: str) -> None:
        self.items[uid]["state"] = state
        self.history[uid].append(state)

    def schedule(self, tx: Any, tenant: str, uid: str, dataset: Mapping[str, Any]) -> bool:
        for tag in ("00741200", "00741204", "00404005", "00404041"):
            assert dataset[tag]["Value"], tag
        if uid in self.items:
            return False
        self.items[uid] = {"dataset": dict(dataset)}
        self.history[uid] = []
        self._move(uid, "SCHEDULED")
        return True

    def start(self, tx: Any, tenant: str, uid: str) -> None:
        state = self.items[uid]["state"]
        if state in {"COMPLETED", "CANCELED"}:
            raise WorkitemStateError("ended", dicom_status=0xC300, http_status=409)
        if state == "SCHEDULED":
            self._move(uid, "IN PROGRESS")

    def update(self, tx: Any, tenant: str, uid: str, attributes: Mapping[str, Any]) -> None:
        if self.items[uid]["state"] in {"COMPLETED", "CANCELED"}:
            raise WorkitemStateError("ended", dicom_status=0xC300, http_status=409)
        self.items[uid]["dataset"].update(attributes)

    def finish(self, tx: Any, tenant: str, uid: str, *, completed: bool, attributes: Mapping[str, Any]) -> None:
        if self.items[uid]["state"] in {"COMPLETED", "CANCELED"}:
            return
        if self.items[uid]["state"] == "SCHEDULED":
            self._move(uid, "IN PROGRESS")
        if completed:
            assert attributes["00741216"]["Value"][0]["00404033"]["Value"], "outputs"
        else:
            assert attributes["00741002"]["Value"][0]["0074100E"]["Value"], "reason"
        self.items[uid]["dataset"].update(attributes)
        self._move(uid, "COMPLETED" if completed else "CANCELED")

    def get(self, tx: Any, tenant: str, uid: str) -> Workitem:
        item = self.items[uid]
        return Workitem(tenant, uid, item["state"], item["dataset"], 0.0)


class TableEvents:
    """EventLog on the real events table, so that roll-backs are real."""

    def append(self, tx: Any, event: Event) -> bool:
        connection = connection_of(tx)
        known = select(events_table.c.id).where(events_table.c.tenant == event.tenant, events_table.c.id == event.id)
        if connection.execute(known).first():
            return False
        connection.execute(
            insert(events_table).values(
                tenant=event.tenant,
                id=event.id,
                type=str(event.type),
                subject=event.subject,
                time=event.time,
                data_json=json.dumps(event.data),
                stamps_json=json.dumps(dict(event.stamps)),
            )
        )
        return True

    def after(self, tx: Any, tenant: str, cursor: int, *, limit: int = 100, types: Any = None) -> list[Event]:
        rows = connection_of(tx).execute(
            select(events_table).where(events_table.c.tenant == tenant, events_table.c.cursor > cursor).limit(limit)
        )
        return [
            Event(
                r.id,
                EventType(r.type),
                r.tenant,
                r.subject,
                r.time,
                json.loads(r.data_json),
                json.loads(r.stamps_json),
                r.cursor,
            )
            for r in rows
        ]


@dataclass
class FakeReading:
    classes: dict[str, tuple[Priority, float]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)

    def register(self, tx: Any, tenant: str, study_uid: str, *, arrival: float, reason: Reason) -> None:
        self.classes.setdefault(study_uid, (reason.priority, due_at(arrival, reason.priority)))
        self.reasons.append(reason)

    def raise_to(self, tx: Any, tenant: str, study_uid: str, reason: Reason) -> bool:
        self.reasons.append(reason)
        now = self.classes.setdefault(study_uid, (Priority.ROUTINE, T0))[0]
        if reason.priority.rank >= now.rank:
            return False
        self.classes[study_uid] = (reason.priority, due_at(T0, reason.priority))
        return True

    def priority(self, tx: Any, tenant: str, study_uid: str) -> tuple[Priority, float] | None:
        return self.classes.get(study_uid)


@dataclass
class Queued:
    workflow: str
    id: str
    queue: str
    due: float
    arguments: dict[str, Any]
    at: float
    done: bool = False


class FakeQueue:
    """WorkQueue and RunControl in memory: one run per id, earliest due first, no time passes by itself."""

    def __init__(self, clock: FakeClock) -> None:
        self.items: dict[str, Queued] = {}
        self.cancelled: set[str] = set()
        self._clock = clock

    def enqueue(
        self,
        tx: Any,
        *,
        workflow: str,
        workflow_id: str,
        queue: str,
        due: float,
        arguments: Mapping[str, Any],
        delay_seconds: float | None = None,
    ) -> None:
        assert tx is not None
        arguments = json.loads(json.dumps(arguments))
        at = self._clock.now() + (delay_seconds or 0.0)
        self.items.setdefault(workflow_id, Queued(workflow, workflow_id, queue, due, arguments, at))

    def cancel(self, workflow_ids: Sequence[str]) -> None:
        self.cancelled.update(workflow_ids)

    def end_states(self, workflow_ids: Sequence[str]) -> Mapping[str, str]:
        return {i: "SUCCESS" for i in workflow_ids if i in self.items and self.items[i].done}

    def dead(self, names: Sequence[str], *, since: float) -> Sequence[Any]:
        return []

    def ready(self) -> list[Queued]:
        now = self._clock.now()
        open_items = [
            q for q in self.items.values() if not q.done and q.id not in self.cancelled and q.at <= now + 1e-6
        ]
        return sorted(open_items, key=lambda q: (q.due, q.at))

    def next_at(self) -> float | None:
        times = [q.at for q in self.items.values() if not q.done and q.id not in self.cancelled]
        return min(times) if times else None


MANIFEST: dict[str, Any] = {
    "schema": "wetread.detector/1",
    "name": "ich",
    "version": "0.1.0",
    "title": "Suspected intracranial haemorrhage",
    "intended_use": "Worklist order only.",
    "not_for": ["diagnosis"],
    "input": {"modality": ["CT"], "select": "thinnest_soft"},
    "findings": [{"code": ["SCT", "1386000"]}],
    "resources": {"memory_mb": 100, "timeout_s": 30},
    "licence": {"code": "Apache-2.0", "weights": "Apache-2.0", "training_data": "phantoms"},
    "parameters": {"threshold": "card"},
}


def detector_info(name: str = "ich", version: str = "0.1.0", *, shadow: bool = False) -> DetectorInfo:
    manifest = Manifest.model_validate(MANIFEST | {"name": name, "version": version})
    return DetectorInfo(name, version, manifest, Card(name=name, version=version, shadow=shadow), "m" * 64)


Answer = Callable[[RunRequest], ResultSet]


class FakeRunner:
    """Scripted detectors. ``enough_from``: slices without a hole that make an input enough."""

    def __init__(self, clock: FakeClock, *names: str, shadow: bool = False) -> None:
        self._clock = clock
        self._infos = {name: detector_info(name, shadow=shadow) for name in names or ("ich",)}
        self.positive_from = 1
        self.enough_from = 4
        self.runs: list[RunRequest] = []
        self.errors: list[Exception] = []
        self.answer: Answer | None = None
        self.body_part: str | None = "HEAD"
        self.select_error: Exception | None = None

    def detectors(self) -> Mapping[str, DetectorInfo]:
        return self._infos

    def names(self) -> Sequence[str]:
        return tuple(self._infos)

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        if any(s.modality == "CT" for s in study.series):
            wrong = [s for s in study.series if s.body_part and s.body_part != self.body_part]
            if len(wrong) == len(study.series):
                return Applicability(applicable=False, reason="body_part", detail="not a head")
            return Applicability(applicable=True)
        return Applicability(applicable=False, reason="modality", detail="no CT")

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        if self.select_error:
            raise self.select_error
        heads = [s for s in study.series if s.modality == "CT"]
        series = max(heads, key=lambda s: (len(s.instances), s.series_instance_uid))
        numbers = sorted(i.instance_number or 0 for i in series.instances)
        closed = numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) >= self.enough_from
        uids = tuple(i.sop_instance_uid for i in series.instances)
        lacking = "" if len(numbers) >= 3 else "missing_slices"
        return InputSet(series.series_instance_uid, uids, "enough" if closed else "incomplete", "most slices", lacking)

    def result_key(self, request: RunRequest) -> str:
        return digest(request.tenant, request.study_uid, request.detector, request.version, request.input_digest)

    async def run(self, request: RunRequest, *, timeout_seconds: float | None = None) -> RunOutcome:
        self.runs.append(request)
        if self.errors:
            raise self.errors.pop(0)
        assert len(request.instances) > 0
        self._clock.time += 2.5
        if self.answer is not None:
            return RunOutcome(self.answer(request))
        positive = len(request.instances) >= self.positive_from
        return RunOutcome(result_of(request, AiState.POSITIVE if positive else AiState.NEGATIVE))


def result_of(request: RunRequest, state: AiState, reason: str | None = None, volume_ml: float = 12.0) -> ResultSet:
    run = Run(
        result_key=request.result_key,
        tenant=request.tenant,
        study_uid=request.study_uid,
        series_uid=request.series_uid,
        detector=request.detector,
        version=request.version,
        model_digest="m" * 64,
        params_digest="p" * 64,
        input_digest=request.input_digest,
        rules_digest=request.rules_digest,
        software="test",
        engine="fake",
        started_at=request.started_at,
        shadow=request.shadow,
    )
    score = Score(value=0.9 if state is AiState.POSITIVE else 0.1, threshold=0.5, operating_point="sens90")
    findings = ()
    if state is AiState.POSITIVE:
        findings = (
            Finding(
                finding_id=digest(request.result_key, "finding")[:16],
                tracking_uid=derived_uid(request.result_key, "tracking"),
                code=Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage"),
                state="positive",
                score=score,
                measurements=(
                    Measurement(
                        code=Code(value="118565006", scheme="SCT", meaning="Volume"), value=volume_ml, unit="mL"
                    ),
                ),
            ),
        )
    return ResultSet(
        run=run,
        state=state,
        reason=reason,
        score=score,
        findings=findings,
        sop_instance_uids=tuple(i.sop_instance_uid for i in request.instances),
    )


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
        self.database = SqlDatabase(folder / "world.db", full_sync=False)
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
        self.rules = rules or Rules((workflow(),), policy or CompletenessPolicy())
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
        self.outbox = DurableOutbox(self.ports.events, self.reading, self.queue, self.clock)

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
        new = sum(before.get(uid) != i for uid, i in slices.items())
        generation = facts.generation + 1
        changed = replace(facts, series=tuple(known.values()), generation=generation)
        self.studies.studies[key] = replace(changed, last_received_at=now) if new else changed
        return StudyChange(
            TENANT, study, generation, first, transfer_end=False, new_instances=new, source=source, received_at=now
        )

    # --- time ------------------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Run the next ready item of the queue."""
        for item in self.queue.ready():
            if item.workflow not in {EVALUATE, QUIET, RUN, COMPOSE}:
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
            try:
                stored = self.composition.store(arguments["tenant"], arguments["result_key"])
            except ComputationFailed as error:
                self.composition.give_up(arguments["tenant"], arguments["result_key"], str(error))
                return
            self.composition.note(arguments["tenant"], arguments["result_key"], stored, arguments["stamps"])
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
            except Exception as error:
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
