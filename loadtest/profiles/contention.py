"""Who uses the cores while gateways store, and what the database's sessions wait for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from dicomweb.servers import cpu_seconds
from stress_hour.watching import descendants, machine_seconds

from profiles.gateways import Gateway
from wetread.adapters.index import engines

_LOOKS_PER_SECOND: Final = 50
_LOOK: Final = """
    SELECT (SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
             WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = %s AND datname = current_database()),
           count(*) FILTER (WHERE wait_event_type = 'Lock' AND wait_event = 'advisory'),
           count(*) FILTER (WHERE lower(wait_event) IN ('walsync', 'walwrite'))
      FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
"""
_TURN: Final = (engines._WRITERS,)  # noqa: SLF001 - the key of ADR 1201


@dataclass(slots=True)
class Spent:
    """CPU seconds by who used them, over *seconds*. ``limits``: cores that each of those can use at most.

    ``turn``: share of the time for which somebody held the writers' turn (ADR 1201), None without PostgreSQL.
    ``waits``, ``flushes``: sessions that waited for the turn, or for the disk of the write-ahead log, on average.
    """

    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    turn: float | None = None
    waits: float = 0.0
    flushes: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def cores(self) -> dict[str, float]:
        """Cores in use, by who used them."""
        return {name: seconds / max(self.seconds, 1e-9) for name, seconds in self.cpu.items()}

    @property
    def others(self) -> float:
        """Cores that something else on this machine used: near 0, or the figures say little."""
        ours = sum(cores for name, cores in self.cores.items() if name != "machine")
        return max(0.0, self.cores.get("machine", 0.0) - ours)

    @property
    def nearest(self) -> tuple[str, float]:
        """What was nearest to its limit, and how near (1: at it).

        The processes of a gateway, the S3 double and the sender are Python: one core each at most, because of the
        interpreter's lock. The writers' turn is one for all gateways.
        """
        shares = {name: self.cores[name] / limit for name, limit in self.limits.items()}
        if self.turn is not None:
            shares["writers' turn"] = self.turn
        name = max(shares, key=lambda key: shares[key])
        return name, shares[name]


class Contention:
    """Looks at process trees and at the database from ``with`` to its end; then ``spent`` holds what was seen.

    *others*: name -> process whose tree counts. *database*: URL whose sessions are looked at; None: there is none.
    """

    def __init__(self, running: Sequence[Gateway], others: Mapping[str, int], database: str | None) -> None:
        self._roots = {f"gateway {number + 1}": one.pid for number, one in enumerate(running)} | dict(others)
        self._limits = {f"gateway {number + 1}": one.processes for number, one in enumerate(running)}
        self._limits |= {"S3 double": 1, "sender": 1, "machine": os.cpu_count() or 1}
        self._database = database
        self._before: dict[str, float] = {}
        self._began = 0.0
        self._ended = threading.Event()
        self._looks: list[tuple[int, int, int]] = []
        self._thread = threading.Thread(target=self._look)
        self.spent = Spent()

    def __enter__(self) -> Self:
        self._thread.start()
        self._before, self._began = self._cpu(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        took, after = time.monotonic() - self._began, self._cpu()
        self._ended.set()
        self._thread.join()
        used = {name: seconds - self._before[name] for name, seconds in after.items()}
        self.spent = Spent(took, used, limits=self._limits)
        if self._looks:
            held, waiting, flushing = zip(*self._looks, strict=True)
            count = len(self._looks)
            self.spent.turn = sum(map(bool, held)) / count
            self.spent.waits, self.spent.flushes = sum(waiting) / count, sum(flushing) / count

    def _cpu(self) -> dict[str, float]:
        found = {name: cpu_seconds([root, *descendants(root)]) for name, root in self._roots.items()}
        return found | {"sender": time.process_time(), "machine": machine_seconds()}

    def _look(self) -> None:
        if self._database is None:
            return
        import psycopg

        with psycopg.connect(self._database, autocommit=True) as connection:
            while not self._ended.wait(1 / _LOOKS_PER_SECOND):
                row = connection.execute(_LOOK.encode(), _TURN).fetchone()
                assert row is not None
                self._looks.append((int(row[0]), int(row[1]), int(row[2])))
