"""``wetread up``: one command, two processes, three with the DIMSE edge.

Restarts a process that dies and takes the others along when it ends.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from wetread.commands.listening import listen
from wetread.commands.processes import Child, Processes
from wetread.core.lifeline import PARENT_VARIABLE
from wetread.core.ruo import RUO_SHORT
from wetread.registry import DIMSE, WEB, WORKER
from wetread.settings import Settings

WORKER_NICENESS = 5
"""What a person or a modality waits for at the socket goes before what runs behind it (ADR 0804)."""


def settings_of(**overrides: Any) -> Settings:
    """Return the settings of the environment with the command line's values on top."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})


@dataclass
class Supervisor:
    """Starts the two processes of the embedded profile on one listening socket and watches them."""

    settings: Settings
    processes: Processes = field(default_factory=Processes)
    _lock: IO[str] | None = None
    _socket: socket.socket | None = None

    def open(self) -> None:
        """Take the data folder and the port. Raises OSError when either is taken."""
        self._lock = lock_folder(self.settings.data)
        # The supervisor owns the socket: while the web process restarts, connections wait instead of being refused.
        self._socket = listen(self.settings)
        for names in (WEB, WORKER, DIMSE) if self.settings.dimse_port is not None else (WEB, WORKER):
            self.processes.add(names, self._starter(names))

    @property
    def children(self) -> list[Child]:
        """The supervised processes."""
        return self.processes.children

    @property
    def url(self) -> str:
        """Base URL of the server."""
        assert self._socket is not None
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self._socket.getsockname()[1]}"

    def _starter(self, names: Sequence[str]) -> Callable[[], subprocess.Popen[bytes]]:
        assert self._socket is not None
        command = [sys.executable, "-m", "wetread", "serve", *names]
        inherited: tuple[int, ...] = ()
        if names == WEB:
            inherited = (self._socket.fileno(),)
            command += ["--fd", str(self._socket.fileno())]
        environment = os.environ | self.settings.environment() | {PARENT_VARIABLE: str(os.getpid())}
        if names == DIMSE:
            environment["WETREAD_PORT"] = str(self.settings.dimse_http_port)

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own arguments
                command, env=environment, pass_fds=inherited, stdin=subprocess.DEVNULL
            )
            if names == WORKER:
                # Before it has threads: those inherit it, and so do the detectors' processes.
                os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + WORKER_NICENESS)
            return process

        return start

    def watch(self) -> None:
        """Restart what died, once. Called again and again."""
        self.processes.watch()

    def close(self) -> None:
        """End the processes, give back port and folder."""
        self.processes.end()
        if self._socket is not None:
            self._socket.close()
        if self._lock is not None:
            self._lock.close()


def lock_folder(data: Path) -> IO[str]:
    """Take the data folder for this process, made when it is not there. BlockingIOError: another server has it."""
    data.mkdir(parents=True, exist_ok=True)
    handle = (data / "lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise
    return handle


def run_up(*, host: str | None, port: int | None, data: Path | None, dimse_port: int | None = None) -> int:
    """Run until SIGINT or SIGTERM. Returns the exit code."""
    try:
        settings = settings_of(host=host, port=port, data=data, dimse_port=dimse_port)
    except ValueError as error:
        print(f"wetread: {_first_message(error)}", file=sys.stderr)
        return 2
    supervisor = Supervisor(settings)
    try:
        supervisor.open()
    except BlockingIOError:
        print(f"wetread: another server is using {settings.data}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"wetread: cannot start on {settings.host}:{settings.port}: {error.strerror}", file=sys.stderr)
        return 3
    stopping = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"wetread is at {supervisor.url}/ (DICOMweb {supervisor.url}/dicom-web), data in {settings.data}", flush=True)
    if settings.dimse_port is not None:
        print(f"DICOM at {settings.dimse_ae_title}@{settings.dimse_host}:{settings.dimse_port}", flush=True)
    if not settings.authentication:
        print("No authentication is configured, so only this machine can connect.", flush=True)
    print(RUO_SHORT, flush=True)
    try:
        while not stopping:
            supervisor.watch()
            time.sleep(0.1)
    finally:
        supervisor.close()
    return 0


def _first_message(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    return str(errors()[0]["msg"]) if callable(errors) else str(error)
