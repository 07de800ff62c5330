"""Every call of the provider API as a value: what to send, and how to read the answer. Both clients send these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from wetread.client import models
from wetread.core.errors import WetreadError
from wetread.core.identifiers import check_uid
from wetread.core.priority import Priority
from wetread.core.states import StudyAiState

API: Final = "/api/v1"
LONGEST_WAIT_SECONDS: Final = 60.0
"""The server answers a long poll after this time at the latest."""

Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[Value]):
    """One request. ``extra_seconds``: how much longer than other calls it may take."""

    method: str
    path: str
    read: Callable[[httpx.Response], Value]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_seconds: float = 0.0


def _model(kind: type[Model]) -> Callable[[httpx.Response], Model]:
    def read(response: httpx.Response) -> Model:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            msg = f"the answer is not what this client understands as {kind.__name__}"
            raise WetreadError(msg) from error

    return read


def _nothing(_response: httpx.Response) -> None:
    return None


def worklist(
    *,
    priority: Priority | None = None,
    modality: str | None = None,
    state: StudyAiState | None = None,
    text: str = "",
    limit: int = 50,
    cursor: str | None = None,
) -> Call[models.WorklistPage]:
    """A page of open studies in reading order."""
    given = {"priority": priority, "modality": modality, "state": state, "q": text, "limit": limit, "cursor": cursor}
    params = {name: str(value) for name, value in given.items() if value not in {None, ""}}
    return Call("GET", f"{API}/worklist", _model(models.WorklistPage), params)


def raise_study(study_uid: str, priority: Priority, reason: str) -> Call[models.WorklistItem]:
    """Raise a study by hand."""
    body = {"priority": str(priority), "reason": reason}
    return Call("POST", f"{API}/worklist/{check_uid(study_uid)}:raise", _model(models.WorklistItem), json=body)


def reading(study_uid: str, verb: str, reason: str = "", reader: str | None = None) -> Call[models.WorklistItem]:
    """Assign, release or complete: what a reader does with a study."""
    body = {"reason": reason} | ({"reader": reader} if reader else {})
    return Call("POST", f"{API}/worklist/{check_uid(study_uid)}:{verb}", _model(models.WorklistItem), json=body)


def verdict(study_uid: str, finding_id: str, verb: str, body: Mapping[str, Any]) -> Call[models.FindingFeedback]:
    """Acknowledge, accept, reject or edit: what a reader says of a finding."""
    path = f"{API}/studies/{check_uid(study_uid)}/findings/{quote(finding_id, safe='')}:{verb}"
    return Call("POST", path, _model(models.FindingFeedback), json=dict(body))


def edited(
    reason: str, measurements: Sequence[models.MeasurementEdit], laterality: str | None, comment: str
) -> dict[str, Any]:
    """Return the body of an edit."""
    changed = [measurement.model_dump() for measurement in measurements]
    return {"reason": reason, "measurements": changed, "laterality": laterality, "comment": comment}


def findings(study_uid: str, wait_seconds: float = 0.0) -> Call[models.Findings]:
    """Every detector's standing, at the latest after *wait_seconds*."""
    wait = min(wait_seconds, LONGEST_WAIT_SECONDS)
    params = {"wait": f"{wait:.3f}s"} if wait > 0 else {}
    path = f"{API}/studies/{check_uid(study_uid)}/findings"
    return Call("GET", path, _model(models.Findings), params, extra_seconds=wait)


def manifest(
    study_uid: str, *, instances: int | None = None, sop_instance_uids: Iterable[str] | None = None
) -> Call[models.Manifest]:
    """What the study consists of: a count, or the UIDs."""
    body: dict[str, Any] = {} if instances is None else {"instances": instances}
    if sop_instance_uids is not None:
        body["sop_instance_uids"] = list(sop_instance_uids)
    return Call("POST", f"{API}/studies/{check_uid(study_uid)}/manifest", _model(models.Manifest), json=body)


def timeline(study_uid: str, limit: int = 200) -> Call[models.Timeline]:
    """What happened to a study."""
    path = f"{API}/studies/{check_uid(study_uid)}/timeline"
    return Call("GET", path, _model(models.Timeline), {"limit": limit})


def tasks(state: str | None = None, limit: int = 100) -> Call[models.Tasks]:
    """AI tasks, latest change first."""
    params: dict[str, Any] = {"limit": limit} | ({"state": state} if state else {})
    return Call("GET", f"{API}/tasks", _model(models.Tasks), params)


