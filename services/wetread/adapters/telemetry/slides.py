"""Metrics of slide analysis, counted in the worker process. No label holds a UID or a patient attribute."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Histogram
from prometheus_client.registry import Collector

_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200)


class SlideMetrics:
    """``collectors``: to be registered where they are scraped."""

    def __init__(self) -> None:
        self._tiles = Counter(
            "wetread_pathology_tiles_total",
            "Tiles of slides by outcome: done, failed, resumed.",
            ("status",),
            registry=None,
        )
        self._stages = Counter(
            "wetread_pathology_stage_seconds_total",
            "Seconds that workers spent per stage: read, infer, measure, write.",
            ("stage",),
            registry=None,
        )
        self._recomputed = Counter(
            "wetread_pathology_chunks_recomputed_total", "Chunks of tiles given out a second time.", registry=None
        )
        self._quarantined = Counter(
            "wetread_pathology_quarantined_total", "Tiles set aside because no worker survived them.", registry=None
        )
        self._runs = Histogram(
            "wetread_pathology_run_seconds",
            "Seconds of a slide run by outcome: a state, or the reason of a failure.",
            ("outcome",),
            buckets=_SECONDS,
            registry=None,
        )
        self.collectors: list[Collector] = [
            self._tiles,
            self._stages,
            self._recomputed,
            self._quarantined,
            self._runs,
        ]

    def advanced(self, counts: Mapping[str, float]) -> None:
        """Take the counts of a run since the last call."""
        for status in ("done", "failed", "resumed"):
            self._tiles.labels(status).inc(max(counts.get(status, 0.0), 0.0))
        for stage in ("read", "infer", "measure", "write"):
            self._stages.labels(stage).inc(max(counts.get(stage, 0.0), 0.0))
        self._recomputed.inc(max(counts.get("recomputed", 0.0), 0.0))
        self._quarantined.inc(max(counts.get("quarantined", 0.0), 0.0))

    def ended(self, outcome: str, seconds: float) -> None:
        """Count a run."""
        self._runs.labels(outcome).observe(seconds)
