"""Serving, pools and Ray in the chart: what the objects say is what the program and a real Triton do with it."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.charts.rendering import CHART, CLUSTER, ROOT, ci_values, kind, merged, objects, of_ci
from tests.charts.test_charts_observability import TRITON
from typer.testing import CliRunner

from wetread.cli import app
from wetread.core.workqueue import LONG_LANES, QUEUES, lanes_of
from wetread.detection.registry import discover
from wetread.settings import Settings
from wetread.testing.servers.process import free_port, server_process
from wetread.testing.servers.triton import ready, triton_command

pytestmark = pytest.mark.server("helm")

SERVED = merged(CLUSTER, {"triton": {"enabled": True}})


def triton_pod(values: dict[str, Any]) -> dict[str, Any]:
    return kind(objects(values), "Deployment")["demo-wetread-triton"]["spec"]["template"]["spec"]


def test_workers_find_the_server_by_a_name_that_is_a_service_and_by_its_grpc_port() -> None:
    for found in (objects(SERVED), of_ci("kserve")):
        url = kind(found, "ConfigMap")["demo-wetread-config"]["data"]["WETREAD_INFERENCE_URL"]
        name, port = re.fullmatch(r"grpc://(.+):(\d+)", url).groups()  # type: ignore[union-attr]
        assert int(port) in {each["port"] for each in kind(found, "Service")[name]["spec"]["ports"]}
    assert "WETREAD_INFERENCE_URL" not in kind(objects(CLUSTER), "ConfigMap")["demo-wetread-config"]["data"]


def test_a_gpu_is_asked_for_when_a_detector_wants_one_and_only_then() -> None:
    plain, wanted = triton_pod(SERVED), triton_pod(merged(SERVED, {"detectors": {"ich": {"gpu": True}}}))
    assert "nodeSelector" not in plain
    assert "nvidia.com/gpu" not in plain["containers"][0]["resources"]["limits"]
    assert wanted["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert wanted["nodeSelector"] == {"wetread.io/pool": "gpu"}
    assert [each["key"] for each in wanted["tolerations"]] == ["nvidia.com/gpu"]
    predictor = kind(of_ci("kserve"), "InferenceService")["demo-wetread-triton"]["spec"]["predictor"]
    assert predictor["nodeSelector"] == wanted["nodeSelector"]
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    mine, off = {"enabled": True, "engine": "python", "gpu": False, "instances": 1}, {"enabled": False}
    spec = triton_pod(merged(SERVED, {"detectors": {"ich": off, "lung-nodule": off, "echo-ef": off, "mine": mine}}))
    assert [each["name"] for each in spec["initContainers"]] == ["render-mine"]


def test_only_who_takes_work_reaches_the_server() -> None:
    policies = kind(of_ci("kserve"), "NetworkPolicy")
    ingress = policies["demo-wetread-triton"]["spec"]["ingress"]
    callers = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for rule in ingress for peer in rule["from"] if "podSelector" in peer
    }  # fmt: skip
    assert callers == {"orchestration", "detection-stat", "detection-routine", "detection-batch"}
    for name, each in policies.items():
        reaches = any({"port": 8001} in rule.get("ports", ()) for rule in each["spec"]["egress"])
        assert reaches == (name.removeprefix("demo-wetread-") in callers)


def test_pools_take_every_queue_once_and_the_program_accepts_what_they_are_told() -> None:
    found = of_ci("kserve")
    taken: list[str] = []
    for name, each in kind(found, "Deployment").items():
        container = each["spec"]["template"]["spec"]["containers"][0]
        services = container["args"][2:]
        told = {one["name"]: one.get("value") for one in container["env"]}
        detects, orchestrates = "detection" in services, "orchestration" in services
        settings = Settings(queues=told.get("WETREAD_QUEUES", ""))
        lanes = lanes_of(detects=detects, orchestrates=orchestrates, chosen=settings.chosen_queues)
        taken += lanes
        assert told.get("WETREAD_INFERENCE_LANE", "routine") == ("stat" if name.endswith("-stat") else "routine")
    assert sorted(taken) == sorted(QUEUES)
    scaled = kind(found, "ScaledObject")
    asked = [
        queue
        for each in scaled.values()
        for queue in re.findall(r"'(detector[^']*)'", each["spec"]["triggers"][0]["metadata"]["query"])
    ]
    assert sorted(asked) == sorted(LONG_LANES)
    least = {name: each["spec"]["minReplicaCount"] for name, each in scaled.items()}
    assert least == {"demo-wetread-detection-stat": 2, "demo-wetread-detection-routine": 1,
                     "demo-wetread-detection-batch": 0}  # fmt: skip
    classes = kind(found, "PriorityClass")
    assert classes["demo-wetread-batch"]["value"] < classes["demo-wetread-standard"]["value"]
    assert classes["demo-wetread-batch"]["preemptionPolicy"] == "Never"


def test_ray_keeps_to_itself_and_its_job_is_a_command_of_the_program() -> None:
    found = of_ci("kserve")
    job = kind(found, "RayJob")["demo-wetread-slides"]["spec"]
    words = job["entrypoint"].split()
    assert words[:3] == ["wetread", "pathology", "batch"]
    options = {word for word in words if word.startswith("--")}
    shown = CliRunner().invoke(app, ["pathology", "batch", "--help"], env={"COLUMNS": "200"}).output
    assert options <= set(re.findall(r"--[a-z-]+", shown))
    listing = kind(found, "ConfigMap")["demo-wetread-slides"]["data"]["slides.txt"]
    assert listing.split("\n") == ci_values("kserve")["ray"]["job"]["slides"]
    policy = json.dumps(kind(found, "NetworkPolicy")["demo-wetread-ray"]["spec"]["ingress"])
    assert "ipBlock" not in policy, "nobody from outside"
    for group in (job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]):
        volumes = {each["name"]: each for each in group["template"]["spec"]["volumes"]}
        room = int(volumes["shm"]["emptyDir"]["sizeLimit"])
        assert int(group["rayStartParams"]["object-store-memory"]) <= room


def rendered_repository(pod: dict[str, Any], folder: Path, *, target: str | None = None) -> list[str]:
    """Run what the pod's first containers run, in *folder* for ``/models``; return the server's arguments."""
    for container in pod["initContainers"]:
        arguments = [word.replace("=/models/", f"={folder}/") for word in container["args"]]
        if target:
            arguments = [f"--target={target}" if word.startswith("--target=") else word for word in arguments]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    return [word.replace("=/models/", f"={folder}/") for word in pod["containers"][0]["args"]]


@pytest.mark.server("triton")
def test_the_first_containers_write_what_the_server_loads(tmp_path: Path) -> None:
    arguments = rendered_repository(triton_pod(merged(SERVED, {"detectors": {"ich": {"gpu": True}}})), tmp_path)
    loaded = {word.partition("=")[2] for word in arguments if word.startswith("--load-model=")}
    assert loaded == {path.parent.name for path in tmp_path.rglob("config.pbtxt")} == {"ich", "lung-nodule", "echo-ef"}
    repositories = {word.partition("=")[2] for word in arguments if word.startswith("--model-repository=")}
    assert repositories == {str(tmp_path / name) for name in ("ich", "lung-nodule", "echo-ef")}
    assert "KIND_GPU" in (tmp_path / "ich/ich/config.pbtxt").read_text()


@pytest.mark.slow
@pytest.mark.server("triton")
def test_a_real_triton_serves_with_the_arguments_of_the_chart(tmp_path: Path) -> None:
    """The Python target in place of the native backend, which the test server does not have."""
    arguments = rendered_repository(triton_pod(SERVED), tmp_path / "models", target="python")
    grpc, http, metrics = free_port(), free_port(), free_port()
    ours, environment = triton_command(tmp_path, tmp_path, [], (grpc, http, metrics))
    kept = [word for word in ours[1:] if not word.startswith(("--model-repository", "--model-control", "--exit"))]
    with (
        server_process(
            [ours[0], *arguments, *kept], log=tmp_path / "log", ready=lambda: ready(http), environment=environment
        ),
        urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/models/ich/ready") as answer,
    ):
        assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as shown:
            exported = set(re.findall(r"^# TYPE (nv_\w+)", shown.read().decode(), re.MULTILINE))
    assert exported >= TRITON, "what the dashboard shows"


def test_the_checklist_names_tests_that_exist() -> None:
    text = (ROOT / "docs/operations/chart-checklist.md").read_text("utf-8")
    there = "".join(path.read_text("utf-8") for path in (ROOT / "tests/charts").glob("test_*.py"))
    named = set(re.findall(r"`(test_[a-z0-9_]+)(?:\[[a-z]+\])?`", text))
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in there]
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)] == list(range(1, 16))


def test_every_installed_detector_with_a_network_has_an_entry_and_no_other_has() -> None:
    listed = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["detectors"]
    installed = discover("")
    assert listed.keys() <= installed.keys(), "an entry of a detector that is not here"
    networks = {name for name, found in installed.items() if found.networks}
    served = {name for name, of in listed.items() if of["engine"] != "inprocess"}
    assert served == networks, "add it to `detectors` in values.yaml, then run python charts/values_table.py"
