"""The model card of `ich`: recomputable, complete, honest about what it is."""

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from wetread.core.manifest import Card
from wetread.detection.registry import companion, read_folder
from wetread.testing.phantoms import SPLITS, evidence_id
from wetread.testing.phantoms.parameters import as_yaml

MODEL = Path(__file__).resolve().parents[2] / "models" / "ich"


@pytest.fixture(scope="module")
def evaluate():
    return companion(read_folder(MODEL), "evaluate")


@pytest.fixture(scope="module")
def card():
    return json.loads((MODEL / "model-card.json").read_text())


def test_the_parameter_file_is_the_generators_table():
    text = (MODEL / "phantom.yaml").read_text()
    assert text == as_yaml()
    assert evidence_id(YAML(typ="safe").load(text)) == evidence_id()


def test_the_card_names_the_evidence_it_rests_on(card):
    assert card["phantom_evidence_id"] == evidence_id()
    assert "phantom-trained" in card["title"]
    assert card["performance_on_patients"] == "unknown"
    assert card["seen_real_cases"]
    assert Card.model_validate(card).operating_point().name == "spec90"


def test_every_metric_follows_from_the_committed_cases(card, evaluate):
    point = next(p for p in card["operating_points"] if p["name"] == card["default_operating_point"])
    rows, tuning = (evaluate.read_rows(MODEL / name) for name in ("evaluation.csv", "tuning.csv"))
    assert evaluate.metrics(rows, tuning, point["threshold"]) == card["metrics"]


def test_operating_points_follow_from_the_tuning_cases(card, evaluate):
    tuning = evaluate.read_rows(MODEL / "tuning.csv")
    assert {row["set"] for row in tuning} == {"tune"}
    assert evaluate.operating_points(tuning) == card["operating_points"]
    points = {point["name"]: point for point in card["operating_points"]}
    assert points["spec90"]["specificity"] >= 0.90
    assert points["sens90"]["sensitivity"] >= 0.90
    assert points["sens95"]["sensitivity"] >= 0.95
    refitted = evaluate.fit_case_model(evaluate.counted(tuning))
    assert {name: card["case_model"][name] for name in refitted} == pytest.approx(refitted, abs=1e-3)


def test_scores_follow_from_features_and_case_model(card, evaluate):
    for row in evaluate.read_rows(MODEL / "evaluation.csv")[::7]:
        assert evaluate.score_of(row, card["case_model"]) == pytest.approx(row["score"], abs=2e-3)


def test_cases_lie_in_the_seed_range_of_their_set(evaluate):
    for name in ("evaluation.csv", "tuning.csv"):
        rows = evaluate.read_rows(MODEL / name)
        assert all(row["seed"] in SPLITS[row["set"]] for row in rows)
        keys = [(row["set"], row["tier"], row["seed"]) for row in rows]
        assert len(set(keys)) == len(keys)


@pytest.mark.slow
@pytest.mark.server("torch")
def test_a_row_of_the_explanation_can_be_made_again(tmp_path):
    """Render the phantom anew: deleting what the map names costs the score more than chance, as the row says."""
    cases, explain = (companion(read_folder(MODEL), name) for name in ("cases", "explain"))
    [stored] = [r for r in explain.stored() if (r["set"], r["tier"], r["seed"]) == ("s0", "fast", "2000002")]
    packed, truth, _ = cases.read(cases.render(2_000_002, "s0", "fast", tmp_path))
    engines = explain.Engines(cases.load_detector_module())
    found = explain.measured(engines, packed.astype("float32"), truth, 2_000_002)
    for name, value in found.items():
        assert value == pytest.approx(float(stored[name]), abs=2e-3), name
    assert found["score_without_top"] < found["score_without_random"] - 0.5
    assert abs(found["correlation_shuffled"]) < 0.3


def test_the_figures_of_the_explanation_follow_from_its_cases(card, evaluate):
    explain = companion(read_folder(MODEL), "explain")
    rows = explain.stored()
    assert explain.block(rows) == card["explanation"]
    point = next(p for p in card["operating_points"] if p["name"] == card["default_operating_point"])
    detected = explain.chosen(evaluate.read_rows(MODEL / "evaluation.csv"), point["threshold"])
    assert {(r["set"], r["tier"], int(r["seed"])) for r in rows} == {(r["set"], r["tier"], r["seed"]) for r in detected}
    gates, figures = YAML(typ="safe").load(MODEL / "gates.yaml")["explanation"], card["explanation"]["figures"]
    for name in ("maximum_in_lesion", "deleting_top_tenth_lowers_more"):
        assert figures[name]["value"] >= gates[name]
    largest = figures["correlation_with_shuffled_weights"]["largest_absolute"]
    assert largest < gates["largest_correlation_shuffled"]
    scores = {(r["set"], r["tier"], r["seed"]): r["score"] for r in detected}
    assert all(scores[r["set"], r["tier"], int(r["seed"])] == pytest.approx(float(r["score"]), abs=2e-3) for r in rows)


def test_the_readme_is_rendered_from_the_card(card, evaluate):
    assert (MODEL / "README.md").read_text() == evaluate.readme(card)


def test_a_missed_gate_keeps_the_detector_in_shadow(card, evaluate):
    gates = YAML(typ="safe").load(MODEL / "gates.yaml")
    assert card["gates_missed"] == evaluate.gates_missed(card["metrics"], gates["sets"])
    assert card["preview_gates_missed"] == evaluate.gates_missed(card["metrics"], gates["preview"])
    assert card["shadow"] == bool(card["preview_gates_missed"])
    assert evaluate.gates_missed(card["metrics"], {"s0": {"auc": 1.01}}) == ["s0: auc"]
