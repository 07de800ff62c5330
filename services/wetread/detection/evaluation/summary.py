"""From case rows to figures: per set, the worst shift set, calibration, subgroups, gallery, drift baseline, gates.

Pure: the same rows give the same figures, so a card can be recomputed from its ``cases.csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from wetread.core.errors import ConfigurationError
from wetread.detection.evaluation import classification as cls
from wetread.detection.evaluation.drift import baseline
from wetread.detection.evaluation.localisation import CaseMarks, froc_entry
from wetread.detection.evaluation.measure import DICE, EXPLAINED, FACT, FOUND, TRUE, Row
from wetread.detection.evaluation.overlap import agreement, mean_interval
from wetread.detection.evaluation.subgroups import by_facts, table

SHIFT_SETS: Final = ("s1", "s2", "s3", "s4", "s5")
GALLERY: Final = 10


def answered(rows: Sequence[Row]) -> list[Row]:
    """Rows with a score and a truth: what ROC figures are made of. Refusals are counted apart."""
    return [r for r in rows if r["score"] != "" and r["truth"] != ""]


def arrays(rows: Sequence[Row]) -> tuple[cls.Scores, cls.Truth]:
    """Scores and truth of answered rows."""
    return np.array([float(r["score"]) for r in rows]), np.array([bool(r["truth"]) for r in rows])


def summarise(rows: Sequence[Row], threshold: float | None) -> dict[str, Any]:
    """All figures of one set; blocks that the rows say nothing about are left out."""
    seeds = [int(r["seed"]) for r in rows]
    refusals = Counter(str(r["reason"]) for r in rows if r["state"] == "refused")
    out: dict[str, Any] = {"n": len(rows), "seeds": [min(seeds), max(seeds)], "refused": dict(sorted(refusals.items()))}
    judged = answered(rows)
    if judged and threshold is not None:
        scores, truth = arrays(judged)
        out |= {"positives": int(truth.sum()), "auc": cls.auc_entry(scores, truth)}
        out["auc_delong_se"] = cls.rounded(float(np.sqrt(cls.delong_variance(scores, truth))))
        out |= cls.at_threshold(scores, truth, threshold)
    marked = [_marks(r) for r in rows if r.get("lesion_scores", "") != "" or r.get("false_scores", "") != ""]
    empty = sum(1 for r in judged if r.get("lesion_scores", "") == "" and r.get("false_scores", "") == "")
    if any(case.lesion_scores for case in marked):
        out["froc"] = froc_entry([*marked, *[CaseMarks((), ())] * empty])
    labels = sorted({name for r in rows for name in r if name.startswith(DICE)})
    if labels:
        out["dice"] = {k.removeprefix(DICE): mean_interval([_float(r.get(k, "")) for r in rows]) for k in labels}
    measured = sorted({name.removeprefix(TRUE) for r in rows for name in r if name.startswith(TRUE)})
    if measured:
        out["measurements"] = {name: agreement(*_pairs(rows, name)) for name in measured}
    pointed = [int(r[EXPLAINED]) for r in rows if r.get(EXPLAINED, "") != ""]
    if pointed:
        out["explanation"] = {"maximum_in_lesion": cls.proportion(sum(pointed), len(pointed)), "n": len(pointed)}
    seconds = [float(r["seconds"]) for r in rows if r.get("seconds", "") != ""]
    out["seconds_median"] = cls.rounded(float(np.median(seconds))) if seconds else None
    return out


def metrics(rows: Sequence[Row], threshold: float | None) -> dict[str, Any]:
    """The card's ``metrics`` block over every set of the rows."""
    sets = list(dict.fromkeys(str(r["set"]) for r in rows))
    out: dict[str, Any] = {name: summarise([r for r in rows if r["set"] == name], threshold) for name in sets}
    shifted = {name: out[name]["auc"] for name in SHIFT_SETS if "auc" in out.get(name, {})}
    if shifted:
        worst = min(shifted, key=lambda name: shifted[name]["value"] or 0.0)
        out["worst_shift_set"] = {"set": worst, "auc": shifted[worst]}
    tested = [r for r in rows if r["set"] != "tune"]
    judged = answered(tested)
    if judged and threshold is not None:
        scores, truth = arrays(judged)
        out["calibration_s0"] = cls.calibration(*arrays([r for r in judged if r["set"] == "s0"]))
        facts = [_facts(r) for r in judged]
        out["subgroups"] = table(by_facts(facts), scores >= threshold, truth)
        out["failure_gallery"] = gallery(judged, threshold)
    out["drift_baseline"] = drift_baseline([r for r in tested if r["set"] == "s0"])
    return out


