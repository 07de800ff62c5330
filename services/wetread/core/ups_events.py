"""UPS event reports: which events a change of a workitem causes and what each carries (PS3.4 CC.2.4, PS3.18 8.10.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final

from wetread.core.ups import GLOBAL_SUBSCRIPTION, UPS_PUSH_SOP_CLASS
from wetread.core.ups_attributes import (
    CANCEL_REASON,
    DISCONTINUATION,
    HUMAN_CODE,
    HUMAN_ORGANIZATION,
    HUMAN_PERFORMERS,
    PROGRESS,
    READINESS,
    STATE,
    STATION,
)
from wetread.core.ups_dataset import Json, element, items, values

REQUESTING_AE: Final = "00741236"
_FROM_CANCEL_REQUEST: Final = (CANCEL_REASON, DISCONTINUATION, "0074100A", "0074100C")
_PROGRESS_CAUSES: Final = ("00741004", "00741006", "00741008")
_PROGRESS_REPORTED: Final = ("00741004", "00741006", "00741007", "00741008")


class UpsEventType(IntEnum):
    """(0000,1002) Event Type ID (PS3.4 table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


class ScpStatus(StrEnum):
    """(0074,1242) SCP Status."""

    RESTARTED = "RESTARTED"
    GOING_DOWN = "GOING DOWN"


@dataclass(frozen=True, slots=True)
class UpsEvent:
    """One event of one workitem; ``attributes`` are DICOM JSON with their real VRs."""

    type: UpsEventType
    attributes: Mapping[str, Any]


def state_report(dataset: Mapping[str, Any]) -> UpsEvent:
    """Report state and input readiness, and once cancelled also why."""
    attributes: Json = {READINESS: dataset[READINESS], STATE: dataset[STATE]}
    for progress in items(dataset, PROGRESS)[:1]:
        attributes |= {tag: progress[tag] for tag in (CANCEL_REASON, DISCONTINUATION) if values(progress, tag)}
    return UpsEvent(UpsEventType.STATE_REPORT, attributes)


def cancel_requested(requesting_aet: str, request: Mapping[str, Any]) -> UpsEvent:
    """Tell the performer that somebody asks to cancel, with reason and contact as given."""
    given = {tag: request[tag] for tag in _FROM_CANCEL_REQUEST if values(request, tag)}
    return UpsEvent(UpsEventType.CANCEL_REQUESTED, {REQUESTING_AE: element("AE", requesting_aet), **given})


def scp_status(status: ScpStatus) -> UpsEvent:
    """Announce a restart or a shutdown. Both lists live in the database, so a restart is always a warm one."""
    return UpsEvent(
        UpsEventType.SCP_STATUS_CHANGE,
        {
            "00741242": element("CS", status),
            "00741244": element("CS", "WARM START"),
            "00741246": element("CS", "WARM START"),
        },
    )


def creation(dataset: Mapping[str, Any]) -> list[UpsEvent]:
    """Return the events of a new workitem."""
    assigned = bool(values(dataset, STATION) or values(dataset, HUMAN_PERFORMERS))
    return [state_report(dataset), *([_assigned(dataset)] if assigned else [])]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[UpsEvent]:
    """Return the events that turning *before* into *after* causes, in the order of their types."""
    events = []
    if _differ(before, after, STATE, READINESS):
        events.append(state_report(after))
    old, new = ((items(side, PROGRESS) or [{}])[0] for side in (before, after))
    if _differ(old, new, *_PROGRESS_CAUSES):
        reported = {tag: new[tag] for tag in _PROGRESS_REPORTED if tag in new}
        events.append(UpsEvent(UpsEventType.PROGRESS_REPORT, {PROGRESS: element("SQ", reported)}))
    if _differ(before, after, STATION, HUMAN_PERFORMERS):
        events.append(_assigned(after))
    return events


def _differ(before: Mapping[str, Any], after: Mapping[str, Any], *tags: str) -> bool:
    return any(values(before, tag) != values(after, tag) for tag in tags)


def _assigned(dataset: Mapping[str, Any]) -> UpsEvent:
    attributes: Json = {}
    if values(dataset, STATION):
        attributes[STATION] = dataset[STATION]
    performers = items(dataset, HUMAN_PERFORMERS)
    codes = [item for performer in performers for item in items(performer, HUMAN_CODE)]
    if codes:
        attributes[HUMAN_CODE] = element("SQ", *codes)
    organizations = [values(performer, HUMAN_ORGANIZATION)[0] for performer in performers
                     if values(performer, HUMAN_ORGANIZATION)]  # fmt: skip
    if organizations:
        attributes[HUMAN_ORGANIZATION] = element("LO", organizations[0])
    return UpsEvent(UpsEventType.ASSIGNED, dict(sorted(attributes.items())))


def frame(sequence: int, workitem_uid: str, event_type: int, attributes: Mapping[str, Any]) -> Json:
    """Return the websocket message of an event (PS3.18 8.10.5).

    ``sequence`` is the position in our event log; (0000,0110) is an unsigned short, so it wraps (PS3.7 E.1).
    """
    return {
        "00000002": element("UI", UPS_PUSH_SOP_CLASS),
        "00000110": element("US", (sequence - 1) % 65535 + 1),
        "00001000": element("UI", workitem_uid or GLOBAL_SUBSCRIPTION),
        "00001002": element("US", event_type),
        **dict(sorted(attributes.items())),
    }
