"""What tenants with limits use of a server at this moment, counted over all of its web processes.

A table in memory that the processes share: one row per tenant. Numbers of things that are open have a column per
process, which that process alone writes: what a killed one had open is taken out with its column. Everything else is
read, decided and written in a turn that one process has at a time.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal, get_args

Open = Literal["requests", "streams", "stores"]

ROWS: Final = 512
"""Tenants with limits that one server can tell apart; further ones are counted in each process for itself."""
_KINDS: Final[tuple[str, ...]] = get_args(Open)
_FIXED: Final = 9
_KEY, _BEGUN, _TOKENS, _AT, _SIZED, _MEASURED, _USED, _NUMBER, _ADMITTED = range(_FIXED)
_OPEN: Final = _FIXED
_WORD: Final = 8


def table_bytes(places: int) -> int:
    """Return the size of the table of a server with so many web processes."""
    return ROWS * _columns(places) * _WORD


def _columns(places: int) -> int:
    return _OPEN + places * len(_KINDS)


class Shares:
    """The table as one process sees it. ``place``: its own column; ``turn``: held while others must not look.

    Without memory to share it is this process's own. For one event loop.
    """

    def __init__(
        self,
        memory: memoryview | None = None,
        *,
        place: int = 0,
        places: int = 1,
        turn: AbstractContextManager[object] | None = None,
    ) -> None:
        memory = memoryview(bytearray(table_bytes(places))) if memory is None else memory
        self.turn = nullcontext() if turn is None else turn
        self._place = place
        self._places = places
        self._columns = _columns(places)
        self._keys = memory.cast("B").cast("Q")
        self._values = memory.cast("B").cast("d")
        self._known: dict[str, Share] = {}

    def of(self, tenant: str) -> Share:
        """Return the row of a tenant."""
        share = self._known.get(tenant)
        if share is None:
            with self.turn:
                share = self._known[tenant] = self._find(tenant)
        return share

    def leave(self, place: int) -> None:
        """Take out what the process at *place* had open: it is gone."""
        for row in range(ROWS):
            for kind in range(len(_KINDS)):
                self._values[row * self._columns + _OPEN + kind * self._places + place] = 0.0

    def _find(self, tenant: str) -> Share:
        # Bit 0 set: a key is never 0, which stands for a free row.
        key = int.from_bytes(hashlib.blake2b(tenant.encode(), digest_size=_WORD).digest(), "big") | 1
        for step in range(ROWS):
            at = (key + step) % ROWS * self._columns
            if self._keys[at + _KEY] in (0, key):
                self._keys[at + _KEY] = key
                return Share(self._values[at : at + self._columns], self._place, self._places)
        own = memoryview(bytearray(self._columns * _WORD)).cast("d")
        return Share(own, self._place, self._places)


class Share:
    """What one tenant uses. ``spend`` and the room are for who has the turn."""

    __slots__ = ("_place", "_places", "_row")

    def __init__(self, row: memoryview[float], place: int, places: int) -> None:
        self._row = row
        self._place = place
        self._places = places

    def open(self, kind: Open) -> int:
        """Return how many of a kind are open in all processes."""
        first = _OPEN + _KINDS.index(kind) * self._places
        return int(sum(self._row[first : first + self._places]))

    def enter(self, kind: Open) -> None:
        """One more is open in this process."""
        self._row[_OPEN + _KINDS.index(kind) * self._places + self._place] += 1

    def leave(self, kind: Open) -> None:
        """One less is open in this process."""
        self._row[_OPEN + _KINDS.index(kind) * self._places + self._place] -= 1

    def spend(self, rate: float, burst: int, now: float) -> float:
        """Take one of the tokens, which come back at *rate* per second up to *burst*.

        Return 0, or the seconds until there is one. ``now``: seconds of a clock that all processes share.
        """
        row = self._row
        if not row[_BEGUN]:
            row[_BEGUN], row[_TOKENS] = 1.0, float(burst)
        else:
            row[_TOKENS] = min(float(burst), row[_TOKENS] + (now - row[_AT]) * rate)
        row[_AT] = now
        if row[_TOKENS] < 1:
            return (1 - row[_TOKENS]) / rate
        row[_TOKENS] -= 1
        return 0.0

    def measured(self) -> float | None:
        """Return when the room was measured last; None: never."""
        return self._row[_MEASURED] if self._row[_SIZED] else None

    def measure(self, stored_bytes: int, instances: int, now: float) -> None:
        """Note what the tenant has stored."""
        row = self._row
        row[_USED], row[_NUMBER], row[_ADMITTED] = float(stored_bytes), float(instances), 0.0
        row[_SIZED], row[_MEASURED] = 1.0, now

    def used(self) -> tuple[int, int]:
        """Return bytes, those admitted since they were measured included, and instances."""
        return int(self._row[_USED] + self._row[_ADMITTED]), int(self._row[_NUMBER])

    def admit(self, size: int) -> None:
        """Count what is about to be stored."""
        self._row[_ADMITTED] += size
