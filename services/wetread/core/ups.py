"""The state machine of a Unified Procedure Step, pure: what each request does in each state, and with which status.

PS3.4 table CC.1.1-2 (state changes and cancel requests) and CC.2.6 (updates). Nothing here knows a database or HTTP;
the HTTP status of each refusal is PS3.18 tables 11.6.3-1, 11.7.3-1 and 11.8.3-1, where their split between 400 and
409 is ambiguous by the project's choice (docs/ups.md).
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from wetread.core.errors import WorkitemStateError
from wetread.core.identifiers import digest

UPS_PUSH_SOP_CLASS: Final = "1.2.840.10008.5.1.4.34.6.1"
"""SOP Class of every UPS instance (PS3.4 CC.3.1)."""
GLOBAL_SUBSCRIPTION: Final = "1.2.840.10008.5.1.4.34.5"
"""UPS Global Subscription SOP Instance: the whole worklist (PS3.4 CC.2.3.2)."""
FILTERED_SUBSCRIPTION: Final = "1.2.840.10008.5.1.4.34.5.1"
"""UPS Filtered Global Subscription SOP Instance (PS3.4 CC.2.3.3.1)."""


class UpsState(StrEnum):
    """(0074,1000) Procedure Step State."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def final(self) -> bool:
        """Whether nothing may change any more (PS3.4 CC.2.5.1.1)."""
        return self in {UpsState.COMPLETED, UpsState.CANCELED}


class UpsStatus(IntEnum):
    """DIMSE status codes of the UPS service class (PS3.4 tables CC.2.1-2 to CC.2.6-1) and the general ones it uses."""

    OPTIONAL_NOT_SUPPORTED = 0x0001
    INVALID_ATTRIBUTE_VALUE = 0x0106
    DUPLICATE_INSTANCE = 0x0111
    MISSING_ATTRIBUTE = 0x0120
    CREATED_WITH_MODIFICATIONS = 0xB300
    LOCK_NOT_GRANTED = 0xB301
    ALREADY_CANCELED = 0xB304
    UPDATED_WITH_MODIFICATIONS = 0xB305
    ALREADY_COMPLETED = 0xB306
    MAY_NO_LONGER_BE_UPDATED = 0xC300
    WRONG_TRANSACTION_UID = 0xC301
    ALREADY_IN_PROGRESS = 0xC302
    ONLY_BY_CREATION = 0xC303
    FINAL_STATE_NOT_MET = 0xC304
    NO_SUCH_INSTANCE = 0xC307
    RECEIVING_AE_UNKNOWN = 0xC308
    NOT_CREATED_SCHEDULED = 0xC309
    NOT_YET_IN_PROGRESS = 0xC310
    CANCEL_OF_COMPLETED = 0xC311
    PERFORMER_NOT_CONTACTED = 0xC312
    PERFORMER_DECLINES = 0xC313
    ACTION_NOT_APPROPRIATE = 0xC314


WARNING_TEXT: Final[dict[UpsStatus, str]] = {
    UpsStatus.OPTIONAL_NOT_SUPPORTED: "Requested optional Attributes are not supported.",
    UpsStatus.CREATED_WITH_MODIFICATIONS: "The Workitem was created with modifications.",
    UpsStatus.LOCK_NOT_GRANTED: "Deletion Lock not granted.",
    UpsStatus.ALREADY_CANCELED: "The UPS is already in the requested state of CANCELED.",
    UpsStatus.UPDATED_WITH_MODIFICATIONS: "The Workitem was updated with modifications.",
    UpsStatus.ALREADY_COMPLETED: "The UPS is already in the requested state of COMPLETED.",
}
"""``Warning: 299 <service>: <text>`` of answers that succeed (PS3.18 11.4.3.2, 11.6.3.2, 11.7.3.2, 11.8.3.2)."""

UID_MISSING: Final = "The Transaction UID is missing."
UID_INCORRECT: Final = "The Transaction UID is incorrect."
INCONSISTENT_STATE: Final = "The submitted request is inconsistent with the state of the UPS Instance."
NOT_CLAIMED: Final = "The target URI did not reference a claimed Workitem."
INCONSISTENT_UPDATE: Final = "The submitted request is inconsistent with the current state of the Workitem."
IS_COMPLETED: Final = "The UPS is already COMPLETED."
DECLINES: Final = "Performer chooses not to cancel."
NOT_CONTACTED: Final = "The performer cannot be contacted."

_HTTP: Final[dict[UpsStatus, int]] = {
    UpsStatus.WRONG_TRANSACTION_UID: 400,
    UpsStatus.ONLY_BY_CREATION: 400,
    UpsStatus.ACTION_NOT_APPROPRIATE: 400,
}


