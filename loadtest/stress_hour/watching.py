"""What a server takes of the machine while it works: CPU by role, memory, the disk. Read from ``/proc``."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
ROLES: Final = ("web event loop", "web threads", "orchestration", "detectors", "codecs")


@dataclass(slots=True)
class Usage:
    """CPU seconds by role, peak of the sum of resident memory, and seconds that the disk was busy, over *seconds*.

    ``busiest``: CPU seconds of the busiest process of a role; several web processes share their port (ADR 0208).
    """

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    busiest: dict[str, float] = field(default_factory=dict)
    peak_bytes: int = 0
    rss: list[tuple[float, int]] = field(default_factory=list)
    disk_seconds: float = 0.0
    machine_seconds: float = 0.0

    @property
    def server_seconds(self) -> float:
        """CPU seconds of all processes of the server."""
        return sum(self.cpu.values())

    def shares(self, cores: int) -> dict[str, float]:
        """Return how busy each thing was that may be the bottleneck, 0..1.

        The event loop of a web process and the threads beside it (parsing, commit) have one core each at most, because
        of the interpreter's lock, so the busiest web process counts; detectors and the whole machine have all cores.
        """
        took = max(self.seconds, 1e-9)
        return {
            "event loop": self.busiest.get("web event loop", 0.0) / took,
            "commit and parsing": self.busiest.get("web threads", 0.0) / took,
            "disk": self.disk_seconds / took,
            "detector CPU": self.cpu.get("detectors", 0.0) / took / cores,
            "machine CPU": self.machine_seconds / took / cores,
        }


class Watch:
    """Samples the process trees below *roots* once a second: the first is the web process, the second the worker's.

    The web process may be the parent of several, which it forks (ADR 0208): what runs its command line is one of them,
    what runs another is a codec process. Processes may end and begin meanwhile: what one had used when it was last seen
    counts.
    """

    def __init__(self, roots: Sequence[int], folder: Path, *, every: float = 1.0) -> None:
        self._roots = tuple(roots)
        self._device = _device(folder)
        self._every = every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._first: dict[tuple[int, str], float] = {}
        self._last: dict[tuple[int, str], float] = {}
        self._roles: dict[tuple[int, str], str] = {}
        self._begun = 0.0
        self._disk = 0.0
        self._machine = 0.0
        self.usage = Usage()

    def __enter__(self) -> Self:
        self._begun, self._disk, self._machine = time.monotonic(), _busy_seconds(self._device), machine_seconds()
        self._sample()
        self._first = dict(self._last)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self.now()

    def now(self) -> Usage:
        """Return what was used since the beginning."""
        self._sample()
        spent, busiest = dict.fromkeys(ROLES, 0.0), dict.fromkeys(ROLES, 0.0)
        for key, last in self._last.items():
            role, seconds = self._roles[key], last - self._first.get(key, 0.0)
            spent[role] += seconds
            busiest[role] = max(busiest[role], seconds)
        self.usage.seconds = time.monotonic() - self._begun
        self.usage.cpu, self.usage.busiest = spent, busiest
        self.usage.disk_seconds = _busy_seconds(self._device) - self._disk
        self.usage.machine_seconds = machine_seconds() - self._machine
        return self.usage

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._sample()

    def _sample(self) -> None:
        resident = 0
        for pid, role in self._processes().items():
            try:
                resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
                whole = _cpu_seconds(Path(f"/proc/{pid}/stat"))
                main = _cpu_seconds(Path(f"/proc/{pid}/task/{pid}/stat")) if role == "web" else 0.0
            except OSError:
                continue
            if role == "web":
                self._note(pid, "web event loop", main)
                self._note(pid, "web threads", whole - main)
            else:
                self._note(pid, role, whole)
        self.usage.peak_bytes = max(self.usage.peak_bytes, resident)
        self.usage.rss.append((time.monotonic() - self._begun, resident))

    def _note(self, pid: int, role: str, seconds: float) -> None:
        self._roles[pid, role] = role
        self._last[pid, role] = seconds

    def _processes(self) -> Mapping[int, str]:
        web, worker = self._roots
        found = {web: "web", worker: "orchestration"}
        served = _command(web)
        found |= {pid: "web" if _command(pid) == served else "codecs" for pid in descendants(web)}
        return found | dict.fromkeys(descendants(worker), "detectors")


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*."""
    found: list[int] = []
    queue = [pid]
    while queue:
        for children in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            try:
                new = [int(child) for child in children.read_text().split()]
            except OSError:
                continue
            found += new
            queue += new
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _cpu_seconds(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def machine_seconds() -> float:
    """Return the CPU seconds of the machine that were not idle and not waiting; guests are in user time already."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / _TICK


def _device(folder: Path) -> str:
    number = folder.stat().st_dev
    return f"{os.major(number)} {os.minor(number)}"


def _busy_seconds(device: str) -> float:
    """Seconds that the disk had something to do since the start of the machine; 0 for a folder without a disk."""
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if " ".join(fields[:2]) == device:
            return int(fields[12]) / 1000
    return 0.0
