"""The what-if simulator against queueing theory, against the real reading order, and at its limits."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

import numpy as np
import pytest

from wetread.core.errors import InvalidInput
from wetread.core.priority import Priority, due_at
from wetread.core.reading_order import Band, Guard, Place, band_of, sequence
from wetread.worklist.simulator import (
    FIFO,
    GUARDED,
    STRICT,
    Policy,
    Reading,
    Scenario,
    _run,
    bound_only,
    draw,
    simulate,
)

MEAN = 10.0
BUSY = Scenario(arrivals_per_hour=16.2, readers=3, studies=20_000, seed=7)


def erlang_c(servers: int, load: float) -> float:
    """Probability of waiting in M/M/c (Erlang 1917); ``load`` per server."""
    offered = servers * load
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last)


def theory(servers: int, load: float, share: float) -> tuple[float, float, float]:
    """Mean waits (all, first class, second class) of M/M/c, non-preemptive (Cobham 1954), minutes."""
    seized = erlang_c(servers, load) * MEAN / servers
    return seized / (1 - load), seized / (1 - share * load), seized / (1 - share * load) / (1 - load)


def room(servers: int, load: float, share: float, studies: int, seed: int) -> Scenario:
    """Sensitivity and specificity one: the flagged are a random share."""
    rate = 60 * servers * load / MEAN
    return Scenario(rate, MEAN, servers, prevalence=share, sensitivity=1.0, specificity=1.0, studies=studies, seed=seed)


def means(scenario: Scenario, policy: Policy) -> dict[str, float]:
    (arm,) = simulate(scenario, (policy,))
    return {name: waits.mean for name, waits in arm.groups.items()}


def test_closed_forms() -> None:
    """One cell; the slow test below has the grid."""
    servers, load, share = 3, 0.7, 0.3
    all_, first, second = theory(servers, load, share)
    scenario = room(servers, load, share, 400_000, seed=3)
    assert means(scenario, FIFO)["all"] == pytest.approx(all_, rel=0.02)
    strict = means(scenario, STRICT)
    assert strict["flagged"] == pytest.approx(first, rel=0.02)
    assert strict["unflagged"] == pytest.approx(second, rel=0.02)


SEEDS_WHERE_FEW_WAIT = {0.3: 24, 0.5: 6}


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("servers", [1, 2, 3, 8])
def test_closed_forms_over_the_grid(servers: int, load: float, share: float) -> None:
    expected = theory(servers, load, share)
    # Eight readers at a low load: one study in hundreds waits at all, and few waits make a noisy mean.
    seeds = range(1, 1 + (SEEDS_WHERE_FEW_WAIT.get(load, 2) if servers == 8 else 2))
    runs = [room(servers, load, share, 2_000_000, seed) for seed in seeds]
    fifo = np.mean([means(run, FIFO)["all"] for run in runs])
    strict = [means(run, STRICT) for run in runs]
    found = (fifo, np.mean([m["flagged"] for m in strict]), np.mean([m["unflagged"] for m in strict]))
    print(
        f"c={servers} load={load} share={share}, {len(runs)} runs: "
        + ", ".join(f"{f / e - 1:+.2%}" for f, e in zip(found, expected, strict=True))
    )
    assert found == pytest.approx(expected, rel=0.02)


def test_the_order_does_not_change_the_mean() -> None:
    waits = [arm.groups["all"] for arm in simulate(replace(BUSY, studies=100_000), (FIFO, STRICT, GUARDED))]
    assert waits[1].mean == pytest.approx(waits[0].mean, rel=0.01)
    assert waits[2].mean == pytest.approx(waits[0].mean, rel=0.01)
    assert waits[0].margin < waits[0].mean / 2


def test_the_two_limits_of_the_bound() -> None:
    fifo, strict, nothing, everything = simulate(BUSY, (FIFO, STRICT, bound_only(0), bound_only(math.inf)))
    assert nothing.groups == fifo.groups
    assert everything.groups == strict.groups


@pytest.mark.parametrize("guard", [Guard(), Guard(1, 60 * 60.0, 20 * 60.0), Guard(3, 30 * 60.0, 10 * 60.0)])
def test_every_choice_is_the_worklists_own(guard: Guard) -> None:
    scenario = replace(BUSY, studies=3_000, specificity=0.4, arrivals_per_hour=17.5)
    studies = draw(scenario)
    started = _run(scenario, studies, Policy("guard", guard), studies.flagged)
    assert np.array_equal(started, by_whole_list(scenario, guard))


def by_whole_list(scenario: Scenario, guard: Guard) -> np.ndarray:
    """Simulate with the whole list put in order anew at each choice, as the worklist page does."""
    studies = draw(scenario)
    started = np.full(len(studies.arrivals), np.inf)
    waiting: list[int] = []
    reading: list[float] = []
    taken, coming = 0, 0
    while coming < len(started) or waiting:
        arrival = studies.arrivals[coming] if coming < len(started) else math.inf
        now = min(arrival, reading[0] if reading else math.inf)
        if reading and now == reading[0]:
            heapq.heappop(reading)
        else:
            waiting.append(coming)
            coming += 1
        while waiting and len(reading) < scenario.readers:
            bands: dict[Band, list[Place]] = {band: [] for band in Band}
            for study in waiting:
                at = float(studies.arrivals[study])
                if studies.flagged[study]:
                    bands[Band.FLAGGED].append(Place(str(study), at, due_at(at, Priority.STAT)))
                else:
                    bands[band_of(Priority.ROUTINE, Priority.ROUTINE, now - at, guard)].append(
                        Place(str(study), at, at)
                    )
            _, place, taken = next(sequence(bands, guard=guard, taken=taken))
            study = int(place.study_uid)
            waiting.remove(study)
            started[study] = now
            heapq.heappush(reading, now + studies.reading[study])
    return started


def test_missed_positives_pay_and_found_ones_gain() -> None:
    fifo, strict, guarded = simulate(replace(BUSY, studies=100_000))
    assert strict.groups["found"].mean < fifo.groups["found"].mean / 3
    assert strict.groups["missed"].mean > fifo.groups["missed"].mean * 1.1
    assert guarded.groups["found"].mean < fifo.groups["found"].mean / 3


def test_a_flooding_model_is_bounded_by_the_guard() -> None:
    _, strict, guarded = simulate(replace(BUSY, specificity=0.2, studies=100_000))
    assert guarded.groups["unflagged"].p999 < strict.groups["unflagged"].p999 / 3


@pytest.mark.parametrize("change", [{"ai_failure": 1.0}, {"sensitivity": 0.0, "specificity": 1.0}])
def test_without_an_answer_the_order_is_that_of_arrival(change: dict[str, float]) -> None:
    fifo, guarded = simulate(replace(BUSY, **change), (FIFO, GUARDED))
    assert guarded.groups == fifo.groups


def test_late_flags_help_nobody() -> None:
    quick, slow = (simulate(replace(BUSY, arrivals_per_hour=9, ai_delay=delay), (STRICT,))[0] for delay in (0.0, 600.0))
    assert quick.late_flags == 0
    assert slow.late_flags == 1
    assert slow.groups["found"].mean > quick.groups["found"].mean


def test_readers_come_and_go_by_the_hour() -> None:
    shifts = (0,) * 6 + (4,) * 18
    scenario = replace(BUSY, reader_shifts=shifts, arrivals_per_hour=12)
    started = _run(scenario, draw(scenario), FIFO, np.zeros(scenario.studies, bool))
    assert np.isfinite(started).all()
    assert (started // 3600 % 24 >= 6).all()


def test_arrivals_follow_the_profile() -> None:
    profile = (1.0,) * 12 + (3.0,) * 12
    arrivals = draw(replace(BUSY, arrival_profile=profile)).arrivals
    busy = (arrivals // 3600 % 24 >= 12).mean()
    assert busy == pytest.approx(0.75, abs=0.02)
    assert len(arrivals) / (arrivals[-1] / 3600) == pytest.approx(BUSY.arrivals_per_hour, rel=0.03)


def test_own_history_is_replayed() -> None:
    history = tuple(float(minute) for minute in range(0, 2_000, 10))
    scenario = Scenario(history=history, reading=Reading.CONSTANT, reading_minutes=10, readers=1)
    (arm,) = simulate(scenario, (FIFO,))
    assert arm.groups["all"].longest == 0
    assert arm.groups["all"].studies == len(history) - len(history) // 20


@pytest.mark.parametrize(("reading", "cv"), [(Reading.LOGNORMAL, 0.5), (Reading.CONSTANT, 0.0)])
def test_reading_times_have_their_mean_and_spread(reading: Reading, cv: float) -> None:
    times = draw(replace(BUSY, reading=reading, reading_cv=cv, studies=50_000)).reading / 60
    assert times.mean() == pytest.approx(BUSY.reading_minutes, rel=0.01)
    assert times.std() / times.mean() == pytest.approx(cv, abs=0.02)


def test_the_same_seed_gives_the_same_answer() -> None:
    assert simulate(BUSY) == simulate(BUSY)
    assert simulate(BUSY) != simulate(replace(BUSY, seed=8))


@pytest.mark.parametrize(
    "change",
    [
        {"prevalence": 1.5},
        {"sensitivity": -0.1},
        {"specificity": math.nan},
        {"arrivals_per_hour": 0},
        {"reading_minutes": math.inf},
        {"readers": 0},
        {"ai_delay": -1},
        {"reading_cv": -1},
        {"studies": 10},
        {"studies": 10**9},
        {"arrival_profile": (1.0,) * 23},
        {"arrival_profile": (0.0,) * 24},
        {"reader_shifts": (-1,) * 24},
        {"history": (1.0,) * 100 + (0.5,)},
    ],
)
def test_a_room_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        simulate(replace(BUSY, **change))
