"""Prometheus metrics: requests counted in process, the state of the work read from the database at scrape time.

Every metric is listed in docs/operations/metrics.md (tested). No label ever holds a UID or a patient attribute.
"""

from __future__ import annotations

import os
from collections import Counter as Counter_
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from wetread.adapters.index.database import connection_of
from wetread.adapters.index.turnarounds import BOUNDS, histograms
from wetread.core.ports import Database

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_QUERIES: Final[tuple[tuple[str, str, tuple[str, ...], str], ...]] = (
    ("wetread_studies", "Studies in the index.", (), "SELECT count(*) FROM studies"),
    ("wetread_instances", "Instances in the index.", (), "SELECT count(*) FROM instances"),
    (
        "wetread_tenant_studies",
        "Studies in the index by tenant.",
        ("tenant",),
        "SELECT tenant, count(*) FROM studies GROUP BY 1",
    ),
    (
        "wetread_tenant_stored_bytes",
        "Bytes of indexed instances by tenant.",
        ("tenant",),
        "SELECT tenant, sum(length) FROM instances GROUP BY 1",
    ),
    (
        "wetread_tenant_results",
        "Results of detectors by tenant.",
        ("tenant",),
        "SELECT tenant, count(*) FROM results GROUP BY 1",
    ),
    (
        "wetread_tasks",
        "AI tasks by detector and state.",
        ("detector", "state"),
        "SELECT detector, state, count(*) FROM tasks GROUP BY 1, 2",
    ),
    (
        "wetread_task_reasons",
        "AI tasks that ended without an answer, by detector, state and typed reason.",
        ("detector", "state", "reason"),
        "SELECT detector, state, reason, count(*) FROM tasks WHERE reason IS NOT NULL GROUP BY 1, 2, 3",
    ),
    (
        "wetread_worklist_open",
        "Open studies on the worklist by priority.",
        ("priority",),
        "SELECT priority, count(*) FROM reading_order WHERE state = 'open' GROUP BY 1",
    ),
    (
        "wetread_worklist_oldest_timestamp_seconds",
        "Arrival of the oldest open study by priority.",
        ("priority",),
        "SELECT priority, min(arrival) FROM reading_order WHERE state = 'open' GROUP BY 1",
    ),
    (
        "wetread_breakers_open",
        "Detectors whose flags do not move the reading order, over all tenants.",
        ("detector",),
        "SELECT detector, count(*) FROM breakers WHERE opened_at IS NOT NULL GROUP BY 1",
    ),
    (
        "wetread_readings_open",
        "Studies in the hands of readers.",
        (),
        "SELECT count(*) FROM reading_claims WHERE ended_at IS NULL",
    ),
    (
        "wetread_deliveries",
        "Webhook deliveries by state.",
        ("state",),
        "SELECT state, count(*) FROM deliveries GROUP BY 1",
    ),
    (
        "wetread_dicom_sends",
        "Results on their way to DICOM destinations by state.",
        ("state",),
        "SELECT state, count(*) FROM dicom_sends GROUP BY 1",
    ),
    (
        "wetread_oldest_lease_timestamp_seconds",
        "When the lease ends or ended that is the first to end of those of the worker processes and their leader.",
        (),
        "SELECT lease_until FROM executors ORDER BY lease_until LIMIT 1",
    ),
    (
        "wetread_audit_broken_links",
        "Entries of the audit trail that did not follow from the one before when it was last checked.",
        (),
        "SELECT faults FROM upkeep WHERE name = 'audit-chain' AND ended_at IS NOT NULL",
    ),
    (
        "wetread_audit_checked_timestamp_seconds",
        "When the audit trail was last checked from end to end.",
        (),
        "SELECT ended_at FROM upkeep WHERE name = 'audit-chain' AND ended_at IS NOT NULL",
    ),
    (
        "wetread_backup_timestamp_seconds",
        "When a backup was last noted (wetread db backup-done).",
        (),
        "SELECT ended_at FROM upkeep WHERE name = 'backup'",
    ),
    (
        "wetread_database_archived_timestamp_seconds",
        "When PostgreSQL last archived a segment of its write-ahead log.",
        (),
        "SELECT extract(epoch FROM last_archived_time) FROM pg_stat_archiver WHERE last_archived_time IS NOT NULL",
    ),
    (
        "wetread_database_connections",
        "Connections to the PostgreSQL server: used, and the limit of it.",
        ("kind",),
        """SELECT 'used', CAST(sum(numbackends) AS integer) FROM pg_stat_database
           UNION ALL SELECT 'limit', CAST(setting AS integer) FROM pg_settings WHERE name = 'max_connections'""",
    ),
    (
        "wetread_queue_depth",
        "Durable workflows waiting or running, by queue and status.",
        ("queue", "status"),
        """SELECT coalesce(queue_name, ''), status, count(*) FROM {queues}workflow_status
           WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') GROUP BY 1, 2""",
    ),
    (
        "wetread_queue_oldest_timestamp_seconds",
        "When the oldest waiting workflow of a queue was queued.",
        ("queue",),
        """SELECT coalesce(queue_name, ''), min(created_at) / 1000.0 FROM {queues}workflow_status
           WHERE status = 'ENQUEUED' GROUP BY 1""",
    ),
)


