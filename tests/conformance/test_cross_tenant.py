"""Every route of the application, asked with another tenant's credential for data that it must not know to exist.

Each case is asked twice: with the identifiers of the other hospital, and with identifiers that name nothing. Both
answers have to be the same, so that not even existence shows. A route without a case fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway_support import instance, multipart, stow_headers
from tests.tenants_world import AE, Ids, World, told, two_hospitals
from tests.unit.test_ffrct_api import tree
from tests.ups_worklist import next_event, request_dataset
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from wetread.bootstrap.permissions import PERMISSIONS, Need
from wetread.bootstrap.route_table import routes_of
from wetread.core.ups_dataset import element

STUDY = "/dicom-web/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
FRAMES = INSTANCE + "/frames/{frames}"
WORKITEM = "/dicom-web/workitems/{uid}"
FFR = "/api/v1/studies/{study_uid}/ffr"
SLIDE = "/api/v1/studies/{study_uid}/series/{series_uid}/pathology"
FINDING = "/api/v1/studies/{study_uid}/findings/{finding_id}"
TASK = "/api/v1/tasks/{study_uid}/{detector}"
HOOK = "/api/v1/subscriptions/{subscription_id}"
CLAIM = "1.2.3.4.5.6"


@dataclass(frozen=True)
class Case:
    """How a route is asked. ``shows``: its owner sees the marker in the answer. ``status``: of the owner's request."""

    status: int = 200
    shows: bool = False
    query: str = ""
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


def stow(ids: Ids) -> bytes:
    return multipart([instance(StudyInstanceUID=ids.study, SeriesInstanceUID=ids.series, SOPInstanceUID=ids.instance)])


RAISE = {"priority": "stat", "reason": "x"}
CLAIMED = {"00741000": element("CS", "IN PROGRESS"), "00081195": element("UI", CLAIM)}

NAMED: dict[str, Case] = {
    **{f"GET {path}": Case() for path in (STUDY, SERIES, INSTANCE)},
    **{f"GET {path}/metadata": Case(shows=True) for path in (STUDY, SERIES, INSTANCE)},
    **{f"GET {path}": Case(shows=True) for path in (f"{STUDY}/series", f"{STUDY}/instances")},
    f"GET {SERIES}/instances": Case(),
    **{f"GET {path}/{kind}": Case() for path in (STUDY, SERIES, INSTANCE) for kind in ("bulkdata", "pixeldata")},
    f"GET {FRAMES}": Case(),
    f"GET {INSTANCE}/bulkdata/{{path:path}}": Case(shows=True),
    **{f"GET {p}/{k}": Case() for p in (STUDY, SERIES, INSTANCE, FRAMES) for k in ("rendered", "thumbnail")},
    f"POST {STUDY}": Case(409, body=stow, headers=stow_headers()),
    **{f"DELETE {path}": Case(204) for path in (INSTANCE, SERIES, STUDY)},
    "POST /api/v1/worklist/{study_uid}:raise": Case(body=RAISE, shows=True),
    **{f"POST /api/v1/worklist/{{study_uid}}:{verb}": Case(shows=True) for verb in ("assign", "complete")},
    "POST /api/v1/worklist/{study_uid}:release": Case(409),
    "GET /api/v1/studies/{study_uid}/findings": Case(shows=True),
    **{f"POST {FINDING}:{verb}": Case() for verb in ("acknowledge", "accept")},
    f"POST {FINDING}:reject": Case(body={"reason": "x"}),
    f"POST {FINDING}:edit": Case(body={"reason": "x", "comment": "y"}),
    "GET /api/v1/studies/{study_uid}/timeline": Case(shows=True),
    "POST /api/v1/studies/{study_uid}/manifest": Case(202, body={"instances": 1}),
    "GET /api/v1/tasks/{study_uid}/{detector}": Case(shows=True),
    "GET /api/v1/studies/{study_uid}/explanation": Case(shows=True),
    "POST /api/v1/studies/{study_uid}:re-evaluate": Case(202),
    f"POST {TASK}:retry": Case(202, shows=True),
    f"POST {TASK}:cancel": Case(409),
    **{f"POST {TASK}:{verb}": Case(202) for verb in ("discard", "rerun")},
    f"POST {TASK}:re-encode": Case(409),
    "POST /api/v1/studies/{study_uid}/series/{series_uid}/ffr": Case(202),
    **{f"GET {path}": Case(404) for path in (FFR, f"{FFR}/{{name}}", "/ffr/{study_uid}")},
    f"POST {SLIDE}": Case(422),
    **{f"GET {path}": Case(404) for path in (SLIDE, f"{SLIDE}/{{name}}", "/slides/{study_uid}")},
    "GET /api/v1/studies/{study_uid}/pathology": Case(),
    "GET /studies/{study_uid}": Case(shows=True),
    "GET /studies/{study_uid}/thumbnail": Case(307),
    f"GET {HOOK}": Case(shows=True),
    f"GET {HOOK}/deliveries": Case(),
    f"POST {HOOK}:rotate": Case(shows=True),
    f"POST {HOOK}:test": Case(),
    f"DELETE {HOOK}": Case(204),
    f"GET {WORKITEM}": Case(shows=True),
    f"POST {WORKITEM}": Case(body=[{"00741204": element("LO", "changed")}]),
    f"POST {WORKITEM}/cancelrequest": Case(202, body=[{}]),
    f"PUT {WORKITEM}/state": Case(body=[CLAIMED]),
    f"POST {WORKITEM}/subscribers/{{aet}}": Case(201),
    f"POST {WORKITEM}/subscribers/{{aet}}/suspend": Case(400),
    f"DELETE {WORKITEM}/subscribers/{{aet}}": Case(),
}
"""Routes whose path names somebody's data."""

