"""A small hospital for tests of the worklist: a database, a settable clock, and in memory what others own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import insert
from tests.databases import database_at

from wetread.adapters.index.claims import SqlReadingClaims
from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.deliveries import SqlDeliveries
from wetread.adapters.index.events import SqlEventLog
from wetread.adapters.index.reading_order import SqlReadingOrder
from wetread.adapters.index.subscriptions import SqlSubscriptions
from wetread.adapters.index.tables import decisions, instances, series, studies, tasks
from wetread.adapters.index.worklist import SqlWorklist
from wetread.core.errors import NotFound
from wetread.core.events import Event, EventType
from wetread.core.findings import Code, Finding, KeyImage, Measurement, ResultSet, Run, Score, StoredSeries
from wetread.core.ports import StudySummary, Task, Transaction
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.states import AiState

TENANT = "default"
NOON = 1_772_323_200.0  # 2026-03-01T00:00:00Z


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def now(self) -> float:
        return self.at


@dataclass
class Queued:
    workflow: str
    workflow_id: str
    queue: str
    due: float
    arguments: Mapping[str, Any]
    delay_seconds: float | None


class MemoryQueue:
    """Keeps what was enqueued, once per id, as the durable queue does."""

    def __init__(self) -> None:
        self.entries: list[Queued] = []
        self._lock = threading.Lock()

    def enqueue(self, tx: Transaction, *, delay_seconds: float | None = None, **values: Any) -> None:
        raw = tx.connection.connection.dbapi_connection  # SQLAlchemy does not know of transactions begun by hand
        assert tx.connection.in_transaction() or raw.in_transaction
        with self._lock:
            if all(entry.workflow_id != values["workflow_id"] for entry in self.entries):
                self.entries.append(Queued(delay_seconds=delay_seconds, **values))

    def take(self) -> list[Queued]:
        entries, self.entries = self.entries, []
        return entries


class MemoryTasks:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], Task] = {}

    def get(self, tx: Transaction, tenant: str, study_uid: str, detector: str) -> Task | None:
        return self.rows.get((tenant, study_uid, detector))

    def of_study(self, tx: Transaction, tenant: str, study_uid: str) -> list[Task]:
        return [self.rows[key] for key in sorted(self.rows) if key[:2] == (tenant, study_uid)]

    def put(self, tx: Transaction, task: Task) -> None:
        self.rows[(task.tenant, task.study_uid, task.detector)] = task


class MemoryResults:
    def __init__(self) -> None:
        self.rows: dict[tuple[str, str, str], tuple[ResultSet, tuple[StoredSeries, ...]]] = {}

    def put(self, tx: Transaction, result: ResultSet, stored: Sequence[StoredSeries], *, current: bool = True) -> bool:
        run = result.run
        self.rows[(run.tenant, run.study_uid, run.detector)] = (result, tuple(stored))
        return True

    def get(self, tx: Transaction, tenant: str, result_key: str) -> tuple[ResultSet, tuple[StoredSeries, ...]] | None:
        return next((row for row in self.rows.values() if row[0].run.result_key == result_key), None)

    def current(self, tx: Transaction, tenant: str, study_uid: str) -> list[tuple[ResultSet, tuple[StoredSeries, ...]]]:
        return [self.rows[key] for key in sorted(self.rows) if key[:2] == (tenant, study_uid)]


class TableStudies:
    """The part of ``StudyIndex`` that the worklist reads, on the real tables."""

    def summary(self, tx: Transaction, tenant: str, study_uid: str) -> StudySummary:
        row = tx.connection.execute(
            studies.select().where(studies.c.tenant == tenant, studies.c.study_uid == study_uid)
        ).first()
        if row is None:
            raise NotFound("no such study")
        return StudySummary(
            study_uid=row.study_uid,
            patient_id=row.patient_id,
            patient_name=row.patient_name,
            modalities=tuple(part for part in row.modalities.split("\\") if part),
            description=row.description,
            received_at=row.received_at,
            instances=row.instance_count,
            generation=row.generation,
        )


@dataclass
class World:
    """Everything a test of the worklist touches."""

    database: SqlDatabase
    clock: SetClock = field(default_factory=SetClock)
    work: MemoryQueue = field(default_factory=MemoryQueue)
    tasks: MemoryTasks = field(default_factory=MemoryTasks)
    results: MemoryResults = field(default_factory=MemoryResults)
    studies: TableStudies = field(default_factory=TableStudies)

    def __post_init__(self) -> None:
        self.deliveries = SqlDeliveries(self.work)
        self.events = SqlEventLog(self.deliveries)
        self.order = SqlReadingOrder(self.events)
        self.subscriptions = SqlSubscriptions(self.deliveries)
        self.worklist = SqlWorklist()
        self.claims = SqlReadingClaims()

    @classmethod
    def at(cls, folder: Path) -> World:
        database = database_at(folder / "wetread.db")
        database.create_schema()
        return cls(database)

    def study(
        self,
        uid: str,
        *,
        tenant: str = TENANT,
        minutes_ago: float = 10,
        priority: Priority | None = Priority.ROUTINE,
        source: str = "order",
        name: str = "DOE^JANE",
        patient_id: str = "P-1",
        description: str = "CT HEAD",
        modality: str = "CT",
        slices: int = 3,
        looked_at: bool = True,
    ) -> str:
        """Put a study with one source series in; ``priority`` None leaves it unregistered."""
        arrival = self.clock.now() - minutes_ago * 60
        with self.database.write() as tx:
            tx.connection.execute(
                insert(studies).values(
                    tenant=tenant, study_uid=uid, patient_id=patient_id, patient_name=name,
                    patient_name_folded=name.casefold(), description=description, modalities=f"\\{modality}\\",
                    series_count=1, instance_count=slices, generation=1, received_at=arrival, study_date="20260301",
                    last_received_at=arrival, attributes_json=b"{}",
                )
            )  # fmt: skip
            self._series(tx, tenant, uid, f"{uid}.1", modality, slices, arrival, own_result=False)
            if looked_at:
                tx.connection.execute(
                    insert(decisions).values(
                        tenant=tenant, study_uid=uid, generation=1, signal="transfer_end", at=arrival,
                        rules_digest="", trace_json="{}",
                    )
                )  # fmt: skip
            if priority is not None:
                self.order.register(
                    tx, tenant, uid, arrival=arrival, reason=Reason(source, "ordered", priority, arrival)
                )
        return uid

    def _series(
        self,
        tx: Transaction,
        tenant: str,
        uid: str,
        series_uid: str,
        modality: str,
        slices: int,
        at: float,
        *,
        own_result: bool,
    ) -> None:
        tx.connection.execute(
            insert(series).values(
                tenant=tenant, study_uid=uid, series_uid=series_uid, modality=modality, own_result=own_result,
                instance_count=slices, received_at=at, attributes_json=b"{}",
            )
        )  # fmt: skip
        for number in range(1, slices + 1):
            tx.connection.execute(
                insert(instances).values(
                    tenant=tenant, study_uid=uid, series_uid=series_uid, sop_uid=f"{series_uid}.{number}",
                    sop_class_uid="1.2.840.10008.5.1.4.1.1.2", instance_number=number, transfer_syntax_uid="1.2",
                    content_hash="", locator="", length=0, received_at=at, facts_json="{}", attributes_json=b"{}",
                    metadata_json=b"{}",
                )
            )  # fmt: skip

    def task(
        self,
        uid: str,
        detector: str,
        state: AiState,
        *,
        tenant: str = TENANT,
        reason: str | None = None,
        shadow: bool = False,
        result_key: str | None = None,
        progress: int = 0,
    ) -> None:
        """Write a task row, and the same to the in-memory repository."""
        task = Task(
            tenant=tenant, study_uid=uid, detector=detector, version="1.0.0", state=state, reason=reason, shadow=shadow,
            priority=Priority.ROUTINE, due_at=self.clock.now() + 60, result_key=result_key, progress=progress,
            updated_at=self.clock.now(),
        )  # fmt: skip
        with self.database.write() as tx:
            self.tasks.put(tx, task)
            tx.connection.execute(
                tasks.delete().where(tasks.c.tenant == tenant, tasks.c.study_uid == uid, tasks.c.detector == detector)
            )
            tx.connection.execute(
                insert(tasks).values(
                    tenant=tenant, study_uid=uid, detector=detector, version="1.0.0", state=state, reason=reason,
                    shadow=shadow, priority="routine", due_at=task.due_at, result_key=result_key, progress=progress,
                    updated_at=task.updated_at,
                )
            )  # fmt: skip

    def result(
        self,
        uid: str,
        detector: str,
        state: AiState,
        *,
        reason: str | None = None,
        shadow: bool = False,
        volume_ml: float | None = None,
        score: float | None = None,
        meaning: str = "Intracranial hemorrhage",
        stored: Sequence[StoredSeries] = (),
    ) -> None:
        """Store a result and its task in the same state."""
        key = f"{uid}/{detector}"
        findings: tuple[Finding, ...] = ()
        if volume_ml is not None:
            volume = Measurement(
                code=Code(value="118565006", scheme="SCT", meaning="Volume"), value=volume_ml, unit="mL"
            )
            findings = (
                Finding(
                    finding_id=f"{detector}-1",
                    tracking_uid="2.25.1",
                    code=Code(value="1386000", scheme="SCT", meaning=meaning),
                    state="positive",
                    measurements=(volume,),
                    key_image=KeyImage(sop_instance_uid=f"{uid}.1.2", plane=1),
                ),
            )
        run = Run(
            result_key=key, tenant=TENANT, study_uid=uid, series_uid=f"{uid}.1", detector=detector, version="1.0.0",
            title=detector.upper(), model_digest="ab" * 32, params_digest="", input_digest="", rules_digest="",
            software="wetread 0.1.0", engine="onnxruntime", started_at=self.clock.now(), shadow=shadow,
        )  # fmt: skip
        judged = None if score is None else Score(value=score, threshold=0.61, operating_point="sens90")
        result = ResultSet(run=run, state=state, reason=reason, score=judged, findings=findings)
        with self.database.write() as tx:
            self.results.put(tx, result, stored)
        self.task(uid, detector, state, reason=reason, shadow=shadow, result_key=key)

    def event(self, kind: EventType, uid: str, *, tenant: str = TENANT, id: str = "", **data: Any) -> Event:  # noqa: A002
        """Append an event about a study."""
        event = Event(id=id or f"{kind}/{uid}", type=kind, tenant=tenant, subject=uid, time=self.clock.now(), data=data)
        with self.database.write() as tx:
            self.events.append(tx, event)
        return event


def json_of(response: Any) -> Any:
    return orjson.loads(response.content)
