"""JSON lines on standard error. Only fields passed on purpose are written; messages are constants."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from wetread.core import tracing

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, trace, extra fields, exception type and place."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        traceparent = tracing.current()
        if traceparent is not None:
            line["trace_id"], line["span_id"] = tracing.ids(traceparent)
        line.update(fields(record))
        return json.dumps(line, default=str)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed on purpose, and of an exception its type and place."""
    found = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    if record.exc_info and record.exc_info[0] is not None:
        # The text of an exception may quote input, so only its type and place are kept.
        found["error"] = record.exc_info[0].__name__
        traceback = record.exc_info[2]
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        if traceback is not None:
            found["at"] = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
    return found


def configure_logging(level: str) -> None:
    """Send all logs of this process to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Libraries that would log URLs, queries or SQL parameters.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "sqlalchemy", "pydicom", "highdicom", "dbos", "pynetdicom"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
