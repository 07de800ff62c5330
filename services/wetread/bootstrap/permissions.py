"""What each route asks of a credential: one table, one place (ADR 1001). A route that is not listed is refused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from wetread.core.access import Scope


class Need(Enum):
    """What a route asks for when it is not a scope."""

    NOTHING = "nothing"
    """No credential: probes of the orchestrator."""
    CREDENTIAL = "credential"
    """Any credential: says nothing about anybody's data."""
    REFUSED = "refused"
    """The route is missing in the table: nobody gets in."""


Needs = Scope | Need

_STUDY: Final = "/dicom-web/studies/{study}"
_SERIES: Final = f"{_STUDY}/series/{{series}}"
_INSTANCE: Final = f"{_SERIES}/instances/{{instance}}"
_FRAMES: Final = f"{_INSTANCE}/frames/{{frames}}"

_DICOM_READ: Final = (
    "/dicom-web/studies",
    "/dicom-web/series",
    "/dicom-web/instances",
    _STUDY,
    f"{_STUDY}/series",
    f"{_STUDY}/instances",
    _SERIES,
    f"{_SERIES}/instances",
    _INSTANCE,
    *(f"{path}/{kind}" for path in (_STUDY, _SERIES, _INSTANCE) for kind in ("metadata", "bulkdata", "pixeldata")),
    _FRAMES,
    f"{_INSTANCE}/bulkdata/{{path:path}}",
    *(f"{path}/{kind}" for path in (_STUDY, _SERIES, _INSTANCE, _FRAMES) for kind in ("rendered", "thumbnail")),
    "/dicom-web/wado",
    "/dicom-web/changefeed",
    "/dicom-web/changefeed/latest",
)
_WORKLIST_READ: Final = (
    "/",
    "/fragments/worklist",
    "/studies/{study_uid}",
    "/studies/{study_uid}/thumbnail",
    "/api/v1/worklist",
    "/api/v1/studies/{study_uid}/findings",
    "/api/v1/studies/{study_uid}/timeline",
    "/api/v1/studies/{study_uid}/explanation",
    "/api/v1/detectors",
    "/api/v1/events",
    "/api/v1/events/stream",
    "/api/v1/reports/sla",
    "/api/v1/usage",
    "/api/v1/tasks",
    "/api/v1/tasks/{study_uid}/{detector}",
)
_FFR_READ: Final = ("/ffr/{study_uid}", "/api/v1/studies/{study_uid}/ffr", "/api/v1/studies/{study_uid}/ffr/{name}")
_SLIDE: Final = "/api/v1/studies/{study_uid}/series/{series_uid}/pathology"
_SLIDE_READ: Final = ("/slides/{study_uid}", "/api/v1/studies/{study_uid}/pathology", _SLIDE, f"{_SLIDE}/{{name}}")
_SUBSCRIPTION: Final = "/api/v1/subscriptions/{subscription_id}"
_FINDING: Final = "/api/v1/studies/{study_uid}/findings/{finding_id}"
_TASK: Final = "/api/v1/tasks/{study_uid}/{detector}"
_WORKITEM: Final = "/dicom-web/workitems/{uid}"