def task(study_uid: str, detector: str) -> Call[models.TaskDetail]:
    """One task with its events."""
    return Call("GET", f"{API}/tasks/{check_uid(study_uid)}/{detector}", _model(models.TaskDetail))


def retry_task(study_uid: str, detector: str, reason: str = "") -> Call[models.TaskDetail]:
    """Try a task again."""
    path = f"{API}/tasks/{check_uid(study_uid)}/{detector}:retry"
    return Call("POST", path, _model(models.TaskDetail), json={"reason": reason})


def operate_task(study_uid: str, detector: str, verb: str, reason: str = "") -> Call[models.Requested]:
    """Ask for cancel, discard, rerun or re-encode."""
    path = f"{API}/tasks/{check_uid(study_uid)}/{detector}:{verb}"
    return Call("POST", path, _model(models.Requested), json={"reason": reason})


def reevaluate(study_uid: str) -> Call[None]:
    """Evaluate today's rules on a study again."""
    return Call("POST", f"{API}/studies/{check_uid(study_uid)}:re-evaluate", _nothing)


def renotify(after: int) -> Call[models.Renotified]:
    """Deliver the events after a cursor to the webhooks again."""
    return Call("POST", f"{API}/events:re-notify", _model(models.Renotified), json={"from": after})


def explanation(study_uid: str, *, every: bool = False) -> Call[models.StudyExplanation]:
    """Why a study was decided on as it was."""
    path = f"{API}/studies/{check_uid(study_uid)}/explanation"
    return Call("GET", path, _model(models.StudyExplanation), {"all": "true"} if every else {})


def detectors() -> Call[models.Detectors]:
    """Every detector of the server."""
    return Call("GET", f"{API}/detectors", _model(models.Detectors))


def sla_report(since: datetime | None, to: datetime | None, by: Sequence[str]) -> Call[models.Sla]:
    """Turnaround by group."""
    return Call(
        "GET", f"{API}/reports/sla", _model(models.Sla), _window(since, to) | ({"by": ",".join(by)} if by else {})
    )


def usage(since: datetime | None, to: datetime | None) -> Call[models.Usage]:
    """What was used."""
    return Call("GET", f"{API}/usage", _model(models.Usage), _window(since, to))


def _window(since: datetime | None, to: datetime | None) -> dict[str, Any]:
    return {name: at.isoformat() for name, at in (("from", since), ("to", to)) if at is not None}


def events(after: int = 0, types: Sequence[str] = (), limit: int = 100) -> Call[models.Events]:
    """Events after a cursor."""
    params: dict[str, Any] = {"after": after, "limit": limit}
    if types:
        params["types"] = ",".join(types)
    return Call("GET", f"{API}/events", _model(models.Events), params)


def subscribe(
    url: str, types: Sequence[str] = (), *, include_patient: bool = False, secrets: Sequence[str] = ()
) -> Call[models.SubscriptionWithSecrets]:
    """Create a webhook subscription."""
    body = {"url": url, "types": list(types), "include_patient": include_patient, "secrets": list(secrets)}
    return Call("POST", f"{API}/subscriptions", _model(models.SubscriptionWithSecrets), json=body)


def subscriptions() -> Call[models.Subscriptions]:
    """All subscriptions."""
    return Call("GET", f"{API}/subscriptions", _model(models.Subscriptions))


def subscription(subscription_id: str) -> Call[models.Subscription]:
    """One subscription."""
    return Call("GET", f"{API}/subscriptions/{subscription_id}", _model(models.Subscription))


def unsubscribe(subscription_id: str) -> Call[None]:
    """End a subscription."""
    return Call("DELETE", f"{API}/subscriptions/{subscription_id}", _nothing)


def rotate_secret(subscription_id: str) -> Call[models.SubscriptionWithSecrets]:
    """Make a new signing secret."""
    return Call("POST", f"{API}/subscriptions/{subscription_id}:rotate", _model(models.SubscriptionWithSecrets))


def test_delivery(subscription_id: str) -> Call[models.TestDelivery]:
    """Send a signed sample now."""
    return Call("POST", f"{API}/subscriptions/{subscription_id}:test", _model(models.TestDelivery))


def deliveries(subscription_id: str, state: str | None = None, limit: int = 100) -> Call[models.Deliveries]:
    """What became of the latest deliveries."""
    params: dict[str, Any] = {"limit": limit} | ({"state": state} if state else {})
    return Call("GET", f"{API}/subscriptions/{subscription_id}/deliveries", _model(models.Deliveries), params)
