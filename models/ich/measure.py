"""Run the committed network over held-out phantoms and write what it answered, case by case.

    python models/ich/measure.py calibrate CACHE     tuning.csv, thresholds and case model from `tune` cases
    python models/ich/measure.py run CACHE           evaluation.csv over every cached s0..s5 case
    python models/ich/measure.py golden              golden.yaml, golden.npz from the weights

`evaluate.py` turns the rows into the card's figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from cases import load_detector_module, read, visible
from evaluate import HERE, SETS, Row, classical_ml, counted, fit_case_model, operating_points, score_of, write_rows
from ruamel.yaml import YAML

from wetread.core.detector import Context
from wetread.core.manifest import Card, Manifest
from wetread.detection.evaluation.classification import auc
from wetread.testing.phantoms import BleedType, HeadSpec, make, to_volume


def _outputs(session: Any, module: Any, hu: npt.NDArray[np.float32]) -> dict[str, Any]:
    inputs = module.network_input(hu)
    parts = [session.run(None, {"slabs": inputs[start : start + 16]}) for start in range(0, len(inputs), 16)]
    names = ("prob", "case_logit", "cam")
    return {name: np.concatenate([p[i] for p in parts]) for i, name in enumerate(names)}


def measure(
    paths: Iterable[Path], variants: Sequence[Mapping[str, Any]], *, with_shift: bool = False
) -> list[list[Row]]:
    """Run network, baseline and each variant of postprocessing over cached cases, on all cores; rows per variant."""
    tables: list[list[Row]] = [[] for _ in variants]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        for rows in workers.map(partial(measure_case, variants=variants, with_shift=with_shift), paths):
            for table, row in zip(tables, rows, strict=True):
                table.append(row)
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
    return tables


@cache
def _session() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(HERE / "1" / "model.onnx"), options)


def measure_case(path: Path, variants: Sequence[Mapping[str, Any]], *, with_shift: bool) -> list[Row]:
    """Measure one cached case: a row for each variant of postprocessing."""
    module = load_detector_module()
    stored, truth, facts = read(path)
    hu = stored.astype(np.float32)
    outputs = _outputs(_session(), module, hu)
    logits = np.sort(outputs["case_logit"][:, 0].astype(np.float64))
    volume = sum(ml for _, ml, _, _ in facts["bleeds"])
    shift = module.midline_shift(hu) if with_shift and volume > 0 else None
    shared: Row = {
        "set": facts["split"],
        "tier": facts["tier"],
        "seed": facts["seed"],
        "truth": int(volume > 0),
        "truth_ml": round(volume, 3),
        "seen_ml": round(float(visible(hu, truth).sum() * module.SLAB_MM / 1000), 3),
        "truth_types": "+".join(sorted({kind for kind, *_ in facts["bleeds"]})),
        "strongest_logit": round(float(logits[-3:].mean()), 4),
        "baseline_ml": round(classical_ml(hu), 3),
        "thickness_mm": facts["tags"]["thickness_mm"],
        "noise_hu": round(facts["tags"]["noise_hu"], 2),
        "kernel": facts["tags"]["kernel"],
        "shift_truth_mm": round(facts["midline_shift_mm"], 2),
        "shift_mm": round(shift[0], 2) if shift else "",
    }
    rows = []
    for settings in variants:
        labels, _ = module.find_bleeds(outputs["prob"], hu, settings)
        found, real = labels > 0, truth > 0
        overlap = 2.0 * float((found & real).sum()) / max(1, int(found.sum() + real.sum()))
        rows.append(
            shared
            | {
                "found_ml": round(float(found.sum() * module.SLAB_MM / 1000), 3),
                "score": round(module.case_score(outputs, labels, settings), 5),
                "dice": round(overlap, 4) if volume > 0 else "",
            }
        )
    return rows


def calibrate(folder: Path) -> None:
    """Choose pixel threshold, case model and operating points on tuning cases; write tuning.csv."""
    paths = sorted((folder / "tune-fast").glob("[0-9]*[0-9].npz"))
    if not paths:
        raise SystemExit("no tuning cases in the cache")
    plain = {"offset": 0.0, "logit_weight": 1.0, "volume_weight": 1.0}
    variants = [
        plain | {"pixel_threshold": pixel, "peak_threshold": max(pixel, 0.6)}
        for pixel in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    ]
    tables = measure(paths, variants)

    def separation(rows: Sequence[Row]) -> float:
        chosen = counted(rows)
        model = fit_case_model(chosen)
        return auc(np.array([score_of(r, model) for r in chosen]), np.array([bool(r["truth"]) for r in chosen]))

    def volume_error(rows: Sequence[Row]) -> float:
        big = [r for r in rows if r["truth_ml"] >= 5]
        return float(np.median([abs(r["found_ml"] - r["truth_ml"]) / r["truth_ml"] for r in big]))

    best = max(range(len(variants)), key=lambda i: (round(separation(tables[i]), 3), -volume_error(tables[i])))
    pixel, rows = variants[best]["pixel_threshold"], tables[best]
    model: dict[str, Any] = fit_case_model(counted(rows))
    for row in rows:
        row["score"] = round(score_of(row, model), 5)
    write_rows(HERE / "tuning.csv", rows)
    model |= {"pixel_threshold": pixel, "peak_threshold": max(pixel, 0.6)}
    card = json.loads((HERE / "model-card.json").read_text())
    card |= {"case_model": model, "operating_points": operating_points(rows)}
    card["default_operating_point"] = "spec90"
    (HERE / "model-card.json").write_text(json.dumps(card, indent=2) + "\n")


def run(folder: Path) -> None:
    """Measure every cached test and shift case; write evaluation.csv."""
    card = json.loads((HERE / "model-card.json").read_text())
    paths = [
        path
        for name in SETS
        for tier in ("fast", "physics")
        for path in sorted((folder / f"{name}-{tier}").glob("[0-9]*[0-9].npz"))
    ]
    write_rows(HERE / "evaluation.csv", measure(paths, [card["case_model"]], with_shift=True)[0])


def golden() -> None:
    """Write golden.yaml and golden.npz: what the committed weights answer for one test phantom."""
    module = load_detector_module()
    yaml = YAML()
    wanted = {"split": "s0", "seed": 2_900_001, "bleeds": ["IPH", "IVH"], "volume_ml": 45.0}
    spec = HeadSpec(
        split="s0",
        thickness_mm=5.0,
        step_mm=5.0,
        regular=True,
        volume_ml=45.0,
        bleeds=(BleedType.IPH, BleedType.IVH),
    )
    volume, _ = to_volume(make(2_900_001, spec))
    manifest = Manifest.model_validate(YAML(typ="safe").load(HERE / "detector.yaml"))
    content = Card.model_validate_json((HERE / "model-card.json").read_text())
    detector = module.Detector(manifest, content)
    session = ort.InferenceSession(str(HERE / "1" / "model.onnx"))
    slabs = module.make_slabs(volume)
    result = detector.postprocess(_outputs(session, module, slabs.hu), Context(volume))
    seen = result.observations[0]
    measures = {m.name: m.value for m in seen.measures}
    expected = {
        "state": result.state,
        "score": round(result.score, 6),
        "types": list(seen.types),
        "key_plane": seen.key_plane,
        "volume_ml": measures.get("volume", 0.0),
    }
    tolerance = {"score": 1e-4, "volume_rel": 0.005, "dice": 0.999}
    with (HERE / "golden.yaml").open("w") as file:
        yaml.dump({"input": wanted, "expected": expected, "tolerance": tolerance}, file)
    np.savez_compressed(HERE / "golden.npz", mask=np.packbits(result.mask > 0))


def main() -> None:
    """Command line: calibrate CACHE, run CACHE, golden."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("calibrate", "run"):
        commands.add_parser(name).add_argument("cache", type=Path)
    commands.add_parser("golden")
    options = parser.parse_args()
    if options.command == "golden":
        golden()
    elif options.command == "calibrate":
        calibrate(options.cache)
    else:
        run(options.cache)


if __name__ == "__main__":
    main()
