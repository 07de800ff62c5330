"""Result sets of pairs that no detector answered: refused by the data, or failed. They get a report like any other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wetread import __version__
from wetread.core.findings import ResultSet, Run
from wetread.core.identifiers import digest
from wetread.core.ports.inference import DetectorInfo
from wetread.core.ports.work import Task
from wetread.core.states import AiState


def unanswered(
    task: Task,
    info: DetectorInfo,
    *,
    key: str,
    parameters: Mapping[str, Any],
    rules_digest: str,
    now: float,
    state: AiState,
    reason: str,
    detail: str,
) -> ResultSet:
    """Return the outcome *state* of a pair that gave no result. *key*: what makes this outcome one of its own."""
    run = Run(
        result_key=digest("unanswered", key, reason),
        tenant=task.tenant,
        study_uid=task.study_uid,
        series_uid=None,
        detector=task.detector,
        version=info.version,
        title=info.manifest.title,
        model_digest=info.model_digest,
        params_digest=digest(dict(parameters)),
        input_digest=task.input_digest or "",
        rules_digest=rules_digest,
        software=f"wetread {__version__}",
        engine="",
        phantom_evidence_id=info.card.phantom_evidence_id,
        started_at=now,
        shadow=task.shadow,
    )
    return ResultSet(run=run, state=state, reason=reason, detail=detail)
