"""From measured unit costs to pods, database and storage: a pure model, the same for one machine and for a cluster.

Arrivals are Poisson at the rate of the peak hour. A component that serves requests (gateway, orchestration, GPU, the
writers' turn of the database) may be busy for ``utilisation`` of the peak hour. Detector processes are one queue with c
servers, each of which runs any detector: the smallest c is taken for which 95 % of runs wait, end and have their report
written within the goal (Erlang C; the tail of the wait is scaled by (1 + squared coefficient of variation of the
running times) / 2, Allen and Cunneen's correction: half for runs of one length). Storage is what arrives times how long
it is kept. Units: seconds, megabytes of 10^6 bytes, cores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from wetread.commands.capacity_costs import DetectorCosts, UnitCosts
from wetread.core.errors import InvalidInput

DAY_SECONDS: Final = 86_400.0
PAGE_BYTES: Final = 8192
"""A page of PostgreSQL: what goes to the log is written again, page by page, by the next checkpoint."""
_MOST_SERVERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StudyKind:
    """A kind of study. ``share`` of all studies; ``detector`` that reads it, empty: none."""

    name: str
    share: float
    instances: float
    megabytes: float
    detector: str = ""


STRESS_HOUR: Final = (
    StudyKind("RF", 180 / 337.5, 1, 1.05),
    StudyKind("US", 75 / 337.5, 7, 17.0),
    StudyKind("CT head", 31.5 / 337.5, 324, 170.4, "ich"),
    StudyKind("CT body", 13.5 / 337.5, 324, 170.2, "lung-nodule"),
    StudyKind("MR", 37.5 / 337.5, 5, 1.03),
)
"""The mix of MONAI Deploy's published stress hour. CTs that met a model are head CTs, the others are of the chest."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What is chosen and not measured; every value is printed with the plan.

    ``peak_factor``: rate of the busiest hour over the day's mean (4.8: 300 an hour at 1,500 a day, MONAI's hospital
    guide). ``reads``: how often each image is fetched. ``goal``: seconds from a complete study to the detector's result
    for 95 % of studies. ``utilisation``: share of the peak hour for which a component may be busy. ``smallest``: pods
    of each Deployment, so that one may die. ``gpu``: detector -> seconds of a GPU per run in place of its inference on
    CPU; detectors not named run on CPU.
    """

    peak_factor: float = 4.8
    reads: float = 2.0
    goal: float = 60.0
    utilisation: float = 0.6
    hot_days: float = 30.0
    kept_days: float = 365.0
    smallest: int = 2
    gpu: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.peak_factor >= 1 and self.reads >= 0 and self.goal > 0 and 0 < self.utilisation <= 1):
            msg = (
                "a peak factor is 1 or more, reads 0 or more, the goal positive, the utilisation above 0 and at most 1"
            )
            raise InvalidInput(msg)
        if not (0 <= self.hot_days <= self.kept_days and self.smallest >= 1):
            msg = "hot days are not more than all days that studies are kept; there is at least one pod"
            raise InvalidInput(msg)
        if any(seconds <= 0 for seconds in self.gpu.values()):
            msg = "seconds of a GPU are positive"
            raise InvalidInput(msg)


@dataclass(frozen=True, slots=True)
class Load:
    """CPU seconds per study of the mix, by component; ``runs``: detector -> runs per study."""

    gateway: float
    orchestration: float
    runs: Mapping[str, float]
    instances: float
    megabytes: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What N studies a day need. Terabytes of 10^12 bytes. ``database_gigabytes``: rows of all studies that are kept.

    ``deployments``: separate installations, each with a database of its own, because the writers of one database take
    turns (ADR 1201); the other figures are for all of them together.
    """

    studies_per_day: float
    peak_per_hour: float
    gateway_cores: float
    gateway_pods: int
    orchestration_cores: float
    detector_processes: int
    worker_pods: int
    gpu_pods: int
    deployments: int
    database_gigabytes: float
    database_iops: float
    writers_turn: float
    network_megabytes_per_second: float
    hot_terabytes: float
    warm_terabytes: float


@dataclass(frozen=True, slots=True)
class Sustained:
    """The rate at which something is busy all the time, studies an hour, and what that is."""

    studies_per_hour: float
    bottleneck: str


