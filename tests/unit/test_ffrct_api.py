"""The FFR calls over HTTP: results, coded refusals without any FFR value, batches."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from wetread.core.errors import WetreadError
from wetread.core.ruo import RUO_STATEMENT
from wetread.ffrct import endpoints
from wetread.ffrct.errors import FfrDocumentInvalid, FfrUnprocessable
from wetread.ffrct.science.problems import Problem
from wetread.ffrct.service import build
from wetread.testing.phantoms.vessel_trees import vessel_tree

FAST = {"tier": "analytic", "uq_draws": 0}


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    @app.exception_handler(WetreadError)
    async def _problem(request: Any, error: WetreadError) -> JSONResponse:
        return JSONResponse(error.problem(), error.http_status, media_type="application/problem+json")

    app.include_router(build().http)
    return TestClient(app)


def tree(**changes: Any) -> dict[str, Any]:
    vessel = {
        "id": "a",
        "points_mm": [[float(x), 0.0, 0.0] for x in range(41)],
        "radius_mm": [1.5] * 15 + [1.0, 0.7, 0.7, 0.7, 1.0] + [1.5] * 21,
        "healthy_radius_mm": [1.5] * 41,
    } | changes
    return {"schema": "wetread.ffr.tree/1", "vessels": [vessel], "patient": {"q_hyp_ml_min": 120.0}, "options": FAST}


def holds_ffr(value: Any) -> bool:
    """Tell whether any key that names an FFR is followed by a number."""
    if isinstance(value, dict):
        return any(("ffr" in key and _number(item)) or holds_ffr(item) for key, item in value.items())
    return isinstance(value, list) and any(holds_ffr(item) for item in value)


def _number(value: Any) -> bool:
    if isinstance(value, list):
        return any(_number(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


def refused(client: TestClient, body: Any, status: int, code: str) -> dict[str, Any]:
    answer = client.post("/api/v1/ffr", content=body if isinstance(body, bytes | str) else json.dumps(body),
                         headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code
    assert not holds_ffr(problem)
    return problem


def test_tree_gives_a_result(client: TestClient) -> None:
    answer = client.post("/api/v1/ffr", json={"tree": tree()})
    assert answer.status_code == 200
    result = answer.json()
    assert result["schema"] == "wetread.ffr.result/1"
    assert result["disclaimer"].startswith(RUO_STATEMENT)
    vessel = result["vessels"][0]
    assert len(vessel["ffr"]) == len(vessel["s_mm"]) == 41
    assert vessel["reason"] is None
    lesion = result["lesions"][0]
    assert lesion["diameter_stenosis_pct"] == pytest.approx(100 * (1 - 0.7 / 1.5))
    assert lesion["mla_mm2"] == pytest.approx(3.14159265 * 0.49, rel=1e-6)
    assert result["summary"]["ffr_min"] == min(vessel["ffr"])
    assert "flow.mbf_hyp" not in result["constants"]["unconfirmed"]
    assert "blood.mu" in result["constants"]["unconfirmed"]
    assert holds_ffr(result)


def test_same_request_gives_the_same_spread(client: TestClient) -> None:
    body = {"tree": tree(), "options": {"tier": "analytic", "uq_draws": 100}}
    first, second = (client.post("/api/v1/ffr", json=body).json() for _ in range(2))
    first.pop("timings_s")
    second.pop("timings_s")
    assert first == second
    lesion = first["lesions"][0]
    assert lesion["ffr_p5"] < lesion["ffr_distal_20mm"] < lesion["ffr_p95"] + 0.05
    assert sum(lesion["drivers"].values()) == pytest.approx(1.0)


def test_network_gives_pressures_in_its_own_units(client: TestClient) -> None:
    network = {
        "boundary_conditions": [
            {"bc_name": "IN", "bc_type": "FLOW", "bc_values": {"Q": [5.0, 5.0], "t": [0.0, 1.0]}},
            {"bc_name": "OUT", "bc_type": "RESISTANCE", "bc_values": {"R": 100.0, "Pd": 100.0}},
        ],
        "vessels": [
            {
                "vessel_id": 0,
                "vessel_name": "branch0_seg0",
                "zero_d_element_type": "BloodVessel",
                "zero_d_element_values": {"R_poiseuille": 100.0, "stenosis_coefficient": 100.0},
                "boundary_conditions": {"inlet": "IN", "outlet": "OUT"},
            }
        ],
    }
    vessel = client.post("/api/v1/ffr", json={"network": network}).json()["vessels"][0]
    assert [vessel["q"], vessel["p_in"], vessel["p_out"]] == pytest.approx([5.0, 3600.0, 600.0])
    assert vessel["ffr_head_out"] == pytest.approx(1 / 6)
    network["junctions"] = [{"junction_name": "J", "inlet_vessels": [0, 0], "outlet_vessels": [0]}]
    refused(client, {"network": network}, 422, "tree_cyclic")


POINTS = [[float(x), 0.0, 0.0] for x in range(41)]
BAD_VESSELS = [
    ({"points_mm": POINTS[:40]}, "points_mismatch"),
    ({"points_mm": POINTS[:1], "radius_mm": [1.5], "healthy_radius_mm": None}, "too_few_points"),
    ({"radius_mm": [1.5] * 40 + [float("inf")]}, "nonfinite"),
    ({"radius_mm": [1.5] * 40 + [0.0]}, "radius_nonpositive"),
    ({"radius_mm": [1.5] * 40 + [-1.0]}, "radius_nonpositive"),
    ({"radius_mm": [15.0] * 41}, "units_suspect"),
    ({"radius_mm": [0.15] * 41}, "units_suspect"),
    ({"points_mm": [[x[0] / 1000, 0.0, 0.0] for x in POINTS]}, "units_suspect"),
    ({"points_mm": [[x[0] * 1000, 0.0, 0.0] for x in POINTS]}, "units_suspect"),
    ({"parent": "a"}, "tree_cyclic"),
    ({"parent": "nobody"}, "tree_disconnected"),
]


@pytest.mark.parametrize(("change", "code"), BAD_VESSELS)
def test_bad_trees_are_refused_by_code(client: TestClient, change: dict[str, Any], code: str) -> None:
    problem = refused(client, {"tree": tree(**change)}, 422, code)
    assert problem["errors"][0]["pointer"].startswith("/tree/vessels")


def test_two_vessels_that_follow_each_other_in_a_circle(client: TestClient) -> None:
    body = tree()
    body["vessels"] = [body["vessels"][0] | {"parent": "b"}, body["vessels"][0] | {"id": "b", "parent": "a"}]
    refused(client, {"tree": body}, 422, "tree_cyclic")


def test_daughter_far_from_its_parent_and_twice_the_same_id(client: TestClient) -> None:
    body = tree()
    far = body["vessels"][0] | {"id": "b", "parent": "a", "points_mm": [[x[0], 3.0, 0.0] for x in POINTS]}
    refused(client, {"tree": body | {"vessels": [body["vessels"][0], far]}}, 422, "tree_disconnected")
    refused(client, {"tree": body | {"vessels": [body["vessels"][0]] * 2}}, 422, "tree_disconnected")
    refused(client, {"tree": body | {"vessels": []}}, 422, "tree_disconnected")


def test_boundary_conditions_and_tier_codes(client: TestClient) -> None:
    refused(client, {"tree": tree(), "bc": {"inlet": {"kind": "flow", "ml_min": 60}}}, 422, "bc_invalid")
    refused(client, {"tree": tree(), "bc": {"outlets": [{"vessel": "x", "r": 1, "pd": 0}]}}, 422, "bc_invalid")
    refused(client, {"tree": tree(), "options": {"tier": "lbm3d"}}, 400, "schema_invalid")


def test_documents_that_are_none(client: TestClient) -> None:
    refused(client, "{not json", 400, "invalid_json")
    refused(client, [], 400, "schema_invalid")
    refused(client, {}, 400, "schema_invalid")
    refused(client, {"tree": tree(), "network": {}}, 400, "schema_invalid")
    refused(client, {"tree": tree() | {"colour": "red"}}, 400, "schema_invalid")
    refused(client, {"network": {"vessels": 3}}, 400, "schema_invalid")
    assert client.post("/api/v1/ffr", content="{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_schema_faults_do_not_echo_the_value(client: TestClient) -> None:
    problem = refused(client, {"tree": tree(), "patient": {"name": "Doe^Jane"}}, 400, "schema_invalid")
    assert "Doe" not in json.dumps(problem)
    assert problem["errors"][0]["pointer"] == "/patient/name"


def test_size_limits(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    many = tree()
    many["vessels"] = many["vessels"] * 201
    refused(client, {"tree": many}, 413, "too_large")
    long = tree(points_mm=[[x / 100, 0.0, 0.0] for x in range(2001)])
    refused(client, {"tree": long}, 413, "too_large")
    monkeypatch.setattr(endpoints, "MAX_BYTES", 1000)
    refused(client, {"tree": tree()}, 413, "too_large")
    answer = client.post("/api/v1/ffr:batch", json={"items": [{}] * 1025})
    assert answer.status_code == 413


def test_prescribed_flow_gives_drops_and_no_ffr(client: TestClient) -> None:
    bc = {"inlet": {"kind": "flow", "ml_min": 60.0}, "outlets": [{"vessel": "a", "r": 0.0, "pd": 80.0}]}
    result = client.post("/api/v1/ffr", json={"tree": tree(), "bc": bc}).json()
    vessel = result["vessels"][0]
    assert vessel["ffr"] is None
    assert vessel["reason"] == "inlet_flow"
    assert vessel["drop_mmhg"][-1] > 0.5
    assert not holds_ffr(result["vessels"])


def test_occluded_vessel_is_null_with_a_reason_and_the_rest_is_solved(client: TestClient) -> None:
    body = tree(radius_mm=[1.5] * 15 + [0.1] * 5 + [1.5] * 21)
    other = tree()["vessels"][0] | {"id": "rca", "points_mm": [[-20.0 - x[0], 0.0, 0.0] for x in POINTS]}
    body["vessels"].append(other)
    answer = client.post("/api/v1/ffr", json={"tree": body})
    assert answer.status_code == 200
    closed, opened = answer.json()["vessels"]
    assert closed["ffr"] is None
    assert closed["reason"] == "occluded"
    assert "occluded" in closed["flags"]
    assert min(opened["ffr"]) > 0.3
    lesion = answer.json()["lesions"][0]
    assert lesion["ffr_distal_20mm"] is None
    assert lesion["reason"] == "occluded"


def test_batch_answers_every_item_in_order(client: TestClient) -> None:
    good = [{"tree": vessel_tree(seed)} for seed in range(4)]
    items = [good[0], {"tree": tree(radius_mm=[0.0] * 41)}, good[1], {"nonsense": 1}, *good[2:]]
    answer = client.post("/api/v1/ffr:batch", json={"items": items}).json()
    kinds = [next(iter(item)) for item in answer["items"]]
    assert kinds == ["result", "problem", "result", "problem", "result", "result"]
    assert answer["items"][1]["problem"]["code"] == "radius_nonpositive"
    assert answer["items"][3]["problem"]["code"] == "schema_invalid"
    assert answer["items"][0]["result"]["model"]["tier"] == "analytic"
    alone = client.post("/api/v1/ffr", json=good[0] | {"options": FAST}).json()
    assert alone["vessels"] == answer["items"][0]["result"]["vessels"]


def test_sixty_concurrent_batches_are_all_answered(client: TestClient) -> None:
    body = json.dumps({"items": [{"tree": vessel_tree(seed)} for seed in (1, 2)]})

    def call(_: int) -> int:
        answer = client.post("/api/v1/ffr:batch", content=body, headers={"Content-Type": "application/json"})
        return answer.status_code if all("result" in item for item in answer.json()["items"]) else 0

    with ThreadPoolExecutor(60) as pool:
        assert list(pool.map(call, range(60))) == [200] * 60


def test_schema_and_constants_are_served(client: TestClient) -> None:
    schema = client.get("/api/v1/ffr/schema").json()
    assert {"TreeDocument", "FfrRequest", "FfrBatch"} <= set(schema["$defs"])
    constants = client.get("/api/v1/ffr/constants").json()
    assert len(constants["sha256"]) == 64
    assert constants["constants"]["flow.mbf_hyp"]["status"] == "unconfirmed"
    document = client.get("/openapi.json").json()
    assert "requestBody" in document["paths"]["/api/v1/ffr"]["post"]


@pytest.mark.parametrize("kind", [FfrUnprocessable, FfrDocumentInvalid])
def test_a_refusal_comes_through_the_border_of_a_process(kind: type[FfrUnprocessable | FfrDocumentInvalid]) -> None:
    error = kind((Problem("tree_cyclic", "/tree", "break the loop"), Problem("no_inlet", "/tree/inlet", "name it")))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.problem("/x") == error.problem("/x")


def test_a_web_process_starts_without_scipy() -> None:
    code = "import sys, wetread.ffrct.service; print('scipy' in sys.modules)"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "False"
