"""Metrics of the DIMSE edge, counted in its process. No label holds a title, an address or a UID."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.registry import Collector


class DimseMetrics:
    """``collectors``: to be registered where they are scraped."""

    def __init__(self) -> None:
        self._associations = Counter(
            "wetread_dimse_associations_total",
            "DICOM associations and connections by outcome: accepted, rejected, refused, tls-failed.",
            ("outcome",),
            registry=None,
        )
        self._requests = Counter(
            "wetread_dimse_requests_total",
            "DIMSE requests by service and status.",
            ("service", "status"),
            registry=None,
        )
        self._seconds = Histogram(
            "wetread_dimse_request_seconds", "Seconds from request to final response.", ("service",), registry=None
        )
        self._bytes = Counter(
            "wetread_dimse_received_bytes_total", "Bytes of instances stored by C-STORE.", registry=None
        )
        self._limited = Counter(
            "wetread_dimse_limited_total",
            "Associations and requests refused for a limit: associations, rate, size, storage.",
            ("limit",),
            registry=None,
        )
        self._sent = Counter(
            "wetread_dimse_sent_total",
            "Instances sent by purpose (get, move, result) and outcome.",
            ("purpose", "outcome"),
            registry=None,
        )
        self._certificates = Gauge(
            "wetread_dimse_certificate_expiry_timestamp_seconds",
            "When the first certificate in use ends, by file: certificate, authorities.",
            ("file",),
            registry=None,
            multiprocess_mode="min",
        )
        self.collectors: list[Collector] = [
            self._associations,
            self._requests,
            self._seconds,
            self._bytes,
            self._limited,
            self._sent,
            self._certificates,
        ]

    def association(self, outcome: str) -> None:
        """Count an association or a refused connection."""
        self._associations.labels(outcome).inc()

    def request(self, service: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(service, f"{status:04X}").inc()
        self._seconds.labels(service).observe(seconds)

    def received(self, size: int) -> None:
        """Count the bytes of a stored instance."""
        self._bytes.inc(size)

    def limited(self, limit: str) -> None:
        """Count what was refused for a limit."""
        self._limited.labels(limit).inc()

    def sent(self, purpose: str, outcome: str) -> None:
        """Count an instance that we sent."""
        self._sent.labels(purpose, outcome).inc()

    def certificates(self, ends: Mapping[str, float]) -> None:
        """Say when the certificates in use end."""
        for file, end in ends.items():
            self._certificates.labels(file).set(end)
