"""Exporters that count: what was offered, what arrived, what failed. A collector that is away costs nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Final, TypeVar

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import Counter

_log = logging.getLogger("wetread.telemetry")
_TIMEOUT_MILLIS: Final = 10_000.0
Outcome = TypeVar("Outcome", bound=Enum)


class ExportMeter:
    """Counts items by signal (traces, logs, metrics) and outcome, and says once when the collector goes or returns.

    What was offered and neither arrived nor failed waits, or was dropped from a full queue.
    """

    def __init__(self) -> None:
        self.items = Counter(
            "wetread_telemetry_items_total",
            "Spans, log records and metric points for the collector by signal and outcome: offered, exported, failed.",
            ("signal", "outcome"),
            registry=None,
        )
        self._failing: set[str] = set()

    def offered(self, signal: str, count: int = 1) -> None:
        """Count what is to be exported."""
        self.items.labels(signal, "offered").inc(count)

    def counted(self, signal: str, count: int, export: Callable[[], Outcome], outcomes: type[Outcome]) -> Outcome:
        """Export that many items; never raises: *outcomes* has SUCCESS and FAILURE."""
        try:
            result = export()
        except Exception:  # noqa: BLE001 - telemetry is never a reason to fail
            result = outcomes["FAILURE"]
        self.done(signal, count, success=result is outcomes["SUCCESS"])
        return result

    def done(self, signal: str, count: int, *, success: bool) -> None:
        """Count an attempt to export that many items."""
        self.items.labels(signal, "exported" if success else "failed").inc(count)
        if success and signal in self._failing:
            self._failing.discard(signal)
            _log.info("the collector takes telemetry again", extra={"signal": signal})
        elif not success and signal not in self._failing:
            self._failing.add(signal)
            _log.warning("the collector does not take telemetry", extra={"signal": signal})


class CountedSpanExporter(SpanExporter):
    """A span exporter with its outcome counted."""

    def __init__(self, exporter: SpanExporter, meter: ExportMeter) -> None:
        self._exporter, self._meter = exporter, meter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; never raises."""
        return self._meter.counted("traces", len(spans), partial(self._exporter.export, spans), SpanExportResult)

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()


class CountedLogExporter(LogRecordExporter):
    """A log exporter with its outcome counted."""

    def __init__(self, exporter: LogRecordExporter, meter: ExportMeter) -> None:
        self._exporter, self._meter = exporter, meter

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export a batch; never raises."""
        return self._meter.counted("logs", len(batch), partial(self._exporter.export, batch), LogRecordExportResult)

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back here."""
        return self._exporter.force_flush(timeout_millis)


class CountedMetricExporter(MetricExporter):
    """A metric exporter with its outcome counted."""

    def __init__(self, exporter: MetricExporter, meter: ExportMeter) -> None:
        super().__init__()
        self._exporter, self._meter = exporter, meter

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = _TIMEOUT_MILLIS, **kwargs: object
    ) -> MetricExportResult:
        """Export one collection; never raises."""
        count = sum(
            len(metric.data.data_points)
            for of_resource in metrics_data.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        )
        self._meter.offered("metrics", count)
        export = partial(self._exporter.export, metrics_data, timeout_millis, **kwargs)
        return self._meter.counted("metrics", count, export, MetricExportResult)

    def force_flush(self, timeout_millis: float = _TIMEOUT_MILLIS) -> bool:
        """Nothing is held back here."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = _TIMEOUT_MILLIS, **kwargs: object) -> None:
        """End the exporter."""
        self._exporter.shutdown(timeout_millis, **kwargs)
