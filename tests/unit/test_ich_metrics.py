"""The evaluation's arithmetic against hand-computed answers."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

MODEL = Path(__file__).resolve().parents[2] / "models" / "ich"


@pytest.fixture(scope="module")
def evaluate():
    found = importlib.util.spec_from_file_location("wetread_model_ich_evaluate", MODEL / "evaluate.py")
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


def test_auc_of_a_hand_computed_list(evaluate):
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    truth = np.array([True, False, True, False, False])
    # pairs won: 0.9 beats 3, 0.7 beats 2, of 6
    assert evaluate.auc(scores, truth) == pytest.approx(5 / 6)
    assert evaluate.auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5
    assert np.isnan(evaluate.auc(scores, np.zeros(5, dtype=bool)))


def test_permuted_labels_give_one_half_within_the_interval(evaluate):
    rng = np.random.default_rng(5)
    scores, truth = rng.normal(size=300), rng.random(300) < 0.5
    low, high = evaluate.auc_interval(scores, truth)
    assert low < 0.5 < high
    assert high - low < 0.2


def test_wilson_intervals_of_the_literature(evaluate):
    # 2 of 2: 34-100 %; 1 of 1: 21-100 %
    assert evaluate.wilson(2, 2) == pytest.approx((0.342, 1.0), abs=1e-3)
    assert evaluate.wilson(1, 1) == pytest.approx((0.207, 1.0), abs=1e-3)
    assert all(np.isnan(evaluate.wilson(0, 0)))


def test_threshold_keeps_the_asked_sensitivity(evaluate):
    rows = [{"truth": 1, "score": s / 10} for s in range(10)] + [{"truth": 0, "score": 0.99}]
    threshold = evaluate.threshold_for(rows, 0.9)
    kept = sum(r["score"] >= threshold for r in rows if r["truth"])
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
