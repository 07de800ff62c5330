"""The chart makes valid objects of every values file, and of nothing but what is switched on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.charts.rendering import (
    CHART,
    CI,
    CLUSTER,
    KUBERNETES,
    ci_values,
    core,
    custom_errors,
    kind,
    merged,
    objects,
    of_ci,
    pod_specs,
    rendered,
)

pytestmark = pytest.mark.server("helm")

HELM_KIND = {
    ("keda", "enabled"): {"ScaledObject", "TriggerAuthentication"},
    ("kserve", "enabled"): {"InferenceService", "ServingRuntime"},
    ("ray", "enabled"): {"RayCluster"},
    ("ray", "job", "enabled"): {"RayJob"},
    ("priorityClasses", "create"): {"PriorityClass"},
    ("ingress", "enabled"): {"Ingress"},
    ("httpRoute", "enabled"): {"HTTPRoute"},
    ("monitoring", "serviceMonitor", "enabled"): {"ServiceMonitor"},
    ("monitoring", "rules", "enabled"): {"PrometheusRule"},
    ("services", "gateway", "autoscaling", "enabled"): {"HorizontalPodAutoscaler"},
}
NEEDED = {
    "keda": {"existingSecret": "keda"},
    "ray": {"sharedClaim": "slides", "job": {"slides": ["s3://slides/1.svs"]}},
    "ingress": {"host": "h.example"},
    "httpRoute": {"parentRefs": [{"name": "g"}]},
}


@pytest.mark.parametrize("name", CI)
def test_values_file_lints_without_a_finding(name: str) -> None:
    import helm_python

    for version in KUBERNETES:
        found = helm_python.lint(str(CHART), values=ci_values(name), strict=True, kube_version=f"v{version}.0")
        assert (found["messages"], found["errors"]) == ([], [])


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", CI)
def test_core_objects_are_valid(name: str, version: str) -> None:
    import kubernetes_validate

    checked = [each for each in of_ci(name) if core(each)]
    assert checked
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("name", CI)
def test_custom_resources_are_valid(name: str, crds: Path) -> None:
    for each in of_ci(name):
        if not core(each):
            assert custom_errors(each, crds) == [], f"{each['kind']}/{each['metadata']['name']}"


def test_a_wrong_custom_resource_is_seen(crds: Path) -> None:
    wrong = next(each for each in of_ci("ha") if each["kind"] == "ScaledObject")
    assert custom_errors(wrong | {"spec": wrong["spec"] | {"replicaz": 1}}, crds)


@pytest.mark.parametrize("path", HELM_KIND, ids=".".join)
def test_a_feature_makes_exactly_its_kinds(path: tuple[str, ...]) -> None:
    switch: object = True
    for key in reversed(path):
        switch = {key: switch}
    off = {each["kind"] for each in objects(CLUSTER)}
    on = {each["kind"] for each in objects(merged(CLUSTER, {path[0]: NEEDED.get(path[0], {})}, switch))}
    budgets = {"PodDisruptionBudget"} if path[-2] == "autoscaling" else set()
    assert on - off == HELM_KIND[path] | budgets
    assert not off & HELM_KIND[path]


@pytest.mark.parametrize("name", CI)
def test_every_pod_is_restricted(name: str) -> None:
    for pod, labels, spec in pod_specs(of_ci(name)):
        assert spec["automountServiceAccountToken"] is False, pod
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["seccompProfile"]) == (
            True,
            10001,
            {"type": "RuntimeDefault"},
        )
        (container,) = spec["containers"]
        for each in (container, *spec.get("initContainers", ())):
            rights = each["securityContext"]
            assert (rights["readOnlyRootFilesystem"], rights["allowPrivilegeEscalation"]) == (True, False), pod
            assert rights["capabilities"] == {"drop": ["ALL"]}
            limits, requests = each["resources"]["limits"], each["resources"]["requests"]
            assert {"memory", "ephemeral-storage"} <= limits.keys()
            assert {"cpu", "memory"} <= requests.keys()
            assert "/tmp" in {mount["mountPath"] for mount in each["volumeMounts"]}
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in spec["volumes"]} | (
            {"data"} if pod.startswith("StatefulSet/") else set()
        )
        assert all(each["emptyDir"]["sizeLimit"] for each in spec["volumes"] if "emptyDir" in each)
        component = labels["app.kubernetes.io/component"]
        if component not in {"migrate", "test"}:
            assert spec["terminationGracePeriodSeconds"] >= 15 + 8
        if component not in {"migrate", "test", "ray"}:  # KubeRay puts probes of its own into its pods
            probes = (container["startupProbe"], container["readinessProbe"], container["livenessProbe"])
            live, ready = ("/v2/health/live", "/v2/health/ready") if component == "triton" else ("/livez", "/readyz")
            assert [probe["httpGet"]["path"] for probe in probes] == [live, ready, live]


@pytest.mark.parametrize("name", CI)
def test_every_pod_has_a_network_policy_that_denies_both_ways(name: str) -> None:
    policies = [each["spec"] for each in of_ci(name) if each["kind"] == "NetworkPolicy"]
    for pod, labels, _ in pod_specs(of_ci(name)):
        mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
        assert [policy["policyTypes"] for policy in mine] == [["Ingress", "Egress"]], pod
    off = objects(merged(ci_values(name), {"networkPolicy": {"enabled": False}}))
    assert not kind(off, "NetworkPolicy")


def test_only_worker_and_worklist_reach_webhooks_and_only_dimse_reaches_devices() -> None:
    values = merged(
        ci_values("ha"), {"networkPolicy": {"webhookNetworks": ["192.0.2.0/24"], "dicomPeers": ["198.51.100.0/24"]}}
    )
    policies = kind(objects(values), "NetworkPolicy")
    apart = merged(values, merged(ci_values("kserve"), {"ray": {"job": {"enabled": False}}}))
    told = {n for n, p in kind(objects(apart), "NetworkPolicy").items() if "192.0.2.0/24" in json.dumps(p["spec"])}
    assert told == {"demo-wetread-orchestration", "demo-wetread-worklist"}
    for network, allowed in (("192.0.2.0/24", {"worker", "worklist"}), ("198.51.100.0/24", {"dimse"})):
        found = {
            n.rpartition("-")[2] for n, each in policies.items() if network in json.dumps(each["spec"].get("egress"))
        }
        assert found == allowed


@pytest.mark.parametrize("name", CI)
def test_labels_selectors_and_references(name: str) -> None:
    found = of_ci(name)
    for each in found:
        labels = each["metadata"]["labels"]
        for label in ("name", "instance", "version", "component", "part-of", "managed-by"):
            assert labels[f"app.kubernetes.io/{label}"], each["metadata"]["name"]
        if each["kind"] in {"Deployment", "StatefulSet"}:
            chosen = each["spec"]["selector"]["matchLabels"]
            assert sorted(chosen) == [f"app.kubernetes.io/{x}" for x in ("component", "instance", "name")]
            assert chosen.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    pods = [labels for _, labels, _ in pod_specs(found)]
    for service in kind(found, "Service").values():
        assert any(service["spec"]["selector"].items() <= labels.items() for labels in pods)
    maps = kind(found, "ConfigMap")
    for _, _, spec in pod_specs(found):
        used = [v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v]
        used += [s["configMapRef"]["name"] for s in spec["containers"][0].get("envFrom", ()) if "configMapRef" in s]
        assert set(used) <= maps.keys()
    backends = [
        p["backend"]["service"]["name"]
        for i in kind(found, "Ingress").values()
        for p in i["spec"]["rules"][0]["http"]["paths"]
    ]
    backends += [
        b["name"] for r in kind(found, "HTTPRoute").values() for x in r["spec"]["rules"] for b in x["backendRefs"]
    ]
    assert set(backends) <= kind(found, "Service").keys()


def test_who_scales_decides_on_replicas_and_single_pods_have_no_budget() -> None:
    found = of_ci("ha")
    deployments, budgets = kind(found, "Deployment"), kind(found, "PodDisruptionBudget")
    scaled = {
        each["spec"]["scaleTargetRef"]["name"]
        for k in ("HorizontalPodAutoscaler", "ScaledObject")
        for each in kind(found, k).values()
    }
    assert scaled == {"demo-wetread-gateway", "demo-wetread-worker"}
    assert {name for name, each in deployments.items() if "replicas" not in each["spec"]} == scaled
    assert budgets.keys() == deployments.keys()
    assert all(each["spec"]["maxUnavailable"] == 1 and "minAvailable" not in each["spec"] for each in budgets.values())
    assert not kind(of_ci("minimal"), "PodDisruptionBudget")
    for each in deployments.values():
        assert each["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_names_are_cut_at_63_with_what_kubernetes_adds() -> None:
    release = "a-release-name-of-fifty-three-characters-in-all-xxxxx"
    for values in ({}, merged(ci_values("ha"), {"fullnameOverride": "x" * 70})):
        found = objects(values, release=release)
        for each in found:
            assert len(each["metadata"]["name"]) <= 63
            if each["kind"] in {"Deployment", "StatefulSet"}:
                assert (
                    len(each["metadata"]["name"]) + len("-0123456789") <= 63
                )  # the hash that pods' labels and names get
            assert all(len(value) <= 63 for value in each["metadata"]["labels"].values())


def test_air_gap_takes_every_image_from_the_mirror_by_digest() -> None:
    images = {spec["containers"][0]["image"] for _, _, spec in pod_specs(of_ci("airgap"))}
    digest = ci_values("airgap")["image"]["digest"]
    assert images == {f"registry.hospital.internal/wetread@{digest}"}
    listed = yaml.safe_load(yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]["artifacthub.io/images"])
    served = objects(merged(CLUSTER, {"triton": {"enabled": True}}))
    used = {
        each["image"]
        for _, _, spec in pod_specs(served)
        for each in (*spec["containers"], *spec.get("initContainers", ()))
    }
    assert used == {each["image"] for each in listed}
    egress = json.dumps([each["spec"]["egress"] for each in kind(of_ci("airgap"), "NetworkPolicy").values()])
    assert "0.0.0.0/0" not in egress


def test_a_service_keeps_the_rest_of_the_defaults_when_one_key_of_its_map_is_set() -> None:
    found = kind(
        objects(merged(CLUSTER, {"services": {"worker": {"pod": {"resources": {"limits": {"memory": "9Gi"}}}}}})),
        "Deployment",
    )
    resources = found["demo-wetread-worker"]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == "9Gi"
    assert resources["requests"]["memory"] == "2Gi"
    assert set(found) == {f"demo-wetread-{name}" for name in ("gateway", "worklist", "worker")}


def test_a_change_of_the_configuration_rolls_the_pods() -> None:
    sums = []
    for level in ("info", "debug"):
        deployments = kind(objects(merged(CLUSTER, {"settings": {"LOG_LEVEL": level}})), "Deployment")
        sums.append(
            {each["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for each in deployments.values()}
        )
    assert len(sums[0]) == len(sums[1]) == 1
    assert sums[0] != sums[1]


def test_hooks_use_nothing_of_the_release() -> None:
    job = kind(of_ci("minimal"), "Job")["demo-wetread-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    spec = job["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "default"
    assert "envFrom" not in spec["containers"][0]
    assert [v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v] == ["wetread-database"]


def test_extra_objects_are_templated() -> None:
    extra = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-mine"}}
    assert "demo-mine" in kind(objects({"extraObjects": [extra]}), "ConfigMap")


def test_notes_name_the_next_commands() -> None:
    notes = rendered(ci_values("ha"))["wetread/templates/NOTES.txt"]
    assert "https://wetread.hospital.example" in notes
    assert "helm test demo" in notes
    assert "Not for diagnosis" in notes
    assert "port-forward service/demo-wetread-all" in rendered()["wetread/templates/NOTES.txt"]


def test_the_package_is_the_same_twice_and_holds_no_values_of_tests(tmp_path: Path) -> None:
    import tarfile

    import helm_python

    digests = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = helm_python.package(str(CHART), destination=str(tmp_path / folder))
        with tarfile.open(str(path)) as archive:
            names = archive.getnames()
        assert "wetread/values.schema.json" in names
        assert not [n for n in names if "/ci/" in n or n.endswith(".test.yaml")]
        with tarfile.open(str(path)) as archive:
            digests.append({n: archive.extractfile(n).read() for n in names if archive.getmember(n).isfile()})
    assert digests[0] == digests[1]


def test_terminal_is_not_needed_to_name_a_process(tmp_path: Path) -> None:
    """The line that the pods start by, run: it takes the pod's name to the setting that processes are told apart by."""
    container = kind(of_ci("minimal"), "Deployment")["demo-wetread-worker"]["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["/bin/sh", "-ec"]
    program = tmp_path / "wetread"
    program.write_text('#!/bin/sh\necho "$WETREAD_INSTANCE $*"\n')
    program.chmod(0o755)
    names = []
    for pod in ("demo-wetread-worker-6b7f8c9d4f-x2x4z", "demo-wetread-worker-6b7f8c9d4f-x2x5z"):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "POD_NAME": pod}
        done = subprocess.run(
            [*container["command"], *container["args"]], env=environment, capture_output=True, text=True, check=True
        )
        names.append(done.stdout.strip())
    assert names == [f"r6b7f8c9d4f{end} serve health detection triage orchestration" for end in ("x2x4z", "x2x5z")]
