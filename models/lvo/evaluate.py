"""Fit the score of `lvo` on phantoms, measure it on held-out ones, and write both into the card.

    python models/lvo/evaluate.py features --set train --n 240   rows of training.csv (resumes)
    python models/lvo/evaluate.py features --set tune --n 120
    python models/lvo/evaluate.py fit                            coefficients from train, threshold from tune
    python models/lvo/evaluate.py run --set s0 --n 60            rows of cases.csv (resumes); s1 to s5: --n 40
    python models/lvo/evaluate.py card                           figures of the card and README.md from cases.csv
    python models/lvo/evaluate.py speed --planes 400             seconds and peak memory of one large series
    python models/lvo/evaluate.py frame --set s2 --first 3150000 --n 20   how well turned heads are straightened
    python models/lvo/evaluate.py run --set s2 --first 3180000 --n 80 --rows NEW.csv   development heads, kept apart
    python models/lvo/evaluate.py compare OLD.csv NEW.csv        AUC of two versions on the same heads

Every figure is a phantom figure. `--seconds` ends a command after the case that passes that time.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import FrameRef, Volume
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.detection.authoring import cards
from wetread.detection.evaluation import classification as cls
from wetread.detection.evaluation.measure import Row, case_maker, drive, read_rows, write_rows
from wetread.detection.evaluation.summary import answered, spec90
from wetread.detection.registry import load, read_folder
from wetread.lvo.analysis import analyse
from wetread.lvo.asymmetry import FEATURES
from wetread.lvo.frame import STEP_MM
from wetread.lvo.scan import reduced, upper, upright
from wetread.lvo.score import logistic
from wetread.lvo.symmetry import Plane, from_rows, refined
from wetread.testing.phantoms.cta_head import cta_phantom, head_to_lps, occlusion_of
from wetread.testing.phantoms.cta_parameters import draw_cta
from wetread.testing.phantoms.seeds import SPLITS

HERE = Path(__file__).parent
TRAINING, CASES = HERE / "training.csv", HERE / "cases.csv"
SETS = ("s0", "s1", "s2", "s3", "s4", "s5")
FIRST = {name: seeds.start for name, seeds in SPLITS.items()} | {"s2": 3_160_000}
"""First seed that a set reports on. Those of s2 up to 3150007 were looked at while version 0.2.0 was made."""
SIDES = ("left", "right")
RIDGE = 1.0
END_MM = 15.0
"""An end point within this distance of the truth counts as found."""
KNOWN = ("set", "seed", "truth", "side", "segment", "reason")
COLUMNS = [*KNOWN, *(f"{side}:{name}" for side in SIDES for name in FEATURES)]


def features_of(split: str, seed: int) -> Row:
    """Return one training row: truth, and the features of both sides."""
    phantom = cta_phantom(seed, split=split)
    spec = phantom.spec
    row: Row = {"set": split, "seed": seed, "truth": int(spec.occlusion is not None), "reason": ""}
    row |= {"side": spec.side if spec.occlusion else "", "segment": spec.occlusion or ""}
    try:
        found = analyse(phantom.to_volume())
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"reason": refusal.reason}
    for side in found.sides:
        values = zip(FEATURES, side.features, strict=True)
        row |= {f"{side.side}:{name}": round(float(value), 4) for name, value in values}
    return row


def outcome_of(split: str, seed: int) -> Row:
    """Return one test row: what the shipped detector says about a phantom, beside the truth."""
    installed = read_folder(HERE)
    case = case_maker(installed)(split, seed)
    true = truth_of(split, seed)
    row: Row = {"set": split, "seed": seed, "truth": int(bool(case.truth.positive)), "lesion_scores": ""}
    row |= {f"fact:{name}": value for name, value in case.facts.items()} | true | {"false_scores": ""}
    began = time.thread_time()
    try:
        result = drive(load(installed), OnnxRuntimeClient(()), case.volume)
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"state": "refused", "reason": refusal.reason, "score": "", "seconds": ""}
    row |= {"state": result.state, "reason": "", "score": round(float(result.score or 0.0), 6)}
    row["seconds"] = round(time.thread_time() - began, 3)
    seen = result.observations[0]
    row |= {"found_side": seen.laterality, "found_segment": seen.types[0] if seen.types else ""}
    document = json.loads(next(a.data for a in result.attachments if a.name == "lvo.json"))
    row["single"] = max(document["sides"][side]["features"]["distal_length"] for side in SIDES)
    place = {m.name: m.value for m in seen.measures}
    if row["truth"] and "position_x" in place:
        gap = [place[f"position_{axis}"] - row[f"true_{axis}"] for axis in "xyz"]
        row["end_mm"] = round(float(np.linalg.norm(gap)), 2)
    return row


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """Logistic regression of "this side is occluded" on the features of a side (ridge, Newton), two rows per head."""
    design = np.array([[r[f"{side}:{name}"] for name in FEATURES] for r in rows for side in SIDES], dtype=np.float64)
    truth = np.array([float(r["side"] == side) for r in rows for side in SIDES])
    spread = np.maximum(design.std(axis=0), 1e-6)
    scaled = np.c_[np.ones(len(design)), design / spread]
    weights = np.zeros(scaled.shape[1])
    ridge = RIDGE * np.eye(len(weights))
    ridge[0, 0] = 1e-6
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(scaled @ weights, -30, 30)))
        hessian = (scaled * (p * (1 - p))[:, None]).T @ scaled + ridge
        weights = weights - np.linalg.solve(hessian, scaled.T @ (p - truth) + ridge @ weights)
    values = zip(FEATURES, weights[1:] / spread, strict=True)
    return {"offset": round(float(weights[0]), 5), "weights": {name: round(float(v), 5) for name, v in values}}


def score_of(row: Row, model: Mapping[str, Any]) -> float:
    """The detector's case score from a training row."""
    return max(logistic([row[f"{side}:{name}"] for name in FEATURES], model) for side in SIDES)


