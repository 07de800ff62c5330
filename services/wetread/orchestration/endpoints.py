"""What the orchestration offers over HTTP: requests on tasks and explanations (``/api/v1``).

The router needs neither detectors nor the durable queue's workers, so that the web process can serve it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from wetread.core.identifiers import check_uid
from wetread.core.states import AiState
from wetread.orchestration.explain import Explainer
from wetread.orchestration.requests import Renotification, Requests, Verb

API_PREFIX = "/api/v1"


class RequestIn(BaseModel):
    """Why it is asked for."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=200, description="for the timeline of the study")] = ""


class RequestedOut(BaseModel):
    """A request that was accepted; the task changes within a moment."""

    study_uid: str
    detector: str
    verb: Verb
    state: AiState | None
    """State of the task when it was asked."""


class ReevaluatedOut(BaseModel):
    """A study whose rules are to be evaluated again."""

    study_uid: str


class ExplanationOut(BaseModel):
    """Decisions on a study, each replayed from its recorded facts, with today's rules beside it."""

    study_uid: str
    decisions: list[dict[str, Any]]
    ruo: str


class RenotifyIn(BaseModel):
    """From where on."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    after: Annotated[int, Field(alias="from", ge=0, description="cursor: events after it are delivered again")]


class RenotifiedOut(BaseModel):
    """What is being delivered again."""

    events: int
    deliveries: int


def router(
    requests: Requests,
    renotification: Renotification,
    explainer: Callable[[], Explainer],
    tenant_of: Callable[[Request], str],
) -> APIRouter:
    """Return the routes, with their prefix."""
    api = APIRouter(tags=["tasks"], prefix=API_PREFIX)

    def ask(request: Request, verb: Verb, study_uid: str, detector: str, body: RequestIn | None) -> RequestedOut:
        uid = check_uid(study_uid)
        task = requests.ask(tenant_of(request), verb, uid, detector, body.reason if body else "")
        return RequestedOut(study_uid=uid, detector=detector, verb=verb, state=task.state)

    @api.post("/tasks/{study_uid}/{detector}:cancel", status_code=202)
    def cancel_task(request: Request, study_uid: str, detector: str, body: RequestIn | None = None) -> RequestedOut:
        """Call a waiting or running task off; only a retry starts it again."""
        return ask(request, Verb.CANCEL, study_uid, detector, body)

    @api.post("/tasks/{study_uid}/{detector}:discard", status_code=202)
    def discard_task(request: Request, study_uid: str, detector: str, body: RequestIn | None = None) -> RequestedOut:
        """Take a failed task off the dead letters. It stays failed, for the reason ``discarded``."""
        return ask(request, Verb.DISCARD, study_uid, detector, body)

    @api.post("/tasks/{study_uid}/{detector}:rerun", status_code=202)
    def rerun_task(request: Request, study_uid: str, detector: str, body: RequestIn | None = None) -> RequestedOut:
        """Run again in the batch lane, with the model, the parameters and the rules of today."""
        return ask(request, Verb.RERUN, study_uid, detector, body)

    @api.post("/tasks/{study_uid}/{detector}:re-encode", status_code=202)
    def reencode_task(request: Request, study_uid: str, detector: str, body: RequestIn | None = None) -> RequestedOut:
        """Write the DICOM objects of the result again: same bytes, same UIDs."""
        return ask(request, Verb.REENCODE, study_uid, detector, body)

    @api.post("/studies/{study_uid}:re-evaluate", status_code=202)
    def reevaluate_study(request: Request, study_uid: str) -> ReevaluatedOut:
        """Evaluate today's rules on the recorded facts: nothing is read twice, what they newly want starts."""
        uid = check_uid(study_uid)
        requests.ask_study(tenant_of(request), Verb.REEVALUATE, uid)
        return ReevaluatedOut(study_uid=uid)

    @api.post("/events:re-notify", status_code=202)
    def renotify(request: Request, body: RenotifyIn) -> RenotifiedOut:
        """Deliver the events after a cursor to the webhooks again, under the ids that they had."""
        events, deliveries = renotification.since(tenant_of(request), body.after)
        return RenotifiedOut(events=events, deliveries=deliveries)

    @api.get("/studies/{study_uid}/explanation")
    def explanation(
        request: Request,
        study_uid: str,
        *,
        every: Annotated[bool, Query(alias="all", description="all decisions, not only the latest")] = False,
    ) -> ExplanationOut:
        """Why the study was decided on as it was: the recorded decision replayed, and what today's rules would say."""
        answer = explainer().explain(tenant_of(request), check_uid(study_uid), every=every)
        return ExplanationOut.model_validate(answer)

    return api
