"""The figures of a run, and whether it passed: nothing lost, nothing silent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from stress_hour.running import Outcome, Study
from stress_hour.watching import Usage


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; NaN of nothing."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, round(share * len(ordered) + 0.5) - 1))]


@dataclass(slots=True)
class Summary:
    """Figures of a run. Times in seconds.

    ``lost``: instances that the server took and did not give back as they were, or of which it said nothing.
    ``silent``: Study Instance UIDs with what is missing. ``refused``: answers that were no success, by reason.
    ``turned_away``: studies that were refused until the last attempt. ``turnaround``: last byte sent to the last task's
    end, by kind; 0 where the outcome was known before the last byte. ``delayed``: the same with the time for which the
    study had to wait for a free association, so that a server that takes studies slowly does not look fast.
    ``occupied``: seconds for which runs had the detector process, those that decline a study once read included.
    """

    transactions: int
    instances: int
    gigabytes: float
    checked: int
    deleted: int
    results: int
    seconds: float
    sending_seconds: float
    lost: int
    silent: list[tuple[str, str]]
    refused: Counter[str]
    retried_in: int
    turned_away: int
    lateness: list[float]
    turnaround: dict[str, list[float]]
    delayed: dict[str, list[float]]
    starts: list[float]
    inferred: list[float]
    occupied: float
    outcomes: Counter[str]
    usage: Usage
    stored_bytes: int
    reclaimed_bytes: int
    cores: int = field(default_factory=lambda: os.cpu_count() or 1)

    @property
    def passed(self) -> bool:
        """Whether nothing was lost, silent or turned away."""
        return not self.lost and not self.silent and not self.turned_away

    @property
    def detector_runs(self) -> int:
        """Studies that a detector really read."""
        return len(self.inferred)

    @property
    def shares(self) -> dict[str, float]:
        """Return how busy each thing was that may be the bottleneck, 0..1.

        The embedded profile has one detector process, which may wait for a core while it is occupied.
        """
        occupied = self.occupied / max(self.usage.seconds, 1e-9)
        return self.usage.shares(self.cores) | {"detector processes": occupied}

    @property
    def bottleneck(self) -> tuple[str, float]:
        """What was busiest, and how busy (0..1)."""
        return max(self.shares.items(), key=lambda item: item[1])


def summarize(outcome: Outcome) -> Summary:
    """Count what a run led to."""
    studies = outcome.studies
    turnaround: dict[str, list[float]] = {}
    delayed: dict[str, list[float]] = {}
    for study in studies:
        if study.course is not None and study.course.ended:
            sent, kind = study.sent, study.sent.transaction.kind
            took = max(0.0, study.course.ended_at - sent.last_byte_at)
            turnaround.setdefault(kind, []).append(took)
            delayed.setdefault(kind, []).append(took + max(0.0, sent.first_byte_at - sent.due_at))
    courses = [study.course for study in studies if study.course is not None]
    return Summary(
        transactions=len(studies),
        instances=sum(len(study.sent.places) for study in studies),
        gigabytes=sum(study.sent.size for study in studies) / 1e9,
        checked=sum(study.checked.sound for study in studies if study.checked),
        deleted=sum(study.deleted for study in studies),
        results=sum(study.checked.others for study in studies if study.checked),
        seconds=outcome.seconds,
        sending_seconds=outcome.sending_seconds,
        lost=sum(lost_of(study) for study in studies),
        silent=[(study.sent.study_uid, why) for study in studies if (why := silence_of(study))],
        refused=Counter(reason for study in studies for reason in study.sent.refusals),
        retried_in=sum(bool(study.sent.refusals) and study.sent.complete for study in studies),
        turned_away=sum(study.sent.gave_up for study in studies),
        lateness=[study.sent.first_byte_at - study.sent.due_at for study in studies],
        turnaround=turnaround,
        delayed=delayed,
        starts=[seconds for course in courses for seconds in course.starts.values()],
        inferred=[seconds for course in courses for seconds in course.inferred],
        occupied=sum(course.occupied for course in courses),
        outcomes=Counter(f"{detector}: {state}" for course in courses for detector, state in course.outcomes.items()),
        usage=outcome.usage,
        stored_bytes=outcome.stored_bytes,
        reclaimed_bytes=outcome.reclaimed_bytes,
    )


def lost_of(study: Study) -> int:
    """Return the instances of a study that are lost: taken and not there, or neither taken nor refused."""
    unsaid = 0 if study.sent.gave_up else len(study.sent.places) - len(study.sent.accepted)
    return unsaid + (study.checked.lost if study.checked else len(study.sent.accepted))


def silence_of(study: Study) -> str:
    """Return what is silent about a study that the server took (any of)."""
    if not study.sent.accepted:
        return ""
    return "never followed" if study.course is None else study.course.silent


def lines(summary: Summary) -> list[str]:
    """Return the report of a run."""
    usage = summary.usage
    found = [
        (
            f"transactions {summary.transactions}, instances {summary.instances}, {summary.gigabytes:.2f} GB in "
            f"{summary.sending_seconds:.0f} s; all ended and checked after {summary.seconds:.0f} s"
        ),
        (
            f"checked byte for byte: {summary.checked} of {summary.instances} instances (all); result objects: "
            f"{summary.results}; studies deleted after the check: {summary.deleted}"
        ),
        f"LOST {summary.lost}   SILENT {len(summary.silent)}   turned away for good {summary.turned_away}",
        f"refused with reason: {dict(summary.refused) or 'none'}; studies got in by repetition: {summary.retried_in}",
        f"senders behind schedule: p95 {percentile(summary.lateness, 0.95):.2f} s, most {max(summary.lateness):.2f} s",
        "",
        "| kind | N | p50 s | p95 s | p99 s | longest s |",
        "|---|---|---|---|---|---|",
    ]
    for kind, values in sorted(summary.turnaround.items()):
        figures = " | ".join(f"{percentile(values, share):.2f}" for share in (0.5, 0.95, 0.99, 1.0))
        found.append(f"| {kind} | {len(values)} | {figures} |")
    found += [
        "(turnaround: last byte sent to the end of the study's last task)",
        "",
        *_runs(summary),
        "outcomes: " + ", ".join(f"{what} {count}" for what, count in sorted(summary.outcomes.items())),
        f"server CPU {usage.server_seconds:.0f} s: "
        + ", ".join(f"{role} {seconds:.1f} s" for role, seconds in usage.cpu.items()),
        f"server CPU per instance without detectors: {ingest_ms(summary):.2f} ms (stored, fetched once, maybe deleted)",
        (
            f"peak RSS of all server processes {usage.peak_bytes / 2**20:.0f} MiB; data folder at the end "
            f"{summary.stored_bytes / 1e9:.2f} GB, given back meanwhile {summary.reclaimed_bytes / 1e9:.2f} GB"
        ),
        "busy: " + ", ".join(f"{name} {share:.0%}" for name, share in summary.shares.items()),
    ]
    name, share = summary.bottleneck
    found.append(f"bottleneck: {name} ({share:.0%} busy)" + ("" if share > 0.7 else "; nothing was near its limit"))
    found += [f"SILENT {uid}: {why}" for uid, why in summary.silent[:20]]
    return found


def _runs(summary: Summary) -> list[str]:
    if not summary.inferred:
        return ["no detector ran"]
    found = [f"detector runs {summary.detector_runs}, median {percentile(summary.inferred, 0.5):.2f} s"]
    if summary.starts:  # of runs that a commit led to; a sender's manifest, or silence, has no commit's time
        starts = f"p50 {percentile(summary.starts, 0.5):.3f} s, p95 {percentile(summary.starts, 0.95):.3f} s"
        found.append(f"event to task start, waiting for a free detector included: N={len(summary.starts)}, {starts}")
    return found


def ingest_ms(summary: Summary) -> float:
    """Return the server's CPU per instance without its detectors, in ms."""
    others = summary.usage.server_seconds - summary.usage.cpu.get("detectors", 0.0)
    return others / max(summary.instances, 1) * 1000
