"""Alerts and dashboards: right by promtool, on metrics that exist, with runbooks that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.charts.rendering import CHART, CI, ROOT, kind, of_ci, pod_specs

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.dimse import DimseMetrics
from wetread.adapters.telemetry.export import ExportMeter
from wetread.adapters.telemetry.metrics import Metrics
from wetread.adapters.telemetry.read_cache import ReadCacheMetrics
from wetread.adapters.telemetry.slides import SlideMetrics

RULES = [path for path in sorted((CHART / "files" / "rules").glob("*.yaml")) if not path.name.endswith(".test.yaml")]
DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
ALERTS = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
RUNBOOKS = ROOT / "docs" / "operations" / "runbooks"
OTHERS = {"up", "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
OTHERS |= {"kube_deployment_status_replicas_available", "kube_deployment_spec_replicas"}
"""Metrics of Prometheus itself, of the kubelet and of kube-state-metrics."""
TRITON = {f"nv_inference_{name}" for name in ("request_success", "request_failure", "count", "exec_count",
          "queue_duration_us", "compute_infer_duration_us", "pending_request_count")}  # fmt: skip
"""Metrics of Triton: a real one exports them (test_a_real_triton_serves_with_the_arguments_of_the_chart)."""
TRITON_GPU = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
"""... and these where there is a GPU: from its documentation, not seen here."""


def registered(folder: Path) -> set[str]:
    """Return the names of all samples that the program can export."""
    metrics = Metrics(SqlDatabase(folder / "empty.db"))
    counted = [*DimseMetrics().collectors, *SlideMetrics().collectors, *ReadCacheMetrics().collectors]
    counted.append(ExportMeter().items)
    families = [family for each in counted for family in each.describe()]
    families += [family for each in list(metrics.registry._collector_to_names) for family in each.describe()]
    names = set()
    for family in families:
        total = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in total}
    return names


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:wetread|kube(?:let)?|nv)_[a-z_]+\b|\bup\b", re.sub(r'"[^"]*"', '""', expression)))


@pytest.mark.server("promtool")
def test_rules_fire_when_they_should_and_only_then() -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None
    tests = [path.with_name(path.name.replace(".yaml", ".test.yaml")).name for path in RULES]
    for arguments in (["check", "rules", *(path.name for path in RULES)], ["test", "rules", *tests]):
        done = subprocess.run([promtool, *arguments], cwd=RULES[0].parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire() -> None:
    fired = set()
    for path in RULES:
        for case in yaml.safe_load(path.with_name(path.name.replace(".yaml", ".test.yaml")).read_text())["tests"]:
            fired |= {each["alertname"] for each in case["alert_rule_test"] if each["exp_alerts"]}
    assert fired == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_has_metrics_that_exist_and_a_runbook(rule: dict, tmp_path: Path) -> None:
    names = used(rule["expr"])
    assert names
    assert names <= registered(tmp_path) | OTHERS | TRITON | TRITON_GPU
    assert rule["labels"]["severity"] in {"critical", "warning"}
    runbook = RUNBOOKS / rule["annotations"]["runbook_url"].removeprefix("RUNBOOKS/")
    text = runbook.read_text("utf-8")
    assert runbook.stem == rule["alert"]
    assert text.startswith(f"# {rule['alert']}\n")
    for part in ("**What.**", "**What it means.**", "**What to do.**", "**Done when.**"):
        assert part in text


def test_no_runbook_is_left_over_and_their_links_lead_somewhere() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {rule["alert"] for rule in ALERTS}
    for page in (ROOT / "docs" / "operations").rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_shows_metrics_that_exist(path: Path, tmp_path: Path) -> None:
    board = json.loads(path.read_text("utf-8"))
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    names = set().union(*(used(each) for each in expressions))
    assert names
    assert names <= registered(tmp_path) | OTHERS | TRITON | TRITON_GPU
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"]), "a panel lies on another"
    assert 'namespace="$namespace"' in expressions[0]
    assert "Not for diagnosis" in board["description"]


def test_dashboards_have_unique_uids_and_show_every_metric_of_the_program(tmp_path: Path) -> None:
    boards = [json.loads(path.read_text("utf-8")) for path in DASHBOARDS]
    assert len({board["uid"] for board in boards}) == len(boards)
    shown = used(" ".join(t["expr"] for board in boards for panel in board["panels"] for t in panel["targets"]))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in registered(tmp_path)}
    assert families <= {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}


@pytest.mark.server("helm")
def test_no_service_of_the_chart_dies_without_an_alert() -> None:
    (down,) = [rule["expr"] for rule in ALERTS if rule["alert"] == "WetreadDown"]
    watched = re.search(r'component=~"([^"]+)"', down)
    assert watched is not None
    for name in CI:
        for pod, labels, spec in pod_specs(of_ci(name)):
            if any(port["name"] in {"http", "metrics"} for port in spec["containers"][0].get("ports", ())):
                component = labels["app.kubernetes.io/component"]
                assert component == "ray" or re.fullmatch(watched[1], component), pod


@pytest.mark.server("helm")
def test_the_chart_carries_all_rules_and_dashboards() -> None:
    found = of_ci("ha")
    (rules,) = kind(found, "PrometheusRule").values()
    carried = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert sorted(rule["alert"] for rule in carried) == sorted(rule["alert"] for rule in ALERTS)
    for rule in carried:  # without a site of yours, the path in the repository
        assert (ROOT / rule["annotations"]["runbook_url"]).is_file()
    (elsewhere,) = kind(of_ci("kserve"), "PrometheusRule").values()
    links = [rule["annotations"]["runbook_url"] for group in elsewhere["spec"]["groups"] for rule in group["rules"]]
    assert all(link.startswith("https://docs.hospital.example/") for link in links)
    boards = [each for name, each in kind(found, "ConfigMap").items() if "-dashboard-" in name]
    assert {json.loads(text)["uid"] for each in boards for text in each["data"].values()} == {
        json.loads(path.read_text())["uid"] for path in DASHBOARDS
    }
    assert all(each["metadata"]["labels"]["grafana_dashboard"] == "1" for each in boards)


@pytest.mark.server("helm")
def test_the_scaler_asks_for_queues_that_exist() -> None:
    from wetread.core.workqueue import LONG_LANES

    (scaled,) = kind(of_ci("ha"), "ScaledObject").values()
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert set(re.findall(r"'(detector[^']*)'", query)) == set(LONG_LANES)