LISTED: dict[str, Case] = {
    "GET /dicom-web/studies": Case(query="PatientID={marker}"),
    "GET /dicom-web/series": Case(query="StudyInstanceUID={study}"),
    "GET /dicom-web/instances": Case(query="SOPInstanceUID={instance}&includefield=all"),
    "GET /dicom-web/changefeed": Case(query="includeMetadata=true"),
    "GET /dicom-web/changefeed/latest": Case(query="includeMetadata=true"),
    "GET /api/v1/worklist": Case(query="q={marker}"),
    "GET /api/v1/events": Case(query="after=0&limit=1000"),
    "GET /api/v1/tasks": Case(query="limit=1000"),
    "GET /api/v1/audit": Case(query="study={study}"),
    "GET /api/v1/subscriptions": Case(),
    "GET /dicom-web/workitems": Case(query="00741204={marker}"),
    "GET /": Case(query="q={marker}"),
    "GET /fragments/worklist": Case(query="q={marker}"),
}
"""Routes that list what a tenant has: asked as they are, and with the query."""

OWN: dict[str, Case] = {
    "POST /dicom-web/studies": Case(body=stow, headers=stow_headers()),
    "POST /dicom-web/workitems": Case(201, query="workitem={workitem}", body=[request_dataset()]),
    "POST /api/v1/subscriptions": Case(201, body={"url": "http://127.0.0.1:9/x"}),
    "GET /api/v1/reports/sla": Case(query="by=site,modality,class,finding"),
    "GET /api/v1/usage": Case(),
    "POST /api/v1/events:re-notify": Case(202, body={"from": 10**9}),
    "POST /api/v1/simulations": Case(body={"studies": 100, "policies": ["fifo"]}),
    "POST /api/v1/ffr": Case(body={"tree": tree()}),
    "POST /api/v1/ffr:batch": Case(body={"items": [{"tree": tree()}]}),
}
"""Routes by which a tenant makes something of its own, under a name that the other uses too."""

IMPERSONAL = {
    "GET /livez",
    "GET /readyz",
    "GET /api/v1/openapi.json",
    "GET /api/v1/detectors",
    "GET /api/v1/ffr/schema",
    "GET /api/v1/ffr/constants",
    "GET /ffr/static/{name}",
    "GET /slides/static/{name}",
    "GET /static/{name}",
    "GET /viewer",
    "GET /viewer/app-config.js",
    "GET /viewer/{path:path}",
    "OPTIONS /dicom-web",
    "OPTIONS /dicom-web/",
}
"""Routes that know nothing of tenants: the same answer for both."""

