"""The page of one study: what each detector says, where its DICOM objects are, and what happened when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wetread.core.events import Event, EventType
from wetread.core.findings import DOCUMENT_MODALITIES, StoredSeries
from wetread.core.instants import iso_utc
from wetread.core.ports import ImageReference, Transaction, WorklistItem
from wetread.core.states import AiState
from wetread.core.workflow import base_detector
from wetread.worklist.ports import WorklistPorts
from wetread.worklist.standing import standings
from wetread.worklist.views import RANK, STATE_WORDS, TONES, Row, finding_notes, row, task_note

EVENT_WORDS = {
    EventType.STUDY_RECEIVED: "Study received",
    EventType.STUDY_CHANGED: "More images received",
    EventType.STUDY_STABLE: "Study complete",
    EventType.TASK_QUEUED: "AI task queued",
    EventType.TASK_STARTED: "AI task started",
    EventType.TASK_FINISHED: "AI task finished",
    EventType.TASK_FAILED: "AI task failed",
    EventType.TASK_DEAD: "AI task given up",
    EventType.TASK_RETRIED: "AI task retried by hand",
    EventType.TASK_STALLED: "External performer silent",
    EventType.TASK_DISCARDED: "AI task taken off the dead letters",
    EventType.RESULT_READY: "Result stored",
    EventType.RESULT_SUPERSEDED: "Result superseded",
    EventType.FINDING_POSITIVE: "Positive finding",
    EventType.FINDING_RETRACTED: "Finding retracted",
    EventType.FINDING_ACKNOWLEDGED: "Finding acknowledged",
    EventType.FINDING_ESCALATED: "Nobody acknowledged: escalated",
    EventType.FINDING_ACCEPTED: "Finding accepted",
    EventType.FINDING_REJECTED: "Finding rejected",
    EventType.FINDING_EDITED: "Finding edited",
    EventType.STUDY_ASSIGNED: "Taken to be read",
    EventType.STUDY_RELEASED: "Put back on the list",
    EventType.STUDY_READ: "Read",
    EventType.BREAKER_OPENED: "Flags of the detector no longer move studies",
    EventType.BREAKER_CLOSED: "Flags of the detector move studies again",
    EventType.PRIORITY_CHANGED: "Priority raised",
    EventType.DELIVERY_DEAD: "Notification could not be delivered",
}


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A series of result objects: where to get it, and its picture if it is one."""

    name: str
    dicom: str
    metadata: str
    rendered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Card:
    """One detector on the study's page."""

    title: str
    version: str
    word: str
    tone: str
    note: str
    detail: str
    entry: dict[str, Any]
    objects: tuple[StoredObject, ...]
    plain: tuple[str, ...]
    """The findings' key images as the sender made them, to look at without the overlay."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. ``offset_s``: seconds since the first images came."""

    word: str
    note: str
    at: str
    offset_s: float


@dataclass(frozen=True, slots=True)
class StudyView:
    item: WorklistItem
    row: Row
    cards: tuple[Card, ...]
    timeline: tuple[Moment, ...]
    source: str | None
    """A picture of the study itself."""
    viewer: str
    """The study in the viewer, opened on what the first positive detector outlined."""


def study_view(ports: WorklistPorts, tx: Transaction, tenant: str, study_uid: str) -> StudyView:
    """Return the page of a study. Shadow results are left out: they are hidden from readers. Raises NotFound."""
    item = ports.worklist.item(tx, tenant, study_uid, now=ports.clock.now())
    entries = [entry for entry in standings(ports, tx, tenant, study_uid) if not entry["shadow"]]
    current = ports.results.current(tx, tenant, study_uid)
    stored = {result.run.detector: series for result, series in current}
    source_series = {result.run.detector: result.run.series_uid for result, _ in current}
    titles = {name: info.manifest.title for name, info in ports.detectors().items()}
    cards = tuple(
        Card(
            title=titles.get(base_detector(entry["detector"]), entry["detector"]),
            version=entry["version"],
            word=STATE_WORDS[AiState(entry["state"])],
            tone=TONES[AiState(entry["state"])],
            note=task_note(AiState(entry["state"]), entry["reason"], entry["progress"]),
            detail=entry["detail"],
            entry=entry,
            objects=tuple(_object(study_uid, series) for series in stored.get(entry["detector"], ())),
            plain=_plain(study_uid, source_series.get(entry["detector"]), entry["findings"]),
        )
        for entry in sorted(entries, key=lambda entry: (RANK[AiState(entry["state"])], entry["detector"]))
    )
    image = ports.worklist.source_image(tx, tenant, study_uid)
    return StudyView(
        item=item,
        row=row(item, titles, finding_notes(entries)),
        cards=cards,
        timeline=tuple(
            _moment(event, item.received_at, titles)
            for event in ports.events.of_study(tx, tenant, study_uid)
            if not event.data.get("shadow")
        ),
        source=None if image is None else rendered(study_uid, image),
        viewer=_viewer(study_uid, entries, stored),
    )


