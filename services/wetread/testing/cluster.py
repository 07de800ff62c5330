"""The cluster profile on one machine: every service a process of its own, told apart by settings alone.

What a chart does with Deployments and an ingress is done here with processes and a client that routes by path. A
process that ends is started again, as a kubelet does.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from wetread.commands.local_server import ServerNotReadyError, wait_ready
from wetread.commands.processes import Child, Processes
from wetread.core.lifeline import PARENT_VARIABLE
from wetread.testing.servers.process import end_with_parent, free_port
from wetread.testing.servers.triton import ready, triton_command

GATEWAYS: Final = ("gateway0", "gateway1")
SERVICES: Final[Mapping[str, tuple[tuple[str, ...], Mapping[str, str]]]] = {
    **{name: (("gateway",), {}) for name in GATEWAYS},
    "worklist": (("worklist",), {}),
    "ffrct": (("ffrct",), {}),
    "orchestration": (("health", "triage", "orchestration"), {}),
    "stat": (("health", "detection"), {"QUEUES": "detector.cpu.stat", "INFERENCE_LANE": "stat"}),
    "detection": (("health", "detection"), {"QUEUES": "detector.cpu,detector.cpu.batch"}),
    "slides": (("health", "detection"), {"QUEUES": "detector.slide"}),
}
"""Name of a process -> what ``wetread serve`` is given, and its settings besides those of all."""

START_SECONDS: Final = 400.0
"""Eight interpreters start at once, on a machine that may have other things to do."""

_WORKLIST: Final = ("/dicom-web/workitems", "/dicom-web/subscribers", "/dicom-web/ws")
_FFR: Final = ("/api/v1/ffr",)


@dataclass
class Cluster:
    """Running processes. ``ask`` and ``client`` reach them as through an ingress."""

    ports: Mapping[str, int]
    processes: Processes = field(default_factory=Processes)
    models_port: int | None = None
    """HTTP port of Triton."""
    _turn: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._turn = itertools.cycle([name for name in GATEWAYS if name in self.ports])

    def url(self, name: str) -> str:
        """Return the base URL of one process."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def child(self, name: str) -> Child:
        """Return one process."""
        return next(child for child in self.processes.children if child.names[0] == name)

    def serving(self, path: str) -> str:
        """Return the name of the process that serves a path; gateways take turns."""
        if path.startswith(_FFR):
            return "ffrct"
        if path.startswith("/dicom-web") and not path.startswith(_WORKLIST):
            return next(self._turn)
        return "worklist"

    def models_ready(self) -> bool:
        """Return whether Triton serves its models."""
        with suppress(OSError):
            return self.models_port is not None and ready(self.models_port)
        return False

    def client(self, *, timeout: float = 60.0) -> httpx.Client:
        """Return a client of the whole: each request goes to the process that serves its path."""
        return httpx.Client(base_url="http://cluster", transport=_ByPath(self), timeout=timeout)

    def ask(self, path: str, **arguments: object) -> httpx.Response:
        """GET until somebody answers: a process that was just killed comes back."""
        deadline = time.monotonic() + START_SECONDS
        with self.client(timeout=30) as client:
            while True:
                with suppress(httpx.TransportError):
                    answer = client.get(path, **arguments)  # type: ignore[arg-type]
                    if answer.status_code < 500:
                        return answer
                if time.monotonic() > deadline:
                    msg = f"no answer to {path}"
                    raise TimeoutError(msg)
                time.sleep(0.1)


class _ByPath(httpx.BaseTransport):
    """Sends each request where its path is served."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._wire = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request on."""
        name = self._cluster.serving(request.url.path)
        request.url = request.url.copy_with(host="127.0.0.1", port=self._cluster.ports[name])
        return self._wire.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()


@contextmanager
def cluster(
    folder: Path,
    environment: Mapping[str, str],
    *,
    repository: Path | None = None,
    models: Sequence[str] = (),
    names: Sequence[str] = tuple(SERVICES),
) -> Iterator[Cluster]:
    """Run the named services until the block ends; *environment*: database, object store, detectors (WETREAD_*, AWS_*).

    ``repository``: a rendered model repository, served to all by a Triton that is one of the processes. The tables
    and the bucket have to be there. Raises ServerNotReadyError.
    """
    ports = {name: free_port() for name in names}
    running = Cluster(ports)
    common = {**os.environ, **environment, "WETREAD_MIGRATE": "false", PARENT_VARIABLE: str(os.getpid())}
    stopped = threading.Event()
    with tempfile.TemporaryDirectory(prefix="wetread-triton-") as scratch:
        if repository is not None:
            common["WETREAD_INFERENCE_URL"] = _serve_models(running, Path(scratch), repository, models)
        for name in names:
            services, settings = SERVICES[name]
            own = {
                "WETREAD_DATA": str(folder / name),
                "WETREAD_PORT": str(ports[name]),
                "WETREAD_INSTANCE": name,
                **{f"WETREAD_{key}": value for key, value in settings.items()},
            }
            log = folder / f"{name}.log"
            folder.mkdir(parents=True, exist_ok=True)
            running.processes.add([name], _starter(["serve", *services], common | own, log))
        # Processes end with the thread that started them: whoever starts them again has to live as long as they.
        watcher = threading.Thread(target=_watch, args=(running.processes, stopped), daemon=True)
        watcher.start()
        try:
            for name in names:
                _wait_ready(running, name, folder / f"{name}.log")
            yield running
        finally:
            stopped.set()
            watcher.join()
            running.processes.end()


def _wait_ready(running: Cluster, name: str, log: Path) -> None:
    try:
        wait_ready(running.url(name), timeout=START_SECONDS)
    except ServerNotReadyError as error:
        msg = f"{name}: {error}\n{log.read_bytes()[-4000:].decode('utf-8', 'replace')}"
        raise ServerNotReadyError(msg) from error


def _watch(processes: Processes, stopped: threading.Event) -> None:
    while not stopped.wait(0.1):
        processes.watch()


def _starter(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path
) -> Callable[[], subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "wetread", *arguments]

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(command, env=dict(environment), stderr=output, stdin=subprocess.DEVNULL)

    return start


def _serve_models(running: Cluster, scratch: Path, repository: Path, models: Sequence[str]) -> str:
    """Start Triton as one of the processes and return its URL; it comes back at the same address."""
    grpc, http, metrics = free_port(), free_port(), free_port()
    command, environment = triton_command(scratch, repository, models, (grpc, http, metrics))

    def start() -> subprocess.Popen[bytes]:
        with (scratch / "log").open("ab") as output:
            return subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - one system call
            )

    running.processes.add(["triton"], start)
    running.models_port = http
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if running.models_ready():
            return f"grpc://127.0.0.1:{grpc}"
        time.sleep(0.1)
    running.processes.end()
    msg = (scratch / "log").read_bytes()[-4000:].decode("utf-8", "replace")
    raise TimeoutError(msg)
