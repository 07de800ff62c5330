"""CT-derived FFR end to end on phantoms of unseen seeds: how far found FFR is from the truth.

``python loadtest/ffr_endtoend.py [--cases N] [--size ci|full] [--groups base,noise,calcium] [--processes 2]
[--out FILE] [--seeds tune|report]``. Every case is written to FILE as it ends, and a later call goes on from there.
``--report`` prints the table of FILE and computes nothing.

Groups: ``base`` 25 HU, no calcium; ``noise15``, ``noise35``, ``noise45``; ``calcium`` 25 HU with calcified lesions.
Lesions 0-70 % diameter stenosis. Boundary conditions (flow, pressure) are the same for truth and for the tree found.
Three results per phantom: true tree with true healthy radii; true lumen as the service sees it (solver and healthy
radius); lumen found in the image (the whole chain).
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

GROUPS: dict[str, dict[str, Any]] = {
    "base": {"noise_hu": 25.0},
    "noise15": {"noise_hu": 15.0},
    "noise35": {"noise_hu": 35.0},
    "noise45": {"noise_hu": 45.0},
    "calcium": {"noise_hu": 25.0, "calcium": True},
}
SHARE = {"base": 1.0, "noise15": 0.3, "noise35": 0.3, "noise45": 0.3, "calcium": 0.5}
MODEL_NOTE = "same boundary conditions for truth and found tree"


def run_case(group: str, seed: int, size: str) -> dict[str, Any]:
    """Make one phantom, run the chain from DICOM bytes, compare."""
    from wetread.adapters.codecs.decoder import PydicomFrameDecoder
    from wetread.core.dicom.volume import assemble
    from wetread.ffrct.angiogram import tree_document
    from wetread.ffrct.endtoend import compare, geometry
    from wetread.ffrct.errors import FfrUnprocessable
    from wetread.ffrct.imaging.chain import extract
    from wetread.ffrct.imaging.quality import Refusal
    from wetread.ffrct.series import image_of
    from wetread.ffrct.solving import solve_request
    from wetread.testing.phantoms.coronary import make_phantom

    overrides = {"size": size, "severity": (0.0, 0.7), **GROUPS[group]}
    slices, truth = make_phantom(seed, **overrides)
    objects = []
    for dataset in slices:
        buffer = BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        objects.append(buffer.getvalue())
    del slices
    case: dict[str, Any] = {"group": group, "seed": seed, "size": size}
    begun = time.perf_counter()
    image = image_of(assemble(objects, PydicomFrameDecoder()))
    del objects
    extraction = image if isinstance(image, Refusal) else extract(image)
    case["seconds"] = round(time.perf_counter() - begun, 2)
    if isinstance(extraction, Refusal):
        return {**case, "refused": extraction.code, "readings": []}
    tree = truth["tree"]
    lumen = {
        **tree,
        "vessels": [{k: v for k, v in vessel.items() if k != "healthy_radius_mm"} for vessel in tree["vessels"]],
    }
    document = tree_document(extraction.arteries, patient=tree["patient"], bc=tree["bc"])
    quick = {"tier": "auto", "uq_draws": 0}
    answers = [solve_request({"tree": {**shape, "options": quick}}) for shape in (tree, lumen)]
    try:
        answers.append(solve_request({"tree": document}))
    except FfrUnprocessable as refusal:
        return {**case, "refused": refusal.code, "readings": []}
    return {
        **case,
        "readings": compare(truth, answers[0], answers[1], document, answers[2]),
        "geometry": geometry(truth, document),
        "lesions": [(round(x["diameter_stenosis_pct"], 1), x["vessel"]) for x in answers[2]["lesions"]],
        "true_lesions": [(round(100 * x["stenosis"], 1), x["vessel"], x["profile"]) for x in truth["lesions"]],
    }


def main(arguments: list[str]) -> int:
    """Run what is missing in the results file, then print the table."""
    from wetread.testing.phantoms.coronary_parameters import GENERATOR_VERSION, SEEDS

    parser = argparse.ArgumentParser(prog="ffr_endtoend")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--size", default="ci", choices=("ci", "full"))
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", default="report", choices=("tune", "report"))
    parser.add_argument("--out", type=Path, default=Path("ffr_endtoend.jsonl"))
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args(arguments)
    lines = given.out.read_text().splitlines() if given.out.is_file() else []
    known = {(case["group"], case["seed"], case["size"]): case for case in map(json.loads, lines)}
    done, have = list(known.values()), set(known)
    first = SEEDS[given.seeds].start
    wanted = [
        (group, first + number, given.size)
        for group in given.groups.split(",")
        for number in range(round(given.cases * SHARE[group]))
    ]
    missing = [] if given.report else [key for key in wanted if key not in have]
    if missing:
        with ProcessPoolExecutor(given.processes) as pool, given.out.open("a") as file:
            for future in as_completed([pool.submit(run_case, *key) for key in missing]):
                case = future.result()
                done.append(case)
                file.write(json.dumps(case) + "\n")
                file.flush()
                print(f"{case['group']} {case['seed']} {case['seconds']} s", flush=True)
    chosen = [case for case in done if (case["group"], case["seed"], case["size"]) in set(wanted)]
    print(f"coronary phantoms {GENERATOR_VERSION}, size {given.size}, seeds {given.seeds} from {first}; {MODEL_NOTE}")
    report(chosen)
    return 0


def report(cases: list[dict[str, Any]]) -> None:
    """Print the tables."""
    print(f"{'group':26s} {'cases':>5s} {'refused':>7s} {'places':>6s} {'missed':>6s} {'MAE':>6s} {'agree':>6s} "
          f"{'max':>6s} "
          f"{'solver MAE':>10s} {'imaging MAE':>11s} {'p5-p95':>6s}  95 % intervals")  # fmt: skip
    for group in GROUPS:
        own = [case for case in cases if case["group"] == group]
        if own:
            _row(group, own, lambda _: True)
    base = [case for case in cases if case["group"] == "base"]
    for low, high in ((0.0, 0.01), (0.01, 0.3), (0.3, 0.5), (0.5, 0.6), (0.6, 0.7)):
        _row(f"base, lesion {low:.0%}-{high:.0%}", base, lambda r, lo=low, hi=high: lo <= r["severity"] < hi)
    shapes = [case["geometry"] for case in base if "geometry" in case]
    if shapes:
        for name in shapes[0]:
            values = np.array([shape[name] for shape in shapes])
            print(
                f"base {name}: mean {np.nanmean(values):.3f}, worst {np.nanmin(values):.3f} .. {np.nanmax(values):.3f}"
            )


def _row(name: str, cases: list[dict[str, Any]], wanted: Any) -> None:
    readings = [r for case in cases for r in case["readings"] if wanted(r)]
    seen = [r for r in readings if r["found"] is not None]
    refused = sum("refused" in case for case in cases)
    if not seen:
        print(f"{name:26s} {len(cases):5d} {refused:7d} {len(readings):6d}")
        return
    true, lumen, found = (np.array([r[key] for r in seen]) for key in ("true", "lumen", "found"))
    within = np.mean([r["p5"] is not None and r["p5"] <= r["true"] <= r["p95"] for r in seen])
    print(
        f"{name:26s} {len(cases):5d} {refused:7d} {len(readings):6d} {len(readings) - len(seen):6d} "
        f"{np.abs(found - true).mean():6.3f} {np.mean((found <= 0.8) == (true <= 0.8)):6.1%} "
        f"{np.abs(found - true).max():6.3f} {np.abs(lumen - true).mean():10.3f} "
        f"{np.abs(found - lumen).mean():11.3f} {within:6.1%}  {_intervals(cases, wanted)}"
    )


def _intervals(cases: list[dict[str, Any]], wanted: Any, draws: int = 2000) -> str:
    """Return the 95 % bootstrap intervals of MAE and agreement; whole cases are drawn, for places of one are alike."""
    sums = []
    for case in cases:
        seen = [r for r in case["readings"] if wanted(r) and r["found"] is not None]
        alike = sum((r["found"] <= 0.8) == (r["true"] <= 0.8) for r in seen)
        sums.append((sum(abs(r["found"] - r["true"]) for r in seen), alike, len(seen)))
    table = np.array(sums, dtype=float)
    drawn = table[np.random.default_rng(1).integers(len(table), size=(draws, len(table)))].sum(axis=1)
    drawn = drawn[drawn[:, 2] > 0]
    error, agreement = (np.quantile(drawn[:, k] / drawn[:, 2], (0.025, 0.975)) for k in (0, 1))
    return f"MAE {error[0]:.3f}-{error[1]:.3f}, agree {agreement[0]:.1%}-{agreement[1]:.1%}"


if __name__ == "__main__":
    import sys

    raise SystemExit(main(sys.argv[1:]))