class Lock(StrEnum):
    """What a request says about the Transaction UID that locks a claimed workitem."""

    RIGHT = "right"
    WRONG = "wrong"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a permitted request does: the states passed through in order, or a warning that nothing is left to do."""

    path: tuple[UpsState, ...] = ()
    warning: UpsStatus | None = None


def refuse(status: UpsStatus, text: str, http_status: int | None = None) -> WorkitemStateError:
    """Return the typed refusal of *status* with the text that the standard gives for its Warning header."""
    return WorkitemStateError(text, dicom_status=status, http_status=http_status or _HTTP.get(status, 409))


def transaction_hash(tenant: str, workitem_uid: str, transaction_uid: str) -> str:
    """Return what is stored of a Transaction UID. The UID itself is a lock: never kept, shown or logged."""
    return digest("ups-lock", tenant, workitem_uid, transaction_uid)


def same_lock(stored: str | None, presented: str) -> bool:
    """Compare two hashes of `transaction_hash` in constant time; an item without a lock matches nothing."""
    return hmac.compare_digest(stored or "", presented) and stored is not None


def change_state(current: UpsState, requested: UpsState, lock: Lock, *, final_state_met: bool) -> Ruling:
    """Rule on 'Change UPS State' (PS3.4 table CC.1.1-2). On SCHEDULED any valid new Transaction UID is RIGHT.

    Raises WorkitemStateError.
    """
    if requested is UpsState.SCHEDULED:
        raise refuse(UpsStatus.ONLY_BY_CREATION, INCONSISTENT_STATE)
    if lock is not Lock.RIGHT:
        text = UID_MISSING if lock is Lock.MISSING else UID_INCORRECT
        raise refuse(UpsStatus.WRONG_TRANSACTION_UID, text)
    if requested is UpsState.IN_PROGRESS:
        if current is UpsState.SCHEDULED:
            return Ruling(path=(UpsState.IN_PROGRESS,))
        held = current is UpsState.IN_PROGRESS
        status = UpsStatus.ALREADY_IN_PROGRESS if held else UpsStatus.MAY_NO_LONGER_BE_UPDATED
        raise refuse(status, INCONSISTENT_STATE)
    if current is UpsState.SCHEDULED:
        raise refuse(UpsStatus.NOT_YET_IN_PROGRESS, INCONSISTENT_STATE)
    if current is requested:
        return Ruling(warning=_ALREADY[current])
    if current.final:
        raise refuse(UpsStatus.MAY_NO_LONGER_BE_UPDATED, INCONSISTENT_STATE)
    if not final_state_met:
        raise refuse(UpsStatus.FINAL_STATE_NOT_MET, INCONSISTENT_STATE)
    return Ruling(path=(requested,))


def request_cancel(current: UpsState) -> Ruling:
    """Rule on 'Request UPS Cancel' (PS3.4 table CC.1.1-2, CC.2.2.3). An empty path: tell the performer.

    Raises WorkitemStateError when the step is COMPLETED.
    """
    if current is UpsState.SCHEDULED:
        return Ruling(path=(UpsState.IN_PROGRESS, UpsState.CANCELED))
    if current is UpsState.COMPLETED:
        raise refuse(UpsStatus.CANCEL_OF_COMPLETED, IS_COMPLETED)
    if current is UpsState.CANCELED:
        return Ruling(warning=UpsStatus.ALREADY_CANCELED)
    return Ruling()


def check_update(current: UpsState, lock: Lock) -> None:
    """Refuse an update that the state or the lock does not allow (PS3.4 CC.2.6.2 and CC.2.6.3).

    A SCHEDULED item is updated without a Transaction UID, an IN PROGRESS one only with the right one.
    Raises WorkitemStateError.
    """
    if current.final:
        raise refuse(UpsStatus.MAY_NO_LONGER_BE_UPDATED, INCONSISTENT_UPDATE, 400)
    if current is UpsState.SCHEDULED:
        if lock is not Lock.MISSING:
            raise refuse(UpsStatus.NOT_YET_IN_PROGRESS, NOT_CLAIMED)
        return
    if lock is not Lock.RIGHT:
        raise refuse(UpsStatus.WRONG_TRANSACTION_UID, UID_MISSING if lock is Lock.MISSING else UID_INCORRECT)


_ALREADY: Final = {
    UpsState.COMPLETED: UpsStatus.ALREADY_COMPLETED,
    UpsState.CANCELED: UpsStatus.ALREADY_CANCELED,
}
