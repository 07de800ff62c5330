from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.evidence_cases import blob, frames, headers, positive, run

from wetread.core.detector import Measure, Observation
from wetread.core.errors import ComputationFailed, ConfigurationError
from wetread.core.findings import result_json
from wetread.core.results import findings_from_result, result_set
from wetread.core.states import AiState

FRAMES = frames(headers())


def test_findings_carry_what_the_detector_said() -> None:
    first, second = findings_from_result(run(), positive(), FRAMES, operating_point="sens90", calibrated=True)
    assert (first.code.scheme, first.code.value) == ("SCT", "1386000")
    assert first.types == ("IPH", "IVH")
    assert first.volume_ml() == 0.58
    assert first.measurements[0].uncertainty == 0.1
    assert first.measurements[1].code.meaning == "Midline shift"
    assert first.score is not None
    assert (first.score.value, first.score.threshold, first.score.operating_point) == (0.93, 0.61, "sens90")
    assert first.score.calibrated
    assert first.laterality == "right"
    assert first.quality == ("holes_bridged",)
    assert second.label == 2


def test_key_image_is_the_plane_with_most_voxels_unless_given() -> None:
    first, second = findings_from_result(run(), positive(), FRAMES)
    assert first.key_image is not None
    assert first.key_image.plane == 5
    assert first.key_image.sop_instance_uid == FRAMES[5].sop_instance_uid
    assert second.key_image is not None
    assert second.key_image.plane == 9


def test_equal_planes_give_the_first() -> None:
    mask = np.zeros((12, 64, 80), np.uint8)
    mask[[3, 8], 10, 10] = 1
    seen = Observation(code="intracranial_hemorrhage", state="positive", label=1)
    (finding,) = findings_from_result(run(), positive(mask, observations=(seen,)), FRAMES)
    assert finding.key_image is not None
    assert finding.key_image.plane == 3


@pytest.mark.parametrize("mask", [None, np.zeros((12, 64, 80), np.uint8)])
def test_without_a_region_there_is_no_key_image(mask) -> None:
    seen = Observation(code="intracranial_hemorrhage", state="indeterminate", label=1)
    (finding,) = findings_from_result(run(), replace(positive(), observations=(seen,), mask=mask), FRAMES)
    assert finding.key_image is None


def test_identity_is_a_function_of_the_result_key() -> None:
    again = findings_from_result(run(), positive(), FRAMES)
    assert findings_from_result(run(), positive(), FRAMES) == again
    other = findings_from_result(run(result_key="cd" * 32), positive(), FRAMES)
    ids = {f.finding_id for f in (*again, *other)} | {f.tracking_uid for f in (*again, *other)}
    assert len(ids) == 8


@pytest.mark.parametrize(
    "result",
    [
        positive(blob()[:5]),
        positive(observations=(Observation("intracranial_hemorrhage", "positive", key_plane=12),)),
        positive(observations=(Observation("intracranial_hemorrhage", "positive", score=float("nan")),)),
        positive(
            observations=(
                Observation("intracranial_hemorrhage", "positive", measures=(Measure("volume", float("inf"), "mL"),)),
            )
        ),
    ],
)
def test_contradicting_result_is_our_failure(result) -> None:
    with pytest.raises(ComputationFailed) as caught:
        findings_from_result(run(), result, FRAMES)
    assert caught.value.reason == "crashed"


@pytest.mark.parametrize(
    "seen",
    [
        Observation("unheard_of", "positive"),
        Observation("intracranial_hemorrhage", "positive", types=("XYZ",)),
        Observation("intracranial_hemorrhage", "positive", measures=(Measure("volume", 1.0, "gallon"),)),
        Observation("intracranial_hemorrhage", "positive", measures=(Measure("bigness", 1.0, "mL"),)),
    ],
)
def test_undefined_word_is_refused(seen) -> None:
    with pytest.raises(ConfigurationError):
        findings_from_result(run(), positive(observations=(seen,)), FRAMES)


def test_result_set_names_planes_state_and_score() -> None:
    outcome = result_set(run(), positive(), FRAMES, mask_key="m", timings={"infer": 1.5})
    assert outcome.state is AiState.POSITIVE
    assert outcome.sop_instance_uids == tuple(f.sop_instance_uid for f in FRAMES)
    assert outcome.mask_key == "m"
    assert outcome.timings == {"infer": 1.5}
    assert result_json(outcome, ())["score"] == 0.93


@pytest.mark.parametrize(
    ("state", "early", "expected"),
    [
        ("positive", True, AiState.PRELIMINARY_POSITIVE),
        ("positive", False, AiState.POSITIVE),
        ("indeterminate", True, AiState.INDETERMINATE),
        ("measured", False, AiState.MEASURED),
    ],
)
def test_only_an_early_positive_is_a_preliminary_positive(state, early, expected) -> None:
    outcome = result_set(run(), positive(state=state), FRAMES, preliminary=early)
    assert outcome.state is expected
    assert all(f.preliminary is early for f in outcome.findings)
