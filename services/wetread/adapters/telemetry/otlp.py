"""Traces, metrics and logs over OTLP (HTTP, protobuf). Everything leaves in batches from threads of its own.

What the SDK reads from the environment itself holds: ``OTEL_BSP_*``, ``OTEL_BLRP_*``, ``OTEL_METRIC_EXPORT_INTERVAL``,
``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_SERVICE_NAME``, and time-outs, certificates and compression of the exporters.
"""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.util.re import parse_env_headers
from prometheus_client import CollectorRegistry

from wetread import __version__
from wetread.adapters.telemetry.bridge import MetricPusher
from wetread.adapters.telemetry.export import (
    CountedLogExporter,
    CountedMetricExporter,
    CountedSpanExporter,
    ExportMeter,
)
from wetread.adapters.telemetry.records import OtlpLogHandler
from wetread.adapters.telemetry.tracing import GivenIds, OtelTracer

_CLOSE_SECONDS: Final = 3.0
"""A stopping process waits so long for a collector that does not answer."""
_INTERVAL_MILLIS: Final = 60_000.0


@dataclass(frozen=True, slots=True)
class Collector:
    """Where telemetry goes and who it is from. ``headers``: ``name=value`` by comma, values URL-encoded."""

    endpoint: str
    service: str
    instance: str
    headers: str = ""
    ratio: float = 1.0
    signals: frozenset[str] = frozenset({"traces", "metrics", "logs"})


class Otlp:
    """The pipelines of one process. Open from the start; ``close`` exports what is left."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        attributes: dict[str, Any] = {"service.version": __version__, "service.instance.id": collector.instance}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = collector.service
        self._resource = Resource.create(attributes)
        self.meter = ExportMeter()
        self.tracer: OtelTracer | None = None
        self.log_handler: logging.Handler | None = None
        self._closing: list[Any] = []
        self._pushers: list[MetricPusher] = []
        if "traces" in collector.signals:
            sampler = ParentBased(TraceIdRatioBased(collector.ratio))
            spans = TracerProvider(sampler, self._resource, shutdown_on_exit=False, id_generator=GivenIds())
            exporter = CountedSpanExporter(OTLPSpanExporter(**self._target("traces")), self.meter)
            spans.add_span_processor(_OfferedSpans(exporter, self.meter))
            self.tracer = OtelTracer(spans)
            self._closing.append(spans)
        if "logs" in collector.signals:
            records = LoggerProvider(self._resource, shutdown_on_exit=False)
            to_log = CountedLogExporter(OTLPLogExporter(**self._target("logs")), self.meter)
            records.add_log_record_processor(BatchLogRecordProcessor(to_log))
            self.log_handler = OtlpLogHandler(records.get_logger("wetread", __version__), self.meter)
            self._closing.append(records)

    def push(self, registry: CollectorRegistry) -> None:
        """Export this registry's metrics from now on."""
        if "metrics" not in self._collector.signals:
            return
        millis = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or _INTERVAL_MILLIS)
        exporter = CountedMetricExporter(OTLPMetricExporter(**self._target("metrics")), self.meter)
        self._pushers.append(MetricPusher(registry, exporter, self._resource, seconds=millis / 1000))

    def close(self) -> None:
        """Export what is left and end; a collector that does not answer is not waited for long."""
        ends = [threading.Thread(target=each.shutdown, daemon=True) for each in self._closing]
        for end in ends:
            end.start()
        for pusher in self._pushers:
            pusher.stop(_CLOSE_SECONDS)
        for end in ends:
            end.join(_CLOSE_SECONDS)

    def _target(self, signal: str) -> dict[str, Any]:
        """Return what an exporter is made with; a signal's own endpoint of the environment holds (OTLP 1.x)."""
        own = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        headers = parse_env_headers(self._collector.headers, liberal=True)
        return {"endpoint": own or f"{self._collector.endpoint.rstrip('/')}/v1/{signal}", "headers": headers}


class _OfferedSpans(BatchSpanProcessor):
    """Counts what comes in: the batch processor drops silently when its queue is full."""

    def __init__(self, exporter: CountedSpanExporter, meter: ExportMeter) -> None:
        super().__init__(exporter)
        self._meter = meter

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that is over."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._meter.offered("traces")
        super().on_end(span)