def gallery(rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """The ten surest errors of each kind, by set and seed: the images can be made again."""
    missed = sorted((r for r in rows if r["truth"] and r["score"] < threshold), key=lambda r: r["score"])
    alarms = sorted((r for r in rows if not r["truth"] and r["score"] >= threshold), key=lambda r: -r["score"])
    return {
        kind: [{name: r[name] for name in ("set", "seed", "score")} for r in part[:GALLERY]]
        for kind, part in (("missed", missed), ("false_alarms", alarms))
    }


def drift_baseline(rows: Sequence[Row]) -> dict[str, Any]:
    """Reference histograms of the score and of every numeric fact, and the refusal rate."""
    if not rows:
        return {}
    out: dict[str, Any] = {"refusal_rate": cls.rounded(sum(r["state"] == "refused" for r in rows) / len(rows))}
    columns = ["score", *sorted({name for r in rows for name in r if name.startswith(FACT)})]
    for name in columns:
        values = [r[name] for r in rows if isinstance(r.get(name), int | float)]
        if values:
            out[name.removeprefix(FACT)] = baseline(values)
    return out


def gates_missed(measured: Mapping[str, Any], wanted_of_sets: Mapping[str, Any]) -> list[str]:
    """Return ``set: figure`` for everything that gates ask for and the metrics do not reach.

    A figure is a path such as ``auc`` or ``dice.1``; a set without cases misses all of its gates.
    """
    missed = []
    for name, wanted in wanted_of_sets.items():
        for path, limit in wanted.items():
            found: Any = measured.get(name, {})
            for key in str(path).split("."):
                found = found.get(key) if isinstance(found, Mapping) else None
            value = found.get("value") if isinstance(found, Mapping) else found
            if value is None or value < limit:
                missed.append(f"{name}: {path}")
    return missed


def spec90(rows: Sequence[Row]) -> dict[str, Any]:
    """The operating point ``spec90`` of tuning rows: 90 % of the negatives stay unflagged.

    Raises ConfigurationError when the rows hold no negatives or no positives, or are not of the tuning split.
    """
    judged = answered(rows)
    scores, truth = arrays(judged) if judged else (np.empty(0), np.empty(0, bool))
    if {r["set"] for r in rows} - {"tune"} or not truth.any() or truth.all():
        raise ConfigurationError("operating points come from the tuning split, with positives and negatives")
    threshold = cls.threshold_at_specificity(scores[~truth], 0.90)
    at = cls.at_threshold(scores, truth, threshold)
    values = {name: at[name]["value"] for name in ("sensitivity", "specificity")}
    return {"name": "spec90", "threshold": threshold, "set": "tune", **values}


def _pairs(rows: Sequence[Row], name: str) -> tuple[list[float], list[float]]:
    pairs = [(_float(r.get(FOUND + name, "")), _float(r.get(TRUE + name, ""))) for r in rows]
    kept = [(found, true) for found, true in pairs if not np.isnan(found + true)]
    return [found for found, _ in kept], [true for _, true in kept]


def _facts(row: Row) -> dict[str, Any]:
    return {name.removeprefix(FACT): value for name, value in row.items() if name.startswith(FACT)}


def _marks(row: Row) -> CaseMarks:
    lesions, false = (
        tuple(float(v) for v in str(row[name]).split(";") if v) for name in ("lesion_scores", "false_scores")
    )
    return CaseMarks(lesions, false)


def _float(value: Any) -> float:
    return float("nan") if value == "" else float(value)