CHANNELS = {
    "WEBSOCKET /dicom-web/subscribers/{aet}": "/dicom-web/subscribers/",
    "WEBSOCKET /dicom-web/ws/subscribers/{aet}": "/dicom-web/ws/subscribers/",
    "WEBSOCKET /ws/subscribers/{aet}": "/ws/subscribers/",
}
STREAMS = {"GET /api/v1/events/stream"}
FORBIDDEN = {"GET /metrics"}
BY_QUERY = "GET /dicom-web/wado"
WADO = "/dicom-web/wado?requestType=WADO&studyUID={study}&seriesUID={series}&objectUID={instance}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    viewer = tmp_path_factory.mktemp("viewer")
    # Not the one of `make viewer`, which a machine may have or not.
    (viewer / "index.html").write_text("<!doctype html><title>viewer</title>")
    with two_hospitals(tmp_path_factory.mktemp("two"), viewer=viewer) as running:
        running.south.furnish()
        yield running


def request(hospital: Any, route: str, case: Case, ids: Ids, *, query: bool = True) -> httpx.Response:
    method, template = route.split(" ", 1)
    path = ids.path(template)
    if case.query and query:
        path += "?" + case.query.format(**ids.names())
    if callable(case.body):
        return hospital.ask(method, path, content=case.body(ids), headers=case.headers)
    if case.body is not None:
        return hospital.ask(method, path, json=case.body, headers=case.headers)
    return hospital.ask(method, path, headers=case.headers)


def everything(world: World, ids: Ids) -> list[Any]:
    """Return what the owner sees of its data."""
    paths = (
        f"/dicom-web/studies/{ids.study}/metadata",
        f"/dicom-web/workitems/{ids.workitem}",
        f"/api/v1/worklist?q={ids.marker}",
        f"/api/v1/studies/{ids.study}/findings",
        f"/api/v1/studies/{ids.study}/timeline",
        f"/api/v1/tasks/{ids.study}/ich",
        f"/api/v1/subscriptions/{ids.subscription}",
    )
    answers = [world.north.ask("GET", path) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    stored = world.north.ask("GET", f"/dicom-web/studies/{ids.study}/series/{ids.series}/instances/{ids.instance}",
                             headers={"Accept": "application/dicom; transfer-syntax=*"})  # fmt: skip
    return [*(_timeless(answer.json()) for answer in answers), stored.content]


def _timeless(value: Any) -> Any:
    """Leave out what the clock changes."""
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in {"waiting_seconds", "now"}}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def test_every_route_has_a_case_and_a_rule(world: World) -> None:
    shell = world.app.app
    there = {f"{method} {path}" for method, path in routes_of(shell.app.routes) if method != "HEAD"}
    cases = {*NAMED, *LISTED, *OWN, *IMPERSONAL, *CHANNELS, *STREAMS, *FORBIDDEN, BY_QUERY}
    assert there - cases == set(), "routes without a case: another tenant's data may be seen there"
    assert cases - there == set(), "cases without a route"
    assert there == set(PERMISSIONS), "each route has a line in wetread.bootstrap.permissions"
    assert not any(need is Need.REFUSED for need in PERMISSIONS.values())


@pytest.mark.parametrize("route", NAMED)
def test_what_another_tenant_has_is_as_if_it_were_not_there(world: World, route: str) -> None:
    case, victim, nothing = NAMED[route], world.north.furnish(), Ids()
    reads = route.startswith("GET")
    if reads:  # first by its owner, so that what is cached could leak
        owner = request(world.north, route, case, victim)
        assert owner.status_code == case.status, owner.text
        assert (victim.marker in owner.text) or not case.shows
    before = everything(world, victim)
    attacked = request(world.south, route, case, victim)
    nowhere = request(world.south, route, case, nothing)
    assert told(attacked, victim) == told(nowhere, nothing)
    assert victim.marker not in attacked.text
    if reads:
        assert attacked.status_code in {200, 404}, "200: a list of nothing"
        tagged = {"If-None-Match": owner.headers.get("etag", "*")}
        again = request(world.south, route, Case(headers=tagged), victim)
        assert told(again, victim) == told(attacked, victim), "not even an entity tag is confirmed"
        assert world.south.ask("HEAD", victim.path(route.split(" ", 1)[1])).status_code in {attacked.status_code, 405}
        return
    assert everything(world, victim) == before, "nothing of the owner's has changed"
    owner = request(world.north, route, case, victim)
    assert owner.status_code == case.status, owner.text
    assert (victim.marker in owner.text) or not case.shows


