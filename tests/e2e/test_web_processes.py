"""Two gateway processes at one port: kill -9 of one of them under load, again and again (``make test-slow``)."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.gateway_support import instance, multipart, stow_headers

from wetread.testing.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
_KILLS, _SENDERS = 20, 8


def members(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("stores")
def test_kill_9_of_one_of_two_gateway_processes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "services"),
        "WETREAD_DATA": str(tmp_path),
        "WETREAD_PORT": str(port),
        "WETREAD_WEB_PROCESSES": "2",
    }
    server = subprocess.Popen([sys.executable, "-m", "wetread", "serve", "gateway"], env=environment)
    base = f"http://127.0.0.1:{port}"
    acknowledged: dict[str, bytes] = {}
    unanswered: list[int] = []
    lock, stop = threading.Lock(), threading.Event()

    def send(number: int) -> None:
        sent = 0
        while not stop.is_set():
            files = [instance(StudyInstanceUID=f"2.{number}", SeriesInstanceUID=f"2.{number}.1") for _ in range(2)]
            sent += 1
            with httpx.Client(timeout=30) as client, contextlib.suppress(httpx.TransportError):
                answer = client.post(f"{base}/dicom-web/studies", content=multipart(files), headers=stow_headers())
                assert answer.status_code == 200
                urls = [item["00081190"]["Value"][0] for item in answer.json()["00081199"]["Value"]]
                with lock:
                    acknowledged.update({url.partition("/dicom-web")[2]: f for url, f in zip(urls, files, strict=True)})
                continue
            unanswered.append(number)

    try:
        # Not /readyz: there is no worker process beside it.
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{base}/livez").status_code == 200:
                    break
            time.sleep(0.05)
        threads = [threading.Thread(target=send, args=(number,)) for number in range(_SENDERS)]
        for thread in threads:
            thread.start()
        dice = random.Random(7)
        for _ in range(_KILLS):
            goal = len(acknowledged) + 40
            deadline = time.monotonic() + 60
            while (len(acknowledged) < goal or len(members(server.pid)) < 2) and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(dice.random() * 0.1)
            os.kill(dice.choice(members(server.pid)), signal.SIGKILL)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert len(acknowledged) >= 40 * _KILLS
        # Of two processes one goes on: only requests of the killed one, and those on their way to it, go unanswered.
        assert len(unanswered) <= _KILLS * _SENDERS
        with httpx.Client(base_url=f"{base}/dicom-web", timeout=30) as client:
            for path, sent in acknowledged.items():
                assert client.get(path, headers={"Accept": "application/dicom"}).content == sent
            for study in client.get("/studies").json():
                found = client.get(f"/studies/{study['0020000D']['Value'][0]}/instances?limit=10000").json()
                assert study["00201208"]["Value"] == [len(found)], "counters agree with the rows"
    finally:
        stop.set()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
