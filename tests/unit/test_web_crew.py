"""Several web processes at one port: who gets a connection, what a killed one takes along, how all of them end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics, count_together
from wetread.bootstrap.crew import Place
from wetread.bootstrap.server import run_web
from wetread.commands.crew import Crew
from wetread.settings import Settings


def serve(place: Place, folder: Path) -> int:
    """Answer with the number of the process; ``/wait`` until a file of that name is there."""
    assert place.metrics is not None
    count_together(place.metrics, str(place.number))
    metrics = Metrics(SqlDatabase(folder / "none.db"), place, place.metrics)
    metrics.registry.unregister(metrics._read[1])
    metrics._read = metrics._read[:1]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            (folder / f"ended-{place.number}").touch()
            return
        metrics.began()
        try:
            while scope["path"] == "/wait" and not (folder / "go").exists():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)
            body = metrics.render() if scope["path"] == "/metrics" else f"{place.number} {os.getpid()}".encode()
            metrics.answered("/", scope["method"], 200, 0.0)
        finally:
            metrics.ended()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    run_web(app, Settings(data=folder), threading.Event(), place=place)
    return 0


class Client:
    """One connection, kept."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def begin(self, path: str = "/") -> None:
        self._http.request("GET", path)

    def end(self) -> str:
        return self._http.getresponse().read().decode()

    def get(self, path: str = "/") -> str:
        self.begin(path)
        return self.end()

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def once(port: int, path: str = "/") -> str:
    with Client(port) as client:
        return client.get(path)


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := condition():
                return found
        time.sleep(0.005)
    pytest.fail("it did not come to that in 30 s")


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    """Port, process id of the parent, folder."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    (tmp_path / "metrics").mkdir()
    parent = os.fork()
    if parent == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = Crew(listener, 2, lambda place: serve(place, tmp_path), metrics=str(tmp_path / "metrics")).run()
        os._exit(status)
    port = listener.getsockname()[1]
    listener.close()
    try:
        until(lambda: len({once(port).split()[0] for _ in range(2)}) == 2)
        yield port, parent, tmp_path
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(parent, signal.SIGKILL)
            os.waitpid(parent, 0)


def test_connections_go_to_who_has_least_to_do(crew: tuple[int, int, Path]) -> None:
    port, _, folder = crew
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Client(port)) for _ in range(6)]
        assert sorted(Counter(client.get().split()[0] for client in kept).values()) == [3, 3]
        busy = kept[0].get().split()[0]
        kept[0].begin("/wait")
        until(lambda: "wetread_http_in_flight 2.0" in kept[1].get("/metrics"))
        # The other one has more connections from now on, and nothing to do.
        others = [stack.enter_context(Client(port)) for _ in range(4)]
        assert {client.get().split()[0] for client in others} == {"1" if busy == "0" else "0"}
        (folder / "go").touch()
        kept[0].end()


def test_a_killed_process_is_replaced_and_what_was_counted_stays(crew: tuple[int, int, Path]) -> None:
    port, parent, folder = crew

    def counted() -> float:
        lines = once(port, "/metrics").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("wetread_http_requests_total"))

    pids: dict[str, int] = {}

    def both() -> bool:
        number, pid = once(port).split()
        pids[number] = int(pid)
        return len(pids) == 2

    until(both)
    with Client(port) as one, Client(port) as other:
        kept = {client.get().split()[0]: client for client in (one, other)}
        kept["0"].begin("/wait")
        before = counted()
        killed = pids.pop("0")
        os.kill(killed, signal.SIGKILL)
        with pytest.raises((OSError, http.client.HTTPException)):
            kept["0"].end()
        assert kept["1"].get().split() == ["1", str(pids["1"])], "the other one has noticed nothing"
    until(both)
    assert pids["0"] != killed
    assert counted() >= before + 2, "counters go on where the killed one stopped"
    assert "wetread_http_in_flight 1.0" in once(port, "/metrics"), "what it was answering has gone with it"
    os.kill(parent, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 0
    assert sorted(path.name for path in folder.glob("ended-*")) == ["ended-0", "ended-1"], "each has ended its own"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 5)


@pytest.mark.parametrize("status", [1, 2])
def test_a_server_that_cannot_start_says_so_and_ends(tmp_path: Path, status: int) -> None:
    def fail(_place: Place) -> int:
        return status

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        parent = os.fork()
        if parent == 0:
            code = 99
            with contextlib.suppress(BaseException):
                code = Crew(listener, 2, fail, metrics=str(tmp_path)).run()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == status
