"""The purity watch of the contract suite sees what it is there to see."""

from __future__ import annotations

import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from wetread.testing.contracts.purity import impurities


@pytest.mark.parametrize(
    ("deed", "name"),
    [
        (lambda path: path.read_bytes(), "open"),
        (lambda path: path.parent.iterdir().__next__(), "os.listdir"),
        (lambda path: socket.socket().close(), "socket.__new__"),
        (lambda path: subprocess.run(["/bin/true"], check=True), "subprocess.Popen"),
        (lambda path: threading.Thread(target=path.exists).start(), "threading.Thread.start"),
        (lambda path: time.time(), "time.time"),
        (lambda path: time.perf_counter(), "time.perf_counter"),
    ],
)
def test_files_sockets_processes_and_clocks_are_seen(tmp_path, deed, name):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with impurities() as seen:
        deed(path)
    assert name in seen or name.replace("listdir", "scandir") in seen


def test_arithmetic_is_pure_and_the_watch_ends():
    with impurities() as seen:
        np.linalg.svd(np.eye(5))
    time.time()
    assert seen == []


def test_what_another_thread_does_meanwhile_is_its_own_affair(tmp_path):
    begun, ended = threading.Event(), threading.Event()
    times = []

    def other():
        begun.wait(30)
        (tmp_path / "file").write_bytes(b"x")
        times.append(time.time())
        ended.set()

    thread = threading.Thread(target=other)
    thread.start()
    with impurities() as seen:
        begun.set()
        while not ended.is_set():
            pass
    thread.join()
    assert seen == []
    assert times[0] > 0, "clocks of other threads go on"
