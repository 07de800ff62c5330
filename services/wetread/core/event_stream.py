"""Rows of a growing table as ``text/event-stream`` (HTML 9.2): resume by cursor, keep-alive, an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from wetread.core.dicomweb.media_types import DICOM_JSON, parse_accept
from wetread.core.errors import InvalidInput
from wetread.core.tail import EventTail

EVENT_STREAM: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
_RECONNECT_MS: Final = 2000


@dataclass(frozen=True, slots=True)
class Page:
    """What one look behind a cursor found: cursors and frames in order.

    ``newest``: the last cursor of the stream. ``seen``: what the tail says of the whole table in the same transaction.
    ``more``: there may be more right behind.
    """

    frames: Sequence[tuple[int, bytes]]
    newest: int
    seen: int
    more: bool


async def live(
    read: Callable[[int], Page], tail: EventTail, start: int | None, *, heartbeat_seconds: float = HEARTBEAT_SECONDS
) -> AsyncIterator[bytes]:
    """Yield frames from the cursor *start*, None: from now on. *read* is called in a thread.

    Pulls from the table at the pace of the client, so one that stops reading costs no memory. The first frame sets
    the client's last event id: a client that loses the connection before its first event misses nothing either.
    """
    newest = (await asyncio.to_thread(read, 2**62)).newest
    cursor = newest if start is None else start
    if cursor > newest:
        # The client remembers a stream that is not this one (another data folder): tell it to read afresh.
        cursor = newest
        yield b"event: reset\ndata: {}\n\n"
    yield f"retry: {_RECONNECT_MS}\nid: {cursor}\n\n".encode()
    beat = time.monotonic() + heartbeat_seconds
    while not tail.closed:
        page = await asyncio.to_thread(read, cursor)
        for reached, frame in page.frames:
            cursor = reached
            yield frame
        if page.frames:
            beat = time.monotonic() + heartbeat_seconds
        if page.more:
            continue
        # Others' rows wake this stream too: whether it beats is a matter of what it has sent, not of what they do.
        await tail.wait_beyond(page.seen, max(beat - time.monotonic(), 0.0))
        if time.monotonic() >= beat and not tail.closed:
            yield b": heartbeat\n\n"
            beat = time.monotonic() + heartbeat_seconds


def asks_for_events(accept: str | None) -> bool:
    """Return whether an ``Accept`` header names ``text/event-stream``, and JSON not before it."""
    if accept is None or EVENT_STREAM not in accept.lower():
        return False
    ranked = (media.payload for media in parse_accept(accept) if media.payload in (EVENT_STREAM, DICOM_JSON))
    return next(ranked, "") == EVENT_STREAM


def frame_of(cursor: int, data: bytes, *, event: str = "") -> bytes:
    """Return one server-sent event. *data* is one line; without a name it is a ``message``."""
    name = f"event: {event}\n" if event else ""
    return f"id: {cursor}\n{name}data: ".encode() + data + b"\n\n"


def parse_last_event_id(text: str | None) -> int | None:
    """Return the cursor of a ``Last-Event-ID`` header; None when there is none, or an empty one (HTML 9.2.3).

    Raises InvalidInput.
    """
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        msg = "Last-Event-ID is not a cursor of this stream"
        raise InvalidInput(msg)
    return int(text)
