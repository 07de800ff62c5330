"""The isolated conversion: a process of its own without network, with limits on memory, time and file size."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from wetread.detection.importing.errors import REASONS, ImportRefused

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_NO_NEW_PRIVS: Final = 38
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
"""Of the environment: no credentials, no settings, no proxies."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a conversion may use."""

    memory_bytes: int = 8 << 30
    seconds: int = 600
    file_bytes: int = 4 << 30


def convert(job: Mapping[str, Any], limits: Limits | None = None) -> dict[str, Any]:
    """Run ``wetread.detection.importing.convert`` on *job* in a process of its own and return its answer.

    Raises ImportRefused with the child's reason, ``resources`` when it was over a limit, else ``conversion_failed``.
    """
    limits = limits or Limits()
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
    environment |= {"HOME": str(job["out"]), "OMP_NUM_THREADS": "2", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "wetread.detection.importing.convert"]
    order = {"limits": [limits.memory_bytes, limits.seconds, limits.file_bytes], **job}
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            input=json.dumps(order).encode(),
            capture_output=True,
            cwd=job["out"],
            env=environment,
            timeout=limits.seconds,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ImportRefused("resources", f"over {limits.seconds} s") from error
    if done.returncode < 0:
        raise ImportRefused("resources")
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise ImportRefused("conversion_failed") from error
    if "refused" in answer:
        reason = answer["refused"] if answer["refused"] in REASONS else "conversion_failed"
        raise ImportRefused(reason, answer.get("detail", ""))
    return answer


def isolate(memory_bytes: int, seconds: int, file_bytes: int) -> list[str]:
    """Cut the calling process off, for good; return what was done. Called by the child before it opens anything."""
    done = ["limits"]
    for kind, limit in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (bound, bound))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        done.append("no new privileges")
    # An empty network namespace where the kernel lets an ordinary process have one; the hook below holds everywhere.
    if library.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        done.append("network namespace")
    sys.addaudithook(_refuse)
    return [*done, "no sockets, no programs"]


def _refuse(event: str, _arguments: tuple[Any, ...]) -> None:
    if event.startswith(("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.", "os.exec", "os.system")):
        raise PermissionError(event)


def torch_is_there() -> bool:
    """Whether this installation can convert."""
    from importlib.util import find_spec

    return find_spec("torch") is not None
