"""Telemetry over OTLP, as a receiver of our own sees it; and what happens when nobody receives."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from tests.otlp_receiver import OtlpReceiver

from wetread.adapters.index.database import SqlDatabase
from wetread.adapters.telemetry.metrics import Metrics
from wetread.adapters.telemetry.otlp import Collector, Otlp
from wetread.bootstrap.telemetry import close_telemetry, open_telemetry
from wetread.core import tracing
from wetread.detection.spans import SpanRecorder, finished_spans
from wetread.settings import Settings

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUIET = CALLER[:-2] + "00"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    level = logging.getLogger("opentelemetry").level
    yield
    tracing.install(None)
    logging.getLogger("opentelemetry").setLevel(level)


def collector(receiver: OtlpReceiver, **more: object) -> Collector:
    return Collector(receiver.endpoint, "wetread-test", "one", **more)


def test_spans_arrive_connected_with_those_of_another_process() -> None:
    with OtlpReceiver() as receiver:
        telemetry = Otlp(collector(receiver, headers="authorization=Bearer%20abc"))
        tracing.install(telemetry.tracer)
        with tracing.span("outer", kind="server", parent=CALLER, attributes={"http.route": "/x"}):
            outer = tracing.current()
            tracing.install(recorder := SpanRecorder())
            with tracing.span("elsewhere", kind="consumer", attributes={"process.pid": 7}), tracing.span("deeper"):
                pass
            with pytest.raises(KeyError), tracing.span("broken"):
                raise KeyError
            tracing.install(telemetry.tracer)
            tracing.adopt(finished_spans({"spans": recorder.take()}))
        with tracing.span("not kept", parent=QUIET):
            assert tracing.current() is not None
        telemetry.close()
        spans = {span.name: span for span in receiver.spans}
        assert set(spans) == {"outer", "elsewhere", "deeper", "broken"}
        assert {span.trace_id for span in spans.values()} == {tracing.ids(CALLER)[0]}
        assert spans["outer"].parent_id == tracing.ids(CALLER)[1]
        assert outer is not None
        assert spans["elsewhere"].parent_id == spans["outer"].span_id == tracing.ids(outer)[1]
        assert spans["deeper"].parent_id == spans["elsewhere"].span_id
        assert spans["elsewhere"].start <= spans["deeper"].start <= spans["deeper"].end <= spans["elsewhere"].end
        assert spans["outer"].attributes == {"http.route": "/x"}
        assert (spans["broken"].attributes, spans["broken"].status) == ({"error.type": "KeyError"}, 2)
        assert spans["outer"].status == 0
        assert (spans["outer"].kind, spans["elsewhere"].kind, spans["deeper"].kind) == (2, 5, 1)
        assert {span.service for span in spans.values()} == {"wetread-test"}
        assert receiver.headers[0]["authorization"] == "Bearer abc"
        counted = generate_latest(registry_of(telemetry)).decode()
        assert 'wetread_telemetry_items_total{outcome="offered",signal="traces"} 4.0' in counted
        assert 'wetread_telemetry_items_total{outcome="exported",signal="traces"} 4.0' in counted


def registry_of(telemetry: Otlp) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(telemetry.meter.items)
    return registry


def test_the_share_of_traces_that_begin_here() -> None:
    with OtlpReceiver() as receiver:
        telemetry = Otlp(collector(receiver, ratio=0.0, signals=frozenset({"traces"})))
        tracing.install(telemetry.tracer)
        with tracing.span("begins here"):
            begun = tracing.current()
        with tracing.span("the caller wants it", parent=CALLER):
            pass
        telemetry.close()
        assert begun is not None
        assert not tracing.sampled(begun)
        assert [span.name for span in receiver.spans] == ["the caller wants it"]


def test_the_prometheus_registry_arrives_as_it_is(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    Counter("wetread_things_total", "Things.", ("kind",), registry=registry).labels("a").inc(3)
    Gauge("wetread_held_bytes", "Held.", registry=registry).set(5)
    seconds = Histogram("wetread_wait_seconds", "Wait.", ("queue",), buckets=(1, 5), registry=registry)
    for value in (0.5, 0.7, 3, 100):
        seconds.labels("q").observe(value)
    metrics = Metrics(SqlDatabase(tmp_path / "db"))
    with OtlpReceiver() as receiver:
        telemetry = Otlp(collector(receiver, signals=frozenset({"metrics"})))
        assert telemetry.tracer is telemetry.log_handler is None
        telemetry.push(registry)
        telemetry.push(metrics.registry)  # its tables are not there: that is a line in the log
        telemetry.close()
        found = receiver.metrics
    things = found["wetread_things_total"]
    assert things.sum.is_monotonic
    assert (things.sum.aggregation_temporality, things.sum.data_points[0].as_double) == (2, 3.0)
    assert things.sum.data_points[0].attributes[0].value.string_value == "a"
    assert things.description == "Things."
    held = found["wetread_held_bytes"]
    assert (held.unit, held.gauge.data_points[0].as_double) == ("By", 5.0)
    [point] = found["wetread_wait_seconds"].histogram.data_points
    assert found["wetread_wait_seconds"].unit == "s"
    assert list(point.bucket_counts) == [2, 1, 1]
    assert list(point.explicit_bounds) == [1.0, 5.0]
    assert (point.count, point.sum) == (4, 104.2)
    assert not point.HasField("min")


def test_log_records_arrive_with_their_trace_and_without_texts_of_exceptions() -> None:
    with OtlpReceiver() as receiver:
        telemetry = open_telemetry(Settings(telemetry_endpoint=receiver.endpoint, telemetry_signals="traces,logs"), "x")
        assert telemetry is not None
        logger = logging.getLogger("wetread.of_this_test")
        with tracing.span("a", parent=CALLER):
            current = tracing.current()
            try:
                raise ValueError("MARKED^NAME")
            except ValueError:
                logger.exception("failed", extra={"slug": "x", "part": ("1", "2")})
        logging.getLogger("opentelemetry.sdk").warning("would come back for ever")
        close_telemetry(telemetry)
        [record] = [record for record in receiver.records if record.body.string_value == "failed"]
        assert current is not None
        assert (record.trace_id.hex(), record.span_id.hex()) == tracing.ids(current)
        assert (record.severity_text, record.severity_number) == ("ERROR", 17)
        values = {each.key: each.value.string_value for each in record.attributes}
        assert (values["error"], values["slug"], values["logger"]) == ("ValueError", "x", "wetread.of_this_test")
        assert not any(b"MARKED" in body or b"would come back" in body for body in receiver.bodies)
    assert telemetry.log_handler not in logging.getLogger().handlers


def test_a_collector_that_is_away_costs_counts_and_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
        telemetry = Otlp(Collector(endpoint, "wetread-test", "one", signals=frozenset({"traces"})))
        tracing.install(telemetry.tracer)
        caplog.set_level(logging.INFO, "wetread.telemetry")
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        with tracing.span("nobody sees it"):
            pass
        begun = time.monotonic()
        telemetry.close()
        assert time.monotonic() - begun < 20, "a stopping process does not wait for it"
    meter = telemetry.meter
    meter.done("traces", 1, success=False)
    meter.done("traces", 1, success=False)
    meter.done("traces", 1, success=True)
    said = [record.message for record in caplog.records if record.name == "wetread.telemetry"]
    assert said == ["the collector does not take telemetry", "the collector takes telemetry again"]


def test_off_unless_asked_for_and_never_a_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        monkeypatch.delenv(name, raising=False)
    assert open_telemetry(Settings(), "web") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    assert Settings().telemetry_endpoint == "http://127.0.0.1:9"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert open_telemetry(Settings(), "web") is None
    assert "http/protobuf" in caplog.text
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setitem(sys.modules, "wetread.adapters.telemetry.otlp", None)
    assert open_telemetry(Settings(), "web") is None
    assert "wetread[telemetry]" in caplog.text
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert Settings().telemetry_off
    assert not tracing.enabled()


@pytest.mark.parametrize("wrong", ["collector:4318", "ftp://collector", "http://", "http://c:1/x?y=1"])
def test_an_endpoint_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="collector is an absolute"):
        Settings(telemetry_endpoint=wrong)
    with pytest.raises(ValueError, match="signals are some of"):
        Settings(telemetry_signals="traces,smells")


def test_the_sdk_is_not_imported_unless_telemetry_is_on() -> None:
    code = "import sys, wetread.bootstrap.telemetry; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
