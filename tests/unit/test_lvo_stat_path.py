"""The shipped workflow of `lvo`: a positive angiogram becomes stat, a negative one and a shadow run change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.orchestration_detectors import FakeRunner, result_of
from tests.orchestration_fakes import STUDY, TENANT, FakeClock
from tests.orchestration_world import World

from wetread.core.completeness import CompletenessPolicy, Timing
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.core.priority import Priority
from wetread.core.states import AiState
from wetread.orchestration.load import load_workflow
from wetread.orchestration.ports import Rules

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "head-cta.yaml"
SERIES = "1.2.3.1"
TRUSTED = CompletenessPolicy(default=Timing(treat_transfer_end_as="complete"))


def priority_after(folder: Path, state: AiState, *, shadow: bool = False) -> tuple[Priority | None, list[str]]:
    """Deliver an angiogram, let `lvo` say *state*; return the class that the study was raised to, and the reasons."""
    runner = FakeRunner(FakeClock(), "lvo", shadow=shadow)
    runner.answer = lambda request: result_of(request, state)
    world = World(folder, rules=Rules((load_workflow(WORKFLOW),), TRUSTED, early_settle_seconds=0.0), runner=runner)
    try:
        named = SeriesFacts(SERIES, "CT", (), body_part="HEAD", description="CTA HEAD 0.6", contrast=True)
        world.studies.studies[(TENANT, STUDY)] = StudyFacts(TENANT, STUDY, (named,), received_at=world.clock.now())
        world.deliver(range(1, 41), series=SERIES, contrast=True, transfer_end=True)
        world.settle()
        assert [run.detector for run in runner.runs] == ["lvo"]
        found = world.reading.classes.get(STUDY)
        return found and found[0], [reason.text for reason in world.reading.reasons]
    finally:
        world.close()


@pytest.mark.parametrize(
    ("state", "shadow", "place"),
    [
        (AiState.POSITIVE, False, Priority.STAT),
        (AiState.NEGATIVE, False, None),
        (AiState.POSITIVE, True, None),
    ],
)
def test_only_a_positive_detector_out_of_shadow_raises_the_study(tmp_path, state, shadow, place) -> None:
    found, reasons = priority_after(tmp_path, state, shadow=shadow)
    assert found is place
    assert any("occlusion" in text for text in reasons) is (place is Priority.STAT)
