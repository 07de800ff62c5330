"""Run benchmarks by name: ``python loadtest/run.py [NAME] [arguments]``. Without a name, all short ones.

Every benchmark is a module or package in this folder with ``main(arguments) -> int``; it prints data, N, seed and
machine.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

SHORT = ("turnaround", "event_latency", "rules")
THERE = sorted(path.stem for path in Path(__file__).parent.iterdir() if path.name[0].isalpha() and path.stem != "run")


def machine() -> str:
    """Return a line that says on what the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"machine: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def main() -> int:
    """Run the named benchmark, or all short ones."""
    names = sys.argv[1:2] or list(SHORT)
    print(machine(), flush=True)
    worst = 0
    for name in names:
        if importlib.util.find_spec(name) is None:
            print(f"no benchmark {name}; there are: {', '.join(THERE)}", file=sys.stderr)
            return 2
        worst = max(worst, importlib.import_module(name).main(sys.argv[2:]))
    return worst


if __name__ == "__main__":
    raise SystemExit(main())
