"""``wetread simulate`` and ``POST /api/v1/simulations``: the same simulator from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.worklist_app import app_of
from tests.worklist_rows import detectors
from tests.worklist_world import World
from typer.testing import CliRunner

from wetread.cli import app
from wetread.core.ruo import RUO_STATEMENT
from wetread.worklist.simulator import Scenario, simulate

SMALL = ["simulate", "--studies", "2000"]


def test_the_table_says_what_was_assumed_and_what_came_out() -> None:
    done = CliRunner().invoke(app, SMALL, env={"COLUMNS": "140"})
    assert done.exit_code == 0, done.output
    for words in ("load 0.90", "fifo", "strict", "guard", "missed", "past target", "Research use only"):
        assert words in done.output


def test_json_is_the_simulators_answer(tmp_path: Path) -> None:
    file = tmp_path / "room.json"
    file.write_text(json.dumps({"reading": "lognormal", "reading_cv": 0.5, "seed": 3, "readers": 9}))
    done = CliRunner().invoke(
        app, [*SMALL, "--readers", "4", "--policies", "fifo,bound:120", "--file", str(file), "--json"]
    )
    answer = json.loads(done.output)
    scenario = Scenario(**answer["scenario"] | {"arrival_profile": (), "reader_shifts": ()})
    assert (scenario.seed, scenario.readers, scenario.reading_cv) == (3, 4, 0.5)
    assert [arm["policy"] for arm in answer["arms"]] == ["fifo", "bound 120 min"]
    assert answer["arms"][0]["groups"]["all"]["mean"] == simulate(scenario)[0].groups["all"].mean
    assert answer["ruo"] == RUO_STATEMENT


def test_a_card_gives_the_operating_point() -> None:
    done = CliRunner().invoke(app, [*SMALL, "--detector", "ich", "--json"])
    scenario = json.loads(done.output)["scenario"]
    card = json.loads((Path(__file__).parents[2] / "models" / "ich" / "model-card.json").read_text())
    points = {point["name"]: point for point in card["operating_points"]}
    point = points[card["default_operating_point"]]
    assert (scenario["sensitivity"], scenario["specificity"]) == (point["sensitivity"], point["specificity"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policies", "fastest"], "is no policy"),
        (["--policies", "bound:x"], "is no policy"),
        (["--prevalence", "2"], "shares"),
        (["--detector", "none"], "no detector"),
    ],
)
def test_what_makes_no_sense_is_said(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(app, [*SMALL, *arguments])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("text", ["[1]", '{"colour": 1}', "{", '{"readers": "many"}'])
def test_a_file_that_makes_no_sense_is_said(tmp_path: Path, text: str) -> None:
    file = tmp_path / "room.json"
    file.write_text(text)
    assert CliRunner().invoke(app, [*SMALL, "--file", str(file)]).exit_code == 2


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    with TestClient(app_of(World.at(tmp_path_factory.mktemp("world")), detectors=detectors)) as client:
        yield client


def test_the_call_answers_what_the_simulator_says(client: TestClient) -> None:
    answer = client.post("/api/v1/simulations", json={"studies": 2000, "seed": 5, "policies": ["guard"]})
    assert answer.status_code == 200, answer.text
    (arm,) = answer.json()["arms"]
    expected = simulate(Scenario(studies=2000, seed=5))[2]
    assert arm["groups"]["missed"]["mean"] == expected.groups["missed"].mean
    assert answer.json()["load"] == pytest.approx(0.9)
    assert answer.json()["ruo"] == RUO_STATEMENT


@pytest.mark.parametrize(
    "body",
    [
        {"prevalence": 2},
        {"studies": 10**7},
        {"policies": []},
        {"policies": ["best"]},
        {"colour": 1},
        {"arrival_profile": [1, 2]},
        {"detector": "none"},
    ],
)
def test_the_call_refuses_what_makes_no_sense(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/api/v1/simulations", json=body).status_code in {400, 422}
