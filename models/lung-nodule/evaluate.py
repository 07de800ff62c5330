"""Measure `lung-nodule` on held-out phantoms and write the figures into its card.

    python models/lung-nodule/evaluate.py run --set tune --n 20     adds rows to cases.csv (resumes where it stopped)
    python models/lung-nodule/evaluate.py point                     operating point from the tuning rows
    python models/lung-nodule/evaluate.py run --set s0 --n 40
    python models/lung-nodule/evaluate.py card                      computes the card's tables from cases.csv
    python models/lung-nodule/evaluate.py real FOLDER               the marks on a series of files, printed

Sets: s0 as in training (other seeds), s1 acquisition, s2 anatomy, s3 confounders, s4 artefacts, s5 another generator.
Every figure is a phantom figure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.detection.authoring import cards
from wetread.detection.evaluation.classification import at_threshold, rounded
from wetread.detection.evaluation.localisation import CaseMarks, Lesion, Mark, froc_entry, match
from wetread.detection.evaluation.measure import FACT, Row, read_rows, write_rows
from wetread.detection.evaluation.overlap import agreement, mean_interval
from wetread.detection.evaluation.summary import answered, arrays
from wetread.detection.registry import InstalledDetector, companion, read_folder
from wetread.nodule.measure import Nodule
from wetread.nodule.reading import Mark as Found
from wetread.nodule.reading import Reading, marks_of, measured, read
from wetread.testing.phantoms.chest import ChestPhantom, ChestSpec, make_chest
from wetread.testing.phantoms.seeds import SPLITS

HERE: Final = Path(__file__).parent
ROWS: Final = HERE / "cases.csv"
SETS: Final = ("s0", "s1", "s2", "s3", "s4", "s5")
LEAST_SCORE: Final = 0.02
MOST_MARKS: Final = 20
"""Marks that are counted of a case: beyond, no rate of false positives of the FROC is reached."""
RULES: Final = ("", "classical_", "dot_")
"""Column prefixes: the network, the classical rule, and the one figure that candidates are ranked by."""
SIZES_MM: Final = ((0.0, 6.0), (6.0, 12.0), (12.0, 99.0))


def _folder() -> InstalledDetector:
    return read_folder(HERE)


class Judge:
    """Scores of the candidates of a reading by the network and by the two rules without one."""

    def __init__(self, installed: InstalledDetector, threads: int) -> None:
        self.engine = OnnxRuntimeClient(installed.networks, threads=threads)
        self.training, self.cases = companion(installed, "train"), companion(installed, "cases")
        self.rule: Mapping[str, Any] = cards.read(installed.folder)["training"]["classical"]
        self.name = installed.info.name

    def scores(self, reading: Reading) -> dict[str, npt.NDArray[np.float64]]:
        """Scores by prefix of ``RULES``."""
        logits = np.asarray(self.engine.infer(self.name, {"patches": reading.patches()})["logit"], dtype=np.float64)
        table = self.training.features(reading)
        return {
            "": 1 / (1 + np.exp(-np.clip(logits[:, 0], -30, 30))),
            "classical_": self.training.classical_scores(self.rule, table),
            "dot_": reading.candidates.dot_hu / (1000.0 + reading.candidates.dot_hu),
        }


def row_of(judge: Judge, phantom: ChestPhantom) -> Row:
    """The row of one case: marks by each rule, and what was measured of every nodule that the network marked."""
    began = time.perf_counter()
    row: Row = {"set": phantom.spec.split, "seed": phantom.seed, "truth": int(phantom.positive)}
    facts = judge.cases.case_of(phantom).facts
    row |= {FACT + name: value for name, value in facts.items()}
    try:
        reading = read(phantom.volume)
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"state": "refused", "reason": refusal.reason, "score": "", "seconds": ""}
    scores = judge.scores(reading)
    lesions = [Lesion(n.centre_lps_mm, n.truth.diameter_mm / 2) for n in phantom.nodules]
    known = cache(lambda number: measured(reading, number))
    marks = {name: marks_of(reading, scores[name], LEAST_SCORE, MOST_MARKS, known) for name in RULES}
    for name, found in marks.items():
        shown = [Mark(m.centre_lps_mm, m.score) for m in found if m.nodule is not None]
        hits = match(lesions, shown)
        row[name + "lesion_scores"] = ";".join(f"{s:.5g}" for s in hits.lesion_scores)
        row[name + "false_scores"] = ";".join(f"{s:.5g}" for s in hits.false_scores)
    best = max((m.score for m in marks[""] if m.nodule is not None), default=0.0)
    row["lesions"] = "|".join(_lesion(phantom, k, lesions[k], marks[""]) for k in range(len(lesions)))
    return row | {
        "state": "measured",
        "reason": "",
        "score": round(best, 6),
        "seconds": round(time.perf_counter() - began, 2),
        "candidates_hit": sum(_reached(reading, lesion) for lesion in lesions),
    }


def _reached(reading: Reading, lesion: Lesion) -> int:
    """Whether any candidate lies within the lesion: what the network never sees it can not find."""
    places = reading.frame.to_lps(reading.grid.place(reading.candidates.index))
    distance = np.linalg.norm(places - np.array(lesion.centre_mm), axis=1)
    return int(bool((distance <= max(lesion.radius_mm, 3.0)).any()))


def _lesion(phantom: ChestPhantom, number: int, lesion: Lesion, marks: Sequence[Found]) -> str:
    """A nodule as ``diameter:solidity:place:spiculated:volume:score:volume found:diameter found:solidity found``."""
    truth = phantom.nodules[number].truth
    parts: list[Any] = [round(truth.diameter_mm, 2), truth.solidity, truth.place, int(truth.spiculated)]
    parts.append(round(truth.volume_mm3, 1))
    best: tuple[float, Nodule] | None = None
    for mark in marks:
        away = float(np.linalg.norm(np.subtract(mark.centre_lps_mm, lesion.centre_mm)))
        if mark.nodule is not None and away <= max(lesion.radius_mm, 3.0) and (best is None or mark.score > best[0]):
            best = mark.score, mark.nodule
    if best is not None:
        nodule = best[1]
        parts += [f"{best[0]:.5g}", round(nodule.volume_mm3, 1), round(nodule.diameter_mm, 2), nodule.solidity]
    return ":".join(str(p) for p in parts)


def run(split: str, count: int, threads: int, seconds: float) -> None:
    """Measure the first *count* seeds of a set that have no row yet, *threads* at a time, for at most *seconds*."""
    rows = _stored()
    done = {int(r["seed"]) for r in rows if r["set"] == split}
    judge, began = Judge(_folder(), 1), time.monotonic()
    first = SPLITS[split].start

    def one(seed: int) -> Row | None:
        late = time.monotonic() - began > seconds
        return None if late else row_of(judge, make_chest(seed, ChestSpec(split=split)))

    with ThreadPoolExecutor(threads) as pool:
        for row in pool.map(one, [seed for seed in range(first, first + count) if seed not in done]):
            if row is not None:
                rows.append(row)
                rows.sort(key=lambda r: (("tune", *SETS).index(r["set"]), int(r["seed"])))
                write_rows(ROWS, rows)
                _say(f"{split} {row['seed']} {row['score']}")


def point_of(rows: Sequence[Row]) -> dict[str, Any]:
    """The operating point of tuning rows: one false mark per case; sensitivity by nodule, specificity by case."""
    marks = [marked(r) for r in rows]
    false = np.sort([s for m in marks for s in m.false_scores])[::-1]
    threshold = round(float(false[len(rows)]) + 1e-4, 4)
    lesions = np.array([s for m in marks for s in m.lesion_scores])
    quiet = [all(s < threshold for s in m.false_scores) for m, r in zip(marks, rows, strict=True) if not r["truth"]]
    return {
        "name": "fp1",
        "threshold": threshold,
        "set": "tune",
        "sensitivity": rounded(float((lesions >= threshold).mean())),
        "specificity": rounded(float(np.mean(quiet))),
    }


def point() -> None:
    """Choose the operating point on the tuning set and write it into the card."""
    card = cards.read(HERE)
    card["operating_points"] = [point_of([r for r in _stored() if r["set"] == "tune"])]
    card["default_operating_point"] = "fp1"
    card["operating_point_note"] = "fp1: one false mark per case on tune; sensitivity by nodule, specificity by case"
    cards.write(HERE, card)
    _say(str(card["operating_points"]))


def card() -> None:
    """Write the tables of cases.csv into the card and README.md."""
    rows = _stored()
    document = cards.measured(HERE, cards.read(HERE), rows)
    cards.write(HERE, document | tables(rows, document))


def tables(rows: Sequence[Row], document: Mapping[str, Any]) -> dict[str, Any]:
    """The card's tables of nodules, marks and baselines."""
    threshold = float(document["operating_points"][0]["threshold"])
    of = {name: [r for r in rows if r["set"] == name] for name in SETS}
    means = {name: froc_of(part, "").get("mean") for name, part in of.items() if part and name != "s0"}
    worst = min((name for name in means if means[name]), key=lambda name: means[name]["value"], default=None)
    return {
        "worst_shift_set_by_froc": {"set": worst, "mean": means[worst]} if worst else None,
        "lesions": {name: lesion_figures(part) for name, part in of.items() if part},
        "at_operating_point": {name: operating(part, threshold) for name, part in of.items() if part},
        "baselines": {
            name: {rule.rstrip("_") or "network": froc_of(part, rule) for rule in RULES}
            for name, part in of.items()
            if part
        },
        **{f"nodules_found_by_kind_{name}": by_kind(of[name], threshold) for name in ("s0", "s5")},
    }


