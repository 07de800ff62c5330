"""The tracing port: nothing without a tracer, W3C values, nesting, and what crosses threads and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wetread.core import tracing
from wetread.core.cloudevents import cloud_event, notification
from wetread.core.events import Event, EventType
from wetread.detection.spans import SpanRecorder, finished_spans

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def recorder() -> Iterator[SpanRecorder]:
    found = SpanRecorder()
    tracing.install(found)
    yield found
    tracing.install(None)


def test_without_a_tracer_nothing_happens_and_nothing_is_made() -> None:
    assert not tracing.enabled()
    one, other = tracing.span("a", parent=CALLER), tracing.span("b")
    assert one is other, "one shared object: no allocation on the way of a request"
    with one as scope:
        scope.set("x", 1)
        scope.fail("y")
        assert tracing.current() is None
    with tracing.continued(CALLER):
        assert tracing.current() is None
    assert tracing.start("c") is None
    tracing.adopt([])


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (CALLER, CALLER),
        (f" {CALLER} ", CALLER),
        (CALLER[:-2] + "00", CALLER[:-2] + "00"),
        (CALLER[:-2] + "ff", CALLER),  # flags of later versions are not ours to pass on
        ("cc" + CALLER[2:] + "-more", CALLER),  # a later version may have more
        (CALLER + "-more", None),
        ("ff" + CALLER[2:], None),
        (CALLER.upper(), None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", None),
        ("", None),
        (None, None),
    ],
)
def test_received_traceparents(header: str | None, taken: str | None) -> None:
    assert tracing.parse(header) == taken


@given(st.binary(max_size=80))
def test_any_header_is_taken_or_refused(header: bytes) -> None:
    found = tracing.parse(header.decode("latin-1"))
    assert found is None or tracing.parse(found) == found


@pytest.mark.usefixtures("recorder")
def test_spans_nest_and_errors_are_named_not_told(recorder: SpanRecorder) -> None:
    def fails() -> None:
        raise ValueError("MARKED^NAME")

    with tracing.span("outer", kind="server", parent=CALLER, attributes={"n": 1}) as outer:
        outer.set("m", True)
        inside = tracing.current()
        with pytest.raises(ValueError, match="MARKED"), tracing.span("inner"):
            fails()
        assert tracing.current() == inside
    assert tracing.current() is None
    inner, whole = finished_spans({"spans": recorder.take()})
    assert (inner.name, inner.error, inner.parent) == ("inner", "ValueError", inside)
    assert (whole.kind, whole.parent, whole.error) == ("server", CALLER, None)
    assert whole.attributes == {"n": 1, "m": True}
    assert {tracing.ids(span.traceparent)[0] for span in (inner, whole)} == {tracing.ids(CALLER)[0]}
    assert whole.start_ns <= inner.start_ns <= inner.end_ns <= whole.end_ns
    assert "MARKED" not in repr((inner, whole))
    assert recorder.take() == []


@pytest.mark.usefixtures("recorder")
def test_a_trace_goes_on_in_tasks_and_threads_and_where_it_was_kept() -> None:
    async def child() -> str | None:
        return await asyncio.to_thread(tracing.current)

    async def parent() -> tuple[str | None, str | None]:
        with tracing.continued(CALLER):
            return await child(), tracing.current()

    assert asyncio.run(parent()) == (CALLER, CALLER)


def test_traced_functions_and_coroutines(recorder: SpanRecorder) -> None:
    async def later(number: int) -> int:
        return number + 1

    with tracing.continued(CALLER):
        assert tracing.traced("now", lambda number: number + 1)(1) == 2
        assert asyncio.run(tracing.traced("later", later)(2)) == 3
    assert [(span["name"], span["parent"]) for span in recorder.take()] == [("now", CALLER), ("later", CALLER)]


def test_what_is_not_sampled_is_passed_on_and_not_kept(recorder: SpanRecorder) -> None:
    quiet = CALLER[:-2] + "00"
    with tracing.span("a", parent=quiet):
        passed = tracing.current()
        assert passed is not None
        assert tracing.ids(passed)[0] == tracing.ids(CALLER)[0]
        assert not tracing.sampled(passed)
    with tracing.span("of no order"):
        pass
    assert recorder.take() == []


def test_events_leave_with_their_trace_as_the_cloudevents_extension() -> None:
    traced = Event("id", EventType.FINDING_POSITIVE, "default", "1.2", 0.0, {"code": "1"}, trace=CALLER)
    plain = Event("id", EventType.FINDING_POSITIVE, "default", "1.2", 0.0, {"code": "1"})
    assert cloud_event(traced)["traceparent"] == CALLER
    assert notification(traced, public_url="http://x")["traceparent"] == CALLER
    assert "traceparent" not in cloud_event(plain) | notification(plain, public_url="http://x")
