"""kill -9 in the middle of STOW, and a disk that fills up: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pydicom
import pytest
from tests.gateway_support import Parts, instance, multipart, reasons, running, stow_headers

from wetread.gateway.replay import rebuild
from wetread.testing.servers.process import free_port

ROOT = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def process(folder: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway_server", str(folder), str(port), *arguments], env=environment, cwd=ROOT
    )
    base = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{base}/livez", timeout=5).status_code == 200:
                    break
            assert child.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield f"{base}/dicom-web", child
    finally:
        child.kill()
        child.wait()


def killed_while_storing(folder: Path, *, rounds: int, senders: int, each_round: int) -> dict[str, bytes]:
    """Kill the server again and again while *senders* store at the same time; return what it acknowledged, by path."""
    acknowledged: dict[str, bytes] = {}
    lock = threading.Lock()
    dice = random.Random(20240131)

    def sender(base: str, number: int, stop: threading.Event) -> None:
        # A client of its own: a killed server breaks its connections.
        with httpx.Client(timeout=20) as client:
            while not stop.is_set():
                files = [instance(StudyInstanceUID=f"2.{number}", SeriesInstanceUID=f"2.{number}.1") for _ in range(3)]
                try:
                    answer = client.post(f"{base}/studies", content=multipart(files), headers=stow_headers())
                except httpx.TransportError:
                    return
                assert answer.status_code == 200
                urls = [item["00081190"]["Value"][0] for item in answer.json()["00081199"]["Value"]]
                with lock:
                    acknowledged.update(
                        {"/" + url.split("/", 4)[4]: part for url, part in zip(urls, files, strict=True)}
                    )

    for _ in range(rounds):
        with process(folder) as (base, child):
            stop = threading.Event()
            threads = [threading.Thread(target=sender, args=(base, number, stop)) for number in range(senders)]
            for thread in threads:
                thread.start()
            goal = len(acknowledged) + each_round
            until = time.monotonic() + 30
            while len(acknowledged) < goal and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(dice.random() * 0.2)
            child.send_signal(signal.SIGKILL)
            child.wait()
            stop.set()
            for thread in threads:
                thread.join()
    assert len(acknowledged) >= rounds * senders
    return acknowledged


def everything(site: Parts) -> list[object]:
    """Return all that searches and metadata say."""
    studies = sorted(study["0020000D"]["Value"][0] for study in site.get("/studies?limit=5000").json())
    found: list[object] = []
    for uid in studies:
        found += [site.get(f"/studies?StudyInstanceUID={uid}").json(), site.get(f"/studies/{uid}/series").json()]
        found += [
            site.get(f"/studies/{uid}/instances?includefield=all").json(),
            site.get(f"/studies/{uid}/metadata").json(),
        ]
    return found


def check_what_is_left(folder: Path, acknowledged: dict[str, bytes]) -> None:
    """0 acknowledged lost, 0 torn, counters right, and an index rebuilt from the records says the same."""
    with running(folder) as site:
        for path, part in acknowledged.items():
            assert site.get(path, "application/dicom").content == part
        counted = 0
        for study in site.get("/studies").json():
            uid = study["0020000D"]["Value"][0]
            found = site.get(f"/studies/{uid}/instances").json()
            assert study["00201208"]["Value"] == [len(found)], "counters agree with the rows"
            for item in found:
                # Also what was stored and not acknowledged is whole: its digest is the one that was indexed.
                whole = site.client.get(item["00081190"]["Value"][0], headers={"Accept": "application/dicom"}).content
                assert pydicom.dcmread(io.BytesIO(whole)).PixelData == bytes(np.arange(48, dtype="<u2").tobytes())
            counted += len(found)
        assert counted >= len(acknowledged)
        assert len(list(site.objects.scan())) >= counted
        before = everything(site)
        report = rebuild(site.database, site.archive, site.objects, site.ingest)
        assert report.refused == 0
        assert everything(site) == before


@pytest.mark.timeout(240)
def test_kill_9_during_concurrent_stow(tmp_path: Path) -> None:
    check_what_is_left(tmp_path, killed_while_storing(tmp_path, rounds=2, senders=6, each_round=40))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_9_fifty_times_during_16_concurrent_stows(tmp_path: Path) -> None:
    check_what_is_left(tmp_path, killed_while_storing(tmp_path, rounds=50, senders=16, each_round=48))


@pytest.mark.timeout(120)
def test_disk_full_of_a_real_process(tmp_path: Path) -> None:
    """Files may not grow beyond 3 MB: the segment fills up, the answer is A700 and 507, what was stored stays."""
    stored: dict[str, bytes] = {}
    with process(tmp_path, "3000000") as (base, child), httpx.Client(timeout=20) as client:
        status = 200
        for _ in range(40):
            part = instance(Rows=300, Columns=500, PixelData=bytes(300_000))
            answer = client.post(f"{base}/studies", content=multipart([part]), headers=stow_headers())
            status = answer.status_code
            if status != 200:
                assert reasons(answer) == [0xA700]
                break
            stored[answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]] = part
        assert status == 507
        assert child.poll() is None
        for url, part in stored.items():
            assert client.get(url, headers={"Accept": "application/dicom"}).content == part
        # The full segment is sealed and the next one begun: storing goes on without a restart.
        assert (
            client.post(f"{base}/studies", content=multipart([instance()]), headers=stow_headers()).status_code == 200
        )
    with running(tmp_path) as site:
        assert len(site.get("/instances").json()) == len(stored) + 1


def test_client_that_goes_away(tmp_path: Path) -> None:
    """Complete parts of a broken-off request may stay; the server goes on and holds nothing back."""
    part = instance()
    body = multipart([part, instance(PixelData=bytes(96))])
    with process(tmp_path) as (base, child):
        port = int(base.split(":")[2].split("/")[0])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                raw.sendall(f"{head}Content-Type: {stow_headers()['Content-Type']}\r\n\r\n".encode() + body[:-200])
        answer = httpx.post(f"{base}/studies", content=multipart([part]), headers=stow_headers(), timeout=20)
        assert answer.status_code == 200
        assert child.poll() is None
        assert len(httpx.get(f"{base}/instances", timeout=20).json()) == 1
