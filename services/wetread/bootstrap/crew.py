"""The web processes of one server: what each has in hand, in memory that all of them see (ADR 0208)."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Final

from wetread.bootstrap.cores import usable_cores
from wetread.core.shares import Shares, table_bytes
from wetread.registry import WEB
from wetread.settings import Settings

READY: Final = b"r"
"""What a process of a crew tells its parent by its door when it can answer."""
STOPPING: Final = b"s"
"""... and when it wants no more connections."""
MAX_PLACES: Final = 16
_NAME: Final = 16
"""Characters of a writer's name; of a pod's name the last ones are its own."""
_DEFAULT_MOST: Final = 4
_WORD: Final = 8
_ROW: Final = 8
"""Words per process: a cache line of its own."""
_TAKEN, _CONNECTIONS, _REQUESTS = range(3)


class Page:
    """Who has what in hand. Made by the parent before it forks; each process writes its own row only."""

    def __init__(self, places: int) -> None:
        self.places = places
        head = MAX_PLACES * _ROW * _WORD
        memory = memoryview(mmap.mmap(-1, head + table_bytes(places)))
        self._words = memory[:head].cast("Q")
        self._table = memory[head : head + table_bytes(places)]
        self._turn = _Turn() if places > 1 else None

    def taken(self, place: int) -> int:
        """Return how many connections a process has taken so far."""
        return int(self._words[place * _ROW + _TAKEN])

    def connections(self, place: int) -> int:
        """Return how many connections a process has open."""
        return int(self._words[place * _ROW + _CONNECTIONS])

    def requests(self, place: int) -> int:
        """Return how many requests a process is answering."""
        return int(self._words[place * _ROW + _REQUESTS])

    def all_requests(self) -> int:
        """Return how many requests all processes are answering."""
        return sum(map(self.requests, range(self.places)))

    def note_taken(self, place: int) -> None:
        """The process has one connection more."""
        self._words[place * _ROW + _TAKEN] += 1

    def note_connections(self, place: int, count: int) -> None:
        """The process has so many connections open."""
        self._words[place * _ROW + _CONNECTIONS] = count

    def note_requests(self, place: int, change: int) -> None:
        """The process answers so many requests more, or less."""
        self._words[place * _ROW + _REQUESTS] += change

    def leave(self, place: int) -> None:
        """The process is gone, and what it had in hand with it."""
        for word in (_TAKEN, _CONNECTIONS, _REQUESTS):
            self._words[place * _ROW + word] = 0
        Shares(self._table, places=self.places).leave(place)

    def shares(self, place: int) -> Shares:
        """Return the tenants' shares as the process at *place* sees them."""
        return Shares(self._table, place=place, places=self.places, turn=self._turn)


class _Turn:
    """One process at a time. The kernel gives the turn on when its holder dies."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._descriptor, path = tempfile.mkstemp()
        Path(path).unlink()

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


@dataclass(frozen=True, slots=True)
class Place:
    """One process of a crew. ``door``: where its connections come from; None: it listens for itself.

    ``metrics``: folder in which all of the crew count; None: each for itself.
    """

    number: int
    page: Page
    door: socket | None = None
    metrics: str | None = None

    def writer(self, name: str) -> str:
        """Return the name under which this process alone writes; *name* is that of the server."""
        suffix = f"p{self.number + 1}" if self.number else ""
        return f"{name[-(_NAME - len(suffix)) :]}{suffix}"

    def change(self, by: int) -> None:
        """The process answers so many requests more, or less."""
        self.page.note_requests(self.number, by)

    def total(self) -> int:
        """Return how many requests the crew is answering."""
        return self.page.all_requests()

    def part(self, whole: int, *, least: int = 1) -> int:
        """Return this process's part of what the server may use."""
        return max(whole // self.page.places, least)


def alone() -> Place:
    """Return the place of a process that is the whole server."""
    return Place(0, Page(1))


def crew_size(settings: Settings, names: Sequence[str]) -> int:
    """Return in how many processes to serve *names* (docs/settings.md, WETREAD_WEB_PROCESSES).

    Only services of the web process come in several: what they know is in the database.
    """
    if not set(names) <= set(WEB):
        return 1
    if settings.web_processes is not None:
        return settings.web_processes
    return 1 if settings.shared else min(usable_cores(), _DEFAULT_MOST)
