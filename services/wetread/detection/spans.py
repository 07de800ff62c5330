"""Spans of a worker process. They go back with the answer: the process needs no SDK and no way to the collector."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from wetread.core import tracing
from wetread.core.tracing import FinishedSpan, Kind, Value, ids, sampled


class SpanRecorder:
    """``Tracer`` that keeps what has ended, for one order at a time. Only spans of a sampled trace are kept."""

    def __init__(self) -> None:
        self._finished: list[FinishedSpan] = []

    def start(
        self, name: str, *, kind: Kind, parent: str | None, attributes: Mapping[str, Value], remote: bool
    ) -> tracing.Span:
        """Begin a span; see the port. *remote* makes no difference here."""
        del remote
        return _Recorded(self._finished, name, kind, parent, dict(attributes))

    def adopt(self, spans: Sequence[FinishedSpan]) -> None:
        """Keep spans of somebody else."""
        self._finished.extend(spans)

    def take(self) -> list[dict[str, Any]]:
        """Return what has ended since the last call, as JSON values."""
        done, self._finished[:] = [asdict(span) for span in self._finished], []
        return done


def finished_spans(answer: Mapping[str, Any]) -> list[FinishedSpan]:
    """Return the spans of a worker's answer."""
    return [FinishedSpan(**span) for span in answer.get("spans", ())]


class _Recorded:
    def __init__(
        self, into: list[FinishedSpan], name: str, kind: Kind, parent: str | None, attributes: dict[str, Value]
    ) -> None:
        self._into, self._name, self._kind, self._attributes = into, name, kind, attributes
        self._parent = parent
        self._begun = time.time_ns()
        # Outside of an order (the warm-up) there is no trace to belong to: nothing is kept.
        trace_id = ids(parent)[0] if parent else secrets.token_hex(16)
        flags = "01" if parent and sampled(parent) else "00"
        self.traceparent = f"00-{trace_id}-{secrets.token_hex(8)}-{flags}"

    def set(self, name: str, value: Value) -> None:
        self._attributes[name] = value

    def end(self, *, error: str | None = None) -> None:
        if self._parent is None or not sampled(self.traceparent):
            return
        self._into.append(
            FinishedSpan(
                self._name,
                self._kind,
                self.traceparent,
                self._parent,
                self._begun,
                time.time_ns(),
                self._attributes,
                error,
            )
        )
