"""The evaluation's arithmetic against hand-computed answers."""

from pathlib import Path

import numpy as np
import pytest

from wetread.detection.registry import companion, read_folder

MODEL = Path(__file__).resolve().parents[2] / "models" / "ich"


@pytest.fixture(scope="module")
def evaluate():
    return companion(read_folder(MODEL), "evaluate")


def test_threshold_keeps_the_asked_sensitivity(evaluate):
    rows = [{"truth": 1, "truth_ml": 5.0, "score": s / 10} for s in range(10)]
    rows += [{"truth": 0, "truth_ml": 0.0, "score": 0.99}, {"truth": 1, "truth_ml": 0.3, "score": 0.0}]
    threshold = evaluate.threshold_for(rows, 0.9)
    kept = sum(r["score"] >= threshold for r in rows if r["truth_ml"] >= 1)
    assert kept == 9


def test_case_model_learns_which_features_mean_blood(evaluate):
    rng = np.random.default_rng(0)
    rows = [
        {"truth": t, "strongest_logit": float(rng.normal(3 * t - 1.5, 1)), "found_ml": float(5 * t * rng.random())}
        for t in (0, 1) * 60
    ]
    model = evaluate.fit_case_model(rows)
    assert model["logit_weight"] > 0
    assert model["volume_weight"] > 0
    scores = np.array([evaluate.score_of(r, model) for r in rows])
    assert evaluate.auc(scores, np.array([bool(r["truth"]) for r in rows])) > 0.95


def test_the_classical_rule_counts_dense_tissue_inside_the_skull_only(evaluate):
    axis = np.arange(256) - 127.5
    radius = np.hypot(axis[None, :], axis[:, None])
    head = np.full((4, 256, 256), -1000.0, dtype=np.float32)
    head[:, radius < 80] = 1000.0
    head[:, radius < 72] = 30.0
    clean = evaluate.classical_ml(head)
    head[1:3, 100:120, 100:120] = 70.0
    assert clean == 0.0
    assert evaluate.classical_ml(head) == pytest.approx(2 * 400 * 5 / 1000, rel=0.15)