def _plain(study_uid: str, series_uid: str | None, findings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    if series_uid is None:
        return ()
    images = [finding["key_image"]["sop_instance_uid"] for finding in findings if finding["key_image"]]
    return tuple(rendered(study_uid, ImageReference(series_uid, uid)) for uid in dict.fromkeys(images))


def _viewer(study_uid: str, entries: Sequence[dict[str, Any]], stored: Mapping[str, Sequence[StoredSeries]]) -> str:
    """Return the viewer's address (OHIF opens the given report on its outline and key image)."""
    address = f"/viewer/viewer?StudyInstanceUIDs={study_uid}"
    for entry in entries:
        if AiState(entry["state"]) in {AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE}:
            for series in stored.get(entry["detector"], ()):
                if series.modality == "SR":
                    return f"{address}&initialSeriesInstanceUID={series.series_uid}"
    return address


def thumbnail(ports: WorklistPorts, tx: Transaction, tenant: str, study_uid: str) -> str | None:
    """Return the URL of the picture that stands for a study: an overlay when there is one. Raises NotFound."""
    source = ports.worklist.source_image(tx, tenant, study_uid)
    for result, stored in ports.results.current(tx, tenant, study_uid):
        for series in stored:
            if not result.run.shadow and series.sop_instance_uids and series.modality not in DOCUMENT_MODALITIES:
                return rendered(study_uid, ImageReference(series.series_uid, series.sop_instance_uids[0]))
    return None if source is None else rendered(study_uid, source)


def rendered(study_uid: str, image: ImageReference) -> str:
    """Return the DICOMweb URL of an instance as a picture (PS3.18 10.4.1.1.3)."""
    series = f"/dicom-web/studies/{study_uid}/series/{image.series_uid}"
    return f"{series}/instances/{image.sop_instance_uid}/rendered"


def _object(study_uid: str, series: StoredSeries) -> StoredObject:
    base = f"/dicom-web/studies/{study_uid}/series/{series.series_uid}"
    is_picture = series.modality not in DOCUMENT_MODALITIES
    return StoredObject(
        name="Overlay image" if is_picture else series.modality,
        dicom=base,
        metadata=f"{base}/metadata",
        rendered=tuple(
            rendered(study_uid, ImageReference(series.series_uid, sop_uid))
            for sop_uid in (series.sop_instance_uids if is_picture else ())
        ),
    )


def _moment(event: Event, received_at: float, titles: dict[str, str]) -> Moment:
    data = event.data
    detector = str(data.get("detector") or "")
    parts = [
        titles.get(base_detector(detector), detector),
        _state_word(data.get("state")),
        str(data.get("reason") or "").replace("_", " "),
        str(data.get("text") or ""),
        f"by {data['actor']}" if data.get("actor") else "",
        f"to {data['priority']}" if event.type is EventType.PRIORITY_CHANGED and "priority" in data else "",
    ]
    return Moment(
        word=EVENT_WORDS[event.type],
        note=" · ".join(part for part in parts if part),
        at=iso_utc(event.time),
        offset_s=event.time - received_at,
    )


def _state_word(state: object) -> str:
    return STATE_WORDS[AiState(state)] if isinstance(state, str) and state in set(AiState) else ""
