"""One run of one detector on the bytes of its input: assemble, drive ``steps``, and say what came out.

The same code serves the worker process and ``wetread detect``; it knows neither queues nor stores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wetread.core import tracing
from wetread.core.detector import (
    Attachment,
    BaseDetector,
    Context,
    Explanation,
    LabelArray,
    ParameterMap,
    Result,
    Volume,
)
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.errors import ComputationFailed, ConfigurationError, NotApplicable, NotProcessable
from wetread.core.findings import ResultSet, Run, StoredAttachment, StoredExplanation, StoredMap
from wetread.core.manifest import Manifest
from wetread.core.ports.inference import InferenceClient
from wetread.core.ports.pixels import FrameDecoder
from wetread.core.priors import NO_PRIORS, Priors
from wetread.core.results import result_set
from wetread.core.run_identity import attachment_key
from wetread.core.states import AiState
from wetread.detection.artifact import explanation_key, maps_key


@dataclass(frozen=True, slots=True)
class Engines:
    """What a run computes with."""

    inference: InferenceClient
    decoder: FrameDecoder
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Execution:
    """Outcome of a run. ``mask`` is [plane, row, column] on the planes of the result, None when nothing was marked."""

    result: ResultSet
    mask: LabelArray | None
    attachments: tuple[Attachment, ...] = ()
    maps: tuple[ParameterMap, ...] = ()
    explanation: Explanation | None = None


def merged_parameters(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest's parameters with *given* ones over them. Raises ConfigurationError on unknown names."""
    unknown = sorted(set(given) - set(manifest.parameters))
    if unknown:
        raise ConfigurationError(f"detector {manifest.name} has no parameter {', '.join(unknown)}")
    return {**manifest.parameters, **given}


def execute(
    detector: BaseDetector,
    objects: Sequence[bytes],
    run: Run,
    engines: Engines,
    *,
    parameters: Mapping[str, Any],
    preliminary: bool = False,
    mask_key: str | None = None,
    priors: Priors | None = None,
) -> Execution:
    """Run *detector* on the PS3.10 *objects* of its input set, and on the earlier results it asks for.

    A typed refusal is an answer and becomes a result set. Raises ComputationFailed (out_of_memory, crashed,
    model_unavailable); anything else that a detector raises is ``crashed``.
    """
    clock = _Stopwatch()
    volume: Volume | None = None
    manifest = detector.manifest
    try:
        with tracing.span("assemble volume"):
            volume = assemble_input(objects, engines.decoder, manifest.input, threads=engines.threads)
        clock.lap("assemble")
        result = _drive(detector, volume, Context(volume, parameters, priors or NO_PRIORS), engines.inference, clock)
        clock.lap("detect")
        result = _with_volume_flags(result, volume)
        _check(manifest, result, volume)
        mask = result.mask if result.mask is not None and result.mask.any() else None
        explained = result.explanation if result.explanation and result.explanation.values.any() else None
        finished = result_set(
            run,
            result,
            volume.frames,
            operating_point=detector.card.default_operating_point or "",
            preliminary=preliminary,
            mask_key=mask_key if mask is not None else None,
            attachments=tuple(
                StoredAttachment(
                    name=item.name,
                    media_type=item.media_type,
                    key=attachment_key(run.result_key, item.name),
                    capture=item.capture,
                )
                for item in result.attachments
            ),
            maps=tuple(StoredMap(name=item.name, unit=item.unit, key=maps_key(run.result_key)) for item in result.maps),
            explanation=StoredExplanation(
                method=explained.method, note=explained.note, key=explanation_key(run.result_key)
            )
            if explained
            else None,
            timings=clock.seconds,
        )
    except (NotApplicable, NotProcessable) as refusal:
        return Execution(refused(run, refusal, volume, clock.seconds), None)
    except MemoryError as error:
        raise ComputationFailed("out_of_memory", "the run needed more memory than it may use") from error
    except (ComputationFailed, ConfigurationError):
        raise
    except Exception as error:
        raise ComputationFailed("crashed", f"the detector failed with {type(error).__name__}") from error
    return Execution(finished, mask, result.attachments, result.maps, explained)


def refused(
    run: Run,
    refusal: NotApplicable | NotProcessable,
    volume: Volume | None = None,
    timings: Mapping[str, float] | None = None,
) -> ResultSet:
    """Return the result set of a typed refusal."""
    state = AiState.NOT_APPLICABLE if isinstance(refusal, NotApplicable) else AiState.NOT_PROCESSABLE
    return ResultSet(
        run=run,
        state=state,
        reason=refusal.reason,
        detail=refusal.detail,
        quality=volume.flags if volume is not None else (),
        sop_instance_uids=tuple(f.sop_instance_uid for f in volume.frames) if volume is not None else (),
        timings=dict(timings or {}),
    )


def _drive(
    detector: BaseDetector, volume: Volume, context: Context, inference: InferenceClient, clock: _Stopwatch
) -> Result:
    steps = detector.steps(volume, context)
    try:
        request = next(steps)
        while True:
            began = time.perf_counter()
            with tracing.span("inference", attributes={"wetread.network": request.network}):
                outputs = inference.infer(request.network, request.tensors)
            clock.add("infer", time.perf_counter() - began)
            request = steps.send(outputs)
    except StopIteration as done:
        if not isinstance(done.value, Result):
            raise ComputationFailed("crashed", "the detector returned no result") from done
        return done.value
    finally:
        steps.close()


def _with_volume_flags(result: Result, volume: Volume) -> Result:
    return replace(result, flags=tuple(dict.fromkeys((*volume.flags, *result.flags))))


def _check(manifest: Manifest, result: Result, volume: Volume) -> None:
    mask = result.mask
    if mask is not None and (mask.shape != volume.voxels.shape or mask.dtype != np.uint8):
        raise ComputationFailed("crashed", "the detector's mask does not lie on the planes of the volume")
    for item in result.maps:
        if item.values.shape != volume.voxels.shape or item.values.dtype != np.float32:
            raise ComputationFailed("crashed", "a parameter map does not lie on the planes of the volume")
    explained = result.explanation.values if result.explanation else None
    if explained is not None and not (
        explained.ndim == 3 and explained.dtype == np.float32 and ((explained >= 0) & (explained <= 1)).all()
    ):
        raise ComputationFailed("crashed", "where the score came from is no map of numbers from 0 to 1")
    promised = {name for spec in manifest.findings for name in spec.types}
    said = {name for seen in result.observations for name in seen.types}
    if not said <= promised:
        raise ComputationFailed("crashed", f"types {', '.join(sorted(said - promised))} are not in the manifest")


class _Stopwatch:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.add(stage, now - self._last)
        self._last = now

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + seconds, 6)