def marked(row: Row, rule: str = "") -> CaseMarks:
    """The marks of a row by a rule."""
    lesion, false = (
        tuple(float(v) for v in str(row[rule + name]).split(";") if v) for name in ("lesion_scores", "false_scores")
    )
    return CaseMarks(lesion, false)


def froc_of(rows: Sequence[Row], rule: str) -> dict[str, Any]:
    """FROC of one rule over the answered cases of a set."""
    return froc_entry([marked(r, rule) for r in rows if r["state"] != "refused"])


def operating(rows: Sequence[Row], threshold: float) -> dict[str, Any]:
    """Sensitivity by nodule and false marks per case at the card's threshold, and cases right."""
    marks = [marked(r) for r in rows if r["state"] != "refused"]
    found = [float(np.mean([s >= threshold for s in m.lesion_scores])) if m.lesion_scores else np.nan for m in marks]
    lesions = [s >= threshold for m in marks for s in m.lesion_scores]
    out: dict[str, Any] = {
        "nodules": len(lesions),
        "found": int(sum(lesions)),
        "sensitivity_by_case": mean_interval(found),
        "false_marks_per_case": mean_interval([float(sum(s >= threshold for s in m.false_scores)) for m in marks]),
    }
    judged = answered(rows)
    if judged:
        at = at_threshold(*arrays(judged), threshold)
        out["cases"] = {name: at[name] for name in ("sensitivity", "specificity")}
    return out


