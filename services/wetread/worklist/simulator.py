"""What-if: how long studies wait for a reader, with and without AI in the reading order, and what missed ones pay.

A discrete-event simulation of one reading list: studies arrive, readers take the next one and read it to its end
(non-preemptive). Each choice is made by :func:`wetread.core.reading_order.sequence`, the function that orders the real
worklist, so that what is simulated is what the product does. All arms see the same studies, reading times and flags
(common random numbers). The order does not change the mean over all studies (work conservation: Kleinrock, Queueing
Systems, vol. 2, 1976), which the tests use as an oracle beside the closed forms.
"""

from __future__ import annotations

import heapq
import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wetread.core.errors import InvalidInput
from wetread.core.priority import Priority, due_at
from wetread.core.reading_order import DEFAULT_GUARD, Band, Guard, Place, band_of, sequence

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAX_STUDIES: Final = 2_000_000
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_BATCHES: Final = 20
_STUDENT_19: Final = 2.093
"""97.5 % point of Student's t with 19 degrees of freedom, for the interval over the batch means."""
_UNBOUNDED: Final = sys.maxsize


class Reading(StrEnum):
    """Distribution of reading times around their mean."""

    EXPONENTIAL = "exponential"
    LOGNORMAL = "lognormal"
    """Coefficient of variation ``reading_cv``."""
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class Policy:
    """One arm: a name and the guard that the reading order gets. ``uses_ai`` False: flags move nothing."""

    name: str
    guard: Guard = DEFAULT_GUARD
    uses_ai: bool = True


FIFO: Final = Policy("fifo", uses_ai=False)
STRICT: Final = Policy("strict", Guard(_UNBOUNDED, math.inf, math.inf))
GUARDED: Final = Policy("guard")
"""What the worklist does."""


def bound_only(minutes: float) -> Policy:
    """Return the arm in which a flag never passes a study that arrived *minutes* earlier, and nothing else holds."""
    return Policy(f"bound {minutes:g} min", Guard(_UNBOUNDED, minutes * _MINUTE, 0.0))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One reading room. Times in minutes, rates per hour, shares in [0, 1].

    ``arrivals_per_hour``: mean rate; ``arrival_profile``: 24 factors, one per hour of the day, empty for a constant
    rate. ``readers``: how many read at a time; ``reader_shifts``: 24 numbers instead, one per hour. ``ai_delay``: from
    arrival until a flag counts. ``ai_failure``: share of studies without an answer of the AI. ``target``: wait that is
    to be kept. ``history``: arrival times in minutes from zero instead of random ones.
    """

    arrivals_per_hour: float = 16.2
    reading_minutes: float = 10.0
    readers: int = 3
    prevalence: float = 0.12
    sensitivity: float = 0.95
    specificity: float = 0.90
    reading: Reading = Reading.EXPONENTIAL
    reading_cv: float = 1.0
    ai_delay: float = 0.0
    ai_failure: float = 0.0
    target: float = 60.0
    studies: int = 100_000
    seed: int = 1
    arrival_profile: tuple[float, ...] = ()
    reader_shifts: tuple[int, ...] = ()
    history: tuple[float, ...] = ()

    @property
    def load(self) -> float:
        """Work that arrives per unit of reading capacity; from 1 on the list grows without end."""
        readers = sum(self.reader_shifts) / 24 if self.reader_shifts else self.readers
        return self.arrivals_per_hour / 60 * self.reading_minutes / readers

    def at(self, sensitivity: float, specificity: float) -> Scenario:
        """Return the room with a detector's measured operating point."""
        return replace(self, sensitivity=sensitivity, specificity=specificity)

    def check(self) -> None:
        """Raise InvalidInput when a value makes no sense."""
        shares = (self.prevalence, self.sensitivity, self.specificity, self.ai_failure)
        problems = {
            "shares lie between 0 and 1": any(not 0 <= share <= 1 for share in shares),
            "rates and reading times are positive": not (
                0 < self.arrivals_per_hour < math.inf and 0 < self.reading_minutes < math.inf
            ),
            "there is at least one reader": self.readers < 1,
            "reading_cv and ai_delay are not negative": self.reading_cv < 0 or self.ai_delay < 0,
            f"studies are 100 to {MAX_STUDIES}": not 100 <= (len(self.history) or self.studies) <= MAX_STUDIES,
            "a profile has 24 hours": any(
                len(day) not in (0, 24) for day in (self.arrival_profile, self.reader_shifts)
            ),
            "a profile holds no negative numbers and is not all zero": any(
                day and (min(day) < 0 or not any(day)) for day in (self.arrival_profile, self.reader_shifts)
            ),
            "history is in order": any(
                later < sooner for sooner, later in zip(self.history, self.history[1:], strict=False)
            ),
        }
        for problem, found in problems.items():
            if found:
                raise InvalidInput(problem)


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits of a group, minutes. ``margin``: half width of the 95 % interval of the mean (20 batch means)."""

    studies: int
    mean: float
    margin: float
    p50: float
    p95: float
    p999: float
    longest: float
    past_target: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One policy's outcome. Groups: all, positive, found, missed, flagged, unflagged, negative; empty ones left out.

    ``late_flags``: share of flags that came when the study had been taken already.
    """

    policy: str
    groups: Mapping[str, Waits]
    late_flags: float


