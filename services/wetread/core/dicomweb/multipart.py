"""Streaming splitter and writer for multipart/related bodies (RFC 2046 5.1.1, RFC 2387; PS3.18 8.6.1.2).

The splitter is a synchronous push parser: ``feed`` takes chunks cut anywhere and returns events; nothing is buffered
but a header block or the few bytes that may be the beginning of a delimiter. Only a delimiter at a line start ends a
part; every other byte sequence, also one that contains the boundary, is data.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from wetread.core.errors import MalformedMultipart

_PADDING_LIMIT: Final = 256
"""Transport padding (spaces and tabs after a delimiter) beyond this many bytes is data, so look-ahead is bounded."""


@dataclass(frozen=True, slots=True)
class PartBegin:
    """Headers of the next part; names in lower case, folded lines joined, latin-1."""

    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of the current part's body. The view is valid as long as the caller keeps it."""

    data: memoryview


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The current part is complete: its closing delimiter has been seen."""


Event = PartBegin | PartData | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEADERS = auto()
    BODY = auto()
    EPILOGUE = auto()


class _Delimiter(Enum):
    NOT = auto()
    MORE = auto()
    """Undecided: needs more bytes."""
    NEXT = auto()
    CLOSE = auto()


class MultipartSplitter:
    """Split one body. ``header_limit``: bytes of one part's header block (RFC sets none; ours is 8 KiB).

    A header block that is too long or has a line without a colon, or one part too many, sets ``broken``: what came
    before is still returned, nothing after it.
    """

    def __init__(self, boundary: str, *, header_limit: int = 8192, part_limit: int = 20_000) -> None:
        if not boundary:
            msg = "the boundary parameter is missing or empty"
            raise MalformedMultipart(msg)
        self._needle = b"\r\n--" + boundary.encode("latin-1", "replace")
        self._header_limit = header_limit
        self._part_limit = part_limit
        self._state = _State.PREAMBLE
        # A delimiter needs a line start before it; the first byte of the body is one.
        self._buffer: bytes = b"\r\n"
        self._at = 0  # where in the buffer what has not been looked at begins, while a chunk is being split
        self.parts = 0
        """Parts begun so far."""
        self.too_many = False
        """True when ``broken`` is one part too many."""
        self.broken = ""
        """What is wrong with the body; empty as long as nothing is."""

    @property
    def complete(self) -> bool:
        """True once the close delimiter has been seen."""
        return self._state is _State.EPILOGUE

    @property
    def started(self) -> bool:
        """True once the first delimiter has been seen."""
        return self._state is not _State.PREAMBLE

    def feed(self, chunk: bytes | memoryview) -> list[Event]:
        """Return what *chunk* completes."""
        if self._state is _State.EPILOGUE or self.broken:
            return []
        self._buffer = self._buffer + bytes(chunk) if self._buffer else bytes(chunk)
        return self._advance(at_end=False)

    def finish(self) -> list[Event]:
        """Tell that the body has ended; look at ``complete`` afterwards."""
        return self._advance(at_end=True)

    def _advance(self, *, at_end: bool) -> list[Event]:
        events: list[Event] = []
        moved = not self.broken
        try:
            while moved and self._state is not _State.EPILOGUE:
                if self._state is _State.HEADERS:
                    moved = self._headers(events, at_end=at_end)
                else:
                    moved = self._body(events, at_end=at_end)
        except MalformedMultipart as error:
            self.broken = error.detail
        self._buffer = b"" if self._state is _State.EPILOGUE else self._buffer[self._at :]
        self._at = 0
        return events

    def _body(self, events: list[Event], *, at_end: bool) -> bool:
        """Preamble and body alike: data up to the next delimiter. True when the state changed."""
        buffer, needle = self._buffer, self._needle
        start = self._at
        while True:
            found = buffer.find(needle, start)
            if found < 0:
                keep = self._undecided_tail(buffer, self._at)
                break
            kind, after = self._classify(buffer, found, at_end=at_end)
            if kind is _Delimiter.NOT:
                start = found + 1
                continue
            if kind is _Delimiter.MORE:
                keep = found
                break
            self._emit(events, buffer, found)
            if self._state is _State.BODY:
                events.append(PartEnd())
            self._at = after
            self._enter(kind)
            return True
        self._emit(events, buffer, keep)
        self._at = keep
        return False

    def _emit(self, events: list[Event], buffer: bytes, end: int) -> None:
        if self._state is _State.BODY and end > self._at:
            events.append(PartData(memoryview(buffer)[self._at : end]))

    def _enter(self, kind: _Delimiter) -> None:
        self._state = _State.EPILOGUE if kind is _Delimiter.CLOSE else _State.HEADERS

    def _headers(self, events: list[Event], *, at_end: bool) -> bool:
        """Header block; the buffer starts with the CRLF that ended the delimiter line."""
        buffer, at = self._buffer, self._at
        blank = buffer.find(b"\r\n\r\n", at)
        # A delimiter inside the block, or right behind the blank line, ends a part without a body.
        border = len(buffer) if blank < 0 else blank + 2 + len(self._needle)
        delimiter = buffer.find(self._needle, at, border)
        if delimiter >= 0:
            kind, after = self._classify(buffer, delimiter, at_end=at_end)
            if kind is _Delimiter.MORE:
                return False
            if kind is not _Delimiter.NOT:
                self._begin(events, buffer[at + 2 : delimiter])
                events.append(PartEnd())
                self._at = after
                self._enter(kind)
                return True
        if blank < 0:
            if len(buffer) - at > self._header_limit + 4:
                raise MalformedMultipart(f"a part header exceeds {self._header_limit} bytes")
            return False
        if delimiter < 0 and not at_end and border > len(buffer) and self._needle.startswith(buffer[blank + 2 :]):
            return False
        self._begin(events, buffer[at + 2 : max(blank, at + 2)])
        self._at = blank + 4
        self._state = _State.BODY
        return True

    def _begin(self, events: list[Event], block: bytes) -> None:
        if len(block) > self._header_limit:
            raise MalformedMultipart(f"a part header exceeds {self._header_limit} bytes")
        if self.parts == self._part_limit:
            self.too_many = True
            raise MalformedMultipart(f"more than {self._part_limit} parts")
        self.parts += 1
        events.append(PartBegin(_parse_headers(block)))

    def _classify(self, buffer: bytes, found: int, *, at_end: bool) -> tuple[_Delimiter, int]:
        """Say what the boundary at *found* is, and where the bytes behind it start (at the CRLF of its line)."""
        position = found + len(self._needle)
        rest = buffer[position : position + 2]
        if len(rest) < 2 and not at_end and b"--".startswith(rest):
            return _Delimiter.MORE, 0
        closing = rest == b"--"
        if closing:
            position += 2
        limit = position + _PADDING_LIMIT
        while position < len(buffer) and position < limit and buffer[position] in b" \t":
            position += 1
        line_end = buffer[position : position + 2]
        if line_end == b"\r\n":
            return (_Delimiter.CLOSE if closing else _Delimiter.NEXT), position
        if position + len(line_end) == len(buffer) and len(line_end) < 2 and b"\r".startswith(line_end):
            if not at_end:
                return _Delimiter.MORE, 0
            if closing:
                return _Delimiter.CLOSE, position
        return _Delimiter.NOT, 0

    def _undecided_tail(self, buffer: bytes, at: int) -> int:
        """Return where a delimiter may be beginning at the end of *buffer* (its length when none is)."""
        position = buffer.find(b"\r", max(len(buffer) - len(self._needle) + 1, at))
        while position >= 0:
            if self._needle.startswith(buffer[position:]):
                return position
            position = buffer.find(b"\r", position + 1)
        return len(buffer)


def _parse_headers(block: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    last = ""
    for line in block.decode("latin-1").split("\r\n"):
        if not line:
            continue
        if line[0] in " \t" and last:
            headers[last] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            msg = "a part header line has no field name"
            raise MalformedMultipart(msg)
        last = name.strip().lower()
        headers[last] = value.strip()
    return headers


def new_boundary() -> str:
    """Return a boundary of 128 random bits: it cannot occur in stored data by design or by chance."""
    return secrets.token_hex(16)


class MultipartWriter:
    """Write a multipart/related body as byte pieces; no preamble, no epilogue, final delimiter always.

    Viewers look for the literal ``Content-Type:`` and for the first blank line within 1,000 bytes: header names keep
    their capitals and stay short.
    """

    def __init__(self, inner_type: str, boundary: str | None = None) -> None:
        self.boundary = boundary or new_boundary()
        self._first = True
        self.content_type = f'multipart/related; type="{inner_type}"; boundary={self.boundary}'

    def begin(self, content_type: str, length: int, location: str | None = None) -> bytes:
        """Return what precedes the body of the next part."""
        lead = "" if self._first else "\r\n"
        self._first = False
        where = f"Content-Location: {location}\r\n" if location else ""
        return (
            f"{lead}--{self.boundary}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{where}\r\n"
        ).encode("latin-1")

    def end(self) -> bytes:
        """Return the close delimiter."""
        return f"\r\n--{self.boundary}--\r\n".encode("latin-1")
