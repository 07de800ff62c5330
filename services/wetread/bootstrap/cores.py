"""How many cores there are for us."""

from __future__ import annotations

import os
from pathlib import Path


def usable_cores() -> int:
    """Return on how many cores this process may run: its affinity, and its container's share of time (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
