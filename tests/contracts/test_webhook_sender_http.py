"""The webhook sender against real receivers on loopback: kind ones, rude ones, and ones that never answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest
from tests.worklist_world import NOON, SetClock

from wetread.adapters.notify.addresses import LOOPBACK, AddressPolicy
from wetread.adapters.notify.webhook import HttpWebhookSender
from wetread.core.errors import ComputationFailed, Gone, Unavailable, Unprocessable
from wetread.core.webhook_signature import generate_secret, verify_signature

BODY = b'{"id":"e1"}'


class Receiver:
    """A raw socket server that answers every request with the same bytes; None: it never answers."""

    def __init__(self, answer: bytes | None, *, trickle: bool = False) -> None:
        self.answer, self.trickle = answer, trickle
        self.requests: list[bytes] = []
        self.closing = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/hook?x=1"
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _peer = self.socket.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self._serve, args=(connection,))
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            received = b""
            while BODY not in received:
                received += connection.recv(65536)
            self.requests.append(received)
            if self.answer is None:
                self.closing.wait(20)
            elif self.trickle:
                for byte in self.answer * 50:
                    if self.closing.wait(0.05):
                        return
                    try:
                        connection.sendall(bytes([byte]))
                    except OSError:
                        return
            else:
                connection.sendall(self.answer)

    def close(self) -> None:
        self.closing.set()
        for thread in self.threads:
            thread.join(5)
        self.socket.close()


@contextmanager
def receiver(answer: bytes | None, **options: Any) -> Iterator[Receiver]:
    found = Receiver(answer, **options)
    try:
        yield found
    finally:
        found.close()


def answer(status: str, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", body]
    return "\r\n".join(lines).encode()


def sender(deadline_seconds: float = 5.0, allowed: tuple[str, ...] = LOOPBACK) -> HttpWebhookSender:
    return HttpWebhookSender(
        SetClock(), AddressPolicy(allowed), user_agent="wetread/0.1.0", deadline_seconds=deadline_seconds
    )


def send(url: str, secrets: list[str] | None = None, **options: Any) -> int:
    headers = {"content-type": "application/cloudevents+json"}
    return sender(**options).send(url, secrets or [generate_secret()], "e1", BODY, headers)


def test_what_arrives_is_signed_and_verifies_with_either_secret() -> None:
    secrets = [generate_secret(), generate_secret()]
    with receiver(answer("200 OK")) as found:
        assert send(found.url, secrets) == 200
    head, _, body = found.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert lines[0] == "POST /hook?x=1 HTTP/1.1"
    assert headers["host"] == found.url.split("/")[2]
    assert headers["user-agent"] == "wetread/0.1.0"
    for secret in secrets:
        assert verify_signature([secret], headers, body, now=NOON + 5) == "e1"


def test_a_redirect_is_not_followed() -> None:
    with (
        receiver(answer("200 OK")) as target,
        receiver(answer("307 Temporary Redirect", f"Location: {target.url}")) as found,
        pytest.raises(Unavailable, match="307"),
    ):
        send(found.url)
    assert target.requests == []


@pytest.mark.parametrize("status", ["500 Oops", "404 Not Found", "401 Unauthorized", "503 Busy"])
def test_a_refusal_may_be_retried(status: str) -> None:
    with receiver(answer(status)) as found, pytest.raises(Unavailable, match=status[:3]) as failure:
        send(found.url)
    assert failure.value.retry_after is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120), (formatdate(NOON + 90, usegmt=True), 90), ("-5", 0), ("99999999", 86400), ("soon", None)],
)
def test_retry_after_in_both_forms(header: str, seconds: float | None) -> None:
    with receiver(answer("429 Slow down", f"Retry-After: {header}")) as found, pytest.raises(Unavailable) as failure:
        send(found.url)
    assert failure.value.retry_after == seconds


def test_gone() -> None:
    with receiver(answer("410 Gone")) as found, pytest.raises(Gone):
        send(found.url)


def test_a_receiver_that_never_answers_costs_the_deadline_and_no_more() -> None:
    with receiver(None) as found, pytest.raises(Unavailable, match="did not answer within"):
        send(found.url, deadline_seconds=0.3)


def test_a_receiver_that_trickles_its_answer_costs_the_deadline_and_no_more() -> None:
    with receiver(answer("200 OK"), trickle=True) as found, pytest.raises(Unavailable, match="did not answer within"):
        send(found.url, deadline_seconds=0.4)


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with receiver(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 200_000) as found:
        assert send(found.url) == 200


def test_something_that_is_not_http() -> None:
    with receiver(b"SSH-2.0-OpenSSH\r\n") as found, pytest.raises(Unavailable, match="cannot be reached"):
        send(found.url)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unavailable, match="cannot be reached"):
        send(f"http://127.0.0.1:{port}/")


def test_a_private_address_is_not_even_connected_to() -> None:
    with receiver(answer("200 OK")) as found:
        with pytest.raises(ComputationFailed) as refused:
            send(found.url, allowed=())
        with pytest.raises(Unprocessable):
            sender(allowed=()).check(found.url)
    assert refused.value.reason == "address_not_allowed"
    assert found.requests == []
