"""What the pages show, as values: the exact words for every state, and nothing that a template has to decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wetread.core.identifiers import digest
from wetread.core.instants import iso_utc
from wetread.core.ports import WorklistItem
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.reading_order import Band
from wetread.core.states import AiState, StudyAiState
from wetread.core.workflow import base_detector

STATE_WORDS: Final[dict[AiState, str]] = {
    AiState.AWAITING_IMAGES: "AI pending",
    AiState.QUEUED: "AI pending",
    AiState.RUNNING: "AI pending",
    AiState.PRELIMINARY_POSITIVE: "Positive (early)",
    AiState.POSITIVE: "Positive",
    AiState.NEGATIVE: "Negative",
    AiState.INDETERMINATE: "Indeterminate",
    AiState.MEASURED: "Measured",
    AiState.NOT_APPLICABLE: "Not applicable",
    AiState.NOT_PROCESSABLE: "AI failed (data)",
    AiState.FAILED: "AI failed (system)",
    AiState.CANCELLED: "Cancelled",
    AiState.SUPERSEDED: "Superseded",
}
"""The words of the state table. Nothing else may stand for a state, least of all another state's word."""

TONES: Final[dict[AiState, str]] = {
    **dict.fromkeys((AiState.AWAITING_IMAGES, AiState.QUEUED, AiState.RUNNING), "pending"),
    **dict.fromkeys((AiState.PRELIMINARY_POSITIVE, AiState.POSITIVE), "positive"),
    **dict.fromkeys((AiState.NOT_PROCESSABLE, AiState.FAILED, AiState.CANCELLED), "failed"),
    AiState.NEGATIVE: "negative",
    AiState.INDETERMINATE: "indeterminate",
    AiState.MEASURED: "measured",
    AiState.NOT_APPLICABLE: "none",
    AiState.SUPERSEDED: "none",
}
"""Colour class of each state."""

SUMMARY_WORDS: Final[dict[StudyAiState, str]] = {
    StudyAiState.POSITIVE: "Positive",
    StudyAiState.FAILED: "AI failed",
    StudyAiState.PENDING: "AI pending",
    StudyAiState.INDETERMINATE: "Indeterminate",
    StudyAiState.NEGATIVE: "Negative",
    StudyAiState.MEASURED: "Measured",
    StudyAiState.NOT_APPLICABLE: "Not applicable",
}

RANK: Final = {state: rank for rank, state in enumerate((
    AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE, AiState.FAILED, AiState.NOT_PROCESSABLE, AiState.CANCELLED,
    AiState.RUNNING, AiState.QUEUED, AiState.AWAITING_IMAGES, AiState.INDETERMINATE, AiState.MEASURED,
    AiState.NEGATIVE, AiState.NOT_APPLICABLE, AiState.SUPERSEDED,
))}  # fmt: skip
"""Order of the detectors of a study: what needs a look first."""

SOURCE_WORDS: Final = {"ai": "AI", "manual": "by hand"}
"""Sources of a reason whose name is not its word."""