def load_of(costs: UnitCosts, mix: Sequence[StudyKind], *, reads: float) -> Load:
    """Return what one study costs on average. Raises InvalidInput for a mix that is none."""
    total = sum(kind.share for kind in mix)
    sizes = [value for kind in mix for value in (kind.share, kind.instances, kind.megabytes)]
    if total <= 0 or not all(math.isfinite(value) and value >= 0 for value in sizes):
        msg = "a mix has kinds of study with shares, instances and megabytes that are not negative"
        raise InvalidInput(msg)
    unknown = {kind.detector for kind in mix if kind.detector} - costs.detectors.keys()
    if unknown:
        msg = f"no measured costs of {', '.join(sorted(unknown))}; there are {', '.join(sorted(costs.detectors))}"
        raise InvalidInput(msg)
    instances = sum(kind.share * kind.instances for kind in mix) / total
    megabytes = sum(kind.share * kind.megabytes for kind in mix) / total
    runs: dict[str, float] = {}
    for kind in mix:
        if kind.detector:
            runs[kind.detector] = runs.get(kind.detector, 0.0) + kind.share / total
    gateway = costs.gateway
    return Load(
        gateway=gateway.store.of(instances, megabytes) + reads * gateway.read.of(instances, megabytes),
        orchestration=costs.orchestration.per_study + costs.orchestration.per_run * sum(runs.values()),
        runs=runs,
        instances=instances,
        megabytes=megabytes,
    )


def plan(costs: UnitCosts, mix: Sequence[StudyKind], studies_per_day: float, chosen: Assumptions) -> Plan:
    """Return what *studies_per_day* need. Raises InvalidInput, also when no number of processes keeps the goal."""
    if not (math.isfinite(studies_per_day) and studies_per_day > 0):
        msg = "studies per day are a positive number"
        raise InvalidInput(msg)
    load = load_of(costs, mix, reads=chosen.reads)
    peak = studies_per_day / DAY_SECONDS * chosen.peak_factor
    gpu = peak * sum(runs * chosen.gpu.get(name, 0.0) for name, runs in load.runs.items())
    report = max((costs.detectors[name].report for name in load.runs), default=0.0)
    processes = processes_for(
        [(peak * runs, _wall(costs, name, chosen)) for name, runs in load.runs.items()], chosen.goal - report
    )
    gateway_cores, orchestration_cores = peak * load.gateway, peak * load.orchestration
    database = costs.database
    turn = peak * database.serial.of(load.instances, load.megabytes)
    log_bytes = database.log.of(load.instances, load.megabytes)
    grown = database.size.of(load.instances, load.megabytes)
    deployments = max(1, math.ceil(turn / chosen.utilisation))
    results = sum(runs * costs.detectors[name].result_megabytes for name, runs in load.runs.items())
    terabytes_per_day = studies_per_day * (load.megabytes + results) / 1e6
    return Plan(
        studies_per_day=studies_per_day,
        peak_per_hour=peak * 3600,
        gateway_cores=gateway_cores,
        gateway_pods=max(chosen.smallest * deployments, math.ceil(gateway_cores / chosen.utilisation)),
        orchestration_cores=orchestration_cores,
        detector_processes=processes,
        worker_pods=max(chosen.smallest * deployments, processes, math.ceil(orchestration_cores / chosen.utilisation)),
        gpu_pods=max(deployments, math.ceil(gpu / chosen.utilisation)) if gpu else 0,
        deployments=deployments,
        database_gigabytes=studies_per_day * chosen.kept_days * grown / 1e9,
        database_iops=peak * (database.syncs.of(load.instances, load.megabytes) + log_bytes / PAGE_BYTES),
        writers_turn=turn,
        network_megabytes_per_second=peak * load.megabytes * (1 + chosen.reads),
        hot_terabytes=terabytes_per_day * chosen.hot_days,
        warm_terabytes=terabytes_per_day * (chosen.kept_days - chosen.hot_days),
    )


def _wall(costs: UnitCosts, name: str, chosen: Assumptions) -> float:
    detector = costs.detectors[name]
    return detector.wall - (detector.inference if name in chosen.gpu else 0.0) + chosen.gpu.get(name, 0.0)


