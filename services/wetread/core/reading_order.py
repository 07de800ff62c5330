"""The reading order with its guard, as a pure function: who is read next, whatever the AI flags.

Bands: time-critical (class ``stat``) by due time, overdue by arrival, the rest by arrival. AI may only raise, and the
guard bounds what a raise can cost the others: at least one of every ``share + 1`` studies taken is the oldest overdue
one, and an AI flag alone never passes a study that arrived ``bound_seconds`` earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from wetread.core.priority import TARGET_SECONDS, Priority


class Band(StrEnum):
    """Where a study stands in the reading order."""

    FIRM = "firm"
    """Time-critical by order, rule or a person."""
    FLAGGED = "flagged"
    """Time-critical by an AI finding alone."""
    OVERDUE = "overdue"
    NORMAL = "normal"
    ASSIGNED = "assigned"
    """A reader has taken it: listed behind everything that still waits for one."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What a flag may cost the others."""

    share: int = 2
    """Time-critical studies taken in a row while an overdue one waits."""
    bound_seconds: float = 240 * 60
    """An AI flag alone never passes a study that arrived this much earlier."""
    overdue_seconds: float = 60 * 60
    """A study is overdue after this, or after its class target, whichever is shorter."""
    claim_seconds: float = 60 * 60
    """A study that a reader took and neither finished nor took again is back in its place after this."""

    def overdue_after(self, priority: Priority) -> float:
        """Return the waiting time after which a study of this class is overdue (seconds)."""
        return min(self.overdue_seconds, TARGET_SECONDS[priority])


DEFAULT_GUARD: Final = Guard()


@dataclass(frozen=True, slots=True)
class Place:
    """A study in its band. ``due_at`` orders the time-critical bands, ``arrival`` the others; the UID breaks ties."""

    study_uid: str
    arrival: float
    due_at: float


def sequence(
    bands: Mapping[Band, Sequence[Place]], *, guard: Guard = DEFAULT_GUARD, taken: int = 0
) -> Iterator[tuple[Band, Place, int]]:
    """Yield (band, place, taken) in reading order from bands that are each in their own order.

    ``taken`` counts time-critical studies since the last overdue one; it goes in with what was taken before and comes
    out after each study, so a page continues where the last one ended.
    """
    queues = {band: list(reversed(bands.get(band, ()))) for band in Band}
    overdue = queues[Band.OVERDUE]
    while any(queues.values()):
        critical = _next_critical(queues, guard)
        if overdue and (critical is None or taken >= guard.share):
            band, taken = Band.OVERDUE, 0
        elif critical is not None:
            # Only what passes an overdue study counts against the share.
            band, taken = critical, taken + 1 if overdue else 0
        elif queues[Band.NORMAL]:
            band, taken = Band.NORMAL, 0
        else:
            band = Band.ASSIGNED
        yield band, queues[band].pop(), taken


def _next_critical(queues: dict[Band, list[Place]], guard: Guard) -> Band | None:
    critical = [band for band in (Band.FIRM, Band.FLAGGED) if queues[band]]
    if queues[Band.FLAGGED] and queues[Band.OVERDUE]:
        oldest = queues[Band.OVERDUE][-1].arrival
        if oldest < queues[Band.FLAGGED][-1].arrival - guard.bound_seconds:
            critical.remove(Band.FLAGGED)
    return min(critical, key=lambda band: (queues[band][-1].due_at, queues[band][-1].study_uid), default=None)


def band_of(priority: Priority, firm_priority: Priority, waited_seconds: float, guard: Guard = DEFAULT_GUARD) -> Band:
    """Return the band of a study by its class, its class without AI findings and its waiting time."""
    if priority is Priority.STAT:
        return Band.FIRM if firm_priority is Priority.STAT else Band.FLAGGED
    return Band.OVERDUE if waited_seconds >= guard.overdue_after(priority) else Band.NORMAL


def passes_overdue(band: Band, *, overdue_waits: bool) -> bool:
    """Return whether taking a study of this band counts against the share: time-critical while an overdue one waits."""
    return overdue_waits and band in {Band.FIRM, Band.FLAGGED}


def taken_since_overdue(passed: Iterable[bool]) -> int:
    """Return the guard's counter from what readers took, newest first: those in a row that passed an overdue study.

    The counter has to come from claims: a list computed afresh as T, T, O, T, T, O never serves O, because readers
    take its top and T refills.
    """
    count = 0
    for one in passed:
        if not one:
            break
        count += 1
    return count
