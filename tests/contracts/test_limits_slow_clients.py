"""Clients that hold a connection without using it, at a real server: half a head, a huge head, an answer never read."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from starlette.responses import Response, StreamingResponse

from wetread.bootstrap.http_protocol import HEAD_BYTES, GuardedHttpProtocol


class Impatient(GuardedHttpProtocol):
    head_seconds = 0.3
    unread_seconds = 0.3


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    async def app(scope, receive, send):
        if scope["type"] != "http":
            return

        async def body():
            for _ in range(4000):
                yield bytes(1 << 16)

        answer = StreamingResponse(body()) if scope["path"] == "/large" else Response("ok")
        await answer(scope, receive, send)

    with serving(app) as address:
        yield address


@contextmanager
def serving(app) -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(app, port=0, http=Impatient, log_level="error", lifespan="off", timeout_keep_alive=5)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.005)
    try:
        yield running.servers[0].sockets[0].getsockname()
    finally:
        running.should_exit = True
        thread.join(10)


def seconds_until_closed(connection: socket.socket) -> float:
    begun = time.monotonic()
    connection.settimeout(5)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    return time.monotonic() - begun


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HT"])
def test_half_a_head_is_given_up(server: tuple[str, int], sent: bytes) -> None:
    with socket.create_connection(server) as connection:
        connection.sendall(sent)
        assert 0.1 < seconds_until_closed(connection) < 3


def test_drops_of_a_head_do_not_buy_time(server: tuple[str, int]) -> None:
    with socket.create_connection(server) as connection:
        begun = time.monotonic()
        with pytest.raises(ConnectionError):  # noqa: PT012 - which of the drops it is does not matter
            while time.monotonic() - begun < 5:
                connection.sendall(b"X")
                time.sleep(0.02)
        assert time.monotonic() - begun < 3


def test_a_second_request_is_held_to_the_same(server: tuple[str, int]) -> None:
    with socket.create_connection(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET / HTTP/1.1\r\nHo")
        assert 0.1 < seconds_until_closed(connection) < 3


def test_a_huge_head_is_refused_early(server: tuple[str, int]) -> None:
    with socket.create_connection(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        sent = 0
        try:
            while sent < 50 << 20:
                sent += connection.send(b"a" * (1 << 14))
        except ConnectionError:
            pass
        assert sent < (8 << 20) + HEAD_BYTES, "what the sockets buffer, and no more"


def test_an_answer_that_nobody_reads_is_given_up(server: tuple[str, int]) -> None:
    with socket.create_connection(server) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(1)
        received = 0
        connection.settimeout(5)
        try:
            while block := connection.recv(1 << 20):
                received += len(block)
        except ConnectionError:
            pass
        assert received < 4000 << 16


def test_who_reads_and_sends_at_a_human_pace_is_served(server: tuple[str, int]) -> None:
    with httpx.Client(base_url=f"http://{server[0]}:{server[1]}") as client:
        assert client.get("/").text == "ok"
        time.sleep(0.5)
        assert client.get("/").text == "ok", "between requests the keep-alive time-out holds"
        with client.stream("GET", "/large") as answer:
            assert sum(len(chunk) for chunk in answer.iter_bytes()) == 4000 << 16
