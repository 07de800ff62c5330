"""What the code can emit and answer is documented, and the documented schedule is the real one."""

from __future__ import annotations

import re
from pathlib import Path

from wetread.core.events import EventType
from wetread.core.states import AiState, StudyAiState
from wetread.triage.retry_schedule import RETRY_SECONDS

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_event_type_has_its_row() -> None:
    rows = re.findall(r"^\| (`[a-z]+\.[^|]+) \|", (DOCS / "events.md").read_text(), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`([a-z_.]+)`", row)]
    assert documented == [str(kind) for kind in EventType]


def test_every_state_is_on_the_page() -> None:
    text = (DOCS / "api.md").read_text()
    assert [state for state in [*AiState, *StudyAiState] if f"`{state}`" not in text] == []


def test_the_documented_retry_schedule_is_the_real_one() -> None:
    text = re.sub(r"\s+", " ", (DOCS / "events.md").read_text())
    listed = re.search(r"tried again after (.*?) \(plus", text)
    assert listed is not None
    units = {"s": 1, "min": 60, "h": 3600}
    waits = tuple(int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", listed[1]))
    assert waits == RETRY_SECONDS
