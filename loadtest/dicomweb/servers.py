"""The servers under test: started on a folder of their own, watched through /proc, stopped again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from wetread.testing.servers.process import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
_TICKS: Final = os.sysconf("SC_CLK_TCK")

TUNED: Final[dict[str, list[str]]] = {
    "Instance": [
        *("Rows", "Columns", "ImageType", "SOPClassUID", "ContentDate", "ContentTime", "FrameOfReferenceUID"),
        *("PixelSpacing", "SpecificCharacterSet", "BitsAllocated", "BitsStored"),
    ],
    "Series": ["TimezoneOffsetFromUTC", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"],
    "Study": ["TimezoneOffsetFromUTC"],
    "Patient": [],
}
"""``ExtraMainDicomTags`` that the DICOMweb plugin's release notes recommend for fast searches and metadata."""


@dataclass(slots=True)
class Server:
    """A running server. ``headers``: what every request to it carries."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    headers: str = ""
    version: str = ""
    _others: list[int] = field(default_factory=list)

    def pids(self) -> list[int]:
        """Return the process and its descendants."""
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    queue += [int(child) for child in task.read_text().split()]
                except OSError:
                    continue
        return found

    def all_started(self) -> bool:
        """Return whether all processes that the server comes in can answer: ours start one after the other."""
        log = (self.folder / "log").read_text(errors="replace")
        several = re.search(r'"processes": (\d+)', log)
        return several is None or log.count("Application startup complete") >= int(several[1])

    def cpu_seconds(self) -> float:
        """Return user and system time of the process tree so far, ended children included."""
        return cpu_seconds(self.pids())

    def peak_bytes(self) -> int:
        """Return the sum of the peak resident sizes of the process tree."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) << 10
        return total

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return user and system time of processes so far, their ended children included; those that are gone count 0."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(value) for value in fields[11:15])
    return total / _TICKS


def start(name: str, base: Path, orthanc: Path) -> Server:
    """Start ``wetread``, ``default`` or ``tuned`` (Orthanc) with empty stores below *base*; wait until it answers."""
    folder = base / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    server = _wetread(folder) if name == "wetread" else _orthanc(name, folder, orthanc)
    deadline = time.monotonic() + 60
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{server.port}/dicom-web/studies?limit=1")
            for line in server.headers.split("\r\n"):
                if line:
                    request.add_header(*line.split(": ", 1))
            with urllib.request.urlopen(request, timeout=5):
                if server.all_started() or time.monotonic() > deadline:
                    return server
        except OSError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                log = (folder / "log").read_text(errors="replace")[-2000:]
                server.stop()
                msg = f"{name} did not start:\n{log}"
                raise RuntimeError(msg) from None
        time.sleep(0.05)


def _wetread(folder: Path) -> Server:
    """The gateway as it is deployed: API keys, checksums, full metadata, change feed, events and evaluation queue."""
    port, key = free_port(), secrets.token_hex(16)
    keys = folder / "keys"
    keys.write_text(f"{hashlib.sha256(key.encode()).hexdigest()} default bench\n")
    environment = os.environ | {
        "WETREAD_DATA": str(folder / "data"),
        "WETREAD_PORT": str(port),
        "WETREAD_API_KEYS_FILE": str(keys),
        "PYTHONPATH": str(ROOT / "services"),
    }
    process = _spawn([sys.executable, "-m", "wetread", "serve", "gateway"], folder, environment)
    return Server("wetread", port, folder, process, f"Authorization: Bearer {key}\r\n")


def _orthanc(name: str, folder: Path, installed: Path) -> Server:
    """Orthanc with its defaults (storage synced per file); ``tuned`` adds the recommended main tags."""
    port = free_port()
    settings: dict[str, Any] = {
        "Name": "bench",
        "Locale": "C.UTF-8",
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "Plugins": [str(installed / "dicomweb.so")],
        "DicomWeb": {"Enable": True},
    }
    if name == "tuned":
        settings["ExtraMainDicomTags"] = TUNED
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    process = _spawn([str(installed / "orthanc"), str(configuration)], folder, dict(os.environ))
    return Server(name, port, folder, process)


def _spawn(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