def lesions_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every nodule of the rows with its truth, and what was found of it."""
    out = []
    for row in rows:
        for text in filter(None, str(row.get("lesions", "")).split("|")):
            parts = text.split(":")
            known: dict[str, Any] = {
                "diameter": float(parts[0]), "solidity": parts[1], "place": parts[2],
                "spiculated": parts[3] == "1", "volume": float(parts[4]), "score": -np.inf,
            }  # fmt: skip
            if len(parts) > 5:
                known |= {"score": float(parts[5]), "found_volume": float(parts[6])}
                known |= {"found_diameter": float(parts[7]), "found_solidity": parts[8]}
            out.append(known)
    return out


def lesion_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Volume, diameter and density of the nodules that were marked at all, against their truth."""
    everything = lesions_of(rows)
    seen = [n for n in everything if "found_volume" in n]
    relative = [abs(n["found_volume"] / n["volume"] - 1) for n in seen]
    large = [abs(n["found_volume"] / n["volume"] - 1) for n in seen if n["diameter"] >= 6]
    return {
        "nodules": len(everything),
        "candidates_reach": int(sum(int(r["candidates_hit"] or 0) for r in rows if r["state"] != "refused")),
        "measured": len(seen),
        "volume_error": mean_interval(relative),
        "volume_error_median": rounded(float(np.median(relative))) if relative else None,
        "volume_error_from_6mm": mean_interval(large),
        "volume_error_median_from_6mm": rounded(float(np.median(large))) if large else None,
        "diameter_mm": agreement([n["found_diameter"] for n in seen], [n["diameter"] for n in seen]),
        "solidity_right": f"{sum(n['found_solidity'] == n['solidity'] for n in seen)} of {len(seen)}",
    }


