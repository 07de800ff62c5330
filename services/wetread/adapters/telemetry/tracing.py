"""The tracer on the OpenTelemetry SDK. It is ours alone: no provider is made global.

Libraries that look for a global provider (FastAPI, Ray) would write request paths and queries into spans of their own,
and those hold UIDs and names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from wetread import __version__
from wetread.core.tracing import FinishedSpan, Kind, Value, ids, sampled

_KINDS: Final[Mapping[str, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
_NO_CONTEXT: Final = Context()


class OtelSpan:
    """``Span`` on one of the SDK's."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"

    def set(self, name: str, value: Value) -> None:
        """Add an attribute."""
        self._span.set_attribute(name, value)

    def end(self, *, error: str | None = None) -> None:
        """End now."""
        _fail(self._span, error)
        self._span.end()


class OtelTracer:
    """``Tracer`` on a provider that was made with ``GivenIds`` (without it adopted spans lose their ids)."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("wetread", __version__)

    def start(
        self, name: str, *, kind: Kind, parent: str | None, attributes: Mapping[str, Value], remote: bool
    ) -> OtelSpan:
        """Begin a span; see the port."""
        context = _NO_CONTEXT if parent is None else span_context(parent, remote=remote)
        return OtelSpan(self._tracer.start_span(name, context, _KINDS[kind], dict(attributes)))

    def adopt(self, spans: Sequence[FinishedSpan]) -> None:
        """Repeat spans that have ended elsewhere, with their ids and times."""
        for done in spans:
            token = GivenIds.given.set(int(ids(done.traceparent)[1], 16))
            try:
                span = self._tracer.start_span(
                    done.name,
                    span_context(done.parent, remote=False),
                    _KINDS[done.kind],
                    dict(done.attributes),
                    start_time=done.start_ns,
                )
            finally:
                GivenIds.given.reset(token)
            _fail(span, done.error)
            span.end(done.end_ns)


class GivenIds(IdGenerator):
    """Random ids (W3C Trace Context 2.2.2.1), except for a span that has one."""

    given: ContextVar[int | None] = ContextVar("wetread_span_id", default=None)

    def __init__(self) -> None:
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        """Return the given id or a random one."""
        return self.given.get() or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return a random id."""
        return self._random.generate_trace_id()


def span_context(traceparent: str, *, remote: bool) -> Context:
    """Return the SDK's context of a valid traceparent."""
    trace_id, span_id = ids(traceparent)
    flags = TraceFlags(TraceFlags.SAMPLED if sampled(traceparent) else TraceFlags.DEFAULT)
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=remote, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(parent), _NO_CONTEXT)


def _fail(span: trace.Span, error: str | None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
