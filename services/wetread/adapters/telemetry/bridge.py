"""Prometheus metrics over OTLP: the registry that ``/metrics`` shows is read at an interval and exported as it is.

No instrument exists twice. Names stay (``_total`` too), labels become attributes, sums and histograms are cumulative.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from wetread import __version__

_log = logging.getLogger("wetread.telemetry")
_UNITS: Final = {"seconds": "s", "bytes": "By"}
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


def metrics_data(families: Iterable[Family], resource: Resource, *, since_ns: int, now_ns: int) -> MetricsData:
    """Return the families in the SDK's form; families without samples are left out."""
    metrics = [metric for family in families for metric in _metrics(family, since_ns, now_ns)]
    scope = ScopeMetrics(InstrumentationScope("wetread", __version__), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metrics(family: Family, since: int, now: int) -> Iterator[Metric]:
    parts = family.name.split("_")
    unit = next((_UNITS[part] for part in reversed(parts) if part in _UNITS), "")
    if family.type == "histogram":
        points = [_histogram(labels, samples, since, now) for labels, samples in _by_labels(family)]
        if points:
            yield Metric(family.name, family.documentation, unit, Histogram(points, _CUMULATIVE))
        return
    counted = family.type == "counter"
    kept = [sample for sample in family.samples if not sample.name.endswith("_created")]
    numbers = [NumberDataPoint(dict(s.labels), since if counted else 0, now, s.value) for s in kept]
    if numbers:
        data = Sum(numbers, _CUMULATIVE, is_monotonic=True) if counted else Gauge(numbers)
        yield Metric(kept[0].name, family.documentation, unit, data)


def _by_labels(family: Family) -> Iterator[tuple[dict[str, str], list[Sample]]]:
    """Return the samples of each histogram of a family; those of its buckets in ascending order."""
    groups: defaultdict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    for sample in family.samples:
        labels = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        groups[labels].append(sample)
    for key, samples in groups.items():
        yield dict(key), samples


def _histogram(labels: dict[str, str], samples: list[Sample], since: int, now: int) -> HistogramDataPoint:
    buckets = sorted((float(s.labels["le"]), int(s.value)) for s in samples if s.name.endswith("_bucket"))
    counts = [count for _, count in buckets]
    total = next((s.value for s in samples if s.name.endswith("_sum")), 0.0)
    unknown: Any = None  # Prometheus keeps neither the least nor the greatest value; the fields are optional in OTLP
    return HistogramDataPoint(
        attributes=dict(labels),
        start_time_unix_nano=since,
        time_unix_nano=now,
        count=counts[-1],
        sum=total,
        bucket_counts=[count - before for count, before in zip(counts, [0, *counts], strict=False)],
        explicit_bounds=[bound for bound, _ in buckets[:-1]],  # the last one is +Inf
        min=unknown,
        max=unknown,
    )


class MetricPusher:
    """Exports a registry every *seconds* from a thread of its own, and a last time when it is stopped."""

    def __init__(
        self, registry: CollectorRegistry, exporter: MetricExporter, resource: Resource, *, seconds: float
    ) -> None:
        self._registry, self._exporter, self._resource = registry, exporter, resource
        self._seconds = seconds
        self._since = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def push(self) -> None:
        """Export once, now. Never raises."""
        try:
            families = list(self._registry.collect())
        except Exception as error:  # noqa: BLE001 - the database may be away
            _log.warning("metrics cannot be read", extra={"error": type(error).__name__})
            return
        now = time.time_ns()
        self._exporter.export(metrics_data(families, self._resource, since_ns=self._since, now_ns=now))

    def stop(self, seconds: float) -> None:
        """Export a last time and end; wait at most so long."""
        self._stopping.set()
        self._thread.join(seconds)
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            self.push()
        self.push()
