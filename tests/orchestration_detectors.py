"""Scripted detectors for orchestration tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.orchestration_fakes import FakeClock

from wetread.core.detector import Applicability, InputSet
from wetread.core.facts import StudyFacts
from wetread.core.findings import Code, Finding, Measurement, ResultSet, Run, Score
from wetread.core.identifiers import derived_uid, digest
from wetread.core.manifest import Card, Manifest
from wetread.core.ports.inference import DetectorInfo, Report, RunOutcome, RunRequest
from wetread.core.states import AiState

MANIFEST: dict[str, Any] = {
    "schema": "wetread.detector/1",
    "name": "ich",
    "version": "0.1.0",
    "title": "Suspected intracranial haemorrhage",
    "intended_use": "Worklist order only.",
    "not_for": ["diagnosis"],
    "input": {"modality": ["CT"], "select": "thinnest_soft"},
    "findings": [{"code": ["SCT", "1386000"]}],
    "resources": {"memory_mb": 100, "timeout_s": 30},
    "licence": {"code": "Apache-2.0", "weights": "Apache-2.0", "training_data": "phantoms"},
    "parameters": {"threshold": "card"},
}


def detector_info(name: str = "ich", version: str = "0.1.0", *, shadow: bool = False) -> DetectorInfo:
    manifest = Manifest.model_validate(MANIFEST | {"name": name, "version": version})
    return DetectorInfo(name, version, manifest, Card(name=name, version=version, shadow=shadow), "m" * 64)


Answer = Callable[[RunRequest], ResultSet]


class FakeRunner:
    """Scripted detectors. ``enough_from``: slices without a hole that make an input enough."""

    def __init__(self, clock: FakeClock, *names: str, shadow: bool = False) -> None:
        self._clock = clock
        self._infos = {name: detector_info(name, shadow=shadow) for name in names or ("ich",)}
        self.positive_from = 1
        self.enough_from = 4
        self.runs: list[RunRequest] = []
        self.errors: list[Exception] = []
        self.answer: Answer | None = None
        self.percents: list[int] = []
        self.body_part: str | None = "HEAD"
        self.select_error: Exception | None = None
        self.preparation: Callable[[], None] = lambda: None

    def prepare(self) -> None:
        self.preparation()

    def detectors(self) -> Mapping[str, DetectorInfo]:
        return self._infos

    def names(self) -> Sequence[str]:
        return tuple(self._infos)

    def applicable(self, detector: str, study: StudyFacts) -> Applicability:
        if any(s.modality == "CT" for s in study.series):
            wrong = [s for s in study.series if s.body_part and s.body_part != self.body_part]
            if len(wrong) == len(study.series):
                return Applicability(applicable=False, reason="body_part", detail="not a head")
            return Applicability(applicable=True)
        return Applicability(applicable=False, reason="modality", detail="no CT")

    def select(self, detector: str, study: StudyFacts) -> InputSet:
        if self.select_error:
            raise self.select_error
        heads = [s for s in study.series if s.modality == "CT"]
        series = max(heads, key=lambda s: (len(s.instances), s.series_instance_uid))
        numbers = sorted(i.instance_number or 0 for i in series.instances)
        closed = numbers == list(range(numbers[0], numbers[0] + len(numbers))) and len(numbers) >= self.enough_from
        uids = tuple(i.sop_instance_uid for i in series.instances)
        lacking = "" if len(numbers) >= 3 else "missing_slices"
        return InputSet(series.series_instance_uid, uids, "enough" if closed else "incomplete", "most slices", lacking)

    def result_key(self, request: RunRequest) -> str:
        return digest(request.tenant, request.study_uid, request.detector, request.version, request.input_digest)

    async def run(
        self, request: RunRequest, *, timeout_seconds: float | None = None, report: Report | None = None
    ) -> RunOutcome:
        self.runs.append(request)
        for percent in self.percents if report is not None else ():
            report(percent)
        if self.errors:
            raise self.errors.pop(0)
        assert len(request.instances) > 0
        self._clock.time += 2.5
        if self.answer is not None:
            return RunOutcome(self.answer(request))
        positive = len(request.instances) >= self.positive_from
        return RunOutcome(result_of(request, AiState.POSITIVE if positive else AiState.NEGATIVE))


def result_of(request: RunRequest, state: AiState, reason: str | None = None, volume_ml: float = 12.0) -> ResultSet:
    run = Run(
        result_key=request.result_key,
        tenant=request.tenant,
        study_uid=request.study_uid,
        series_uid=request.series_uid,
        detector=request.detector,
        version=request.version,
        model_digest="m" * 64,
        params_digest="p" * 64,
        input_digest=request.input_digest,
        rules_digest=request.rules_digest,
        software="test",
        engine="fake",
        started_at=request.started_at,
        shadow=request.shadow,
    )
    score = Score(value=0.9 if state is AiState.POSITIVE else 0.1, threshold=0.5, operating_point="sens90")
    findings = ()
    if state is AiState.POSITIVE:
        findings = (
            Finding(
                finding_id=digest(request.result_key, "finding")[:16],
                tracking_uid=derived_uid(request.result_key, "tracking"),
                code=Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage"),
                state="positive",
                score=score,
                measurements=(
                    Measurement(
                        code=Code(value="118565006", scheme="SCT", meaning="Volume"), value=volume_ml, unit="mL"
                    ),
                ),
            ),
        )
    return ResultSet(
        run=run,
        state=state,
        reason=reason,
        score=score,
        findings=findings,
        sop_instance_uids=tuple(i.sop_instance_uid for i in request.instances),
    )
