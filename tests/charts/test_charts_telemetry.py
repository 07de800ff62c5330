"""Telemetry in the chart: what pods get, where they may send it, and nothing of it when it is off."""

from __future__ import annotations

import json

import pytest
from tests.charts.rendering import CLUSTER, Object, kind, merged, objects, pod_specs, rendered

from wetread.settings import Settings

pytestmark = pytest.mark.server("helm")
COLLECTOR: Object = {
    "endpoint": "http://collector.monitoring:4318",
    "ratio": 0.25,
    "signals": ["traces", "logs"],
    "headers": {"existingSecret": "collector-headers"},
    "networks": ["10.1.0.0/16"],
}


def test_every_pod_of_a_service_is_told_and_the_program_understands(monkeypatch: pytest.MonkeyPatch) -> None:
    found = objects(merged(CLUSTER, {"telemetry": COLLECTOR}))
    data = kind(found, "ConfigMap")["demo-wetread-config"]["data"]
    told = {name: value for name, value in data.items() if name.startswith("WETREAD_TELEMETRY_")}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.telemetry_endpoint == COLLECTOR["endpoint"]
    assert (settings.telemetry_ratio, settings.telemetry_signals) == (0.25, "traces,logs")
    serving = [spec["containers"][0] for _, _, spec in pod_specs(found) if "serve" in str(spec["containers"][0])]
    assert len(serving) >= 3
    for container in serving:
        [headers] = [each for each in container["env"] if each["name"] == "WETREAD_TELEMETRY_HEADERS"]
        assert headers["valueFrom"]["secretKeyRef"] == {"name": "collector-headers", "key": "headers"}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [
        ("http://collector.monitoring:4318", 4318),
        ("https://collector.example/otlp", 443),
        ("http://collector", 80),
        ("http://10.0.0.7:4318/base", 4318),
    ],
)
def test_the_policies_let_them_reach_the_collector(endpoint: str, port: int) -> None:
    values = merged(CLUSTER, {"telemetry": COLLECTOR | {"endpoint": endpoint}})
    wanted = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": port}]}
    policies = kind(objects(values), "NetworkPolicy")
    reaching = {name for name, each in policies.items() if wanted in each["spec"]["egress"]}
    assert reaching >= {f"demo-wetread-{name}" for name in ("gateway", "worklist", "worker")}


def test_without_an_endpoint_there_is_nothing_of_it() -> None:
    without = rendered(merged(CLUSTER, {"telemetry": {"headers": {"existingSecret": "x"}}}))
    assert "TELEMETRY" not in "".join(without.values())
    assert "4318" not in "".join(without.values())


@pytest.mark.parametrize(
    "wrong",
    [{"endpoint": "collector:4318"}, {"endpoint": "http://c/?x=1"}, {"ratio": 2}, {"signals": ["smells"]}],
    ids=json.dumps,
)
def test_what_nobody_can_mean_is_refused(wrong: Object) -> None:
    import helm_python

    with pytest.raises(helm_python.HelmError):
        objects({"telemetry": wrong})
