"""An OTLP/HTTP receiver of our own: a plain web server on loopback that decodes the protobuf of the specification.

Independent of what is tested: it knows nothing of the SDK, only the messages of opentelemetry-proto.
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MESSAGES = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}


@dataclass(frozen=True)
class ReceivedSpan:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    service: str
    kind: int
    status: int
    start: int
    end: int
    attributes: dict[str, Any]


@dataclass
class OtlpReceiver:
    """Listens while it is entered. ``status``: what it answers (set 503 for a collector in trouble)."""

    status: int = 200
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _requests: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.headers["Content-Type"] == "application/x-protobuf"
                if receiver.status == 200:
                    receiver.take(self.path, body, dict(self.headers.items()))
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        message = MESSAGES[path]()
        message.ParseFromString(body)
        with self._lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self._requests.append(message)

    def _all(self, kind: type) -> list[Any]:
        with self._lock:
            return [message for message in self._requests if isinstance(message, kind)]

    @property
    def spans(self) -> list[ReceivedSpan]:
        return [
            ReceivedSpan(
                name=span.name,
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                service=_values(of_resource.resource.attributes)["service.name"],
                kind=span.kind,
                status=span.status.code,
                start=span.start_time_unix_nano,
                end=span.end_time_unix_nano,
                attributes=_values(span.attributes),
            )
            for message in self._all(ExportTraceServiceRequest)
            for of_resource in message.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """The newest of each metric by name."""
        return {
            metric.name: metric
            for message in self._all(ExportMetricsServiceRequest)
            for of_resource in message.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        }

    @property
    def records(self) -> list[Any]:
        return [
            record
            for message in self._all(ExportLogsServiceRequest)
            for of_resource in message.resource_logs
            for of_scope in of_resource.scope_logs
            for record in of_scope.log_records
        ]

    def trace(self, trace_id: str) -> dict[str, list[ReceivedSpan]]:
        """Spans of one trace by name."""
        found: dict[str, list[ReceivedSpan]] = {}
        for span in self.spans:
            if span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found


def settings_of(receiver: OtlpReceiver) -> dict[str, str]:
    """Return the standard variables that send everything to *receiver*, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_BLRP_SCHEDULE_DELAY": "200",
        "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    }


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
