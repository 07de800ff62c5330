"""A real Triton from the binaries in the nvidia-pytriton wheel (docs/operations/serving.md says how to get it)."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wetread.testing.servers.process import free_port, server_process

_ROOT = Path(__file__).resolve().parents[4]


def home() -> Path | None:
    """Return the folder that the wheel was unpacked into (``WETREAD_TRITONHOME`` or .peers/triton); None: absent."""
    place = Path(os.environ.get("WETREAD_TRITONHOME", _ROOT / ".peers" / "triton"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = place / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    return place if stub.exists() else None


@dataclass(frozen=True)
class TritonServer:
    """A running server."""

    url: str
    http: str
    metrics: str
    pid: int


@contextmanager
def triton(
    repository: Path, models: Sequence[str], *, seconds: float = 90.0, port: int | None = None
) -> Iterator[TritonServer]:
    """Serve *models* of a rendered repository on free loopback ports; ``port``: gRPC, to come back at an address."""
    grpc, http, metrics = port or free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="wetread-triton-") as folder:
        command, environment = triton_command(Path(folder), repository, models, (grpc, http, metrics))
        with server_process(
            command,
            log=Path(folder) / "log",
            ready=lambda: ready(http),
            seconds=seconds,
            environment=environment,
            fatal="error while loading",
        ) as process:
            yield TritonServer(
                f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}", f"http://127.0.0.1:{metrics}", process.pid
            )


def ready(http: int) -> bool:
    """Return whether the server at this HTTP port serves its models. Raises OSError when nothing answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/v2/health/ready", timeout=2) as answer:
        return int(answer.status) == 200


def triton_command(
    folder: Path, repository: Path, models: Sequence[str], ports: tuple[int, int, int]
) -> tuple[list[str], dict[str, str]]:
    """Lay the server out in *folder* and return its command and environment; ``ports``: gRPC, HTTP, metrics."""
    place = home()
    if place is None:
        msg = "Triton is not here: make servers"
        raise FileNotFoundError(msg)
    server = place / "pytriton/tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = folder / "backends"
    shutil.copytree(server / "backends", backends)
    stub = backends / "python/triton_python_backend_stub"
    shutil.copyfile(server / "python_backend_stubs" / version / stub.name, stub)
    executable = folder / "tritonserver"
    shutil.copyfile(server / "bin/tritonserver", executable)
    for path in (stub, executable):
        path.chmod(0o755)
    grpc, http, metrics = ports
    command = [
        str(executable), f"--model-repository={repository}", f"--backend-directory={backends}",
        "--model-control-mode=explicit", *(f"--load-model={name}" for name in models),
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1", f"--metrics-port={metrics}", "--exit-timeout-secs=3",
        "--allow-gpu-metrics=false",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{place / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}",
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return command, environment
