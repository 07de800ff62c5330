"""Running one task so that whatever happens becomes an outcome."""

from __future__ import annotations

from typing import Any

from wetread.core.errors import WetreadError
from wetread.core.ports.taskpool import TaskFunction, TaskOutcome


def outcome_of(function: TaskFunction, task_id: int, payload: Any) -> TaskOutcome:
    """Run a task. Our own errors keep their slug; others are told by type only, as their text may quote data."""
    try:
        return TaskOutcome(task_id, function(payload))
    except WetreadError as error:
        return TaskOutcome(task_id, slug=error.slug, detail=error.detail, reason=getattr(error, "reason", ""))
    except Exception as error:  # noqa: BLE001 - a worker answers for every task
        return TaskOutcome(task_id, slug="crashed", detail=f"{type(error).__name__} in a worker")
