"""Every detector's standing on a study: results joined with the tasks that have none, so that nothing is silent."""

from __future__ import annotations

from typing import Any

from wetread.core.findings import ResultSet, StoredSeries, result_json
from wetread.core.instants import iso_utc
from wetread.core.ports import Task, Transaction
from wetread.core.ruo import RUO_STATEMENT
from wetread.core.states import FINAL, AiState
from wetread.worklist.feedback import NOTHING_SAID, FindingFeedback
from wetread.worklist.ports import WorklistPorts

Stored = tuple[ResultSet, tuple[StoredSeries, ...]]


def standings(ports: WorklistPorts, tx: Transaction, tenant: str, study_uid: str) -> list[dict[str, Any]]:
    """Return one entry per detector in the form of ``schemas.ResultOut``, by detector name."""
    results = {stored[0].run.detector: stored for stored in ports.results.current(tx, tenant, study_uid)}
    tasks = {task.detector: task for task in ports.tasks.of_study(tx, tenant, study_uid)}
    installed = ports.detectors()
    entries = []
    for detector in sorted(results.keys() | tasks.keys()):
        task, stored = tasks.get(detector), results.get(detector)
        if task is None and stored is not None:
            entries.append(_recorded(stored, None))
        elif task is not None and stored is not None and _tells(task, stored[0]):
            entries.append(_recorded(stored, task))
        elif task is not None:
            info = installed.get(detector)
            digest = info.model_digest if info is not None and info.version == task.version else None
            entries.append(_unanswered(task, digest, stored))
    feedback = FindingFeedback(ports.events, ports.results, ports.clock).of_study(tx, tenant, study_uid)
    for entry in entries:
        for finding in entry["findings"]:
            finding["feedback"] = feedback.get(finding["finding_id"], NOTHING_SAID).json()
    return entries


def settled(entries: list[dict[str, Any]]) -> bool:
    """Whether every detector that readers see has reached a final state; a study without any has not."""
    visible = [entry for entry in entries if not entry["shadow"]]
    return bool(visible) and all(entry["state"] in FINAL for entry in visible)


def _tells(task: Task, result: ResultSet) -> bool:
    """Whether the result is what the task's state speaks of, not one of an earlier run."""
    if task.result_key is not None and task.result_key != result.run.result_key:
        return False
    return task.state == result.state or (task.state is AiState.PRELIMINARY_POSITIVE and result.preliminary)


def _recorded(stored: Stored, task: Task | None) -> dict[str, Any]:
    entry = result_json(*stored)
    if task is not None:
        entry["state"] = str(task.state)
    return {
        **entry,
        "attempt": task.attempt if task else 0,
        "progress": 100,
        "updated_at": iso_utc(task.updated_at) if task else None,
        "previous": None,
    }


def _unanswered(task: Task, model_digest: str | None, earlier: Stored | None) -> dict[str, Any]:
    return {
        "detector": task.detector,
        "version": task.version,
        "state": str(task.state),
        "reason": task.reason,
        "detail": task.detail,
        "score": None,
        "threshold": None,
        "shadow": task.shadow,
        "preliminary": task.state is AiState.PRELIMINARY_POSITIVE,
        "model_digest": model_digest,
        "quality": [],
        "findings": [],
        "stored": [],
        "ruo": RUO_STATEMENT,
        "attempt": task.attempt,
        "progress": task.progress,
        "updated_at": iso_utc(task.updated_at),
        "previous": result_json(*earlier) if earlier else None,
    }