def processes_for(runs: Sequence[tuple[float, float]], goal: float) -> int:
    """Return the fewest detector processes for which 95 % of the runs of every detector end within *goal* seconds.

    *runs*: runs a second and seconds of a run, by detector; none: 0 processes. Raises InvalidInput when no number does.
    """
    if not runs:
        return 0
    longest = max(wall for _, wall in runs)
    if longest >= goal:
        msg = f"one run takes {longest:.1f} s: no number of processes ends it within {goal:.1f} s"
        raise InvalidInput(msg)
    servers = max(1, math.ceil(sum(rate * wall for rate, wall in runs) + 1e-9))
    while servers < _MOST_SERVERS:
        if wait95(runs, servers) + longest <= goal:
            return servers
        servers += max(1, servers // 1000)
    msg = "more detector processes than this model counts"
    raise InvalidInput(msg)


def wait95(runs: Sequence[tuple[float, float]], servers: int) -> float:
    """Return the 95th percentile of the wait before a run, in seconds; infinite when servers are too few.

    *runs*: runs a second and seconds of a run, by detector.
    """
    rate, offered = sum(rate for rate, _ in runs), sum(rate * wall for rate, wall in runs)
    if offered >= servers:
        return math.inf
    queued = erlang_c(offered, servers)
    if queued <= 0.05:
        return 0.0
    mean = offered / rate
    scattered = sum(rate * wall**2 for rate, wall in runs) / rate / mean**2  # 1 + squared coefficient of variation
    return mean * scattered / 2 / (servers - offered) * math.log(queued / 0.05)


def slowed(own: float, taken: float, cores: float) -> float:
    """Return how many times longer something takes that uses *own* cores by itself and yields to whoever comes.

    *taken*: cores that the others use on average. They come in bursts, not evenly: each core is theirs for the same
    share of the time, independently of the other cores (binomial), and what they leave is used up to *own*. Infinite
    when nothing is left.
    """
    whole = max(1, round(cores))
    share = taken / cores if cores > 0 else 1.0
    if share >= 1:
        return math.inf
    speed = sum(
        math.comb(whole, busy) * share**busy * (1 - share) ** (whole - busy) * min(own, whole - busy)
        for busy in range(whole + 1)
    )
    return max(1.0, min(own, whole) / speed)


def stretched(detector: DetectorCosts, taken: float, cores: float) -> float:
    """Return the seconds that a run takes beside others that use *taken* of *cores* on average."""
    return detector.wall * slowed(detector.cpu / detector.wall, taken, cores)


def erlang_c(offered: float, servers: int) -> float:
    """Return the probability that an arrival has to wait (M/M/c); *offered* load in erlangs, below *servers*."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def sustained(
    costs: UnitCosts,
    mix: Sequence[StudyKind],
    *,
    cores: float,
    reads: float,
    sender: float = 0.0,
    processes: int = 1,
    web_processes: int = 1,
) -> Sustained:
    """Return the most that one embedded installation takes in the long run.

    *processes* detector processes and *web_processes* web processes share *cores* with whoever sends, who needs
    *sender* CPU seconds per study.
    """
    load = load_of(costs, mix, reads=reads)
    detectors = sum(runs * costs.detectors[name].cpu for name, runs in load.runs.items())
    walls = sum(runs * costs.detectors[name].wall for name, runs in load.runs.items())
    limits = {
        "machine CPU": cores / (load.gateway + load.orchestration + detectors + sender),
        "event loop": web_processes / max(load.gateway * costs.gateway.loop_share, 1e-12),
        "detector processes": processes / max(walls, 1e-12),
    }
    name = min(limits, key=lambda key: limits[key])
    return Sustained(limits[name] * 3600, name)


def at_goal(
    costs: UnitCosts,
    mix: Sequence[StudyKind],
    *,
    cores: float,
    reads: float,
    goal: float,
    sender: float = 0.0,
    processes: int = 1,
    web_processes: int = 1,
) -> Sustained:
    """Return the highest rate at which 95 % of the runs of every detector end within *goal* seconds.

    What else runs takes cores from the detectors (``stretched``).
    """
    top = sustained(
        costs, mix, cores=cores, reads=reads, sender=sender, processes=processes, web_processes=web_processes
    )
    load = load_of(costs, mix, reads=reads)
    if not load.runs:
        return top

    def late(rate: float) -> bool:
        taken = rate * (load.gateway + load.orchestration + sender) / processes
        known = {name: stretched(costs.detectors[name], taken, cores / processes) for name in load.runs}
        runs = [(rate * load.runs[name], wall) for name, wall in known.items()]
        longest = max(wall + costs.detectors[name].report for name, wall in known.items())
        return not math.isfinite(longest) or wait95(runs, processes) + longest > goal

    low, high = 0.0, top.studies_per_hour / 3600
    if late(1e-9):
        return Sustained(0.0, "goal shorter than a run")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if late(middle) else (middle, high)
    return Sustained(low * 3600, top.bottleneck)
