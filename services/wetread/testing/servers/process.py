"""A server process: its own group, its log in a file that a failure prints, ended when this process ends."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOWEST_PORT = 10_000
_LOWEST_OUTGOING_PORT = 32_768
"""Linux's default (``net.ipv4.ip_local_port_range``)."""
_given: set[int] = set()


class ServerFailedError(RuntimeError):
    """A real server did not start; the message ends with its log."""


def free_port() -> int:
    """Return a loopback port that is free at this moment, each time another one.

    Not one of those that the kernel gives to outgoing connections: those of servers that start first would take it.
    """
    while True:
        port = random.randrange(_LOWEST_PORT, _LOWEST_OUTGOING_PORT)
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port


@contextmanager
def server_process(
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    seconds: float = 60.0,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    group: int | None = None,
    stop: signal.Signals = signal.SIGTERM,
    fatal: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start *command*, wait for *ready*, stop it at the end. ``fatal``: a line of the log that means it never will be.

    ``stop``: the signal that ends it. Raises ServerFailedError.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
            preexec_fn=lambda: end_with_parent(stop),  # noqa: PLW1509 - one system call
        )
    try:
        _wait(process, log, ready, seconds, fatal)
        yield process
    finally:
        _end(process, stop)


def end_with_parent(stop: signal.Signals) -> None:
    """Ask Linux to send *stop* to this process when its parent's thread ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(stop))


def _wait(
    process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], seconds: float, fatal: str | None
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        if process.poll() is not None:
            msg = f"the server ended with {process.returncode}:\n{_tail(log)}"
            raise ServerFailedError(msg)
        with suppress(OSError):
            if ready():
                return
        if time.monotonic() > deadline or (fatal is not None and fatal in _tail(log)):
            msg = f"the server did not become ready:\n{_tail(log)}"
            raise ServerFailedError(msg)
        time.sleep(0.02)


def _tail(log: Path) -> str:
    return log.read_bytes()[-4000:].decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(stop)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own group: nobody else's processes are in it
    process.wait(10)
