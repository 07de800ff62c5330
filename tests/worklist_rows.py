"""A realistic evening on the worklist: every AI state once, on studies as they come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.worklist_world import World

from wetread.core.events import EventType
from wetread.core.findings import StoredSeries
from wetread.core.ports.events import Reason
from wetread.core.priority import Priority
from wetread.core.states import AiState

TITLES = {
    "ich": "Intracranial haemorrhage",
    "stroke-ncct": "Early ischaemic change",
    "pe": "Pulmonary embolism",
    "ptx": "Pneumothorax",
    "liver-vol": "Liver volumetry",
}


def detectors() -> dict[str, Any]:
    return {
        name: SimpleNamespace(manifest=SimpleNamespace(title=title), version="1.0.0", model_digest="cd" * 32)
        for name, title in TITLES.items()
    }


def evidence(uid: str) -> tuple[StoredSeries, ...]:
    return (
        StoredSeries(modality="SR", series_uid=f"{uid}.7", sop_instance_uids=(f"{uid}.7.1",)),
        StoredSeries(modality="SEG", series_uid=f"{uid}.8", sop_instance_uids=(f"{uid}.8.1",)),
        StoredSeries(modality="CT", series_uid=f"{uid}.9", sop_instance_uids=(f"{uid}.9.1",)),
    )


def raise_by_ai(world: World, uid: str, detector: str, text: str, priority: Priority = Priority.STAT) -> None:
    with world.database.write() as tx:
        world.order.raise_to(
            tx, "default", uid, Reason("ai", text, priority, world.clock.now() - 60, detector=detector)
        )


def fill(world: World) -> None:
    s = world.study
    a = s(
        "1.2.3.1",
        minutes_ago=3,
        priority=Priority.URGENT,
        name="OKONKWO^ADAEZE",
        patient_id="MRN-448120",
        description="CT HEAD W/O CONTRAST",
        slices=3,
    )
    world.event(EventType.STUDY_RECEIVED, a, instances=324)
    world.result(a, "ich", AiState.POSITIVE, volume_ml=23.4, score=0.93, stored=evidence(a))
    world.task(a, "stroke-ncct", AiState.RUNNING, progress=40)
    world.task(a, "pe", AiState.NOT_APPLICABLE, reason="body_part")
    raise_by_ai(world, a, "ich", "suspected intracranial haemorrhage")
    world.event(EventType.RESULT_READY, a, detector="ich", state="positive")
    world.event(EventType.FINDING_POSITIVE, a, detector="ich", state="positive", score=0.93)
    b = s(
        "1.2.3.2",
        minutes_ago=7,
        priority=Priority.STAT,
        name="LINDQVIST^PER",
        patient_id="MRN-100392",
        description="CT HEAD STROKE CODE",
    )
    world.task(b, "ich", AiState.QUEUED)
    world.task(b, "stroke-ncct", AiState.AWAITING_IMAGES)
    c = s(
        "1.2.3.3",
        minutes_ago=95,
        name="YAMADA^TARO=山田^太郎",
        patient_id="MRN-771204",
        description="CT ABDOMEN PORTAL VENOUS",
    )
    world.result(c, "liver-vol", AiState.MEASURED, volume_ml=1543.0, meaning="Liver")
    d = s("1.2.3.4", minutes_ago=25, name="GARCIA LOPEZ^MARIA^DEL CARMEN", patient_id="MRN-330911", description="CTPA")
    world.task(d, "pe", AiState.NOT_PROCESSABLE, reason="missing_slices")
    e = s(
        "1.2.3.5",
        minutes_ago=22,
        priority=Priority.URGENT,
        name="NOVAK^JAN",
        patient_id="MRN-552093",
        description="CT HEAD W/O CONTRAST",
    )
    world.result(e, "ich", AiState.NEGATIVE, score=0.04)
    world.result(e, "stroke-ncct", AiState.INDETERMINATE, score=0.48)
    f = s(
        "1.2.3.6",
        minutes_ago=15,
        name="SMITH^ALEXANDRA",
        patient_id="MRN-018277",
        description="CHEST PA",
        modality="CR",
        slices=1,
    )
    world.task(f, "ptx", AiState.FAILED, reason="timeout")
    g = s(
        "1.2.3.7",
        minutes_ago=1,
        name="DUBOIS^LUCIE",
        patient_id="MRN-904411",
        description="MR KNEE RIGHT",
        modality="MR",
    )
    h = s("1.2.3.8", minutes_ago=2, name="", patient_id="", description="", looked_at=False)
    i = s(
        "1.2.3.9",
        minutes_ago=200,
        priority=Priority.BATCH,
        name="PATEL^RAVI",
        patient_id="MRN-620045",
        description="CT CHEST LOW DOSE SCREENING",
    )
    world.task(i, "pe", AiState.NOT_APPLICABLE, reason="contrast")
    j = s(
        "1.2.3.10",
        minutes_ago=4,
        priority=Priority.URGENT,
        name="HAUGEN^INGRID",
        patient_id="MRN-228733",
        description="CT HEAD TRAUMA",
    )
    world.task(j, "ich", AiState.PRELIMINARY_POSITIVE)
    raise_by_ai(world, j, "ich", "suspected intracranial haemorrhage (early)")
    assert (g, h) == ("1.2.3.7", "1.2.3.8")
