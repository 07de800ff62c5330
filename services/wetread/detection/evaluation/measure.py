"""The loop over cases: one row per case, and ``cases.csv`` that every figure can be recomputed from."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from wetread.core.detector import BaseDetector, Context, Observation, Result, Volume
from wetread.core.errors import ConfigurationError, CorruptRecord, NotApplicable, NotProcessable
from wetread.core.ports.inference import InferenceClient
from wetread.detection.evaluation.cases import Case, CaseMaker
from wetread.detection.evaluation.explanation import points_at
from wetread.detection.evaluation.localisation import Mark, match
from wetread.detection.evaluation.overlap import dice
from wetread.detection.registry import InstalledDetector, companion, load

Row = dict[str, Any]
LEADING: Final = ("set", "seed", "truth", "state", "reason", "score", "seconds", "lesion_scores", "false_scores")
TRUE, FOUND, FACT, DICE = "true:", "found:", "fact:", "dice:"
"""Column prefixes: true and found measures, facts of the case, Dice by label."""
EXPLAINED: Final = "explained"
"""1: the strongest cell of where the score came from holds the lesion; empty: not a detected lesion, or no map."""


def case_maker(installed: InstalledDetector) -> CaseMaker:
    """Return the folder's evaluation hook. Raises ConfigurationError when there is none."""
    maker = getattr(companion(installed, "cases"), "case", None)
    if not callable(maker):
        raise ConfigurationError(f"cases.py of {installed.info.name} defines no function case(split, seed)")
    return maker  # type: ignore[no-any-return]


def drive(detector: BaseDetector, engine: InferenceClient, volume: Volume) -> Result:
    """Run a detector on a volume, answered by *engine*. Raises NotApplicable, NotProcessable, ComputationFailed."""
    steps = detector.steps(volume, Context(volume, detector.manifest.parameters))
    try:
        request = next(steps)
        while True:
            request = steps.send(engine.infer(request.network, request.tensors))
    except StopIteration as done:
        result: Result = done.value
        return result


def measure(detector: BaseDetector, engine: InferenceClient, case: Case) -> Row:
    """Run one case and compare it with its truth; a typed refusal is an outcome of its own."""
    began = time.perf_counter()
    truth = case.truth
    row: Row = {
        "set": case.split,
        "seed": case.seed,
        "truth": "" if truth.positive is None else int(truth.positive),
        **{TRUE + name: round(value, 5) for name, value in truth.measures.items()},
        **{FACT + name: value for name, value in case.facts.items()},
    }
    try:
        result = drive(detector, engine, case.volume)
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"state": "refused", "reason": refusal.reason, "score": "", "seconds": _since(began)}
    row |= {"state": result.state, "reason": "", "score": "" if result.score is None else round(result.score, 6)}
    row["seconds"] = _since(began)
    row |= {FOUND + name: round(value, 5) for name, value in measured_values(result).items() if name in truth.measures}
    if truth.mask is not None:
        found = np.zeros_like(truth.mask) if result.mask is None else result.mask
        labels = sorted({int(v) for v in np.unique(truth.mask)} | {int(v) for v in np.unique(found)} - {0})
        row |= {f"{DICE}{k}": _number(dice(found == k, truth.mask == k)) for k in labels if k}
    if truth.positive and truth.mask is not None and result.state == "positive" and result.explanation is not None:
        row[EXPLAINED] = int(points_at(result.explanation, case.volume, truth.mask > 0))
    if truth.positive is not None and result.mask is not None:
        marks = match(truth.lesions, marks_of(result, case.volume))
        row["lesion_scores"] = ";".join(f"{s:.5g}" for s in marks.lesion_scores)
        row["false_scores"] = ";".join(f"{s:.5g}" for s in marks.false_scores)
    return row


def measured_values(result: Result) -> dict[str, float]:
    """Return every measure of a result by ``<code>[.<site or side>].<name>``, and by ``<code>.<name>`` alone.

    Of equal names the first counts.
    """
    values: dict[str, float] = {}
    for seen in result.observations:
        place = seen.site or seen.laterality
        prefix = f"{seen.code}.{place}" if place else seen.code
        for item in seen.measures:
            values.setdefault(f"{prefix}.{item.name}", item.value)
            values.setdefault(f"{seen.code}.{item.name}", item.value)
    return values


def marks_of(result: Result, volume: Volume) -> list[Mark]:
    """Return the centre (LPS mm) and score of every marked observation: the centroid of its label."""
    marks = []
    for seen in result.observations:
        if seen.label is None or result.mask is None:
            continue
        index = np.argwhere(result.mask == seen.label)
        if len(index):
            marks.append(Mark(centre_mm(volume, index), _score(seen, result)))
    return marks


def centre_mm(volume: Volume, index: np.ndarray) -> tuple[float, float, float]:
    """Return the centroid of voxels [n, (plane, row, column)] in LPS mm, weighted by the slab of their plane."""
    planes = index[:, 0]
    where = (
        volume.origins[planes]
        + index[:, 2:3] * volume.pixel_spacing[1] * volume.row_direction
        + index[:, 1:2] * volume.pixel_spacing[0] * volume.column_direction
    )
    x, y, z = np.average(where, axis=0, weights=volume.weights_mm[planes])
    return float(x), float(y), float(z)


def run(
    installed: InstalledDetector,
    engine: InferenceClient,
    split: str,
    seeds: Iterable[int],
    *,
    known: Sequence[Row] = (),
) -> Iterator[Row]:
    """Measure the cases of *seeds* in order; rows already *known* are given as they are."""
    detector = load(installed)
    make, done = case_maker(installed), {(row["set"], int(row["seed"])): row for row in known}
    for seed in seeds:
        row = done.get((split, seed))
        yield measure(detector, engine, make(split, seed)) if row is None else row


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV: leading columns, then the others by name."""
    others = sorted({name for row in rows for name in row} - set(LEADING))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*LEADING, *others], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """Read rows; what looks like a number is one. Raises CorruptRecord."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: _parsed(name, text) for name, text in raw.items()} for raw in csv.DictReader(file)]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise CorruptRecord(f"{path.name} cannot be read") from error


def _parsed(name: str, text: str) -> Any:
    if name in {"set", "state", "reason", "lesion_scores", "false_scores"} or text == "":
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _score(seen: Observation, result: Result) -> float:
    return next((float(s) for s in (seen.score, result.score) if s is not None), 0.0)


def _number(value: float) -> float | str:
    return "" if np.isnan(value) else round(value, 5)


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