@pytest.mark.parametrize("kind", ["application/dicom", "image/png", ""])
def test_what_a_query_names_of_another_tenant_is_as_if_it_were_not_there(world: World, kind: str) -> None:
    victim, nothing = world.north.furnish(), Ids()
    paths = [WADO.format(**ids.names()) + (f"&contentType={kind}" if kind else "") for ids in (victim, nothing)]
    owner = world.north.ask("GET", paths[0])
    assert owner.status_code == 200
    attacked, nowhere = (world.south.ask("GET", path) for path in paths)
    assert attacked.status_code == 404
    assert told(attacked, victim) == told(nowhere, nothing)
    tagged = world.south.ask("GET", paths[0], headers={"If-None-Match": owner.headers["etag"]})
    assert told(tagged, victim) == told(attacked, victim)


@pytest.mark.parametrize("route", LISTED)
def test_lists_hold_what_is_the_callers_own(world: World, route: str) -> None:
    victim, own, nothing = world.north.furnish(), world.south.furnish(), Ids()
    case = LISTED[route]
    for hospital, ids in ((world.north, victim), (world.south, own)):
        assert eventually_lists(hospital, route, case, ids), "its owner finds it"
    plain = [request(world.south, route, case, victim, query=False)]
    if "{" in case.query:
        attacked, nowhere = (request(world.south, route, case, ids) for ids in (victim, nothing))
        assert told(attacked, victim) == told(nowhere, nothing)
    else:
        plain.append(request(world.south, route, case, victim))
    for answer in plain:
        assert answer.status_code == 200, answer.text
        for name, value in victim.names().items():
            assert value not in answer.text, f"the {name} of another tenant is in the list"