def fitted(card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the card with model and operating point from the rows of train and tune."""
    usable = [r for r in rows if r["reason"] == ""]
    train = [r for r in usable if r["set"] == "train"]
    model = fit(train)
    tune = [{**r, "score": round(score_of(r, model), 6)} for r in usable if r["set"] == "tune"]
    point = spec90(tune)
    sets = {name: [r for r in rows if r["set"] == name] for name in ("train", "tune")}
    training = {
        "data": "phantoms only (wetread.testing.phantoms.cta_head), no patient data",
        "fit": f"logistic regression on {len(FEATURES)} features of a side, ridge {RIDGE:g}, two rows per head",
        **{
            name: {
                "n": len(part),
                "positives": sum(int(r["truth"]) for r in part),
                "seeds": [min(int(r["seed"]) for r in part), max(int(r["seed"]) for r in part)],
                "refused": sum(r["reason"] != "" for r in part),
            }
            for name, part in sets.items()
        },
        "tune_auc": cls.auc_entry(np.array([r["score"] for r in tune]), np.array([bool(r["truth"]) for r in tune])),
        "commands": commands(),
    }
    return {
        **card,
        "side_model": model,
        "operating_points": [point],
        "default_operating_point": point["name"],
        "training": training,
    }


def commands() -> list[str]:
    """The commands that made the card, from the text at the top."""
    lines = [line.strip().split("   ")[0] for line in (__doc__ or "").splitlines()]
    return [line for line in lines if line.startswith("python ")]


def occlusions(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures beyond the case score, per set: side, segment and end point among detected positives; baseline."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(str(r["set"]) for r in rows):
        judged = answered([r for r in rows if r["set"] == name])
        hits = [r for r in judged if r["truth"] and r["state"] == "positive"]
        ends = np.array([float(r["end_mm"]) for r in hits if r.get("end_mm", "") != ""])
        truth = np.array([bool(r["truth"]) for r in judged])
        out[name] = {
            "detected": len(hits),
            "side_right": cls.proportion(sum(r["found_side"] == r["side"] for r in hits), len(hits)),
            "segment_right": cls.proportion(sum(r["found_segment"] == r["segment"] for r in hits), len(hits)),
            f"end_within_{END_MM:g}_mm": cls.proportion(int((ends <= END_MM).sum()), len(hits)),
            "end_median_mm": cls.rounded(float(np.median(ends))) if len(ends) else None,
            "sensitivity_by_segment": {
                segment: cls.proportion(
                    sum(r["segment"] == segment for r in hits), sum(r["segment"] == segment for r in judged)
                )
                for segment in ("ICA", "M1", "M2")
            },
            "baseline_single_feature_auc": cls.auc_entry(np.array([float(r["single"]) for r in judged]), truth),
        }
    return out


def truth_of(split: str, seed: int) -> Row:
    """Return side, segment and end point of a phantom's occlusion; empty without one."""
    spec = draw_cta(seed, split=split)
    place = occlusion_of(spec)
    row: Row = {"side": spec.side if place else "", "segment": spec.occlusion or ""}
    return row | {f"true_{axis}": "" if place is None else round(place[k], 2) for k, axis in enumerate("xyz")}


def wanted(split: str, first: int, count: int, known: Sequence[Row], seconds: float) -> Iterator[int]:
    """Yield *count* seeds of a set from *first* on, those that have no row yet, until the time is up."""
    done, end = {int(r["seed"]) for r in known if r["set"] == split}, time.monotonic() + seconds
    for seed in range(first, first + count):
        if seed not in done and time.monotonic() < end:
            yield seed


def measured(of: Callable[[str, int], Row], split: str, seeds: Iterator[int], jobs: int) -> Iterator[Row]:
    """Yield the row of every seed, computed in *jobs* processes; the same rows for any number of them."""
    if jobs == 1:
        yield from (of(split, seed) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        while batch := list(islice(seeds, 4 * jobs)):
            yield from pool.map(of, [split] * len(batch), batch)


def add_features(split: str, count: int, seconds: float, jobs: int) -> None:
    """Add rows to training.csv."""
    rows = read_rows(TRAINING) if TRAINING.exists() else []
    rows += list(measured(features_of, split, wanted(split, FIRST[split], count, rows, seconds), jobs))
    rows.sort(key=lambda r: (r["set"], int(r["seed"])))
    with TRAINING.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def add_cases(path: Path, split: str, first: int, count: int, seconds: float, jobs: int) -> None:
    """Add rows to *path*."""
    rows = read_rows(path) if path.exists() else []
    rows += list(measured(outcome_of, split, wanted(split, first, count, rows, seconds), jobs))
    write_rows(path, sorted(rows, key=lambda r: (r["set"], int(r["seed"]))))


def compared(old: Sequence[Row], new: Sequence[Row]) -> dict[str, Any]:
    """AUC of two versions on the heads of a set that both answered; the difference by DeLong et al. (1988), paired."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(str(r["set"]) for r in new):
        pair = [{int(r["seed"]): r for r in answered(rows) if r["set"] == name} for rows in (old, new)]
        seeds = sorted(pair[0].keys() & pair[1].keys())
        truth = np.array([bool(pair[1][seed]["truth"]) for seed in seeds])
        wins = []
        for rows in pair:
            scores = np.array([float(rows[seed]["score"]) for seed in seeds])
            gaps = scores[truth][:, None] - scores[~truth][None, :]
            wins.append((gaps > 0) + 0.5 * (gaps == 0))
        more = wins[1] - wins[0]
        error = np.sqrt(sum(more.mean(axis=k).var(ddof=1) / more.shape[1 - k] for k in (0, 1)))
        gain = float(more.mean())
        out[name] = {
            "n": len(seeds),
            "positives": int(truth.sum()),
            "seeds": [seeds[0], seeds[-1]],
            "auc": [round(float(w.mean()), 4) for w in wins],
            "gain": round(gain, 4),
            "ci95": [round(gain + sign * 1.96 * float(error), 4) for sign in (-1, 1)],
        }
    return out


def update(card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the card with every figure of the rows; a missed gate means shadow, and so does a reason on the card."""
    shadow = bool(card.get("shadow_reason"))
    return {**cards.measured(HERE, {**card, "shadow": shadow}, rows), "occlusions": occlusions(rows)}


def large_volume(planes: int) -> Volume:
    """Return a head of *planes* planes of 512 x 512 pixels of 0.45 mm, 0.4 mm apart, from a coarser one."""
    coarse = cta_phantom(
        2_900_000, step_mm=1.2, pixel_mm=0.9, below_mm=64.0, height_mm=82.0, occlusion="M1"
    ).to_volume()
    voxels = coarse.voxels.repeat(3, axis=0)[:planes].repeat(2, axis=1).repeat(2, axis=2)[:, :512, :512]
    before = [(512 - size) // 2 for size in voxels.shape[1:]]
    pads = [(0, 0), *((low, 512 - size - low) for low, size in zip(before, voxels.shape[1:], strict=True))]
    count = len(voxels)
    origins = np.tile(coarse.origins[0], (count, 1)) - np.array([before[1] * 0.45, before[0] * 0.45, 0.0])
    origins[:, 2] += 0.4 * np.arange(count)
    return replace(
        coarse,
        voxels=np.pad(voxels, pads, constant_values=-1000.0),
        origins=origins,
        pixel_spacing=(0.45, 0.45),
        weights_mm=np.full(count, 0.4),
        frames=tuple(FrameRef(f"2.25.{plane + 1}") for plane in range(count)),
    )


def speed(planes: int) -> dict[str, Any]:
    """Time the detector alone on one large series in memory; the peak is that of the process, the volume included."""
    volume = large_volume(planes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector, began, cpu = load(read_folder(HERE)), time.perf_counter(), time.process_time()
    result = drive(detector, OnnxRuntimeClient(()), volume)
    return {
        "shape": list(volume.voxels.shape),
        "state": result.state,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "volume_mb": round(volume.voxels.nbytes / 2**20),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_mb_before": round(before / 1024),
    }


def straightened(split: str, seed: int) -> dict[str, Any]:
    """Return how far the plane of symmetry lies off the true one, before and after the comparison with the mirror."""
    phantom = cta_phantom(seed, split=split)
    ends = head_to_lps(phantom.spec, np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    true = ends[0] - ends[1]
    volume = upper(reduced(upright(phantom.to_volume()), STEP_MM))
    first, began = from_rows(volume), time.process_time()
    found = refined(volume, first)
    seconds = time.process_time() - began

    def degrees(plane: Plane) -> float:
        return round(float(np.degrees(np.arccos(np.clip(plane.normal @ true, -1.0, 1.0)))), 2)

    pose = {name: round(getattr(phantom.spec, name), 1) for name in ("turn_deg", "roll_deg", "nod_deg")}
    off = round(float((ends[1] - found.point) @ found.normal), 2)
    return {"seed": seed, **pose, "before_deg": degrees(first), "after_deg": degrees(found), "off_mm": off} | {
        "seconds": round(seconds, 2)
    }


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, sets in (("features", ("train", "tune")), ("run", SETS)):
        one = parsers.add_parser(name)
        one.add_argument("--set", dest="split", choices=sets, required=True)
        one.add_argument("--n", type=int, required=True)
        one.add_argument("--seconds", type=float, default=float("inf"))
        one.add_argument("--jobs", type=int, default=1)
        if name == "run":
            one.add_argument("--first", type=int)
            one.add_argument("--rows", type=Path, default=CASES)
    parsers.add_parser("fit")
    parsers.add_parser("card")
    parsers.add_parser("speed").add_argument("--planes", type=int, default=400)
    turned = parsers.add_parser("frame")
    turned.add_argument("--set", dest="split", choices=SPLITS, required=True)
    turned.add_argument("--first", type=int, required=True)
    turned.add_argument("--n", type=int, required=True)
    versions = parsers.add_parser("compare")
    versions.add_argument("old", type=Path)
    versions.add_argument("new", type=Path)
    given = parser.parse_args(arguments)
    if given.command == "features":
        add_features(given.split, given.n, given.seconds, given.jobs)
    elif given.command == "run":
        first = FIRST[given.split] if given.first is None else given.first
        add_cases(given.rows, given.split, first, given.n, given.seconds, given.jobs)
    elif given.command == "fit":
        cards.write(HERE, fitted(cards.read(HERE), read_rows(TRAINING)))
    elif given.command == "card":
        cards.write(HERE, update(cards.read(HERE), read_rows(CASES)))
    elif given.command == "compare":
        sys.stdout.write(json.dumps(compared(read_rows(given.old), read_rows(given.new)), indent=1) + "\n")
    elif given.command == "frame":
        for seed in range(given.first, given.first + given.n):
            sys.stdout.write(json.dumps(straightened(given.split, seed)) + "\n")
    else:
        sys.stdout.write(json.dumps(speed(given.planes)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
