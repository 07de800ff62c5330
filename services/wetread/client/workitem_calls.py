"""The calls of UPS-RS (PS3.18 chapter 11) as values, for both clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from wetread.client.calls import Call
from wetread.client.workitem import Dataset, NewWorkitem, Workitem
from wetread.core.errors import WetreadError, WorkitemStateError
from wetread.core.identifiers import check_uid
from wetread.core.ups import UpsState, UpsStatus
from wetread.core.ups_dataset import element

WORKITEMS: Final = "/dicom-web/workitems"
DICOM_JSON: Final = "application/dicom+json"
_HEADERS: Final = {"Accept": DICOM_JSON, "Content-Type": DICOM_JSON}


def create(new: NewWorkitem | Dataset, uid: str) -> Call[str]:
    """Create under *uid* (RAD-80)."""
    dataset = new.dataset() if isinstance(new, NewWorkitem) else dict(new)
    return Call("POST", WORKITEMS, lambda _response: uid, {"workitem": check_uid(uid)}, [dataset], _HEADERS)


def search(
    state: UpsState | None = None,
    *,
    keys: Mapping[str, str] | None = None,
    everything: bool = False,
    limit: int | None = None,
    offset: int = 0,
) -> Call[list[Workitem]]:
    """Search by matching keys: keywords or tags with values (RAD-81, PS3.18 8.3.4)."""
    params: dict[str, Any] = dict(keys or {})
    if state is not None:
        params["00741000"] = str(state)
    if everything:
        params["includefield"] = "all"
    if limit is not None:
        params["limit"] = limit
    if offset:
        params["offset"] = offset
    return Call("GET", WORKITEMS, _all, params, headers=_HEADERS)


def get(uid: str) -> Call[Workitem]:
    """Retrieve one (RAD-83)."""
    return Call("GET", f"{WORKITEMS}/{check_uid(uid)}", lambda response: _one(response, uid), headers=_HEADERS)


def update(uid: str, changes: Dataset, transaction_uid: str | None = None) -> Call[None]:
    """Change attributes (RAD-84); a claimed workitem needs its Transaction UID."""
    params = {"transaction-uid": check_uid(transaction_uid)} if transaction_uid else {}
    return Call("POST", f"{WORKITEMS}/{check_uid(uid)}", _nothing, params, [dict(changes)], _HEADERS)


def change_state(uid: str, state: UpsState, transaction_uid: str) -> Call[None]:
    """Claim, complete or cancel (RAD-82, RAD-85)."""
    body = {"00081195": element("UI", check_uid(transaction_uid)), "00741000": element("CS", str(state))}
    return Call("PUT", f"{WORKITEMS}/{check_uid(uid)}/state", _nothing, {}, [body], _HEADERS)


def request_cancel(uid: str, reason: str = "") -> Call[None]:
    """Ask the performer to stop (RAD-88)."""
    body = [{"00741238": element("LT", reason)}] if reason else None
    return Call("POST", f"{WORKITEMS}/{check_uid(uid)}/cancelrequest", _nothing, {}, body, _HEADERS)


def is_own_claim(error: WorkitemStateError) -> bool:
    """Whether a refused claim only says that this very Transaction UID has it already (table CC.1.1-2: C302)."""
    return error.dicom_status == UpsStatus.ALREADY_IN_PROGRESS


def _nothing(_response: httpx.Response) -> None:
    return None


def _all(response: httpx.Response) -> list[Workitem]:
    if response.status_code == httpx.codes.NO_CONTENT:
        return []
    try:
        return [Workitem.of(dataset) for dataset in response.json()]
    except (ValueError, AttributeError) as error:
        msg = "the answer is not a list of workitems"
        raise WetreadError(msg) from error


def _one(response: httpx.Response, uid: str) -> Workitem:
    try:
        [dataset] = response.json()
        return Workitem.of(dataset, uid)
    except (ValueError, AttributeError) as error:
        msg = "the answer is not a workitem"
        raise WetreadError(msg) from error
