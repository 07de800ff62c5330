"""Reports over events: turnaround against targets, and what was used. Pure, so that anybody can count again."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from wetread.core.events import Event, EventType
from wetread.core.priority import TARGET_SECONDS, Priority, most_urgent

CLOCKS: Final[Mapping[str, str]] = {
    "ai": "last byte of the first STOW request to the first stored result that readers see",
    "notified": "last byte of the first STOW request to the first notification of a positive finding",
    "acknowledged": "first notification to the first acknowledgement by a person",
    "read": "last byte of the first STOW request to the study read",
}
"""What is measured, from what to what."""

PERCENTILES: Final = (50, 90, 95)


class Dimension(StrEnum):
    """What a report may be split by. A study with several findings counts under each."""

    SITE = "site"
    MODALITY = "modality"
    CLASS = "class"
    FINDING = "finding"


@dataclass(frozen=True, slots=True)
class Story:
    """A study with its events in their order, from ``study.received`` on."""

    study_uid: str
    site: str
    modality: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Turnaround:
    """The clocks of one study in seconds (missing: not reached), its class and its finding codes."""

    site: str
    modality: str
    priority: Priority
    findings: tuple[str, ...]
    received_at: float
    seconds: Mapping[str, float]


def turnaround(story: Story) -> Turnaround:
    """Return the clocks of a study."""
    received = story.events[0]
    start = received.stamps.get("received", received.time)
    first: dict[EventType, float] = {}
    classes, codes = [Priority.BATCH], []
    for event in story.events:
        if event.data.get("shadow"):
            continue
        first.setdefault(event.type, event.time)
        if event.data.get("priority"):
            classes.append(Priority(event.data["priority"]))
        if event.type is EventType.FINDING_POSITIVE:
            codes.append(str(event.data.get("code", "")))
    seconds = {}
    notified = first.get(EventType.FINDING_POSITIVE)
    acknowledged = first.get(EventType.FINDING_ACKNOWLEDGED)
    for clock, at in (
        ("ai", first.get(EventType.RESULT_READY)),
        ("notified", notified),
        ("read", first.get(EventType.STUDY_READ)),
    ):
        if at is not None:
            seconds[clock] = max(0.0, at - start)
    if notified is not None and acknowledged is not None:
        seconds["acknowledged"] = max(0.0, acknowledged - notified)
    told = len(classes) > 1
    return Turnaround(
        site=story.site,
        modality=story.modality,
        priority=most_urgent(*classes) if told else Priority.ROUTINE,
        findings=tuple(dict.fromkeys(codes)),
        received_at=start,
        seconds=seconds,
    )


def sla(turnarounds: Iterable[Turnaround], by: Sequence[Dimension], *, now: float) -> list[dict[str, Any]]:
    """Return one row per group: number of studies, percentiles of each clock, and the share read within target.

    The share counts studies that were read and those that are not although their target has passed; None: neither.
    """
    groups: dict[tuple[str, ...], list[Turnaround]] = defaultdict(list)
    for one in turnarounds:
        for key in _keys(one, by):
            groups[key].append(one)
    return [_row(dict(zip(map(str, by), key, strict=True)), groups[key], now) for key in sorted(groups)]


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Return the nearest-rank percentile; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What one version of a detector did. ``seconds``: from the start of a run to its end, by the clock on the wall."""

    detector: str
    version: str
    finished: int
    failed: int
    seconds: float


def model_usage(events: Iterable[Event]) -> list[ModelUsage]:
    """Return the usage by detector and version from task events in their order."""
    started: dict[tuple[str, str, str], float] = {}
    finished: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    for event in events:
        model = (str(event.data.get("detector", "")), str(event.data.get("version", "")))
        run = (event.subject, *model)
        if event.type is EventType.TASK_STARTED:
            started[run] = event.time
        elif event.type in {EventType.TASK_FINISHED, EventType.TASK_FAILED}:
            (finished if event.type is EventType.TASK_FINISHED else failed)[model] += 1
            if run in started:
                seconds[model] += max(0.0, event.time - started.pop(run))
    models = sorted(finished.keys() | failed.keys())
    return [ModelUsage(*model, finished[model], failed[model], round(seconds[model], 3)) for model in models]


def _keys(one: Turnaround, by: Sequence[Dimension]) -> list[tuple[str, ...]]:
    single = {Dimension.SITE: one.site, Dimension.MODALITY: one.modality, Dimension.CLASS: str(one.priority)}
    findings = one.findings or ("",)
    if Dimension.FINDING not in by:
        findings = ("",)
    return [tuple(finding if name is Dimension.FINDING else single[name] for name in by) for finding in findings]


def _row(group: dict[str, str], studies: list[Turnaround], now: float) -> dict[str, Any]:
    clocks = {}
    for clock in CLOCKS:
        values = [one.seconds[clock] for one in studies if clock in one.seconds]
        clocks[clock] = {"studies": len(values), **{f"p{p}_s": percentile(values, p) for p in PERCENTILES}}
    judged = []
    for one in studies:
        target, read = TARGET_SECONDS[one.priority], one.seconds.get("read")
        if read is not None:
            judged.append(read <= target)
        elif now - one.received_at > target:
            judged.append(False)
    share = sum(judged) / len(judged) if judged else None
    return {"group": group, "studies": len(studies), "clocks": clocks, "in_target": share}
