"""A child process that must not outlive its parent, whatever ends the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PARENT_VARIABLE: Final = "WETREAD_PARENT_PID"
"""Environment variable by which a parent tells its child to call ``die_with_parent``."""

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent_pid: int | None = None) -> None:
    """Ask Linux to kill this process when its parent ends, even by kill -9: no orphan ever holds the data.

    Exits at once when the parent is gone already. Elsewhere than on Linux this does nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent_pid is not None and os.getppid() != parent_pid:
        os._exit(1)