_QUIET: Final = frozenset({AiState.NOT_APPLICABLE, AiState.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class Mark:
    """One detector's state on a study, in words."""

    word: str
    tone: str
    detector: str
    note: str
    """Typed reason, progress or finding."""


@dataclass(frozen=True, slots=True)
class Row:
    """One study of the list. Times are Unix seconds; the page turns them into ages."""

    study_uid: str
    name: str
    patient_id: str
    modality: str
    description: str
    date: str
    instances: int
    priority: str
    band: Band
    due_at: float
    received_at: float
    received_iso: str
    marks: tuple[Mark, ...]
    quiet: int
    """Detectors that do not apply."""
    reason: str
    reader: str
    """Who reads it, empty while it waits."""
    version: str
    """Changes when anything but the age of the row changes."""


def row(item: WorklistItem, titles: Mapping[str, str], findings: Mapping[str, str]) -> Row:
    """Return the row of a study. *findings*: what the detectors found, by detector name."""
    visible = [task for task in item.tasks if not task.shadow]
    marks = tuple(
        Mark(
            word=STATE_WORDS[task.state],
            tone=TONES[task.state],
            detector=titles.get(base_detector(task.detector), task.detector),
            note=findings.get(task.detector) or task_note(task.state, task.reason, task.progress),
        )
        for task in sorted(visible, key=lambda task: (RANK[task.state], task.detector))
        if task.state not in _QUIET
    )
    quiet = sum(task.state in _QUIET for task in visible)
    if not marks:
        word = SUMMARY_WORDS[item.ai_state]
        tone = "pending" if item.ai_state is StudyAiState.PENDING else "none"
        marks = (Mark(word=word, tone=tone, detector="", note="not evaluated yet" if tone == "pending" else ""),)
        quiet = 0
    name, reason = person_name(item.patient_name), why(item.reasons)
    updated = [task.updated_at for task in visible]
    reader = item.reading.reader if item.reading is not None else ""
    return Row(
        study_uid=item.study_uid,
        name=name or "No name",
        patient_id=item.patient_id,
        modality=item.modality or "–",
        description=item.description or "No description",
        date=study_date(item.study_date),
        instances=item.instances,
        priority=str(item.priority),
        band=item.band,
        due_at=item.due_at,
        received_at=item.received_at,
        received_iso=iso_utc(item.received_at),
        marks=marks,
        quiet=quiet,
        reason=reason,
        reader=reader,
        version=digest(
            name, item.description, item.instances, item.priority, item.band, item.due_at, reason, updated,
            [[mark.word, mark.note] for mark in marks], quiet, reader,
        )[:16],
    )  # fmt: skip


def task_note(state: AiState, reason: str | None, progress: int) -> str:
    """Return what to say beside a state that has no finding: its typed reason or how far it is."""
    if reason:
        return reason.replace("_", " ")
    if state is AiState.AWAITING_IMAGES:
        return "waiting for images"
    if state is AiState.QUEUED:
        return "queued"
    if state is AiState.RUNNING:
        return f"running, {progress} %" if progress else "running"
    return ""


def why(reasons: tuple[Reason, ...]) -> str:
    """Return the reason that put the study where it stands: the most urgent, the first of these.

    An order of an everyday class is no news.
    """
    first = min(reasons, key=lambda reason: (reason.priority.rank, reason.at), default=None)
    if first is None or (first.source == "order" and first.priority.rank > Priority.STAT.rank):
        return ""
    return f"{first.text} ({SOURCE_WORDS.get(first.source, first.source)})"


def finding_notes(entries: list[dict[str, Any]]) -> dict[str, str]:
    """Return what each detector found, in a few words: ``23.4 mL, score 0.93``.

    A single kind of finding goes without its name: the detector's own says it.
    """
    notes = {}
    for entry in entries:
        if entry["state"] not in {AiState.POSITIVE, AiState.PRELIMINARY_POSITIVE, AiState.MEASURED}:
            continue
        by_meaning: dict[str, list[float]] = {}
        for finding in entry["findings"]:
            by_meaning.setdefault(finding["meaning"], []).append(finding["volume_ml"] or 0.0)
        parts = []
        for meaning, volumes in by_meaning.items():
            named = [meaning] if len(by_meaning) > 1 else []
            counted = [f"{len(volumes)} findings"] if len(volumes) > 1 else []
            measured = [f"{sum(volumes):.1f} mL"] if sum(volumes) else []
            parts.append(" ".join(named + counted + measured))
        if entry["score"] is not None:
            parts.append(f"score {entry['score']:.2f}")
        notes[entry["detector"]] = ", ".join(part for part in parts if part)
    return notes


def person_name(value: str) -> str:
    """Return a DICOM person name (PS3.5 6.2.1) as ``DOE, Jane M``; the ideographic group follows when there is one."""
    shown = []
    for group in value.split("=")[:2]:
        family, given, middle, prefix, suffix = [*(part.strip() for part in group.split("^")), "", "", "", "", ""][:5]
        rest = " ".join(part for part in (prefix, given, middle) if part)
        text = ", ".join(part for part in (family, rest) if part)
        if suffix:
            text = f"{text} ({suffix})"
        if text:
            shown.append(text)
    return " · ".join(shown)


def study_date(value: str) -> str:
    """Return a DICOM date as ``2026-03-01``, anything else as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdigit() else value
