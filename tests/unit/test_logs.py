"""Logs: one JSON object per line, and no exception text (it may quote input)."""

from __future__ import annotations

import json
import logging
import sys

from wetread.adapters.telemetry.logs import JsonFormatter


def test_fields_and_exception_place_but_not_its_text() -> None:
    try:
        raise ValueError("MARKED^PATIENT")
    except ValueError:
        record = logging.LogRecord("wetread.x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    record.study_ref = "abc123"
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "failed"
    assert line["study_ref"] == "abc123"
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["at"]
    assert "MARKED" not in json.dumps(line)
