"""Test what `ich` shows as the origin of its score, on held-out phantoms with blood, and put the figures on the card.

    python models/ich/explain.py run CACHE [--most 5]    adds rows to explanation.csv (resumes where it stopped)
    python models/ich/explain.py card                    the card's `explanation` block, README.md

Cases: every bleed of the first 40 seeds of s0..s5 that `measure.py run` found positive. Per case: whether the strongest
cell of the activation map lies in the blood, what the score loses when the strongest tenth of the brain's cells is
painted over against a random tenth, and how the map correlates with that of a network whose weights are shuffled.
All figures are phantom figures.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from wetread.detection.evaluation.classification import proportion, rounded
from wetread.detection.evaluation.explanation import correlation, shuffled
from wetread.testing.phantoms import SPLITS

HERE = Path(__file__).parent
ROWS = HERE / "explanation.csv"
FIELDS = (
    "set", "tier", "seed", "truth_ml", "score", "strongest_cell_has_blood", "strongest_cell_centre_in_blood",
    "score_without_top", "score_without_random", "correlation_shuffled",
)  # fmt: skip
AIMS = {"maximum_in_lesion": 0.90, "deleting_top_tenth_lowers_more": 0.90}
RELATED_AIM = 0.3
FIRST = 40
"""Seeds of each set: a case takes ten passes of the network."""
SHARE = 0.10
DRAWS = 2
LEAST_BRAIN = 0.5
Row = dict[str, Any]
Cells = npt.NDArray[np.bool_]


def brain_cells(hu: npt.NDArray[np.float32], cells: tuple[int, ...]) -> Cells:
    """Cells of the map [slab, row, column] that hold brain or blood on half of their pixels or more."""
    from scipy import ndimage

    inside = np.empty(hu.shape, dtype=bool)
    for slab, image in enumerate(hu):
        bone = ndimage.binary_closing(image > 200, iterations=2)
        inside[slab] = ndimage.binary_fill_holes(bone) & ~bone & (image > -5) & (image < 100)
    return blocks(inside, cells).mean(axis=(2, 4)) >= LEAST_BRAIN


def blocks(pixels: npt.NDArray[Any], cells: tuple[int, ...]) -> npt.NDArray[Any]:
    """Pixels [slab, row, column] as [slab, cell row, row within, cell column, column within]."""
    count, rows, columns = cells
    return pixels.reshape(count, rows, pixels.shape[1] // rows, columns, pixels.shape[2] // columns)


def without(hu: npt.NDArray[np.float32], cells: Cells, value: float) -> npt.NDArray[np.float32]:
    """Paint the chosen cells over with one value."""
    chosen = np.repeat(np.repeat(cells, hu.shape[1] // cells.shape[1], axis=1), hu.shape[2] // cells.shape[2], axis=2)
    return np.where(chosen, np.float32(value), hu)


def strongest(cam: npt.NDArray[np.float32], brain: Cells, share: float) -> Cells:
    """The cells of highest activation: *share* of those in the brain."""
    out = np.zeros(cam.shape, dtype=bool)
    places = np.flatnonzero(brain)
    order = np.argsort(-cam.ravel()[places], kind="stable")
    out.ravel()[places[order[: round(share * places.size)]]] = True
    return out


def random_cells(brain: Cells, share: float, rng: np.random.Generator) -> Cells:
    """As many cells of the brain, drawn by chance."""
    out = np.zeros(brain.shape, dtype=bool)
    places = np.flatnonzero(brain)
    out.ravel()[rng.permutation(places)[: round(share * places.size)]] = True
    return out


class Engines:
    """The network, the same with shuffled weights, and what turns their answers into a score."""

    def __init__(self, module: ModuleType) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        weights = (HERE / "1" / "model.onnx").read_bytes()
        self._module = module
        self._settings = json.loads((HERE / "model-card.json").read_text())["case_model"]
        self.network = ort.InferenceSession(weights, options)
        self.shuffled = ort.InferenceSession(shuffled(weights, seed=1), options)

    def answer(self, hu: npt.NDArray[np.float32], session: Any) -> tuple[npt.NDArray[np.float32], float]:
        """Give activation map and case score."""
        inputs = self._module.network_input(hu)
        parts = [session.run(None, {"slabs": inputs[start : start + 16]}) for start in range(0, len(inputs), 16)]
        prob, logit, cam = (np.concatenate([part[k] for part in parts]) for k in range(3))
        labels, _ = self._module.find_bleeds(prob, hu, self._settings)
        score = self._module.case_score({"prob": prob, "case_logit": logit}, labels, self._settings)
        return cam, float(score)


def measured(
    engines: Engines, hu: npt.NDArray[np.float32], truth: npt.NDArray[np.uint8], seed: int
) -> dict[str, float | int]:
    """Measure one case on the network's grid; *seed* draws the random cells."""
    cam, score = engines.answer(hu, engines.network)
    brain = brain_cells(hu, cam.shape)
    fill = float(np.median(blocks(hu, cam.shape).transpose(0, 1, 3, 2, 4)[brain]))
    top = np.unravel_index(int(cam.argmax()), cam.shape)
    blood = blocks(truth > 0, cam.shape).transpose(0, 1, 3, 2, 4)[top]
    rng = np.random.default_rng(seed)
    painted = [without(hu, random_cells(brain, SHARE, rng), fill) for _ in range(DRAWS)]
    by_chance = [engines.answer(slabs, engines.network)[1] for slabs in painted]
    strong = engines.answer(without(hu, strongest(cam, brain, SHARE), fill), engines.network)[1]
    other = engines.answer(hu, engines.shuffled)[0]
    return {
        "score": round(score, 5),
        "strongest_cell_has_blood": int(blood.any()),
        "strongest_cell_centre_in_blood": int(blood[blood.shape[0] // 2, blood.shape[1] // 2]),
        "score_without_top": round(strong, 5),
        "score_without_random": round(float(np.mean(by_chance)), 5),
        "correlation_shuffled": round(correlation(cam[brain], other[brain]), 4),
    }


@cache
def _engines() -> Engines:
    from cases import load_detector_module  # type: ignore[import-not-found]

    return Engines(load_detector_module())


def measured_file(path: Path) -> dict[str, float | int]:
    """Measure one cached case."""
    from cases import read

    packed, truth, facts = read(path)
    return measured(_engines(), packed.astype(np.float32), truth, facts["seed"])


def run(folder: Path, most: int) -> None:
    """Measure at most *most* cases that are not in explanation.csv yet, on all cores."""
    from evaluate import read_rows  # type: ignore[import-not-found]

    card = json.loads((HERE / "model-card.json").read_text())
    point = next(p for p in card["operating_points"] if p["name"] == card["default_operating_point"])
    rows = stored()
    done = {(r["set"], r["tier"], int(r["seed"])) for r in rows}
    wanted = chosen(read_rows(HERE / "evaluation.csv"), point["threshold"])
    cases = [r for r in wanted if (r["set"], r["tier"], r["seed"]) not in done][:most]
    paths = [folder / f"{case['set']}-{case['tier']}" / f"{case['seed']:07d}.npz" for case in cases]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        for case, found in zip(cases, workers.map(measured_file, paths), strict=True):
            row = {name: case[name] for name in ("set", "tier", "seed", "truth_ml")} | found
            rows.append({name: str(value) for name, value in row.items()})
            write(rows)
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


def chosen(rows: Sequence[Row], threshold: float) -> list[Row]:
    """The cases of evaluation.csv that are explained."""
    return [r for r in rows if r["truth"] and r["score"] >= threshold and r["seed"] - SPLITS[r["set"]].start < FIRST]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of section "explanations" over all detected bleeds."""
    kept = [float(r["score_without_top"]) < float(r["score_without_random"]) for r in rows]
    falls = {
        name: rounded(float(np.mean([float(r["score"]) - float(r[name]) for r in rows])))
        for name in ("score_without_top", "score_without_random")
    }
    related = np.abs([float(r["correlation_shuffled"]) for r in rows])
    return {
        "n": len(rows),
        "by_set": {name: sum(r["set"] == name for r in rows) for name in sorted({r["set"] for r in rows})},
        "maximum_in_lesion": proportion(sum(int(r["strongest_cell_has_blood"]) for r in rows), len(rows)),
        "maximum_centre_in_lesion": proportion(sum(int(r["strongest_cell_centre_in_blood"]) for r in rows), len(rows)),
        "deleting_top_tenth_lowers_more": proportion(sum(kept), len(rows)),
        "mean_fall_top_tenth": falls["score_without_top"],
        "mean_fall_random_tenth": falls["score_without_random"],
        "correlation_with_shuffled_weights": {
            "mean_absolute": rounded(float(related.mean())),
            "largest_absolute": rounded(float(related.max())),
            "under_0.3": proportion(int((related < 0.3).sum()), len(rows)),
        },
    }


def block(rows: Sequence[Row]) -> dict[str, Any]:
    """The card's `explanation`; aims are the specification's, missed or not."""
    figures = summary(rows)
    missed = [name for name, least in AIMS.items() if figures[name]["value"] < least]
    if figures["correlation_with_shuffled_weights"]["largest_absolute"] >= RELATED_AIM:
        missed.append("correlation_with_shuffled_weights")
    return {
        "method": "class activation: the slab logit is pooled from the map itself, an output of the network",
        "shown": "SEG FRACTIONAL of the key slices and a blue tint on the Secondary Capture",
        "says": "where the score came from; it does not say why something is disease",
        "cases": f"phantoms: bleeds of the first {FIRST} seeds of s0 to s5, found positive at the operating point",
        "aims_missed": missed,
        "figures": figures,
    }


def card() -> None:
    """Write the card's `explanation` from explanation.csv, and README.md."""
    from evaluate import readme

    path = HERE / "model-card.json"
    content = json.loads(path.read_text())
    content["explanation"] = block(stored())
    path.write_text(json.dumps(content, indent=2) + "\n")
    (HERE / "README.md").write_text(readme(content))


def stored() -> list[Row]:
    """Rows of explanation.csv."""
    if not ROWS.is_file():
        return []
    with ROWS.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: Sequence[Row]) -> None:
    """Write rows by set, tier and seed."""
    with ROWS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda r: (r["set"], r["tier"], int(r["seed"]))))


def main() -> None:
    """Command line: run CACHE, card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["run", "card"])
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--most", type=int, default=1000)
    options = parser.parse_args()
    if options.command == "card":
        card()
    elif options.cache is None:
        parser.error("CACHE is missing")
    else:
        run(options.cache, options.most)


if __name__ == "__main__":
    main()
