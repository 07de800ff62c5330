"""Memory over a long run: the slope of the server's resident memory, after its warm-up."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from stress_hour import images, mix
from stress_hour.running import READY_SECONDS, Terms, drive
from stress_hour.summary import Summary, summarize

from wetread.commands.local_server import local_server

_WARM_UP: Final = 1 / 3
"""Share of the run that does not count: caches fill, detectors load, allocators take their arenas."""


@dataclass(frozen=True, slots=True)
class Soak:
    """``rss``: seconds and bytes, once a second. ``slope``: MiB an hour; ``error``: its standard error."""

    summary: Summary
    rss: list[tuple[float, int]]
    slope: float
    error: float

    def lines(self) -> list[str]:
        """Return what is said of it."""
        per_study = self.slope * self.summary.seconds / 3600 / max(self.summary.transactions, 1) * 1024
        grows = abs(self.slope) > 2 * self.error
        return [
            f"{self.summary.transactions} studies ({self.summary.gigabytes:.1f} GB) in {self.summary.seconds:.0f} s",
            f"lost {self.summary.lost}, silent {len(self.summary.silent)}, turned away {self.summary.turned_away}",
            f"resident memory of all processes after the first third: {self.slope:+.1f} MiB/h "
            f"(standard error {self.error:.1f}), {per_study:+.1f} KiB per study"
            + ("" if grows else "; not distinguishable from none"),
            f"peak {self.summary.usage.peak_bytes / 2**20:.0f} MiB",
        ]


def measure(folder: Path, made: images.Images, *, minutes: float, scale: float, slices: int, seed: int) -> Soak:
    """Send the mix of the stress hour at *scale* times its rate for *minutes*."""
    transactions = mix.schedule(minutes=minutes, scale=scale, seed=seed, slices={"CT": slices})
    with (
        tempfile.TemporaryDirectory(prefix="wetread-report-", dir=folder) as scratch,
        local_server(Path(scratch), ready_seconds=READY_SECONDS) as server,
    ):
        summary = summarize(drive(server, Path(scratch), transactions, made, Terms(announce=True, delete=True)))
    rss = [sample for sample in summary.usage.rss if sample[0] <= summary.sending_seconds]
    return Soak(summary, rss, *slope(rss))


def slope(rss: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the least-squares slope of the samples after the warm-up and its standard error, in MiB an hour.

    Samples a second apart hang together, so the error is taken from the means of sixteen blocks.
    """
    last = rss[-1][0] if rss else 0.0
    late = [(seconds, size) for seconds, size in rss if seconds >= last * _WARM_UP]
    blocks = [block for block in np.array_split(np.array(late, dtype=float).reshape(-1, 2), 16) if len(block)]
    if len(blocks) < 3:
        return float("nan"), float("nan")
    hours, mebibytes = np.array([block.mean(axis=0) for block in blocks]).T / np.array([[3600.0], [2.0**20]])
    centred = hours - hours.mean()
    found = float(centred @ mebibytes / (centred @ centred))
    rest = mebibytes - mebibytes.mean() - found * centred
    return found, float(np.sqrt(rest @ rest / (len(blocks) - 2) / (centred @ centred)))
