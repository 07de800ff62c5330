"""Log records over OTLP, with the same fields as the JSON lines and nothing more."""

from __future__ import annotations

import logging
from typing import Final

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context

from wetread.adapters.telemetry.export import ExportMeter
from wetread.adapters.telemetry.logs import fields
from wetread.adapters.telemetry.tracing import span_context
from wetread.core import tracing

_SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)
_OF_EXPORT: Final = ("opentelemetry", "urllib3", "requests", "wetread.telemetry")
"""Loggers of the export itself: what they say would be exported, and so on."""


class OtlpLogHandler(logging.Handler):
    """Hands records to a logger of the SDK; its processor exports them from a thread of its own."""

    def __init__(self, logger: Logger, meter: ExportMeter) -> None:
        super().__init__()
        self._logger, self._meter = logger, meter

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        if record.name.startswith(_OF_EXPORT):
            return
        traceparent = tracing.current()
        more = {name: value if isinstance(value, str | int | float | bool) else str(value) for name, value in
                fields(record).items()}  # fmt: skip
        self._meter.offered("logs")
        self._logger.emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=Context() if traceparent is None else span_context(traceparent, remote=False),
                severity_text=record.levelname,
                severity_number=next(
                    (to for least, to in _SEVERITIES if record.levelno >= least), SeverityNumber.DEBUG
                ),
                body=record.getMessage(),
                attributes={"logger": record.name, **more},
            )
        )
