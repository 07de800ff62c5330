"""From header facts to the values that conditions see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from statistics import median
from typing import Any, Final

from wetread.core.expression_types import UNKNOWN, Namespace, known
from wetread.core.facts import InstanceFacts, SeriesFacts, StudyFacts
from wetread.core.findings import ResultSet
from wetread.core.ports.work import Task
from wetread.core.states import AiState as S
from wetread.core.workflow import base_detector


def source_study(facts: StudyFacts) -> StudyFacts:
    """Return the study without the series that wetread itself wrote: rules and selection never see those."""
    return replace(facts, series=tuple(s for s in facts.series if not s.detector_result))


def namespace(
    study: StudyFacts,
    *,
    now: float,
    zone: tzinfo = UTC,
    results: Mapping[str, Mapping[str, Any]] | None = None,
    with_instances: bool = True,
) -> Namespace:
    """Return the name space of a study (without own results) at a time in the site's zone.

    ``with_instances``: False leaves ``instances`` empty, for conditions that do not name them.
    """
    local = datetime.fromtimestamp(now, tz=zone)
    return Namespace(
        study={
            "description": known(study.description),
            "sex": known(study.patient_sex),
            "age_years": known(study.patient_age_years),
            "series_count": float(len(study.series)),
            "instance_count": float(sum(len(s.instances) for s in study.series)),
            "waited": now - study.received_at,
        },
        source={
            "tenant": study.tenant,
            "ae": known(study.source.ae),
            "client": known(study.source.client),
            "site": known(study.source.site),
        },
        now={"hour": float(local.hour), "weekday": float(local.weekday())},
        series=tuple(_series(s) for s in study.series),
        instances=tuple(_instance(i) for s in study.series for i in s.instances) if with_instances else (),
        results=results or {},
    )


def _number(value: float | None) -> Any:
    return UNKNOWN if value is None else float(value)


def _series(series: SeriesFacts) -> dict[str, Any]:
    thickness = [i.slice_thickness for i in series.instances if i.slice_thickness is not None]
    return {
        "modality": known(series.modality),
        "description": known(series.description),
        "body_part": known(series.body_part),
        "protocol": known(series.protocol),
        "kernel": known(series.kernel),
        "manufacturer": known(series.manufacturer),
        "contrast": known(series.contrast),
        "number": _number(series.series_number),
        "instance_count": float(len(series.instances)),
        "thickness_mm": float(median(thickness)) if thickness else UNKNOWN,
        "_uid": series.series_instance_uid,  # for fan-out; no condition can name it
    }


def _instance(instance: InstanceFacts) -> dict[str, Any]:
    return {
        "number": _number(instance.instance_number),
        "frames": float(instance.number_of_frames),
        "rows": _number(instance.rows),
        "columns": _number(instance.columns),
        "thickness_mm": _number(instance.slice_thickness),
        "tilt_deg": _number(instance.gantry_tilt),
        "lossy": instance.lossy,
        "image_type": known(instance.image_type),
        "sop_class_uid": known(instance.sop_class_uid),
        "transfer_syntax_uid": known(instance.transfer_syntax_uid),
    }


def result_value(task: Task | None, result: ResultSet | None) -> dict[str, Any]:
    """Return what ``result(name)`` gives: the task's state at once, numbers when there is a result."""
    volumes = [v for f in result.findings if (v := f.volume_ml()) is not None] if result else []
    return {
        "state": str(task.state) if task else UNKNOWN,
        "reason": known(task.reason) if task else UNKNOWN,
        "score": _number(result.score.value) if result and result.score else UNKNOWN,
        "volume_ml": sum(volumes) if volumes else UNKNOWN,
    }


def results_of(names: Mapping[str, str], tasks: Iterable[Task], results: Iterable[ResultSet]) -> dict[str, Any]:
    """Return ``result`` values by task name. *names*: detector -> task name."""
    by_task: dict[str, list[Task]] = {}
    for task in tasks:
        by_task.setdefault(base_detector(task.detector), []).append(task)
    by_result = {result.run.detector: result for result in results}
    return {
        name: _joined([result_value(task, by_result.get(task.detector)) for task in by_task.get(detector, [])])
        for detector, name in names.items()
    }


_WEIGHT: Final = tuple(map(str, (
    S.POSITIVE, S.PRELIMINARY_POSITIVE, S.RUNNING, S.QUEUED, S.AWAITING_IMAGES, S.FAILED, S.NOT_PROCESSABLE,
    S.CANCELLED, S.INDETERMINATE, S.MEASURED, S.NEGATIVE, S.NOT_APPLICABLE, S.SUPERSEDED,
)))  # fmt: skip
"""Of a fan-out the first of these states that any of its tasks has: negative only when every series is."""


def _joined(values: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one value for the tasks of a fan-out: the weightiest state, the highest score, the sum of volumes."""
    if len(values) <= 1:
        return values[0] if values else result_value(None, None)
    heaviest = min(values, key=lambda value: _WEIGHT.index(value["state"]))
    scores = [value["score"] for value in values if value["score"] is not UNKNOWN]
    volumes = [value["volume_ml"] for value in values if value["volume_ml"] is not UNKNOWN]
    return {
        **heaviest,
        "score": max(scores) if scores else UNKNOWN,
        "volume_ml": sum(volumes) if volumes else UNKNOWN,
    }
