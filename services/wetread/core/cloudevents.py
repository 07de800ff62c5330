"""Events as they leave the system: CloudEvents 1.0 in structured JSON mode.

Two forms of one event: the whole one for the authorised event stream, and the minimal one for notifications, which
leave the house: study reference, finding code, score band, link.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from wetread.core.events import Event
from wetread.core.instants import iso_utc
from wetread.core.ruo import RUO_STATEMENT

CONTENT_TYPE: Final = "application/cloudevents+json"

NOTIFIED_KEYS: Final = frozenset(
    {
        "attempt",
        "code",
        "detector",
        "due_at",
        "finding",
        "finding_id",
        "findings",
        "generation",
        "instances",
        "meaning",
        "model_digest",
        "preliminary",
        "previous",
        "priority",
        "reason",
        "result_key",
        "scheme",
        "score",
        "source",
        "state",
        "version",
        "alarm",
        "step",
        "waited_s",
    }
)
"""Keys of event data that may leave in a notification. Free text is not among them: people write names into it."""

_NOTIFIED_FINDING_KEYS: Final = frozenset({"finding_id", "code", "scheme", "meaning", "state"})


def cloud_event(event: Event) -> dict[str, Any]:
    """Return the whole event as a JSON value. ``cursor`` is an extension attribute: the position in the stream."""
    return _envelope(event, dict(event.data))


def notification(event: Event, *, public_url: str, patient: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the minimal event for a webhook.

    Scores become bands of a tenth. ``patient`` is added only for a subscription that asks for it. ``link`` leads to
    the study on the worklist of this installation (*public_url*).
    """
    data = {key: value for key, value in event.data.items() if key in NOTIFIED_KEYS}
    if "score" in data:
        band = score_band(data.pop("score"))
        if band is not None:
            data["score_band"] = band
    if "finding" in data:
        data["finding"] = _minimal_finding(data["finding"])
    if "findings" in data:
        data["findings"] = [_minimal_finding(finding) for finding in data["findings"]]
    data["link"] = f"{public_url.rstrip('/')}/studies/{event.subject}"
    if patient is not None:
        data["patient"] = dict(patient)
    return _envelope(event, data)


def score_band(score: float | None) -> str | None:
    """Return the tenth a score in [0, 1] lies in, such as ``0.9-1.0``; None when there is no score."""
    if score is None:
        return None
    low = min(9, max(0, int(score * 10)))
    return f"{low / 10:.1f}-{(low + 1) / 10:.1f}"


def _minimal_finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in finding.items() if key in _NOTIFIED_FINDING_KEYS}


def _envelope(event: Event, data: dict[str, Any]) -> dict[str, Any]:
    data["stamps"] = {stage: iso_utc(seconds) for stage, seconds in event.stamps.items()}
    data["ruo"] = RUO_STATEMENT
    # The extension "distributed tracing" of CloudEvents 1.0.
    trace = {} if event.trace is None else {"traceparent": event.trace}
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/tenants/{event.tenant}",
        "type": str(event.type),
        "subject": event.subject,
        "time": iso_utc(event.time),
        "datacontenttype": "application/json",
        "cursor": event.cursor,
        **trace,
        "data": data,
    }
