"""A ``wetread up`` of our own for the length of a ``with`` block: demo, benchmarks and end-to-end tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from wetread.commands.up import Supervisor
from wetread.settings import Settings

READY_SECONDS: Final = 60.0


class ServerNotReadyError(Exception):
    """The server did not become ready in time."""


@contextmanager
def local_server(data: Path, *, port: int = 0, ready_seconds: float = READY_SECONDS) -> Iterator[Supervisor]:
    """Run web and worker process on loopback until the block ends. Raises ServerNotReadyError."""
    supervisor = Supervisor(Settings(host="127.0.0.1", port=port, data=data))
    stopped = threading.Event()
    supervisor.open()

    def watch() -> None:
        while not stopped.wait(0.1):
            supervisor.watch()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        wait_ready(supervisor.url, ready_seconds)
        yield supervisor
    finally:
        stopped.set()
        watcher.join()
        supervisor.close()


def wait_ready(url: str, timeout: float = READY_SECONDS) -> None:
    """Wait until ``/readyz`` is green. Raises ServerNotReadyError with the checks that are red."""
    deadline = time.monotonic() + timeout
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{url}/readyz", timeout=5)
        except httpx.TransportError:
            pass
        else:
            if answer.status_code == 200:
                return
            last = answer.text
        time.sleep(0.1)
    msg = f"not ready after {timeout:.0f} s: {last}"
    raise ServerNotReadyError(msg)
