"""DICOM JSON of the workitems that stand for our tasks (PS3.4 CC.2.5, PS3.3 C.30; workflow-and-results 5.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from wetread.core.findings import StoredSeries
from wetread.core.identifiers import derived_uid
from wetread.core.ports.inference import DetectorInfo
from wetread.core.ports.studies import StudySummary
from wetread.core.ports.work import Task
from wetread.core.priority import UPS_PRIORITY, Priority
from wetread.core.ruo import RUO_SHORT
from wetread.core.ups import UPS_PUSH_SOP_CLASS

Json = dict[str, Any]

READINESS: Final = "00404041"
PROGRESS: Final = "00741002"
PERFORMED: Final = "00741216"
OWN_WORKLIST: Final = "wetread"
"""(0074,1202) of the tasks that we perform ourselves."""
REPLACED: Final = "00741224"
_OF_THE_RUN: Final = frozenset(("00080018", "00404010", "00741000", PROGRESS, PERFORMED))
"""What a new workitem does not take over from the one that it replaces."""
_SCHEME: Final = "99WETREAD"


def workitem_uid(tenant: str, study_uid: str, detector: str, run: int) -> str:
    """Return the UID of the workitem of a pair's n-th run: a finished workitem is never opened again."""
    return derived_uid("workitem", tenant, study_uid, detector, run)


def scheduled(task: Task, info: DetectorInfo, summary: StudySummary, *, now: float, label: str = OWN_WORKLIST) -> Json:
    """Return the attributes of a new workitem whose input is not ready yet."""
    code = _code(f"detector/{info.name}", info.manifest.title)
    return {
        "00081080": {"vr": "LO"},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": summary.patient_name}]}
        if summary.patient_name
        else {"vr": "PN"},
        "00100020": _element("LO", summary.patient_id),
        "0020000D": _element("UI", task.study_uid),
        "00404005": _element("DT", _time(now)),
        **urgency(task.priority, task.due_at),
        "00404018": _sequence(code),
        "00404021": {"vr": "SQ", "Value": []},
        READINESS: _element("CS", "INCOMPLETE"),
        "00741204": _element("LO", f"{info.name} {info.version}"),
        "00741202": _element("LO", label),
        "00741210": _sequence(
            {
                "0040A040": _element("CS", "TEXT"),
                "0040A043": _sequence(_code("version", "Detector version")),
                "0040A160": _element("UT", info.version),
            }
        ),
        "00404010": _element("DT", _time(now)),
        "00400400": _element("LT", RUO_SHORT),
    }


def urgency(priority: Priority, due: float) -> Json:
    """Return priority (0074,1200) and expected completion (0040,4011)."""
    return {"00741200": _element("CS", UPS_PRIORITY[priority]), "00404011": _element("DT", _time(due))}


def ready(study_uid: str, selected: Sequence[tuple[str, Mapping[str, str]]]) -> Json:
    """Return the input information (0040,4021), readiness READY.

    *selected*: Series Instance UID, and SOP Instance UID -> SOP Class UID of its selected instances.
    """
    inputs = (_series(study_uid, series_uid, list(classes), classes) for series_uid, classes in selected)
    return {READINESS: _element("CS", "READY"), "00404021": _sequence(*inputs)}


def replacing(dataset: Mapping[str, Any], former_uid: str, now: float) -> Json:
    """Return the attributes of a workitem offered instead of *former_uid*, which they point back to (0074,1224)."""
    kept = {tag: value for tag, value in dataset.items() if tag not in _OF_THE_RUN}
    former = {"00081150": _element("UI", UPS_PUSH_SOP_CLASS), "00081155": _element("UI", former_uid)}
    return {**kept, "00404005": _element("DT", _time(now)), REPLACED: _sequence(former)}


@dataclass(frozen=True, slots=True)
class Ending:
    """What the final state of a workitem reports. Times are Unix seconds; ``sop_classes`` by SOP Instance UID."""

    study_uid: str
    info: DetectorInfo
    started: float
    ended: float
    stored: Sequence[StoredSeries] = ()
    sop_classes: Mapping[str, str] = field(default_factory=dict)


def completed(ending: Ending) -> Json:
    """Return the final-state attributes of COMPLETED: what was done, when, and the output references (0040,4033)."""
    outputs = [_series(ending.study_uid, s.series_uid, s.sop_instance_uids, ending.sop_classes) for s in ending.stored]
    return {
        **progress(100),
        PERFORMED: _sequence(
            {
                "00404028": _sequence(_code("wetread", "wetread")),
                "00404050": _element("DT", _time(ending.started)),
                "00404051": _element("DT", _time(ending.ended)),
                "00404019": _sequence(_code(f"detector/{ending.info.name}", ending.info.manifest.title)),
                "00404033": {"vr": "SQ", "Value": outputs},
            }
        ),
    }


def canceled(ending: Ending, reason: str, detail: str) -> Json:
    """Return the final-state attributes of CANCELED: the typed reason (0074,100E), and the report if there is one."""
    return {
        **(completed(ending) if ending.stored else {}),
        PROGRESS: _sequence(
            {
                "00404052": _element("DT", _time(ending.ended)),
                "00741238": _element("LT", f"{reason}: {detail}" if detail else reason),
                "0074100E": _sequence(_code(reason, reason.replace("_", " "))),
            }
        ),
    }


def progress(percent: int) -> Json:
    """Return the progress (0074,1002) with its percentage (0074,1004)."""
    return {PROGRESS: _sequence({"00741004": _element("DS", percent)})}


def _series(study_uid: str, series_uid: str, sop_uids: Sequence[str], sop_classes: Mapping[str, str]) -> Json:
    """Return one item of an input or output information sequence (PS3.3 table 10-3b)."""
    references = (
        {"00081150": _element("UI", sop_classes.get(uid, "")), "00081155": _element("UI", uid)} for uid in sop_uids
    )
    return {
        "0040E020": _element("CS", "DICOM"),
        "0020000D": _element("UI", study_uid),
        "0020000E": _element("UI", series_uid),
        "00081199": _sequence(*references),
    }


def _element(vr: str, value: Any) -> Json:
    return {"vr": vr} if value in {"", None} else {"vr": vr, "Value": [value]}


def _sequence(*items: Json) -> Json:
    return {"vr": "SQ", "Value": list(items)}


def _code(value: str, meaning: str) -> Json:
    return {
        # A code of more than 16 characters is a Long Code Value, and then there is no Code Value (PS3.3 8.1).
        **({"00080100": _element("SH", value)} if len(value) <= 16 else {"00080119": _element("UC", value)}),
        "00080102": _element("SH", _SCHEME),
        "00080104": _element("LO", meaning[:64]),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y%m%d%H%M%S.%f+0000")
