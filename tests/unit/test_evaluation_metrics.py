"""The metric core against closed forms, hand-made lists and independent references (SciPy, brute force)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wetread.detection.evaluation import classification as cls
from wetread.detection.evaluation.drift import baseline, ks, psi
from wetread.detection.evaluation.localisation import (
    CaseMarks,
    Lesion,
    Mark,
    froc_curve,
    froc_entry,
    match,
    sensitivities,
)
from wetread.detection.evaluation.overlap import agreement, dice, hd95_mm, mean_interval
from wetread.detection.evaluation.subgroups import by_facts, difference, holm, table

SCORES = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40)


@given(SCORES)
@settings(max_examples=60, deadline=None)
def test_auc_is_mann_whitney_and_the_area_under_the_curve(pairs):
    scores = np.array([s for s, _ in pairs], float)
    truth = np.array([t for _, t in pairs])
    if truth.all() or not truth.any():
        assert np.isnan(cls.auc(scores, truth))
        return
    u = stats.mannwhitneyu(scores[truth], scores[~truth]).statistic
    assert cls.auc(scores, truth) == pytest.approx(u / truth.sum() / (~truth).sum())
    x, y = cls.roc_curve(scores, truth)
    assert np.trapezoid(y, x) == pytest.approx(cls.auc(scores, truth))
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_intervals_of_the_auc_agree_with_one_another():
    rng = np.random.default_rng(3)
    truth = rng.random(400) < 0.5
    scores = rng.normal(1.2 * truth, 1)
    low, high = cls.auc_interval(scores, truth)
    half = 1.96 * np.sqrt(cls.delong_variance(scores, truth))
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    assert cls.auc(scores, truth) == pytest.approx(stats.norm.cdf(1.2 / np.sqrt(2)), abs=2 * half)  # binormal model
    low, high = cls.auc_interval(scores, rng.permutation(truth))
    assert low < 0.5 < high


def test_wilson_is_the_score_interval():
    for hits, count in ((0, 5), (3, 17), (17, 17), (250, 400)):
        reference = stats.binomtest(hits, count).proportion_ci(method="wilson")
        assert cls.wilson(hits, count) == pytest.approx((reference.low, reference.high), abs=1e-6)
    assert cls.proportion(0, 0) == {"value": None, "ci95": [None, None], "n": 0}


def test_predictive_values_follow_bayes():
    positive, negative = cls.predictive_values(0.9, 0.8, 0.1)
    assert positive == pytest.approx(0.09 / (0.09 + 0.18))
    assert negative == pytest.approx(0.72 / (0.72 + 0.01))


def test_calibration_of_honest_and_of_boastful_scores():
    rng = np.random.default_rng(1)
    p = rng.random(20_000)
    truth = rng.random(20_000) < p
    assert cls.expected_calibration_error(p, truth) < 0.02
    assert cls.brier(p, truth) == pytest.approx(1 / 6, abs=0.01)  # E[p (1 - p)] of a uniform p
    assert cls.expected_calibration_error(np.full(100, 0.9), np.arange(100) % 2 == 0) == pytest.approx(0.4)
    assert sum(b.count for b in cls.reliability(p, truth)) == 20_000


def test_thresholds_keep_what_was_asked():
    negatives, positives = np.arange(10) / 10, np.arange(10) / 10
    assert (negatives < cls.threshold_at_specificity(negatives, 0.9)).mean() == 0.9
    assert (positives >= cls.threshold_at_sensitivity(positives, 0.9)).mean() == 0.9


def test_marks_are_credited_once_and_only_nearby():
    lesions = [Lesion((0, 0, 0), 5.0), Lesion((40, 0, 0), 1.0)]
    marks = [Mark((4.9, 0, 0), 0.6), Mark((0, 3, 0), 0.9), Mark((42.9, 0, 0), 0.5), Mark((20, 0, 0), 0.8)]
    found = match(lesions, marks)
    assert found == CaseMarks((0.9, 0.5), (0.8,))


def test_froc_of_a_hand_made_list():
    cases = [CaseMarks((0.9,), (0.8,)), CaseMarks((0.7, -np.inf), ()), CaseMarks((), (0.6, 0.5))]
    rates, found = froc_curve(cases)
    assert rates == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert found == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert sensitivities((rates, found)) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    entry = froc_entry(cases)
    assert entry["lesions"] == 3
    assert entry["mean"]["ci95"][0] <= entry["mean"]["value"] <= entry["mean"]["ci95"][1]


def test_duplicated_cases_do_not_narrow_an_interval_by_lesion():
    one = [CaseMarks((0.9, 0.8, 0.7, 0.6), ()), CaseMarks((-np.inf,) * 4, ())] * 4
    entry = froc_entry(one)
    assert entry["mean"]["ci95"][1] - entry["mean"]["ci95"][0] > 0.4, "8 cases, whatever they hold"


def test_overlap_and_distance_of_shifted_boxes():
    truth = np.zeros((12, 12, 12), bool)
    truth[2:8, 2:8, 2:8] = True
    found = np.roll(truth, 2, axis=2)
    assert dice(found, truth) == pytest.approx(2 / 3)
    assert hd95_mm(found, truth, (1.0, 1.0, 0.5)) == pytest.approx(1.0)
    empty = np.zeros_like(truth)
    assert np.isnan(dice(empty, empty))
    assert dice(found, empty) == 0
    assert np.isnan(hd95_mm(found, empty, (1, 1, 1)))


def test_agreement_is_bland_altman():
    measured, true = [11.0, 19.0, 33.0, 41.0], [10.0, 20.0, 30.0, 40.0]
    figures = agreement(measured, true)
    errors = np.array([1, -1, 3, 1.0])
    assert figures["bias"] == pytest.approx(1.0)
    assert figures["limits_of_agreement"] == pytest.approx(
        [1 - 1.96 * errors.std(ddof=1), 1 + 1.96 * errors.std(ddof=1)], abs=1e-3
    )
    assert figures["median_abs_error_percent"] == pytest.approx(7.5)
    assert mean_interval([0.5, float("nan"), 0.7])["n"] == 2


def test_holm_rejects_what_the_book_says():
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    gap, (low, high), p = difference(90, 100, 70, 100)
    table_ = [[90, 10], [70, 30]]
    assert gap == pytest.approx(0.2)
    assert p == pytest.approx(stats.chi2_contingency(table_, correction=False).pvalue, rel=1e-6)
    assert low < 0.2 < high


def test_subgroups_flag_the_one_that_differs_and_no_other():
    rng = np.random.default_rng(2)
    facts = [
        {"kernel": "sharp" if k % 4 == 0 else "soft", "sex": "FM"[k // 4 % 2], "noise": float(k)} for k in range(800)
    ]
    truth = rng.random(800) < 0.5
    right = rng.random(800) < np.where([f["kernel"] == "sharp" for f in facts], 0.5, 0.9)
    rows = {row["group"]: row for row in table(by_facts(facts), np.where(right, truth, ~truth), truth)}
    assert rows["kernel sharp"]["sensitivity_difference"]["differs"]
    assert not rows["sex F"]["specificity_difference"]["differs"]
    assert {name for name in rows if name.startswith("noise")} == {
        "noise under 266.3",
        "noise 266.3 to 532.7",
        "noise over 532.7",
    }
    few = table({"rare": np.arange(800) < 5}, truth, truth)
    assert few[0]["note"] == "too few"


def test_drift_is_nothing_for_the_same_and_much_for_another():
    rng = np.random.default_rng(0)
    sample = rng.normal(size=4000)
    reference = baseline(sample)
    assert psi(reference, sample) == pytest.approx(0, abs=1e-6)
    assert psi(reference, rng.normal(size=4000)) < 0.02
    assert psi(reference, rng.normal(1.0, 1, size=4000)) > 0.25
    other = rng.normal(0.3, 1, size=500)
    assert ks(sample, other) == pytest.approx(stats.ks_2samp(sample, other).statistic)