@dataclass(frozen=True, slots=True)
class Studies:
    """The studies of a run, in order of arrival; the same for every arm. Times in seconds."""

    arrivals: Floats
    reading: Floats
    positive: Flags
    flagged: Flags

    def groups(self) -> Mapping[str, Flags]:
        """Return who belongs to which group."""
        return {
            "all": np.ones(len(self.arrivals), bool),
            "positive": self.positive,
            "found": self.positive & self.flagged,
            "missed": self.positive & ~self.flagged,
            "flagged": self.flagged,
            "unflagged": ~self.flagged,
            "negative": ~self.positive,
        }


def simulate(scenario: Scenario, policies: Sequence[Policy] = (FIFO, STRICT, GUARDED)) -> list[Arm]:
    """Run every policy on the same studies. Raises InvalidInput."""
    scenario.check()
    studies = draw(scenario)
    return [_arm(scenario, studies, policy) for policy in policies]


def draw(scenario: Scenario) -> Studies:
    """Draw the studies: Poisson arrivals (thinned by the hourly profile), reading times, truth and flags."""
    random = np.random.default_rng(scenario.seed)
    arrivals = _arrivals(scenario, random)
    count = len(arrivals)
    positive = random.random(count) < scenario.prevalence
    sees = random.random(count) < np.where(positive, scenario.sensitivity, 1 - scenario.specificity)
    answered = random.random(count) >= scenario.ai_failure
    return Studies(arrivals, _reading_times(scenario, random, count), positive, sees & answered)


