"""kill -9 anywhere: nothing acknowledged is lost, every study reaches a final state, no result twice."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from tests.e2e.conftest import Wetread, wait_for
from tests.otlp_receiver import OtlpReceiver, settings_of

from wetread.commands.dicom_folder import FileInstance, FileStudy
from wetread.commands.local_server import local_server, wait_ready
from wetread.commands.send import Sender, multipart_body
from wetread.registry import WEB, WORKER


def kill(wetread: Wetread, names: tuple[str, ...]) -> None:
    [child] = [child for child in wetread.supervisor.children if child.names == names]
    os.kill(child.process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def collector():
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def own_server(collector: OtlpReceiver, module_stores: None, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as environment:
        quiet = {"WETREAD_QUIET_SERIES": "1", "WETREAD_QUIET_STUDY": "3"}  # the web process is away for a second or two
        for name, value in {**settings_of(collector), **quiet}.items():
            environment.setenv(name, value)
        with local_server(tmp_path_factory.mktemp("crash") / "data") as supervisor:
            yield Wetread(supervisor)


@pytest.mark.timeout(240)
def test_worker_killed_in_mid_inference(collector: OtlpReceiver, own_server: Wetread, bleed: FileStudy) -> None:
    study = bleed
    sender = Sender(own_server.url)
    sender.send(study)
    sender.close()
    for _ in range(2):
        wait_for(
            lambda: [r["state"] for r in own_server.results(study.study_uid)],
            lambda states: "running" in states or "positive" in states or "preliminary_positive" in states,
        )
        kill(own_server, WORKER)
        time.sleep(0.5)
    results = own_server.final_results(study.study_uid, seconds=120)
    assert {r["state"] for r in results if r["detector"] == "ich"} == {"positive"}
    found = own_server.get(f"/dicom-web/studies/{study.study_uid}/series").json()
    modalities = [item["00080060"]["Value"][0] for item in found]
    assert modalities.count("SR") == 1, "no result twice"
    assert modalities.count("SEG") == 2, "the regions, and where the score came from"
    events = own_server.get("/api/v1/events", params={"after": 0, "limit": 1000}).json()["events"]
    ids = [event["id"] for event in events]
    assert len(ids) == len(set(ids))
    told = [e for e in events if e["type"] == "finding.positive" and e["subject"] == study.study_uid]
    assert len({e["id"] for e in told}) == len(told) >= 1
    [trace_id] = {e["traceparent"].split("-")[1] for e in told}
    # whichever came last completed the study: its last instances, or the sender's word on how many there are
    began = {"POST /dicom-web/studies", "POST /api/v1/studies/{study_uid}/manifest"}
    wait_for(
        lambda: set(collector.trace(trace_id)),
        lambda names: {"run_task", "detector run", "compose_results", "note"} <= names and began & names,
    )
    spans = collector.trace(trace_id)
    assert len({span.span_id for name in began for span in spans.get(name, [])}) == 1, (
        "what another process finished is in the trace of the request"
    )
    assert {span.service for span in spans["run_task"]} == {"wetread-worker"}


@pytest.mark.timeout(240)
def test_web_process_killed_in_mid_stow(own_server: Wetread, quiet: FileStudy) -> None:
    study = quiet
    acknowledged: set[str] = set()
    stop = threading.Event()

    def send(instance: FileInstance) -> None:
        """Send one instance until it is acknowledged, as a sender does."""
        while not stop.is_set():
            with contextlib.suppress(httpx.TransportError):
                answer = own_server.post(
                    "/dicom-web/studies",
                    content=b"".join(multipart_body([instance], "b0")),
                    headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=b0'},
                )
                if answer.status_code == 200:
                    acknowledged.add(instance.sop_instance_uid)
                    return
            time.sleep(0.05)

    queue = list(study.instances)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not queue:
                    return
                instance = queue.pop()
            send(instance)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):  # hundreds of kills are in the slow chaos test
        time.sleep(0.15)
        before = set(acknowledged)
        kill(own_server, WEB)
        wait_ready(own_server.url)
        held = held_instances(own_server, study.study_uid)
        assert before <= held, "an acknowledged instance was lost"
    for thread in threads:
        thread.join(60)
    stop.set()
    assert acknowledged == {i.sop_instance_uid for i in study.instances}
    assert acknowledged <= held_instances(own_server, study.study_uid)
    check_bytes(own_server, study.instances, study.study_uid)
    results = own_server.final_results(study.study_uid, seconds=120)
    assert all(r["reason"] or r["state"] in {"positive", "negative", "indeterminate"} for r in results)


def held_instances(wetread: Wetread, study_uid: str) -> set[str]:
    answer = wetread.get(f"/dicom-web/studies/{study_uid}/instances", params={"limit": 5000})
    return {item["00080018"]["Value"][0] for item in answer.json()}


def check_bytes(wetread: Wetread, instances: list[FileInstance], study_uid: str) -> None:
    for instance in instances:
        series_uid = str(dcmread(instance.path, stop_before_pixels=True).SeriesInstanceUID)
        answer = wetread.get(
            f"/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{instance.sop_instance_uid}",
            headers={"Accept": "application/dicom; transfer-syntax=*"},
        )
        assert answer.content == instance.path.read_bytes()


@pytest.mark.timeout(120)
def test_a_second_server_is_kept_off_the_same_data(own_server: Wetread) -> None:
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "wetread", "up", "--port", "0", "--data", str(own_server.supervisor.settings.data)]
    second = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root / "services")},
    )
    assert second.returncode == 3
    assert "another server" in second.stderr
    assert own_server.get("/readyz").status_code == 200
