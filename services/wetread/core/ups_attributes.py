"""Attribute requirements of a UPS: creation, update and final state (PS3.4 tables CC.2.5-1 and CC.2.5-3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wetread.core.ups import UPS_PUSH_SOP_CLASS, UpsState, UpsStatus
from wetread.core.ups_dataset import (
    TRANSACTION_UID,
    Json,
    code,
    dicom_datetime,
    element,
    invalid,
    items,
    merged,
    text,
    values,
    vr_of,
    without,
)

SOP_CLASS: Final = "00080016"
SOP_INSTANCE: Final = "00080018"
STATE: Final = "00741000"
PRIORITY: Final = "00741200"
WORKLIST_LABEL: Final = "00741202"
LABEL: Final = "00741204"
START: Final = "00404005"
MODIFIED: Final = "00404010"
READINESS: Final = "00404041"
PROGRESS: Final = "00741002"
PERFORMED: Final = "00741216"
STATION: Final = "00404025"
HUMAN_PERFORMERS: Final = "00404034"
HUMAN_CODE: Final = "00404009"
HUMAN_ORGANIZATION: Final = "00404036"
WORKITEM_CODE: Final = "00404018"
DISCONTINUATION: Final = "0074100E"
CANCELLED_AT: Final = "00404052"
CANCEL_REASON: Final = "00741238"
REPLACED_STEP: Final = "00741224"

ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    PRIORITY: ("HIGH", "MEDIUM", "LOW"),
    READINESS: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
"""Enumerated values (PS3.3 C.30.2)."""

CREATE_WITH_VALUE: Final = (STATE, PRIORITY, LABEL, START, READINESS)
"""Type 1 at creation."""

CREATE_MAY_BE_EMPTY: Final = (
    "00081080", "00081084", TRANSACTION_UID, "00100010", "00100020", "00100021", "00100030", "00100040",
    "00101002", "00380010", "00380014", "00400400", WORKITEM_CODE, "00404021", STATION, "00404026", "00404027",
    "0040A370", PROGRESS, WORKLIST_LABEL, "00741210", PERFORMED,
)  # fmt: skip
"""Type 2 at creation: added empty where a client left them out."""

CREATE_EMPTY: Final = (TRANSACTION_UID, PROGRESS, PERFORMED)
"""What a client must leave empty at creation."""

NOT_SETTABLE: Final = frozenset({
    STATE, SOP_CLASS, SOP_INSTANCE, "00100010", "00100020", "00100021", "00100030", "00100040", "00101002",
    "00380010", "00380014", "00380060", "00380064", "00081080", "00081084", "0040A370", REPLACED_STEP,
})  # fmt: skip
"""Set once at creation, or by Change State only: an update that names one is refused."""

COMPLETED_NEEDS: Final = ("00404028", "00404050", "00404051", "00404019")
"""Inside (0074,1216), with a value, before COMPLETED (final state code P)."""
OUTPUT: Final = "00404033"
"""Inside (0074,1216), present before COMPLETED; it may have no items."""

SEARCH_RETURNS: Final = frozenset({
    SOP_CLASS, SOP_INSTANCE, STATE, PRIORITY, WORKLIST_LABEL, LABEL, START, MODIFIED, "00404011", WORKITEM_CODE,
    "00404021", STATION, "00404026", "00404027", HUMAN_PERFORMERS, READINESS, PROGRESS, "00100010", "00100020",
    "00100021", "00100030", "00100040", "00101002", "00380010", "00380014", "00081080", "00081084", "0040A370",
    REPLACED_STEP, "00741210",
})  # fmt: skip
"""Return keys of a search that asks for nothing more (table CC.2.5-3, return key types 1 and 2)."""

UNSPECIFIED_DISCONTINUATION: Final = code("110513", "DCM", "Discontinued for unspecified reason")
_OWN_STATION: Final = code("wetread", "99WETREAD", "wetread")
_OWN_WORK: Final = code("110004", "DCM", "Computer Aided Detection")


def created(dataset: Mapping[str, Any], uid: str, now: float, worklist_label: str) -> tuple[Json, bool]:
    """Return the workitem that a creation request asks for, and whether we had to modify it (B300).

    Raises InvalidInput naming every attribute that is missing or wrong (PS3.4 CC.2.5-3).
    """
    missing = [tag for tag in CREATE_WITH_VALUE if not values(dataset, tag)]
    if STATE in missing or text(dataset, STATE) != UpsState.SCHEDULED:
        raise invalid("(0074,1000) must be SCHEDULED", UpsStatus.NOT_CREATED_SCHEDULED)
    if missing:
        raise invalid(f"attributes without a value: {', '.join(missing)}", UpsStatus.MISSING_ATTRIBUTE)
    filled = [tag for tag in CREATE_EMPTY if values(dataset, tag)]
    if filled:
        raise invalid(f"attributes that must be empty at creation: {', '.join(filled)}")
    _check_values(dataset)
    added: Json = {tag: element(vr_of(tag) or "UN") for tag in CREATE_MAY_BE_EMPTY if tag not in dataset}
    if not values(dataset, WORKLIST_LABEL):
        added[WORKLIST_LABEL] = element("LO", worklist_label)
    ours: Json = {
        SOP_CLASS: element("UI", UPS_PUSH_SOP_CLASS),
        SOP_INSTANCE: element("UI", uid),
        MODIFIED: element("DT", dicom_datetime(now)),
    }
    modified = bool(added) or any(tag in dataset and dataset[tag] != ours[tag] for tag in (SOP_CLASS, MODIFIED))
    return without(merged(merged(dataset, added), ours), [TRANSACTION_UID]), modified


def updated(dataset: Mapping[str, Any], changes: Mapping[str, Any], now: float) -> tuple[Json, bool]:
    """Return the workitem after an update and whether we changed what was asked (B305).

    Whole sequences are replaced; (0040,4010) is ours. Raises InvalidInput.
    """
    wanted = without(changes, [TRANSACTION_UID, MODIFIED])
    refused = sorted(NOT_SETTABLE & wanted.keys())
    if refused:
        raise invalid(f"attributes that an update cannot set: {', '.join(refused)}")
    emptied = [tag for tag in CREATE_WITH_VALUE if tag in wanted and not values(wanted, tag)]
    if emptied:
        raise invalid(f"attributes that need a value: {', '.join(emptied)}")
    _check_values(wanted)
    stamped = {**wanted, MODIFIED: element("DT", dicom_datetime(now))}
    return merged(dataset, stamped), MODIFIED in changes


def _check_values(dataset: Mapping[str, Any]) -> None:
    for tag, allowed in ALLOWED.items():
        if tag in dataset and text(dataset, tag) not in allowed:
            raise invalid(f"{tag} must be one of {', '.join(allowed)}")
    single = [tag for tag in (PROGRESS, PERFORMED) if len(values(dataset, tag)) > 1]
    if single:
        raise invalid(f"sequences with more than one item: {', '.join(single)}")


def missing_for(dataset: Mapping[str, Any], state: UpsState) -> list[str]:
    """Return the tags that the final state *state* still needs (PS3.4 CC.2.5.1.1); empty: it may be entered.

    The cancellation time is not among them: the provider fills it (CC.2.5-3).
    """
    if state is UpsState.CANCELED:
        progress = items(dataset, PROGRESS)
        return [] if progress and values(progress[0], DISCONTINUATION) else [DISCONTINUATION]
    performed = items(dataset, PERFORMED)
    if not performed:
        return [PERFORMED]
    missing = [tag for tag in COMPLETED_NEEDS if not values(performed[0], tag)]
    return missing if OUTPUT in performed[0] else [*missing, OUTPUT]


def in_state(dataset: Mapping[str, Any], state: UpsState, now: float) -> Json:
    """Return *dataset* in *state*; on CANCELED an empty cancellation time becomes now (CC.2.5-3)."""
    changes: Json = {STATE: element("CS", state), MODIFIED: element("DT", dicom_datetime(now))}
    if state is UpsState.CANCELED:
        progress = (items(dataset, PROGRESS) or [{}])[0]
        if not values(progress, CANCELLED_AT):
            progress = merged(progress, {CANCELLED_AT: element("DT", dicom_datetime(now))})
        changes[PROGRESS] = element("SQ", progress)
    return merged(dataset, changes)


def discontinued(dataset: Mapping[str, Any], request: Mapping[str, Any]) -> Json:
    """Return *dataset* with the reason of a cancel request, so that CANCELED may follow at once (CC.2.2.3)."""
    progress = (items(dataset, PROGRESS) or [{}])[0]
    reasons = values(request, DISCONTINUATION) or values(progress, DISCONTINUATION) or [UNSPECIFIED_DISCONTINUATION]
    changes: Json = {DISCONTINUATION: element("SQ", *reasons)}
    if values(request, CANCEL_REASON):
        changes[CANCEL_REASON] = request[CANCEL_REASON]
    return merged(dataset, {PROGRESS: element("SQ", merged(progress, changes))})


def performed_by_us(dataset: Mapping[str, Any], started: float, now: float) -> Json:
    """Return *dataset* with the performed procedure of our own performer; what the task itself gave stays."""
    given = (items(dataset, PERFORMED) or [{}])[0]
    workitem_codes = values(dataset, WORKITEM_CODE) or [_OWN_WORK]
    ours: Json = {
        "00404028": element("SQ", _OWN_STATION),
        "00404050": element("DT", dicom_datetime(started)),
        "00404051": element("DT", dicom_datetime(now)),
        "00404019": element("SQ", *workitem_codes),
    }
    lacking = {tag: value for tag, value in ours.items() if not values(given, tag)}
    if OUTPUT not in given:
        lacking[OUTPUT] = element("SQ")
    return merged(dataset, {PERFORMED: element("SQ", merged(given, lacking))})