def _arrivals(scenario: Scenario, random: np.random.Generator) -> Floats:
    if scenario.history:
        return np.asarray(scenario.history, float) * _MINUTE
    rate = scenario.arrivals_per_hour / _HOUR
    if not scenario.arrival_profile:
        return np.cumsum(random.exponential(1 / rate, scenario.studies))
    profile = np.asarray(scenario.arrival_profile, float) / np.mean(scenario.arrival_profile)
    kept: list[Floats] = []
    total, at = 0, 0.0
    while total < scenario.studies:
        # Thinning (Lewis and Shedler 1979): candidates at the highest rate, kept by the rate of their hour.
        candidates = at + np.cumsum(random.exponential(1 / (rate * profile.max()), scenario.studies))
        at = float(candidates[-1])
        hours = (candidates // _HOUR % 24).astype(int)
        kept.append(candidates[random.random(scenario.studies) < profile[hours] / profile.max()])
        total += len(kept[-1])
    return np.concatenate(kept)[: scenario.studies]


def _reading_times(scenario: Scenario, random: np.random.Generator, count: int) -> Floats:
    mean = scenario.reading_minutes * _MINUTE
    if scenario.reading is Reading.EXPONENTIAL:
        return random.exponential(mean, count)
    if scenario.reading is Reading.CONSTANT or scenario.reading_cv == 0:
        return np.full(count, mean)
    spread = math.log1p(scenario.reading_cv**2)
    return random.lognormal(math.log(mean) - spread / 2, math.sqrt(spread), count)


class _List:
    """The waiting studies of one arm: flagged ones by due time, the others by arrival."""

    def __init__(self, studies: Studies, policy: Policy) -> None:
        self._arrivals: list[float] = studies.arrivals.tolist()
        self._guard = policy.guard
        self._flagged: list[tuple[float, int]] = []
        self._plain: deque[int] = deque()
        self._moved: set[int] = set()
        self._taken = 0
        self.waiting = 0

    def arrive(self, study: int, *, flagged: bool) -> None:
        """Put a study on the list."""
        self.waiting += 1
        if flagged:
            heapq.heappush(self._flagged, (due_at(self._arrivals[study], Priority.STAT), study))
        else:
            self._plain.append(study)

    def flag(self, study: int) -> None:
        """Raise a study that waits."""
        self._moved.add(study)
        heapq.heappush(self._flagged, (due_at(self._arrivals[study], Priority.STAT), study))

    def take(self, now: float) -> int:
        """Return the study that a reader takes now."""
        self.waiting -= 1
        while self._plain and self._plain[0] in self._moved:
            self._moved.discard(self._plain.popleft())
        if not self._flagged or not self._plain:
            # Nobody is passed: the order has no choice to make.
            self._taken = 0
            return self._plain.popleft() if self._plain else heapq.heappop(self._flagged)[1]
        # The reading order looks at the first study of each band only.
        due, study = self._flagged[0]
        arrival = self._arrivals[self._plain[0]]
        band = band_of(Priority.ROUTINE, Priority.ROUTINE, now - arrival, self._guard)
        heads = {
            Band.FLAGGED: (Place("", self._arrivals[study], due),),
            band: (Place("", arrival, arrival),),
        }
        chosen, _, self._taken = next(sequence(heads, guard=self._guard, taken=self._taken))
        return heapq.heappop(self._flagged)[1] if chosen is Band.FLAGGED else self._plain.popleft()


def _arm(scenario: Scenario, studies: Studies, policy: Policy) -> Arm:
    moving = studies.flagged if policy.uses_ai else np.zeros(len(studies.arrivals), bool)
    started = _run(scenario, studies, policy, moving)
    # The list starts empty: the first studies do not see the room as it usually is.
    settled = np.arange(len(started)) >= len(started) // 20
    waits = (started - studies.arrivals) / _MINUTE
    groups = {
        name: _waits(waits[members & settled], scenario.target)
        for name, members in studies.groups().items()
        if np.any(members & settled)
    }
    late = waits[moving] < scenario.ai_delay
    return Arm(policy.name, groups, float(late.mean()) if len(late) else 0.0)


def _run(scenario: Scenario, studies: Studies, policy: Policy, moving: Flags) -> Floats:
    """Return when each study is taken (seconds)."""
    waiting = _List(studies, policy)
    started = np.full(len(moving), np.inf)
    delay = scenario.ai_delay * _MINUTE
    arrivals: list[float] = studies.arrivals.tolist()
    reading_times: list[float] = studies.reading.tolist()
    flagged: list[bool] = moving.tolist()
    flags = deque((arrivals[study] + delay, int(study)) for study in np.flatnonzero(moving)) if delay else deque()
    shift = _HOUR if scenario.reader_shifts else math.inf
    reading: list[float] = []
    coming = 0
    while coming < len(arrivals) or waiting.waiting:
        done = reading[0] if reading else math.inf
        flag = flags[0][0] if flags else math.inf
        arrival = arrivals[coming] if coming < len(arrivals) else math.inf
        now = min(done, flag, arrival, shift)
        if now == done:
            heapq.heappop(reading)
        elif now == flag:
            study = flags.popleft()[1]
            if started[study] == math.inf:
                waiting.flag(study)
        elif now == arrival:
            waiting.arrive(coming, flagged=flagged[coming] and not delay)
            coming += 1
        else:
            shift += _HOUR
        capacity = _capacity(scenario, now)
        while waiting.waiting and len(reading) < capacity:
            taken = waiting.take(now)
            started[taken] = now
            heapq.heappush(reading, now + reading_times[taken])
    return started


def _capacity(scenario: Scenario, now: float) -> int:
    return scenario.reader_shifts[int(now // _HOUR) % 24] if scenario.reader_shifts else scenario.readers


def _waits(minutes: Floats, target: float) -> Waits:
    batches = [float(part.mean()) for part in np.array_split(minutes, _BATCHES) if len(part)]
    spread = float(np.std(batches, ddof=1)) if len(batches) == _BATCHES else math.nan
    p50, p95, p999 = (float(value) for value in np.percentile(minutes, (50, 95, 99.9)))
    return Waits(
        studies=len(minutes),
        mean=float(minutes.mean()),
        margin=_STUDENT_19 * spread / math.sqrt(_BATCHES),
        p50=p50,
        p95=p95,
        p999=p999,
        longest=float(minutes.max()),
        past_target=float((minutes > target).mean()),
    )
