"""Store Instances Response Module and the status that goes with it (PS3.18 10.5.3, annex I)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wetread.core.ports.ingest import InstanceOutcome

_COMMENT_LIMIT = 64  # (0074,1048) is LO


def store_response(outcomes: Sequence[InstanceOutcome], base: str) -> dict[str, Any]:
    """Return the module as one DICOM JSON object; empty sequences are left out, one item per part."""
    stored = [outcome for outcome in outcomes if outcome.failure_reason is None]
    failed = [outcome for outcome in outcomes if outcome.failure_reason is not None]
    known = [outcome for outcome in failed if outcome.sop_class_uid and outcome.sop_instance_uid]
    other = [outcome for outcome in failed if not (outcome.sop_class_uid and outcome.sop_instance_uid)]
    module: dict[str, Any] = {}
    studies = {outcome.study_instance_uid for outcome in stored}
    url = f"{base}/studies/{studies.pop()}" if len(studies) == 1 else ""
    module["00081190"] = {"vr": "UR", "Value": [url]} if url else {"vr": "UR"}
    if known:
        module["00081198"] = {"vr": "SQ", "Value": [_failed(outcome) for outcome in known]}
    if stored:
        module["00081199"] = {"vr": "SQ", "Value": [_stored(outcome, base) for outcome in stored]}
    if other:
        module["0008119A"] = {"vr": "SQ", "Value": [_reason(outcome) for outcome in other]}
    return dict(sorted(module.items()))


def store_status(outcomes: Sequence[InstanceOutcome], *, too_large: bool = False) -> int:
    """Return the HTTP status (PS3.18 table 10.5.3-1): 200 all stored, 202 warnings or partly, 409 nothing stored."""
    failed = [outcome for outcome in outcomes if outcome.failure_reason is not None]
    if too_large:
        return 413
    if len(failed) == len(outcomes):
        full = all(outcome.failure_reason == 0xA700 for outcome in failed)
        return 507 if full else 409
    if failed or any(outcome.warning_reason is not None for outcome in outcomes):
        return 202
    return 200


def location(outcomes: Sequence[InstanceOutcome], base: str) -> dict[str, str]:
    """Return the Location header when the request created something in exactly one study (PS3.18 10.5.3.2)."""
    created = {
        outcome.study_instance_uid for outcome in outcomes if outcome.failure_reason is None and not outcome.duplicate
    }
    return {"Content-Location": f"{base}/studies/{created.pop()}"} if len(created) == 1 else {}


def _reference(outcome: InstanceOutcome) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [outcome.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [outcome.sop_instance_uid]},
    }


def _stored(outcome: InstanceOutcome, base: str) -> dict[str, Any]:
    item = _reference(outcome)
    series = f"{base}/studies/{outcome.study_instance_uid}/series/{outcome.series_instance_uid}"
    item["00081190"] = {"vr": "UR", "Value": [f"{series}/instances/{outcome.sop_instance_uid}"]}
    if outcome.warning_reason is not None:
        item["00081196"] = {"vr": "US", "Value": [outcome.warning_reason]}
    return item


def _failed(outcome: InstanceOutcome) -> dict[str, Any]:
    return _reference(outcome) | _reason(outcome)


def _reason(outcome: InstanceOutcome) -> dict[str, Any]:
    item: dict[str, Any] = {"00081197": {"vr": "US", "Value": [outcome.failure_reason]}}
    if outcome.comment:
        item["00741048"] = {"vr": "LO", "Value": [outcome.comment[:_COMMENT_LIMIT]]}
    return item
