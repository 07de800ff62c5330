"""The whole product is killed (-9) while a finding waits: after the restart each step of its chain is taken once."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway_support import instance, multipart, stow_headers

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.index.tables import events
from wetread.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
STUDY = "1.2.3.77"


class Sink(http.server.ThreadingHTTPServer):
    """Takes CloudEvents in binary mode and keeps path, type, id and data."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str, dict[str, Any]]] = []
        super().__init__(("127.0.0.1", 0), _Take)

    def escalated(self, path: str) -> dict[str, dict[str, Any]]:
        """Return the escalations that came to a path by their id."""
        return {i: data for p, kind, i, data in self.received if (p, kind) == (path, "finding.escalated")}


class _Take(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert isinstance(self.server, Sink)
        self.server.received.append((self.path, self.headers["ce-type"], self.headers["ce-id"], body))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        pass


def eventually(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


@contextmanager
def running(environment: dict[str, str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "wetread", "up", "--port", str(port)],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        eventually(ready, 120)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


@pytest.mark.usefixtures("stores")
def test_each_step_is_taken_once_after_a_kill(tmp_path: Path) -> None:
    sink = Sink()
    threading.Thread(target=sink.serve_forever, args=(0.05,), daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    here = f"http://127.0.0.1:{sink.server_port}"
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(
        f'default:\n  channels: {{on-call: {{sink: "{here}/on-call", mode: binary}}}}\n'
        "  escalation: {steps: [{after_minutes: 0.02, channel: on-call}], alarm_after_minutes: 0.1}\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT / "services"), "WETREAD_DATA": str(tmp_path / "data"),
        "WETREAD_TENANTS_FILE": str(tenants), "K_SINK": f"{here}/all", "WETREAD_EVENT_SINK_MODE": "binary",
    }  # fmt: skip
    with running(environment, port):
        store = multipart([instance(StudyInstanceUID=STUDY)])
        url = f"http://127.0.0.1:{port}"
        assert httpx.post(f"{url}/dicom-web/studies", content=store, headers=stow_headers()).status_code == 200
        raised = {"priority": "stat", "reason": "ward called"}
        assert httpx.post(f"{url}/api/v1/worklist/{STUDY}:raise", json=raised).status_code == 200
        eventually(lambda: any(kind == "study.received" for _, kind, *_ in sink.received))
    found = {"detector": "ich", "code": "1386000", "meaning": "haemorrhage"}
    database = SqlDatabase(Settings(data=tmp_path / "data").database)
    with database.write() as tx:  # told in the last moment before the kill
        told = {"tenant": "default", "id": "pos", "type": "finding.positive", "subject": STUDY, "time": time.time()}
        tx.connection.execute(events.insert().values(**told, data_json=json.dumps(found), stamps_json="{}"))
    database.close()
    for _ in range(2):  # killed again as soon as the first step is out
        with running(environment, port):
            eventually(lambda: bool(sink.escalated("/on-call")))
    with running(environment, port):
        eventually(lambda: any(data["alarm"] for data in sink.escalated("/all").values()))
    sink.shutdown()
    sink.server_close()
    assert [data["step"] for data in sink.escalated("/on-call").values()] == [0]
    assert sorted(data["step"] for data in sink.escalated("/all").values()) == [-1, 0]
