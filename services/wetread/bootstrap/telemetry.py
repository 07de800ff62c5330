"""Telemetry of one process: off unless a collector is configured, and then never a reason to fail."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from uuid import uuid4

from wetread.core import tracing

if TYPE_CHECKING:
    from wetread.adapters.telemetry.otlp import Otlp
    from wetread.settings import Settings

_log = logging.getLogger("wetread.telemetry")


def open_telemetry(settings: Settings, role: str, instance: str = "") -> Otlp | None:
    """Start exporting for a process of this *role* (``web``, ``worker``, the name of a service); None: it is off.

    ``instance``: its name among those of the role; empty: any.
    A collector that cannot be used (the extra is not installed, another protocol is asked for) is a line in the log.
    """
    if settings.telemetry_endpoint is None or settings.telemetry_off:
        return None
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if protocol != "http/protobuf":
        _log.error("telemetry is off: OTLP goes over http/protobuf here", extra={"protocol": protocol})
        return None
    try:
        from wetread.adapters.telemetry.otlp import Collector, Otlp
    except ImportError:
        _log.error("telemetry is off: it needs pip install 'wetread[telemetry]'")
        return None
    # Its own lines about a collector that is away would repeat for every batch; ours say it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    found = Otlp(
        Collector(
            endpoint=settings.telemetry_endpoint,
            service=f"wetread-{role}",
            instance=instance or uuid4().hex[:16],
            headers=settings.telemetry_headers,
            ratio=settings.telemetry_ratio,
            signals=frozenset(settings.telemetry_signals.split(",")),
        )
    )
    tracing.install(found.tracer)
    if found.log_handler is not None:
        logging.getLogger().addHandler(found.log_handler)
    return found


def close_telemetry(telemetry: Otlp | None) -> None:
    """Export what is left and end."""
    if telemetry is None:
        return
    tracing.install(None)
    if telemetry.log_handler is not None:
        logging.getLogger().removeHandler(telemetry.log_handler)
    telemetry.close()
