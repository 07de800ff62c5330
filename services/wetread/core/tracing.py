"""Traces (W3C Trace Context) behind a small port: what is going on, in which trace, as told to whoever is listening.

Ambient like logging: code opens spans, the composition root installs a tracer or none. Without one ``span`` returns one
shared object that does nothing. What crosses a process border (an event, a queued workflow, an order to a detector, a
request to a server) carries ``current()``, a ``traceparent`` value, so that the next process goes on in the same trace.

Names and attributes are constants, counts and keyed hashes: no UID, no name, no text of an exception.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Protocol, Self, TypeVar

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool
_P = ParamSpec("_P")
_R = TypeVar("_R")

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 1


class Span(Protocol):
    """Something that goes on. ``traceparent`` names it to its children."""

    @property
    def traceparent(self) -> str:
        """The W3C value."""

    def set(self, name: str, value: Value) -> None:
        """Add an attribute."""

    def end(self, *, error: str | None = None) -> None:
        """It is over; *error*: the type of what went wrong (semantic convention ``error.type``)."""


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A span that another process has measured. Times in nanoseconds since 1970; JSON values only."""

    name: str
    kind: Kind
    traceparent: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str | None = None


class Tracer(Protocol):
    """Whoever listens."""

    def start(
        self, name: str, *, kind: Kind, parent: str | None, attributes: Mapping[str, Value], remote: bool
    ) -> Span:
        """Begin a span under *parent* (a valid traceparent), or a new trace. *remote*: of another process."""

    def adopt(self, spans: Sequence[FinishedSpan]) -> None:
        """Take spans of a process that has no tracer of its own."""


_installed: Tracer | None = None
_current: ContextVar[str | None] = ContextVar("wetread_trace", default=None)


def install(tracer: Tracer | None) -> None:
    """Have spans of this process told to *tracer*; None: to nobody."""
    global _installed  # noqa: PLW0603 - ambient on purpose, see above
    _installed = tracer


def enabled() -> bool:
    """Return whether anybody listens."""
    return _installed is not None


def current() -> str | None:
    """Return the traceparent of what goes on in this thread or task, None outside of any trace."""
    return _current.get()


def ids(traceparent: str) -> tuple[str, str]:
    """Return trace id and span id of a valid traceparent."""
    _, trace_id, span_id, _ = traceparent.split("-")
    return trace_id, span_id


def sampled(traceparent: str) -> bool:
    """Return whether a valid traceparent asks for its trace to be kept."""
    return bool(int(traceparent[-2:], 16) & _SAMPLED)


def parse(header: str | None) -> str | None:
    """Return a received traceparent in the form of version 00; None for one that is none (W3C 2.2, 3.2.2)."""
    found = _TRACEPARENT.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return f"00-{trace_id}-{span_id}-{int(flags, 16) & _SAMPLED:02x}"


def start(
    name: str,
    *,
    kind: Kind = "internal",
    parent: str | None = None,
    remote: bool = True,
    attributes: Mapping[str, Value] | None = None,
) -> Span | None:
    """Begin a span that is ended by hand and is not current, None when nobody listens.

    *remote*: the given *parent* is of another process.
    """
    if _installed is None:
        return None
    given = parent if parent is not None else _current.get()
    far = remote and parent is not None
    return _installed.start(name, kind=kind, parent=given, attributes=attributes or {}, remote=far)


def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, attributes: Mapping[str, Value] | None = None
) -> Scope:
    """Return a context in which the span is current; *parent* (a valid traceparent) instead of what is current."""
    if _installed is None:
        return _NOTHING
    return _Active(start(name, kind=kind, parent=parent, attributes=attributes))


def continued(traceparent: str | None) -> Scope:
    """Return a context that goes on in the trace of *traceparent* without a span of its own."""
    return _NOTHING if _installed is None or traceparent is None else _Active(None, traceparent)


def adopt(spans: Sequence[FinishedSpan]) -> None:
    """Pass on what another process has measured."""
    if _installed is not None and spans:
        _installed.adopt(spans)


def traced(name: str, function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return *function*, or coroutine function, with a span around each call."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*args: Any, **keywords: Any) -> Any:
            with span(name):
                return await function(*args, **keywords)

        return awaited  # type: ignore[return-value]

    @functools.wraps(function)
    def called(*args: _P.args, **keywords: _P.kwargs) -> _R:
        with span(name):
            return function(*args, **keywords)

    return called


class Scope:
    """The span of a ``with`` block as seen from inside; this one stands for none."""

    __slots__ = ()

    def set(self, name: str, value: Value) -> None:
        """Add an attribute to the span."""

    def fail(self, error: str) -> None:
        """Say that it went wrong although no exception leaves the block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the block."""


class _Active(Scope):
    __slots__ = ("_error", "_span", "_token", "_traceparent")

    def __init__(self, span: Span | None, traceparent: str = "") -> None:
        self._span = span
        self._traceparent = traceparent if span is None else span.traceparent
        self._error: str | None = None
        self._token: Token[str | None] | None = None

    def set(self, name: str, value: Value) -> None:
        if self._span is not None:
            self._span.set(name, value)

    def fail(self, error: str) -> None:
        self._error = error

    def __enter__(self) -> Self:
        self._token = _current.set(self._traceparent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        if self._span is not None:
            self._span.end(error=kind.__name__ if kind is not None else self._error)


_NOTHING: Final = Scope()
