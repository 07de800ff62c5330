"""A real KServe model server in a process of its own, with packages of its own (``.peers/kserve``) beside ours."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wetread.testing.servers.process import free_port, server_process

_ROOT = Path(__file__).resolve().parents[4]


def packages() -> list[str] | None:
    """Return what to put before the module path: nothing when kserve is installed here; None: it is nowhere."""
    if importlib.util.find_spec("kserve") is not None:
        return []
    place = Path(os.environ.get("WETREAD_KSERVEHOME", _ROOT / ".peers" / "kserve"))
    return [str(place)] if (place / "kserve").is_dir() else None


@contextmanager
def kserve(model: Path, *, seconds: float = 90.0) -> Iterator[str]:
    """Serve one network and yield its gRPC URL."""
    extra = packages()
    if extra is None:
        msg = "kserve is not here"
        raise FileNotFoundError(msg)
    http, grpc = free_port(), free_port()
    limit = str(256 << 20)
    command = [
        sys.executable, "-m", "wetread.testing.kserve_server", "--http_port", str(http), "--grpc_port", str(grpc),
        "--grpc_max_receive_message_length", limit, "--grpc_max_send_message_length", limit,
    ]  # fmt: skip
    ready = f"http://127.0.0.1:{http}/v2/health/ready"
    with tempfile.TemporaryDirectory(prefix="wetread-kserve-") as folder:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*extra, str(_ROOT / "services")]),
            "WETREAD_KSERVE_MODEL": str(model),
        }
        with server_process(
            command,
            log=Path(folder) / "log",
            ready=lambda: urllib.request.urlopen(ready, timeout=2).status == 200,
            seconds=seconds,
            environment=environment,
        ):
            yield f"grpc://127.0.0.1:{grpc}"
