"""From what a detector said (``Result``) to findings with identity (``Finding``, ``ResultSet``).

Pure: identity is a function of the result key and the observation's place, so a repeated run names the same things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from wetread.core.codes import concept, unit_code
from wetread.core.detector import FrameRef, LabelArray, Measure, Observation, Result
from wetread.core.errors import ComputationFailed
from wetread.core.findings import (
    Change,
    Finding,
    KeyImage,
    Measurement,
    ResultSet,
    Run,
    Score,
    StoredAttachment,
    StoredExplanation,
    StoredMap,
)
from wetread.core.identifiers import derived_uid, digest
from wetread.core.states import AiState


def findings_from_result(
    run: Run,
    result: Result,
    volume_frames: tuple[FrameRef, ...],
    *,
    operating_point: str = "",
    calibrated: bool = False,
    preliminary: bool = False,
) -> tuple[Finding, ...]:
    """Return one finding per observation, in the detector's order.

    ``volume_frames`` are the planes that ``result.mask`` lies on. An observation without a key plane of its own gets
    the plane that holds most of its voxels (the first of equals).

    Raises ComputationFailed (``crashed``) when the result contradicts itself: a mask of another shape, a plane outside
    the volume, a number that is none; and ConfigurationError when it uses a word outside ``core.codes``.
    """
    mask = result.mask
    if mask is not None and (mask.ndim != 3 or mask.shape[0] != len(volume_frames)):
        raise _contradiction(f"mask of shape {mask.shape} for {len(volume_frames)} planes")
    return tuple(
        Finding(
            finding_id=digest(run.result_key, "finding", index)[:32],
            tracking_uid=derived_uid(run.result_key, "finding", index),
            code=concept(seen.code).code,
            state=seen.state,
            preliminary=preliminary,
            types=_known(seen.types),
            score=_score(seen.score, result.threshold, operating_point, calibrated=calibrated),
            measurements=tuple(_measurement(m) for m in seen.measures),
            laterality=seen.laterality,
            site=seen.site,
            label=seen.label,
            key_image=_key_image(seen, mask, volume_frames),
            quality=result.flags,
            predecessor=seen.change.finding.finding_id if seen.change and seen.change.finding else None,
            change=_change(seen),
        )
        for index, seen in enumerate(result.observations)
    )


def result_set(
    run: Run,
    result: Result,
    volume_frames: tuple[FrameRef, ...],
    *,
    operating_point: str = "",
    calibrated: bool = False,
    preliminary: bool = False,
    mask_key: str | None = None,
    attachments: tuple[StoredAttachment, ...] = (),
    maps: tuple[StoredMap, ...] = (),
    explanation: StoredExplanation | None = None,
    timings: Mapping[str, float] | None = None,
) -> ResultSet:
    """Return the outcome of a run that computed something. An early positive is ``preliminary_positive``.

    Raises like ``findings_from_result``.
    """
    state = AiState(result.state)
    if preliminary and state is AiState.POSITIVE:
        state = AiState.PRELIMINARY_POSITIVE
    return ResultSet(
        run=run,
        state=state,
        preliminary=preliminary,
        score=_score(result.score, result.threshold, operating_point, calibrated=calibrated),
        findings=findings_from_result(
            run,
            result,
            volume_frames,
            operating_point=operating_point,
            calibrated=calibrated,
            preliminary=preliminary,
        ),
        quality=result.flags,
        sop_instance_uids=tuple(frame.sop_instance_uid for frame in volume_frames),
        mask_key=mask_key,
        attachments=attachments,
        maps=maps,
        explanation=explanation,
        timings=dict(timings or {}),
    )


def _contradiction(what: str) -> ComputationFailed:
    return ComputationFailed("crashed", f"the detector contradicts itself: {what}")


def _known(types: tuple[str, ...]) -> tuple[str, ...]:
    for name in types:
        concept(name)
    return types


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise _contradiction(f"{what} is not a number")
    return float(value)


def _score(value: float | None, threshold: float | None, point: str, *, calibrated: bool) -> Score | None:
    if value is None or threshold is None:
        return None
    return Score(
        value=_finite(value, "score"),
        threshold=_finite(threshold, "threshold"),
        operating_point=point,
        calibrated=calibrated,
    )


def _change(seen: Observation) -> Change | None:
    if seen.change is None:
        return None
    prior, finding = seen.change.prior, seen.change.finding
    return Change(
        course=seen.change.course,
        prior_study_uid=prior.study_uid,
        prior_result_key=prior.result_key,
        prior_date=prior.study_date,
        prior_finding_id=finding.finding_id if finding else None,
    )


def _measurement(measure: Measure) -> Measurement:
    unit_code(measure.unit)
    return Measurement(
        code=concept(measure.name).code,
        value=_finite(measure.value, measure.name),
        unit=measure.unit,
        method=measure.method,
        uncertainty=None if measure.uncertainty is None else _finite(measure.uncertainty, measure.name),
    )


def _key_image(seen: Observation, mask: LabelArray | None, frames: tuple[FrameRef, ...]) -> KeyImage | None:
    plane = seen.key_plane
    if plane is None and mask is not None and seen.label is not None:
        counts = np.count_nonzero(mask == seen.label, axis=(1, 2))
        plane = int(counts.argmax()) if counts.any() else None
    if plane is None:
        return None
    if not 0 <= plane < len(frames):
        raise _contradiction(f"plane {plane} of {len(frames)}")
    return KeyImage(sop_instance_uid=frames[plane].sop_instance_uid, frame=frames[plane].frame, plane=plane)
