"""Metrics of the read cache before a bucket, counted in each process that reads through it."""

from __future__ import annotations

from prometheus_client import Counter
from prometheus_client.registry import Collector


class ReadCacheMetrics:
    """``collectors``: to be registered where they are scraped."""

    def __init__(self) -> None:
        self._blocks = Counter(
            "wetread_read_cache_blocks_total",
            "Blocks of objects that were read, by outcome: hit (on the local disk), miss (fetched from the bucket).",
            ("outcome",),
            registry=None,
        )
        self.collectors: list[Collector] = [self._blocks]

    def read(self, hits: int, misses: int) -> None:
        """Count the blocks of one read."""
        self._blocks.labels("hit").inc(hits)
        self._blocks.labels("miss").inc(misses)
