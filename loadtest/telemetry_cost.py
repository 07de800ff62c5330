"""What telemetry costs the gateway: CPU per stored instance with it off, on, and on with a collector that is away.

The whole process tree of a served gateway, as deployed; rounds alternate, the ratio is that of each round. The
receiver is a process of its own and not counted. ``python loadtest/run.py telemetry_cost [instances] [rounds]``.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dicomweb.ingest import groups
from dicomweb.instances import Template
from dicomweb.load import stow
from dicomweb.servers import start

CELLS = ((1, 1), (10, 4))
"""Instances per request, connections."""
WARM_UP = 600
_RECEIVER = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def collector() -> Iterator[str]:
    """A receiver that takes everything and looks at nothing."""
    process = subprocess.Popen([sys.executable, "-c", _RECEIVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def cpu(endpoint: str, cells: Sequence[tuple[int, int]], instances: int) -> list[float]:
    """Return CPU ms per instance of each cell on a fresh server."""
    os.environ.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)
    if endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    shared = Path("/dev/shm")  # tmpfs: the disk is not what is measured
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        server = start("wetread", Path(folder), Path())
        try:
            template = Template.ct(512)
            # A batch and more of small ones: the first export loads what it needs, once per process.
            stow(server, Template.ct(24), groups(999, 1, 1, WARM_UP))
            found = []
            for run, (batch, connections) in enumerate(cells, 1):
                cell = stow(server, template, groups(run, batch, connections, instances))
                if cell.bad:
                    message = "an instance was not stored"
                    raise RuntimeError(message)
                found.append(cell.cpu_ms)
            return found
        finally:
            server.stop()


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    instances, rounds = (int(given) for given in (*arguments, *("600", "5")[len(arguments) :]))
    with socket.socket() as free, collector() as there:
        free.bind(("127.0.0.1", 0))
        modes = {"off": "", "on": there, "on, no collector": f"http://127.0.0.1:{free.getsockname()[1]}"}
        figures: dict[str, list[list[float]]] = {mode: [] for mode in modes}
        for number in range(rounds):
            for mode in list(modes) if number % 2 == 0 else reversed(modes):
                figures[mode].append(cpu(modes[mode], CELLS, instances))
    print(f"{rounds} rounds of {instances} instances of 512 KiB, CPU ms per instance, median; ratio to off")
    for at, (batch, connections) in enumerate(CELLS):
        for mode, rounds_of in figures.items():
            values = [each[at] for each in rounds_of]
            ratios = [each[at] / off[at] for each, off in zip(rounds_of, figures["off"], strict=True)]
            print(
                f"{batch} per request x {connections}: {mode:17} {statistics.median(values):6.2f} ms"
                f"   x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            )
    return 0
