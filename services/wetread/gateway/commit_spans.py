"""Spans of a group commit: one group serves several requests, and each sees it in its own trace."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from wetread.core import tracing

if TYPE_CHECKING:
    from wetread.gateway.ingest import Batch, Transfer


class CommitSpans:
    """A span per transfer of a group, open in a ``with`` block; none while nobody listens."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._spans: dict[int, tracing.Span] = {}
        self._error: str | None = None

    def of(self, transfer: Transfer) -> tracing.Scope:
        """Return a context in which what is told and queued belongs to the commit of *transfer*."""
        span = self._spans.get(id(transfer))
        return tracing.continued(transfer.trace if span is None else span.traceparent)

    def fail(self, error: str) -> None:
        """The group was not stored."""
        self._error = error

    def __enter__(self) -> Self:
        for batch in self._batches if tracing.enabled() else ():
            if id(batch.transfer) in self._spans:
                continue
            counts = {"wetread.instances": len(batch.parts), "wetread.group": len(self._batches)}
            span = tracing.start("ingest.commit", parent=batch.transfer.trace, remote=False, attributes=counts)
            if span is not None:
                self._spans[id(batch.transfer)] = span
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for span in self._spans.values():
            span.end(error=kind.__name__ if kind is not None else self._error)
