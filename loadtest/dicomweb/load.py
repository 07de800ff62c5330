"""Load on one server: STOW cells and GET cells. Everything that can be built before the clock starts, is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dicomweb.connection import Answer, Connection
from dicomweb.instances import Place, Template
from dicomweb.servers import Server

_BOUNDARY: Final = "bench-2f6c7d0b3b0e4a51"
STOW_TYPE: Final = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
_PART: Final = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_NEXT: Final = b"\r\n"
_END: Final = f"--{_BOUNDARY}--\r\n".encode()
_SETTLE_SECONDS: Final = 0.2
"""After a cell, before CPU time is read: what a server still does for it counts."""

Get = tuple[str, str]
"""Path below the base, request headers."""


@dataclass(slots=True)
class Cell:
    """Figures of one cell. ``count``: instances or requests. ``bad``: answers that were not what they should be."""

    count: int
    seconds: float
    cpu_ms: float
    client_ms: float
    p50_ms: float
    p95_ms: float
    megabytes: float
    bad: int

    @property
    def rate(self) -> float:
        """Instances or requests per second."""
        return self.count / self.seconds

    def as_json(self) -> dict[str, Any]:
        """Return the figures for the raw data."""
        return asdict(self) | {"rate": self.rate, "mb_per_s": self.megabytes / self.seconds}


def stow_body(template: Template, places: Sequence[Place]) -> tuple[list[bytes | memoryview], int]:
    """Return the pieces of a request and its size; pixel values are shared by all instances."""
    return multipart([template] * len(places), places)


def multipart(templates: Sequence[Template], places: Sequence[Place]) -> tuple[list[bytes | memoryview], int]:
    """Return the pieces of a request whose instances each have a template of their own, and its size."""
    pieces: list[bytes | memoryview] = []
    for template, place in zip(templates, places, strict=True):
        pieces += [_PART + template.head(place), template.pixels, _NEXT]
    pieces.append(_END)
    return pieces, sum(len(piece) for piece in pieces)


def store(connection: Connection, templates: Sequence[Template], places: Sequence[Place]) -> None:
    """Store instances in one request. Raises RuntimeError when not all were taken."""
    answer = connection.post("/dicom-web/studies", STOW_TYPE, *multipart(templates, places))
    if answer.status != 200:
        msg = f"storing was answered with {answer.status}"
        raise RuntimeError(msg)


def stow(server: Server, template: Template, groups: Sequence[Sequence[Sequence[Place]]]) -> Cell:
    """Store ``groups[connection][request]`` = places of its instances."""
    prepared = [[(stow_body(template, places), len(places)) for places in requests] for requests in groups]
    count = sum(len(places) for requests in groups for places in requests)

    def send(connection: Connection, at: int, record: Callable[[Answer, bool, int], None]) -> None:
        for (pieces, size), wanted in prepared[at]:
            answer = connection.post("/dicom-web/studies", STOW_TYPE, pieces, size)
            stored = answer.body.count(b"00081155") == wanted and b"00081198" not in answer.body
            record(answer, answer.status == 200 and stored, size)

    return _run(server, len(groups), send, count)


def fetch(
    server: Server, requests: Sequence[Get], connections: int, check: Callable[[Answer], bool], *, keep: bool = False
) -> Cell:
    """Send GET *requests*, spread over *connections*."""

    def send(connection: Connection, at: int, record: Callable[[Answer, bool, int], None]) -> None:
        for path, headers in requests[at::connections]:
            answer = connection.get(f"/dicom-web{path}", headers, keep=keep)
            record(answer, answer.status == 200 and check(answer), answer.size)

    return _run(server, connections, send, len(requests))


def _run(
    server: Server,
    connections: int,
    send: Callable[[Connection, int, Callable[[Answer, bool, int], None]], None],
    count: int,
) -> Cell:
    times: list[float] = []
    bad, moved = 0, 0
    failures: list[BaseException] = []
    lock = threading.Lock()
    barrier = threading.Barrier(connections + 1)

    def record(answer: Answer, good: bool, size: int) -> None:
        nonlocal bad, moved
        with lock:
            times.append(answer.seconds)
            moved += size
            bad += not good

    def work(at: int, connection: Connection) -> None:
        barrier.wait()
        try:
            send(connection, at, record)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    opened = [Connection(server.port, server.headers) for _ in range(connections)]
    threads = [threading.Thread(target=work, args=(at, one)) for at, one in enumerate(opened)]
    for thread in threads:
        thread.start()
    before, client = server.cpu_seconds(), time.process_time()
    barrier.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    client = time.process_time() - client
    time.sleep(_SETTLE_SECONDS)
    spent = server.cpu_seconds() - before
    for connection in opened:
        connection.close()
    if failures:
        raise failures[0]
    times.sort()
    return Cell(
        count=count,
        seconds=seconds,
        cpu_ms=spent / count * 1000,
        client_ms=client / count * 1000,
        p50_ms=times[len(times) // 2] * 1000,
        p95_ms=times[min(len(times) - 1, int(len(times) * 0.95))] * 1000,
        megabytes=moved / 1e6,
        bad=bad,
    )