PERMISSIONS: Final[Mapping[str, Needs]] = {
    "GET /livez": Need.NOTHING,
    "GET /readyz": Need.NOTHING,
    "GET /metrics": Scope.METRICS_READ,
    "GET /api/v1/openapi.json": Need.CREDENTIAL,
    "GET /api/v1/audit": Scope.ADMIN,
    "GET /static/{name}": Need.CREDENTIAL,
    "GET /viewer": Need.CREDENTIAL,
    "GET /viewer/app-config.js": Need.CREDENTIAL,
    "GET /viewer/{path:path}": Need.CREDENTIAL,
    "OPTIONS /dicom-web": Need.CREDENTIAL,
    "OPTIONS /dicom-web/": Need.CREDENTIAL,
    **{f"GET {path}": Scope.DICOM_READ for path in _DICOM_READ},
    "POST /dicom-web/studies": Scope.DICOM_WRITE,
    f"POST {_STUDY}": Scope.DICOM_WRITE,
    **{f"DELETE {path}": Scope.DICOM_DELETE for path in (_STUDY, _SERIES, _INSTANCE)},
    **{f"GET {path}": Scope.WORKLIST_READ for path in _WORKLIST_READ},
    **{
        f"POST /api/v1/worklist/{{study_uid}}:{verb}": Scope.WORKLIST_WRITE
        for verb in ("raise", "assign", "release", "complete")
    },
    **{f"POST {_FINDING}:{verb}": Scope.WORKLIST_WRITE for verb in ("acknowledge", "accept", "reject", "edit")},
    "POST /api/v1/studies/{study_uid}/manifest": Scope.WORKLIST_WRITE,
    "POST /api/v1/studies/{study_uid}:re-evaluate": Scope.WORKLIST_WRITE,
    **{f"POST {_TASK}:{verb}": Scope.WORKLIST_WRITE for verb in ("retry", "cancel", "discard", "rerun", "re-encode")},
    "POST /api/v1/events:re-notify": Scope.WEBHOOKS,
    "POST /api/v1/subscriptions": Scope.WEBHOOKS,
    "GET /api/v1/subscriptions": Scope.WEBHOOKS,
    f"GET {_SUBSCRIPTION}": Scope.WEBHOOKS,
    f"DELETE {_SUBSCRIPTION}": Scope.WEBHOOKS,
    f"POST {_SUBSCRIPTION}:rotate": Scope.WEBHOOKS,
    f"POST {_SUBSCRIPTION}:test": Scope.WEBHOOKS,
    f"GET {_SUBSCRIPTION}/deliveries": Scope.WEBHOOKS,
    "GET /dicom-web/workitems": Scope.UPS_READ,
    f"GET {_WORKITEM}": Scope.UPS_READ,
    "POST /dicom-web/workitems": Scope.UPS_WRITE,
    f"POST {_WORKITEM}/cancelrequest": Scope.UPS_WRITE,
    f"POST {_WORKITEM}": Scope.UPS_PERFORM,
    f"PUT {_WORKITEM}/state": Scope.UPS_PERFORM,
    f"POST {_WORKITEM}/subscribers/{{aet}}": Scope.UPS_READ,
    f"DELETE {_WORKITEM}/subscribers/{{aet}}": Scope.UPS_READ,
    f"POST {_WORKITEM}/subscribers/{{aet}}/suspend": Scope.UPS_READ,
    "WEBSOCKET /dicom-web/subscribers/{aet}": Scope.UPS_READ,
    "WEBSOCKET /dicom-web/ws/subscribers/{aet}": Scope.UPS_READ,
    "WEBSOCKET /ws/subscribers/{aet}": Scope.UPS_READ,
    "POST /api/v1/simulations": Scope.WORKLIST_READ,
    "POST /api/v1/ffr": Scope.FFR_COMPUTE,
    "POST /api/v1/ffr:batch": Scope.FFR_COMPUTE,
    "POST /api/v1/studies/{study_uid}/series/{series_uid}/ffr": Scope.WORKLIST_WRITE,
    **{f"GET {path}": Scope.WORKLIST_READ for path in _FFR_READ},
    "GET /ffr/static/{name}": Need.CREDENTIAL,
    f"POST {_SLIDE}": Scope.WORKLIST_WRITE,
    **{f"GET {path}": Scope.WORKLIST_READ for path in _SLIDE_READ},
    "GET /slides/static/{name}": Need.CREDENTIAL,
    "GET /api/v1/ffr/schema": Need.CREDENTIAL,
    "GET /api/v1/ffr/constants": Need.CREDENTIAL,
}
"""``METHOD template`` of every route of the application; HEAD is GET. A test compares it with the routes there are."""

STREAMS: Final = frozenset({"/api/v1/events/stream"})
"""Routes besides the websockets whose answer goes on until somebody ends it."""

STREAMS_BY_ACCEPT: Final = frozenset({"/dicom-web/changefeed"})
"""Routes that answer so whom asks for ``text/event-stream``."""
