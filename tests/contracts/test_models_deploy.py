"""``wetread models deploy`` against a strict API server, and the FFR engine on a real KServe server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.conftest import ROOT, need, shared_folder
from tests.kubernetes_api import KubernetesApi, kubernetes_api
from typer.testing import CliRunner, Result

from wetread.adapters.inference.inference_service import Serving, inference_service, object_name
from wetread.cli import app
from wetread.detection.registry import discover
from wetread.testing.phantoms.vessel_trees import vessel_tree
from wetread.testing.servers.kserve import packages
from wetread.testing.servers.process import free_port, server_process

EXTRA = packages() or []
NAME = "model-ich"
REPOSITORY = "s3://models/ich-candidate"


@pytest.fixture(scope="session")
def schema() -> Path:
    need("crds")
    return shared_folder().parent / "crds" / "serving.kserve.io_inferenceservice_v1beta1.json"


@pytest.fixture
def api(schema: Path) -> Iterator[KubernetesApi]:
    need("kserve")  # brings the Kubernetes SDK
    with kubernetes_api(schema) as running:
        yield running


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*EXTRA, str(ROOT / "services")])}


@pytest.fixture(autouse=True)
def sdk() -> Iterator[None]:
    """The Kubernetes SDK of ``.peers/kserve``, behind everything that is installed here."""
    sys.path.extend(EXTRA)
    yield
    for place in EXTRA:
        sys.path.remove(place)


def deploy(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["models", "deploy", *map(str, arguments)])


@pytest.mark.parametrize("gpu", [False, True])
def test_the_object_is_valid_by_the_schema_of_kserve(schema: Path, gpu: bool) -> None:
    made = inference_service(Serving("my_Model", REPOSITORY, gpu=gpu, service_account="reader", model_sha256="ab"))
    assert list(Draft202012Validator(json.loads(schema.read_text())).iter_errors(made)) == []
    assert made["metadata"]["name"] == object_name("my_Model") == "model-my-model"
    limits = made["spec"]["predictor"]["model"]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) is gpu
    assert ("tolerations" in made["spec"]["predictor"]) is gpu


@pytest.mark.slow
@pytest.mark.server("kserve")
def test_a_dry_run_asks_nobody_and_prints_what_the_sdk_of_kserve_knows(tmp_path: Path) -> None:
    done = deploy("ich", "--storage-uri", REPOSITORY, "--gpu", "--dry-run", "--kubeconfig", tmp_path / "no")
    assert done.exit_code == 0, done.stderr
    made = json.loads(done.stdout)
    [network] = discover("")["ich"].networks
    assert made["metadata"]["annotations"]["wetread.io/model-sha256"] == network.sha256
    program = (
        "import json, kserve as k\n"
        "print(json.dumps({c: sorted(getattr(k, c).attribute_map.values()) for c in"
        " ('V1beta1InferenceService', 'V1beta1InferenceServiceSpec', 'V1beta1PredictorSpec', 'V1beta1ModelSpec')}))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    fields = {name: set(known) for name, known in json.loads(said.stdout).items()}
    predictor = made["spec"]["predictor"]
    for name, part in zip(fields, (made, made["spec"], predictor, predictor["model"]), strict=True):
        assert part.keys() <= fields[name], f"{name} of KServe's SDK has no such field"


def test_create_update_and_nothing_to_do(api: KubernetesApi, tmp_path: Path) -> None:
    base = ("ich", "--storage-uri", REPOSITORY, "--namespace", "models", "--kubeconfig", api.kubeconfig(tmp_path))
    assert deploy(*base).stdout == f"inferenceservice models/{NAME}: created\n"
    assert deploy(*base).stdout == f"inferenceservice models/{NAME}: unchanged\n"
    api.objects[NAME]["metadata"]["annotations"]["somebody.else/says"] = "keep"
    api.objects[NAME]["status"] = {"url": "http://m", "conditions": [{"type": "Ready", "status": "True"}]}
    api.races = 2
    done = deploy(*base, "--gpu", "--max-replicas", "3", "--wait", "20")
    assert done.stdout == f"inferenceservice models/{NAME}: updated\nready: http://m\n", done.stderr
    present = api.objects[NAME]
    assert present["spec"]["predictor"]["maxReplicas"] == 3
    assert present["metadata"]["annotations"]["somebody.else/says"] == "keep"
    assert [each for each in api.asked if each.startswith("PUT")] == [
        f"PUT /apis/serving.kserve.io/v1beta1/namespaces/models/inferenceservices/{NAME}"
    ] * 3, "two lost races, one that won"


def test_what_cannot_be_is_said_in_one_line(api: KubernetesApi, tmp_path: Path) -> None:
    access = ("--kubeconfig", api.kubeconfig(tmp_path))
    base = ("ich", "--storage-uri", REPOSITORY)
    foreign = inference_service(Serving("ich", REPOSITORY, namespace="models"))
    foreign["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    foreign["metadata"]["resourceVersion"] = "1"
    api.objects[NAME] = foreign
    cases: list[tuple[tuple[Any, ...], int, str]] = [
        ((*base, "--namespace", "models", *access), 1, "managed by something else"),
        ((*base, "--namespace", "elsewhere", *access), 1, 'namespaces "elsewhere" not found'),
        ((*base, "--namespace", "models", "--kubeconfig", api.kubeconfig(tmp_path, token="wrong")), 1, "401"),
        ((*base, "--kubeconfig", tmp_path / "absent"), 2, "no access to an API server"),
    ]
    for arguments, code, said in cases:
        done = deploy(*arguments)
        assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
        assert done.stderr.count("\n") == 1
    assert api.objects[NAME] is foreign


def test_a_service_that_does_not_become_ready_is_reported_with_what_kserve_says(
    api: KubernetesApi, tmp_path: Path
) -> None:
    made = inference_service(Serving("ich", REPOSITORY, namespace="models"))
    made["metadata"]["annotations"]["wetread.io/model-sha256"] = discover("")["ich"].networks[0].sha256
    made["metadata"]["resourceVersion"] = "1"
    made["status"] = {"conditions": [{"type": "Ready", "status": "False", "message": "no node has a GPU"}]}
    api.objects[NAME] = made
    done = deploy("ich", "--storage-uri", REPOSITORY, "--namespace", "models", "--kubeconfig",
                  api.kubeconfig(tmp_path), "--wait", "0.1")  # fmt: skip
    assert (done.exit_code, "no node has a GPU" in done.stderr) == (3, True), done.stderr


# --- what Triton cannot host ------------------------------------------------------------------------------------------


def asked(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
@pytest.mark.server("kserve")
def test_the_ffr_engine_answers_on_a_real_kserve_server_as_in_process(tmp_path: Path) -> None:
    from wetread.ffrct.solving import solve_request

    example = {"tree": vessel_tree(3) | {"options": {"tier": "analytic", "uq_draws": 0}}}
    http, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "wetread.bootstrap.ffr_model_server", "--http_port", str(http), "--grpc_port",
               str(grpc)]  # fmt: skip
    base = f"http://127.0.0.1:{http}"

    def ready() -> bool:
        with urllib.request.urlopen(f"{base}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    with server_process(command, log=tmp_path / "log", ready=ready, environment=environment(), seconds=120):
        code, v1 = asked(f"{base}/v1/models/ffr:predict", {"instances": [example, {"tree": 1}]})
        assert code == 200, v1
        expected = solve_request(example)
        first, second = v1["predictions"]
        assert numbers(first["result"]) == numbers(expected)
        assert second["problem"]["code"] == "schema_invalid", "one bad tree fails no other"
        tensor = {"name": "request", "shape": [1], "datatype": "BYTES", "data": [json.dumps(example)]}
        code, v2 = asked(f"{base}/v2/models/ffr/infer", {"id": "a", "inputs": [tensor]})
        assert code == 200, v2
        assert numbers(json.loads(v2["outputs"][0]["data"][0])["result"]) == numbers(expected)
        assert asked(f"{base}/v1/models/ffr:predict", {"instances": 3})[0] == 400


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without what differs from call to call: the time that it took."""
    kept = json.loads(json.dumps(result))
    kept.pop("timings_s")
    return kept
