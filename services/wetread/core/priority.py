"""Priority classes, their targets, and the due time that orders every queue and the worklist."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Priority(StrEnum):
    """Class of a study or task; ordered from most to least urgent."""

    STAT = "stat"
    URGENT = "urgent"
    ROUTINE = "routine"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 is the most urgent."""
        return _ORDER.index(self)


_ORDER: Final = (Priority.STAT, Priority.URGENT, Priority.ROUTINE, Priority.BATCH)

TARGET_SECONDS: Final[dict[Priority, float]] = {
    Priority.STAT: 5 * 60,
    Priority.URGENT: 30 * 60,
    Priority.ROUTINE: 4 * 3600,
    Priority.BATCH: 24 * 3600,
}

UPS_PRIORITY: Final[dict[Priority, str]] = {
    Priority.STAT: "HIGH",
    Priority.URGENT: "MEDIUM",
    Priority.ROUTINE: "LOW",
    Priority.BATCH: "LOW",
}
"""(0074,1200) Scheduled Procedure Step Priority."""

_EPOCH_2020: Final = 1_577_836_800


def most_urgent(*classes: Priority) -> Priority:
    """Return the most urgent of *classes*: AI and rules may only raise."""
    return min(classes, key=lambda c: c.rank)


def due_at(arrival: float, priority: Priority) -> float:
    """Return when a study of this class is due (Unix seconds)."""
    return arrival + TARGET_SECONDS[priority]


def queue_number(due: float) -> int:
    """Return the queue priority of a due time: whole seconds since 2020, lowest first, fits 31 bits until 2088.

    Earliest due first is ageing for free: old routine work overtakes newly arrived urgent work.
    """
    return max(1, int(due) - _EPOCH_2020)
