"""The lvo detector: its golden case, its card against the committed rows, and its headers-only refusals."""

import json
from pathlib import Path

import pytest

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.facts import SeriesFacts, StudyFacts
from wetread.detection.authoring import cards
from wetread.detection.authoring.golden import differences
from wetread.detection.evaluation.measure import read_rows
from wetread.detection.evaluation.report import readme
from wetread.detection.registry import companion, load, read_folder

HERE = Path(__file__).parent
INSTALLED = read_folder(HERE)


@pytest.fixture(scope="module")
def evaluate():
    return companion(INSTALLED, "evaluate")


def test_the_golden_case_gives_what_it_gave():
    assert differences(INSTALLED, OnnxRuntimeClient(())) == []


def test_model_and_threshold_follow_from_the_training_rows(evaluate):
    card, rows = cards.read(HERE), read_rows(HERE / "training.csv")
    again = json.loads(json.dumps(evaluate.fitted(card, rows)))
    for name in ("side_model", "operating_points", "training"):
        assert again[name] == card[name]
    assert {r["set"] for r in rows} == {"train", "tune"}
    assert max(int(r["seed"]) for r in rows if r["set"] == "train") < 1_000_000


@pytest.mark.slow
def test_every_figure_of_the_card_follows_from_the_cases(evaluate):
    card, rows = cards.read(HERE), read_rows(HERE / "cases.csv")
    again = json.loads(json.dumps(evaluate.update(card, rows)))
    assert again == card
    assert (HERE / "README.md").read_text("utf-8") == readme(card)
    assert {r["set"] for r in rows} == set(evaluate.SETS)
    assert min(int(r["seed"]) for r in rows) >= 2_000_000
    assert card["shadow"] is bool(card["gates_missed"] or card["shadow_reason"])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_rows_can_be_made_again(evaluate):
    training, cases = read_rows(HERE / "training.csv"), read_rows(HERE / "cases.csv")
    for row in (training[0], training[50], training[-1]):
        again = evaluate.features_of(row["set"], int(row["seed"]))
        assert {name: row[name] for name in again} == again
    for row in (cases[0], next(r for r in cases if r["set"] == "s3")):
        again = evaluate.outcome_of(row["set"], int(row["seed"]))
        for name in ("truth", "state", "score", "side", "single", "found_side", "found_segment"):
            assert row[name] == again[name]


def test_two_versions_are_compared_on_the_heads_that_both_answered(evaluate):
    def rows(scores):
        return [
            {"set": "s2", "seed": seed, "truth": int(seed % 2), "score": score} for seed, score in enumerate(scores)
        ]

    old, new = rows([0.1, 0.4, 0.3, 0.2, 0.5, 0.9]), rows([0.1, 0.4, 0.3, 0.8, 0.2, ""])
    found = evaluate.compared(old, new)["s2"]
    assert (found["n"], found["positives"], found["seeds"]) == (5, 2, [0, 4])
    assert found["auc"] == [0.5, 1.0]
    assert found["gain"] == 0.5
    # Pairs gained by the two positives over the three open heads: (0, 0, 1) and (0, 1, 1).
    error = (((1 / 3 - 0.5) ** 2 + (2 / 3 - 0.5) ** 2) / 1 / 2 + ((0 - 0.5) ** 2 + 0 + (1 - 0.5) ** 2) / 2 / 3) ** 0.5
    assert found["ci95"] == [round(0.5 + sign * 1.96 * error, 4) for sign in (-1, 1)]


def study(age=60.0, **changes):
    facts = {"modality": "CT", "instances": (), "body_part": "HEAD", "description": "CTA", "contrast": True}
    series = SeriesFacts("1.2.3", **(facts | changes))
    return StudyFacts(tenant="t", study_instance_uid="1", series=(series,), patient_age_years=age)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, None),
        ({"contrast": None}, None),
        ({"contrast": False}, "contrast"),
        ({"body_part": "CHEST"}, "body_part"),
        ({"modality": "MR"}, "modality"),
        ({"age": 12.0}, "patient_age"),
    ],
)
def test_headers_say_what_is_no_case(facts, reason):
    answer = load(INSTALLED).applicable(study(**facts))
    assert (answer.applicable, answer.reason) == (reason is None, reason)
