"""Fakes of the ports around the orchestration: in memory, with the rules that matter; the clock jumps."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import func, insert, select

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.tables import events as events_table
from wetread.core.errors import NotFound, WorkitemStateError
from wetread.core.events import Event, EventType
from wetread.core.facts import InstanceFacts, SeriesFacts, Source, StudyFacts
from wetread.core.identifiers import derived_uid, digest
from wetread.core.ports.events import Reason
from wetread.core.ports.evidence import EncodedObject, EvidenceInput
from wetread.core.ports.ingest import IngestReport, InstanceOutcome
from wetread.core.ports.objects import ObjectRef
from wetread.core.ports.studies import StoredInstance, StudySummary
from wetread.core.ports.workitems import Workitem
from wetread.core.priority import Priority, due_at
from wetread.core.states import AiState

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
        if not set(sop_instance_uids or ()) <= set(found):
            raise NotFound("not in this study")
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

    def append_all(self, tx: Any, tenant: str, several: Sequence[Event]) -> None:
        for event in several:
            assert event.tenant == tenant
            self.append(tx, event)

    def latest(self, tx: Any) -> int:
        return connection_of(tx).execute(select(func.max(events_table.c.cursor))).scalar() or 0

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

    def raise_to(self, tx: Any, tenant: str, study_uid: str, reason: Reason, stamps: Any = None) -> bool:
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

    def move(self, workflow_ids: Sequence[str], queue: str) -> None:
        for workflow_id in workflow_ids:
            if not self.items[workflow_id].done:
                self.items[workflow_id].queue = queue

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
