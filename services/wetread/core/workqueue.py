"""Names of the durable queue: application, version, workflows and lanes. Every process agrees on these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from wetread.core.errors import ConfigurationError
from wetread.core.priority import Priority

APPLICATION: Final = "wetread"
APPLICATION_VERSION: Final = "wetread-1"
"""Version of the workflows' step lists, not of the build: a roll-out must not strand work in flight."""
MAX_RECOVERY_ATTEMPTS: Final = 5
"""A task that kills its process more often than this is dead."""

EVALUATE: Final = "evaluate_study"
QUIET: Final = "study_quiet"
RUN: Final = "run_task"
COMPOSE: Final = "compose_results"
OPERATE: Final = "operate_task"
"""What a person or an outside performer asks of a task, carried out by the orchestration."""


_ASKED: Final = "request:run:"


def run_request(detector: str) -> str:
    """Return the signal of an evaluation that somebody asked for, so that *detector* reads the study."""
    return f"{_ASKED}{detector}"


def asked_for(signals: Iterable[str]) -> frozenset[str]:
    """Return the detectors that *signals* ask for by name."""
    return frozenset(signal.removeprefix(_ASKED) for signal in signals if signal.startswith(_ASKED))


@dataclass(frozen=True, slots=True)
class Lane:
    """A queue: how much of it one worker process runs at a time, and how often it looks."""

    concurrency: int
    polling_seconds: float


SLIDE_LANE: Final = "detector.slide"
"""A slide takes minutes and all cores that it is given: no study of seconds ever waits behind one."""

QUEUES: Final[dict[str, Lane]] = {
    "control": Lane(4, 0.05),
    "detector.cpu.stat": Lane(1, 0.05),
    "detector.cpu": Lane(1, 0.05),
    "detector.cpu.batch": Lane(1, 1.0),
    SLIDE_LANE: Lane(1, 0.2),
    "evidence": Lane(2, 0.05),
    "notify": Lane(8, 0.05),
    "maintenance": Lane(1, 1.0),
}
"""All lanes. The embedded profile runs them in one worker process, a cluster in as many as it likes (``lanes_of``)."""


LONG_LANES: Final = tuple(name for name in QUEUES if name.startswith("detector."))
"""Lanes whose work takes long: a stopping process takes none of it any more."""
SHORT_LANES: Final = ("control", "evidence", "notify")
"""Lanes of what follows from running work: a stopping process still does it, so that no report waits for the next."""
_NEEDS: Final = {True: "detection", False: "orchestration"}


def lanes_of(*, detects: bool, orchestrates: bool, chosen: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the lanes of a process: detector runs need detector processes, all other work the orchestration.

    ``chosen``: take only these of them (a pool of STAT work); empty: all. Raises ConfigurationError.
    """
    mine = [name for name in QUEUES if (detects if name in LONG_LANES else orchestrates)]
    wanted = list(chosen)
    for name in wanted:
        if name not in QUEUES:
            msg = f"there is no queue {name}; known: {', '.join(QUEUES)}"
            raise ConfigurationError(msg)
        if name not in mine:
            msg = f"this process cannot take the queue {name}: it needs the service {_NEEDS[name in LONG_LANES]}"
            raise ConfigurationError(msg)
    return tuple(name for name in mine if not wanted or name in wanted)


def detector_lane(priority: Priority, *, slide: bool = False) -> str:
    """Return the lane of a detector run: STAT work has workers of its own, and so have batch work and slides."""
    if slide:
        return SLIDE_LANE
    if priority is Priority.STAT:
        return "detector.cpu.stat"
    return "detector.cpu.batch" if priority is Priority.BATCH else "detector.cpu"
