"""Tissue volumes: the golden case, and each kind of image that has to be refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.detection.authoring import cards
from wetread.detection.authoring.golden import differences
from wetread.detection.evaluation.measure import case_maker, drive, measured_values, read_rows
from wetread.detection.evaluation.report import readme
from wetread.detection.registry import companion, load, read_folder

INSTALLED = read_folder(Path(__file__).parent)
QUICK = {"fine_mm": 1.8, "pixel_mm": 2.4, "thickness_mm": 2.4, "noise": 0.03}
ENGINE = OnnxRuntimeClient(())


def reading(seed=2_900_000, **options):
    case = case_maker(INSTALLED)("s0", seed, **(QUICK | options))
    return case, drive(load(INSTALLED), ENGINE, case.volume)


def test_the_golden_case_gives_what_it_gave():
    assert differences(INSTALLED, ENGINE) == []


def test_volumes_are_near_the_truth_and_fill_the_skull():
    case, result = reading()
    found, true = measured_values(result), case.truth.measures
    for name in ("gray_matter.volume", "white_matter.volume", "intracranial_structure.volume"):
        assert found[name] == pytest.approx(true[name], rel=0.08)
    tissues = [found[f"{name}.volume"] for name in ("gray_matter", "white_matter", "cerebrospinal_fluid")]
    assert sum(tissues) == pytest.approx(found["intracranial_structure.volume"], rel=1e-3)
    assert set(np.unique(result.mask)) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "reason"), [({"weighting": "T2"}, "wrong_weighting"), ({"motion": 2.0}, "motion")], ids=["T2", "moved"]
)
def test_images_that_it_does_not_understand_are_refused(options, reason):
    with pytest.raises(NotProcessable) as refused:
        reading(**options)
    assert refused.value.reason == reason


def test_what_holds_no_head_is_refused():
    segment, steps = companion(INSTALLED, "detector").segment, np.full(3, 3.0)
    ball = np.zeros((40, 40, 40), dtype=np.float32)
    ball[15:25, 15:25, 15:25] = 500
    for values, reason in ((np.zeros((40, 40, 40), dtype=np.float32), "no_tissue"), (ball, "brain_not_found")):
        with pytest.raises(NotProcessable) as refused:
            segment(values, steps)
        assert refused.value.reason == reason


def study(description, **changes):
    series = SeriesFacts("1.2.3", modality="MR", instances=(), body_part="BRAIN", description=description, **changes)
    return StudyFacts(tenant="t", study_instance_uid="1", series=(series,))


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("AX T2 FLAIR", "sequence"),
        ("SAG T1 POST GD", "sequence"),
        ("T1 MPRAGE +C", "sequence"),
        ("DWI b1000", "sequence"),
        ("T1 MPRAGE", None),
        ("T1 W/O CONTRAST", None),
        ("", None),
    ],
)
def test_headers_that_name_another_sequence(description, reason):
    detector = load(INSTALLED)
    answer = detector.applicable(study(description))
    assert (answer.applicable, answer.reason) == (reason is None, reason)
    assert detector.applicable(study("T1", contrast=True)).reason == "contrast"
    if reason:
        with pytest.raises(NotApplicable):
            detector.select(study(description))


def test_the_card_follows_from_the_committed_cases():
    stored = cards.read(INSTALLED.folder)
    again = cards.measured(INSTALLED.folder, stored, read_rows(INSTALLED.folder / "cases.csv"))
    assert json.loads(json.dumps(again)) == stored
    assert (INSTALLED.folder / "README.md").read_text("utf-8") == readme(stored)
    assert stored["phantom_evidence_id"] == cards.evidence_of(INSTALLED.folder)


def test_a_share_of_white_matter_that_no_brain_has_is_refused(monkeypatch):
    """Of two heads of set s5 nearly all grey matter was called white."""
    module = companion(INSTALLED, "detector")
    segment = module.segment

    def confused(values, steps_mm):
        tissues = segment(values, steps_mm)
        return replace(tissues, white=tissues.white + 0.9 * tissues.gray, gray=0.1 * tissues.gray)

    monkeypatch.setattr(module, "segment", confused)
    with pytest.raises(NotProcessable, match="told apart") as refused:
        reading()
    assert refused.value.reason == "wrong_weighting"
