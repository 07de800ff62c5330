"""A raw HTTP/1.1 client that costs little: one keep-alive socket, gathered writes, bodies counted rather than kept."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Self

_BLOCK: Final = 1 << 20
_VECTOR: Final = 512
_TIMEOUT: Final = 300.0


@dataclass(slots=True)
class Answer:
    """``size``: bytes of the body on the wire. ``body``: kept only when it was asked for.

    ``sent_at``: Unix time at which the last byte of the request had been handed to the network.
    """

    status: int
    size: int
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent_at: float = 0.0


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, port: int, headers: str = "") -> None:
        self._port = port
        self._socket = self._open()
        self._lead = f"Host: 127.0.0.1:{port}\r\n{headers}"
        self._buffer = bytearray(_BLOCK)
        self._rest = b""

    def _open(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port), _TIMEOUT)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def get(self, path: str, headers: str = "", *, keep: bool = False) -> Answer:
        """Send a GET and read the answer."""
        return self.exchange(f"GET {path} HTTP/1.1\r\n{headers}".encode("latin-1"), (), keep=keep)

    def post(self, path: str, content_type: str, body: Sequence[bytes | memoryview], size: int) -> Answer:
        """Send a body of known *size* made of pieces; the answer's body is kept."""
        head = f"POST {path} HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n"
        head += "Accept: application/dicom+json\r\n"
        return self.exchange(head.encode("latin-1"), body, keep=True)

    def delete(self, path: str) -> Answer:
        """Send a DELETE and read the answer."""
        return self.exchange(f"DELETE {path} HTTP/1.1\r\nContent-Length: 0\r\n".encode("latin-1"), (), keep=True)

    def exchange(self, head: bytes, body: Sequence[bytes | memoryview], *, keep: bool) -> Answer:
        """Send one request and read its answer."""
        started = time.perf_counter()
        request = [head + self._lead.encode("latin-1") + b"\r\n", *body]
        try:
            self._send(request)
            sent_at = time.time()
            status, headers = self._head()
        except ConnectionError:
            if body or self._rest:
                raise
            # A kept connection that the server gave up meanwhile: every client asks once more.
            self._socket.close()
            self._socket = self._open()
            self._send(request)
            sent_at = time.time()
            status, headers = self._head()
        pieces: list[bytes] = []
        if headers.get("transfer-encoding", "").lower() == "chunked":
            size = self._chunked(pieces if keep else None)
        elif status in (204, 304):
            size = 0
        elif "content-length" in headers:
            size = self._exactly(int(headers["content-length"]), pieces if keep else None)
        else:
            size = self._to_end(pieces if keep else None)
        return Answer(status, size, time.perf_counter() - started, headers, b"".join(pieces), sent_at)

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        pending = [memoryview(piece) for piece in pieces]
        while pending:
            sent = self._socket.sendmsg(pending[:_VECTOR])
            done = 0
            while done < len(pending) and sent >= len(pending[done]):
                sent -= len(pending[done])
                done += 1
            del pending[:done]
            if sent:
                pending[0] = pending[0][sent:]

    def _more(self) -> bytes:
        count = self._socket.recv_into(self._buffer)
        if not count:
            msg = "the server closed the connection"
            raise ConnectionError(msg)
        return bytes(memoryview(self._buffer)[:count])

    def _line(self) -> bytes:
        while (at := self._rest.find(b"\r\n")) < 0:
            self._rest += self._more()
        line, self._rest = self._rest[:at], self._rest[at + 2 :]
        return line

    def _head(self) -> tuple[int, dict[str, str]]:
        status = int(self._line().split(b" ", 2)[1])
        headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return self._head() if status == 100 else (status, headers)

    def _exactly(self, size: int, keep: list[bytes] | None) -> int:
        taken = self._rest[:size]
        self._rest = self._rest[size:]
        if keep is not None:
            keep.append(taken)
        missing = size - len(taken)
        view = memoryview(self._buffer)
        while missing:
            count = self._socket.recv_into(view, min(missing, _BLOCK))
            if not count:
                msg = "the server closed the connection inside a body"
                raise ConnectionError(msg)
            if keep is not None:
                keep.append(bytes(view[:count]))
            missing -= count
        return size

    def _to_end(self, keep: list[bytes] | None) -> int:
        """Read a body that the end of the connection ends (RFC 9112 6.3) and connect anew."""
        size = len(self._rest)
        if keep is not None:
            keep.append(self._rest)
        self._rest = b""
        while count := self._socket.recv_into(self._buffer):
            size += count
            if keep is not None:
                keep.append(bytes(memoryview(self._buffer)[:count]))
        self._socket.close()
        self._socket = self._open()
        return size

    def _chunked(self, keep: list[bytes] | None) -> int:
        total = 0
        while size := int(self._line().partition(b";")[0], 16):
            total += self._exactly(size, keep)
            self._line()
        while self._line():
            pass
        return total