_QUEUE_SCHEMA: Final = "dbos"
"""Where the durable queue's tables lie on PostgreSQL; in SQLite all lie together."""
_BY_PAIR: Final = frozenset({"wetread_tasks", "wetread_task_reasons"})
_STORED_BYTES: Final = ("wetread_stored_bytes", "Bytes of indexed instances.")
_TENANTS: Final = 50
"""Tenants with a label of their own, those with most; the rest are ``other``."""


class DatabaseCollector(Collector):
    """Gauges and histograms read from the database when scraped."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Name the metrics without opening the database."""
        gauges = [GaugeMetricFamily(name, help_, labels=labels) for name, help_, labels, _ in _QUERIES]
        return [*gauges, GaugeMetricFamily(*_STORED_BYTES), _turnaround()]

    def collect(self) -> Iterator[Metric]:
        """Read everything in one snapshot."""
        with self._database.read() as tx:
            connection = connection_of(tx)
            queues = f"{_QUEUE_SCHEMA}." if connection.dialect.name == "postgresql" else ""
            turnaround = _turnaround()
            for of, per_bucket, seconds in histograms(connection):
                bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
                turnaround.add_metric(list(of), list(zip(bounds, accumulate(per_bucket), strict=True)), seconds)
            yield turnaround
            for name, help_, labels, query in _QUERIES:
                gauge = GaugeMetricFamily(name, help_, labels=labels)
                try:
                    rows = connection.execute(text(query.replace("{queues}", queues))).all()
                except OperationalError:  # the durable queue's tables come with the worker; SQLite has no connections
                    rows = []
                counted: Counter_[tuple[str, ...]] = Counter_()
                for row in rows:  # the pairs of a fan-out (ich.3f2a9c1d) count for their detector
                    labels_of = (str(value).partition(".")[0] if name in _BY_PAIR else str(value) for value in row[:-1])
                    counted[tuple(labels_of)] += row[-1]
                if name == "wetread_tenant_stored_bytes":
                    yield GaugeMetricFamily(*_STORED_BYTES, float(counted.total()))
                shown = _largest(counted) if labels == ("tenant",) else counted
                for key, count in shown.items():
                    gauge.add_metric(list(key), float(count))
                yield gauge


def _largest(counted: Counter_[tuple[str, ...]]) -> Counter_[tuple[str, ...]]:
    largest = Counter_(dict(counted.most_common(_TENANTS)))
    if len(largest) < len(counted):
        largest[("other",)] += counted.total() - largest.total()
    return largest


def _turnaround() -> HistogramMetricFamily:
    return HistogramMetricFamily(
        "wetread_turnaround_seconds",
        "Seconds from the last received byte to the stored result, the raised study, the told receiver.",
        labels=("clock", "site", "modality", "finding"),
    )


class RequestCount(Protocol):
    """How many requests are being answered."""

    def change(self, by: int) -> None:
        """So many more are being answered by this process, or less."""

    def total(self) -> int:
        """Return how many all processes of this server are answering."""


class OwnRequests:
    """``RequestCount`` of a server that is one process."""

    def __init__(self) -> None:
        self._open = 0

    def change(self, by: int) -> None:
        """Count."""
        self._open += by

    def total(self) -> int:
        """Return the count."""
        return self._open


class _InFlight(Collector):
    """The gauge of requests being answered."""

    def __init__(self, requests: RequestCount) -> None:
        self._requests = requests

    def describe(self) -> Iterator[Metric]:
        """Name the metric."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        """Read the count."""
        yield GaugeMetricFamily("wetread_http_in_flight", "HTTP requests being served.", self._requests.total())


def count_together(folder: str, process: str) -> None:
    """Keep what this process counts in *folder*, where its siblings see it and whoever follows it goes on counting.

    ``process``: its name among them. To be called before anything is counted.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of a server. ``folder``: where all its processes count (``count_together``); None: it is one."""

    def __init__(self, database: Database, requests: RequestCount | None = None, folder: str | None = None) -> None:
        self._folder = folder
        self._open = requests or OwnRequests()
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "wetread_http_requests_total", "HTTP requests.", ("route", "method", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "wetread_http_request_seconds",
            "Seconds from request to end of response.",
            ("route",),
            registry=self.registry,
        )
        self.audit_lost = Counter(
            "wetread_audit_lost_total", "Accesses that the audit trail could not keep.", registry=self.registry
        )
        self._counters: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._read = (_InFlight(self._open), DatabaseCollector(database))
        for collector in self._read:
            self.registry.register(collector)

    def began(self) -> None:
        """A request has come."""
        self._open.change(1)

    def ended(self) -> None:
        """A request has been answered."""
        self._open.change(-1)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. Routes and methods come from closed lists."""
        key = (route, method, status)
        counters = self._counters.get(key)
        if counters is None:
            counted = self.requests.labels(route, method, str(status))
            counters = self._counters[key] = (counted, self.seconds.labels(route))
        counters[0].inc()
        counters[1].observe(seconds)

    def render(self) -> bytes:
        """Return the exposition text: the sums over all processes of the server."""
        if self._folder is None:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        MultiProcessCollector(together, self._folder)  # type: ignore[no-untyped-call]
        for collector in self._read:
            together.register(collector)
        return generate_latest(together)
