"""The worker pod of the chart, as a process: its very arguments, probed on the paths of its probes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest
from tests.charts.rendering import kind, of_ci

from wetread.testing.servers.process import free_port, server_process

pytestmark = pytest.mark.server("helm")


def test_a_worker_answers_probes_and_scrapes(tmp_path: Path) -> None:
    pod = kind(of_ci("minimal"), "Deployment")["demo-wetread-worker"]["spec"]["template"]["spec"]["containers"][0]
    serves = pod["args"][2:]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
    environment |= {"WETREAD_DATA": str(tmp_path), "WETREAD_PORT": str(port)}

    def ready() -> bool:
        try:
            return httpx.get(url + pod["readinessProbe"]["httpGet"]["path"], timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    command = [sys.executable, "-m", "wetread", "serve", *serves]
    with server_process(command, log=tmp_path / "log", ready=ready, environment=environment):
        assert httpx.get(url + pod["livenessProbe"]["httpGet"]["path"]).json() == {"status": "ok"}
        assert "wetread_queue_depth" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/dicom-web/studies").status_code == 404, "a worker is no gateway"
