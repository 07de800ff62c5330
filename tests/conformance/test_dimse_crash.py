"""kill -9 in the middle of C-STORE: nothing that was answered with success is lost, nothing is torn."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from tests.dimse_support import edge
from tests.gateway_support import CT, dataset, encoded

ROOT = Path(__file__).resolve().parent.parent.parent


@contextlib.contextmanager
def process(folder: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'services'}{os.pathsep}{ROOT}"}
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.dimse_server", str(folder)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        yield int(child.stdout.readline()), child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_during_concurrent_stores(tmp_path: Path, rounds: int) -> None:
    answered: dict[str, bytes] = {}
    dice = random.Random(20261121)

    def sender(port: int, number: int) -> None:
        entity = AE(ae_title=f"CT{number}")
        entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 2
        entity.add_requested_context(CT, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", port, ae_title="WETREAD")
        while association.is_established:
            data = dataset(
                SOPInstanceUID=generate_uid(), StudyInstanceUID=f"2.{number}", SeriesInstanceUID=f"2.{number}.1"
            )
            data.file_meta = pydicom.dataset.FileMetaDataset()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            with contextlib.suppress(RuntimeError, ValueError):
                if association.send_c_store(data).get("Status") == 0:
                    answered[data.SOPInstanceUID] = encoded(data)
        transport = association.dul.socket
        if transport is not None and transport.socket is not None:
            transport.socket.close()

    for _ in range(rounds):
        with process(tmp_path) as (port, child):
            threads = [threading.Thread(target=sender, args=(port, number)) for number in range(4)]
            for thread in threads:
                thread.start()
            goal, until = len(answered) + 30, time.monotonic() + 30
            while len(answered) < goal and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(dice.random() * 0.1)
            child.send_signal(signal.SIGKILL)
            child.wait()
            for thread in threads:
                thread.join(30)
    assert len(answered) >= 30 * rounds
    with edge(tmp_path) as after, after.parts.database.read() as tx:
        kept = {
            item.sop_uid: item
            for number in range(4)
            for item in after.parts.archive.instances(tx, "default", f"2.{number}")
        }
        assert not answered.keys() - kept.keys()
        for uid, file in answered.items():
            stored = pydicom.dcmread(io.BytesIO(after.parts.objects.read(kept[uid].ref)))
            assert stored == pydicom.dcmread(io.BytesIO(file))
        assert len(list(after.parts.objects.scan())) == len(kept), "recovery indexed what was stored and not answered"