def by_kind(rows: Sequence[Row], threshold: float) -> dict[str, str]:
    """Nodules found at the card's threshold, by density, place and size: counts, no rates of a handful."""
    everything = lesions_of(rows)
    groups: dict[str, list[dict[str, Any]]] = {}
    for nodule in everything:
        size = next(f"{low:g}-{high:g} mm" for low, high in SIZES_MM if low <= nodule["diameter"] < high)
        for name in (nodule["solidity"], nodule["place"], size, *(["spiculated"] if nodule["spiculated"] else [])):
            groups.setdefault(name, []).append(nodule)
    return {
        name: f"{sum(n['score'] >= threshold for n in part)} of {len(part)}" for name, part in sorted(groups.items())
    }


def real(folder: Path, threads: int) -> None:
    """Print the marks on a series of files: score, place, size. Nothing is chosen by it."""
    installed = _folder()
    manifest, operating_point = installed.info.manifest, installed.info.card.operating_point()
    assert operating_point is not None
    objects = [path.read_bytes() for path in sorted(folder.rglob("*.dcm"))]
    began = time.perf_counter()
    volume = assemble_input(objects, PydicomFrameDecoder(), manifest.input)
    assembled = time.perf_counter()
    reading = read(volume)
    scores = Judge(installed, threads).scores(reading)[""]
    marks = [m for m in marks_of(reading, scores, LEAST_SCORE, MOST_MARKS) if m.nodule is not None]
    ended = time.perf_counter()
    _say(
        f"planes {len(volume.voxels)}, assembled {assembled - began:.1f} s, read and measured {ended - assembled:.1f} s"
    )
    _say(f"threshold {operating_point.threshold}, candidates {len(scores)}, flags {volume.flags}")
    for rank, mark in enumerate(marks, start=1):
        nodule = mark.nodule
        assert nodule is not None
        place = ", ".join(f"{v:.1f}" for v in mark.centre_lps_mm)
        sign = "*" if mark.score >= operating_point.threshold else " "
        size = f"{nodule.volume_mm3:.0f} mm3 {nodule.long_axis_mm:.1f} x {nodule.short_axis_mm:.1f} mm"
        _say(f"{sign}{rank:3d} score {mark.score:.4f} LPS ({place}) {size} {nodule.solidity}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _stored() -> list[Row]:
    return read_rows(ROWS) if ROWS.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--set", choices=["tune", *SETS], required=True)
    running.add_argument("--n", type=int, default=40)
    running.add_argument("--threads", type=int, default=2)
    running.add_argument("--seconds", type=float, default=1e9)
    commands.add_parser("point")
    commands.add_parser("card")
    looking = commands.add_parser("real")
    looking.add_argument("folder", type=Path)
    looking.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.command == "run":
        run(options.set, options.n, options.threads, options.seconds)
    elif options.command == "point":
        point()
    elif options.command == "card":
        card()
    else:
        real(options.folder, options.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
