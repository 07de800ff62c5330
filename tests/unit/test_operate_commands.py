"""``wetread tasks cancel``, ``discard``, ``rerun``, ``re-*`` and ``wetread explain`` over the real routes."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tests.orchestration_fakes import STUDY, TENANT
from tests.orchestration_world import World

from wetread.bootstrap.web import problem_response
from wetread.client import Client
from wetread.commands.explain import run_explain
from wetread.commands.tasks import run_operate, run_reevaluate, run_renotify
from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.errors import WetreadError
from wetread.core.states import AiState
from wetread.orchestration.endpoints import router
from wetread.orchestration.explain import Explainer
from wetread.orchestration.requests import Renotification

TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, policy=TRUSTED)
    yield made
    made.close()


@pytest.fixture
def client(world):
    """Return a maker of clients whose requests go to the routes in this process."""
    again = SimpleNamespace(again=lambda _tx, _event, *, now: 2)
    renotification = Renotification(world.database, world.ports.events, again, world.clock)
    ports = world.ports
    explainer = Explainer(world.database, ports.decisions, ports.rule_sets, world.rules.workflows)
    app = FastAPI()
    app.include_router(router(world.requests, renotification, lambda: explainer, lambda _request: TENANT))
    app.add_exception_handler(WetreadError, lambda request, error: problem_response(error, request.url.path))
    served = TestClient(app)

    def answer(request: httpx.Request) -> httpx.Response:
        got = served.request(request.method, str(request.url), content=request.content, headers=dict(request.headers))
        return httpx.Response(got.status_code, content=got.content, headers=dict(got.headers))

    return lambda: Client("http://testserver", transport=httpx.MockTransport(answer))


def read(world):
    world.deliver(range(1, 9), transfer_end=True)
    world.settle()


def test_a_verb_is_accepted_and_carried_out_and_a_wrong_one_is_exit_code_1(world, client, capsys):
    world.deliver(range(1, 9), transfer_end=True)
    world.step()
    assert run_operate(client(), "cancel", STUDY, "ich", reason="wrong patient", as_json=False) == 0
    assert "cancel of ich accepted (the task was queued)" in capsys.readouterr().out
    world.settle()
    assert (world.task().state, world.task().detail) == (AiState.CANCELLED, "wrong patient")
    assert run_operate(client(), "discard", STUDY, "ich", reason="", as_json=False) == 1
    assert "discard is for failed" in capsys.readouterr().err
    assert run_operate(client(), "rerun", STUDY, "nobody", reason="", as_json=True) == 2
    assert json.loads(capsys.readouterr().err)["status"] == 404


def test_reevaluation_and_renotification_say_what_they_do(world, client, capsys):
    read(world)
    assert run_reevaluate(client(), STUDY, as_json=False) == 0
    assert "re-evaluation accepted" in capsys.readouterr().out
    events = len(world.log())
    assert run_renotify(client(), 0, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"events": events, "deliveries": 2 * events}


def test_explain_prints_the_rule_its_parts_and_that_it_came_out_again(world, client, capsys):
    read(world)
    assert run_explain(client(), STUDY, every=True, as_json=False) == 0
    text = capsys.readouterr().out
    assert "workflow head-ct@1: matched" in text
    assert "replayed: the same decision" in text
    assert "the rules of today are the same" in text
    assert "[Modality]" in text, "where a value came from"
    assert run_explain(client(), STUDY, every=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["decisions"][0]["agrees"] is True
    assert run_explain(client(), "9.9.9", every=False, as_json=False) == 2