def eventually_lists(hospital: Any, route: str, case: Case, ids: Ids) -> bool:
    """Return whether the owner sees its data; the audit trail is written half a second later."""
    for _ in range(100):
        text = request(hospital, route, case, ids).text
        if any(value in text for value in (ids.study, ids.workitem, ids.subscription)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("route", OWN)
def test_a_name_that_another_tenant_uses_is_free(world: World, route: str) -> None:
    case, victim, nothing = OWN[route], world.north.furnish(), Ids()
    before = everything(world, victim)
    attacked, nowhere = (request(world.south, route, case, ids) for ids in (victim, nothing))
    assert attacked.status_code == nowhere.status_code == case.status, attacked.text
    if "/api/v1" not in route:  # there an answer holds a new secret, or how long it took
        assert told(attacked, victim) == told(nowhere, nothing)
    assert victim.marker not in attacked.text
    assert everything(world, victim) == before


@pytest.mark.parametrize("route", sorted(IMPERSONAL))
def test_what_knows_no_tenants_answers_all_alike(world: World, route: str) -> None:
    victim = world.north.furnish()
    method, template = route.split(" ", 1)
    answers = [hospital.ask(method, victim.path(template)) for hospital in (world.north, world.south)]
    assert {answer.status_code for answer in answers} in ({200}, {308}, {503}), "503: no worker runs here"
    assert answers[0].text == answers[1].text
    assert not any(value in answers[1].text for value in victim.names().values())


def test_the_figures_of_all_tenants_are_no_tenants_right(world: World) -> None:
    answer = world.south.ask("GET", "/metrics")
    assert answer.status_code == 403
    assert 'scope="metrics.read"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("route", CHANNELS)
def test_a_channel_of_the_same_title_brings_the_callers_own_events(world: World, route: str) -> None:
    worklist = "1.2.840.10008.5.1.4.34.5"
    for hospital in (world.north, world.south):
        assert hospital.ask("POST", f"/dicom-web/workitems/{worklist}/subscribers/{AE}").status_code == 201
    address = world.url.replace("http", "ws", 1) + CHANNELS[route] + AE
    with connect(address, additional_headers=world.south.headers) as socket:
        victim, own = Ids(), Ids()
        for hospital, ids in ((world.north, victim), (world.south, own)):
            path = f"/dicom-web/workitems?workitem={ids.workitem}"
            assert hospital.ask("POST", path, json=[request_dataset()]).status_code == 201
        seen = ""
        while own.workitem not in seen:
            seen += json.dumps(next_event(socket))
    assert victim.workitem not in seen
    with pytest.raises(InvalidStatus) as refused, connect(address):
        pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("start", ["?after=0", ""])
@pytest.mark.parametrize("path", ["/api/v1/events/stream", "/dicom-web/changefeed"])
def test_a_stream_brings_the_callers_own_events(world: World, path: str, start: str) -> None:
    headers = {"Accept": "text/event-stream"} | ({} if start else {"Last-Event-ID": "0"})
    feed = path.startswith("/dicom-web")
    before = world.north.furnish()
    with world.south.http.stream("GET", path + start, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        victim, own = world.north.furnish(), world.south.furnish()
        seen = ""
        for line in answer.iter_lines():
            seen += line
            if (own.study if feed else f"e-{own.marker}") in line:
                break
    for ids in (before, victim):
        assert not any(value in seen for value in ids.names().values())


def test_the_same_names_in_two_tenants_are_two_things(tmp_path: Path) -> None:
    # A server of their own: what counts the changes of each tenant stands alike.
    with two_hospitals(tmp_path) as world:
        same_names(world)


def same_names(world: World) -> None:
    ids = Ids()
    world.north.store(ids)
    theirs = Ids(ids.study, ids.series, ids.instance, marker="M777777777")
    answer = world.south.store(theirs, InstanceNumber=2)
    assert answer.status_code == 200
    for route in [name for name in NAMED if name.startswith("GET /dicom-web/studies")]:
        north, south = (request(hospital, route, NAMED[route], ids) for hospital in (world.north, world.south))
        assert north.status_code == south.status_code == 200, route
        assert ids.marker not in south.text
        assert theirs.marker not in north.text
        if north.content != south.content:
            # The next user of a shared browser revalidates what the one before has left in its cache.
            assert north.headers["etag"] != south.headers["etag"], route
            held = {"If-None-Match": north.headers["etag"]}
            assert request(world.south, route, Case(headers=held), ids).status_code == 200, route
    path, same_key = f"/dicom-web/studies/{ids.study}", {"Idempotency-Key": "k"}
    assert world.south.ask("DELETE", path, headers=same_key).status_code == 204
    assert world.south.ask("GET", f"{path}/metadata").status_code == 410
    assert world.north.ask("GET", f"{path}/metadata").status_code == 200
    assert ids.marker in world.north.ask("GET", f"{path}/metadata").text
    assert world.north.ask("DELETE", path, headers=same_key).status_code == 204
    assert world.north.ask("GET", f"{path}/metadata").status_code == 410, "the key was another tenant's"


@pytest.mark.parametrize("header", ["X-Tenant", "X-Wetread-Tenant", "X-Forwarded-User", "Tenant", "X-Scope-OrgID"])
def test_nothing_in_a_request_names_a_tenant(world: World, header: str) -> None:
    victim, nothing = world.north.furnish(), Ids()
    asked = (("study", STUDY + "/metadata"), ("study_uid", "/api/v1/studies/{study_uid}/findings"))
    for _, template in asked:
        answers = [
            world.south.ask("GET", ids.path(template) + "?tenant=north", headers={header: "north"})
            for ids in (victim, nothing)
        ]
        assert told(answers[0], victim)[0] == told(answers[1], nothing)[0]
        assert victim.marker not in answers[0].text
