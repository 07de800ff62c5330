"""Measure `perfusion` on held-out phantoms and write the figures into its card.

    python models/perfusion/evaluate.py run --set s0 --n 40     adds rows to evaluation.csv (resumes where it stopped)
    python models/perfusion/evaluate.py card                    computes the card's tables from evaluation.csv

Sets: s0 as in tuning (other seeds), s1 acquisition, s2 anatomy, s3 hard kinetics (long delays, dispersion, box
residues, low output), s4 head motion. Every figure is a phantom figure.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from wetread.core.errors import NotApplicable, NotProcessable
from wetread.detection.evaluation.report import PHANTOM_FIGURES, heading, timing
from wetread.perfusion.analysis import analyse
from wetread.perfusion.grid import expand
from wetread.testing.phantoms.perfusion import perfusion_phantom
from wetread.testing.phantoms.perfusion_parameters import GENERATOR_VERSION
from wetread.testing.phantoms.seeds import SPLITS

HERE = Path(__file__).parent
ROWS = HERE / "evaluation.csv"
SETS = ("s0", "s1", "s2", "s3", "s4")
PLANES = 4
_COLUMNS = {
    "flow, grey matter": "cbf_grey_ratio",
    "flow, white matter": "cbf_white_ratio",
    "CBV": "cbv_ratio",
    "Tmax bias, s": "tmax_bias_s",
    "late volume error": "late_volume_error",
    "Dice": "late_dice",
    "core volume error": "core_volume_error",
    "core Dice": "core_dice",
    "CPU s": "seconds_cpu",
}
FIELDS = [
    "set",
    "seed",
    "modality",
    "residue",
    "noise",
    "interval_s",
    "reason",
    "cbf_grey",
    "cbf_white",
    "cbv",
    "mtt_s",
    "tmax_s",
    "late_ml",
    "late_true_ml",
    "core_ml",
    "core_true_ml",
    "late_dice",
    "core_dice",
    "side_right",
    "seconds",
]


def measure(split: str, seed: int) -> dict[str, Any]:
    """Return the row of one phantom: ratios to the truth of healthy tissue, volumes, overlaps."""
    made = perfusion_phantom(seed, split=split, planes=PLANES)
    row: dict[str, Any] = dict.fromkeys(FIELDS, "")
    row |= {"set": split, "seed": seed, "modality": made.spec.modality, "residue": made.spec.residue}
    row |= {"noise": round(made.spec.noise, 2), "interval_s": made.spec.interval_s}
    began = time.process_time()
    try:
        found = analyse(made.to_volume())
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"reason": refusal.reason}
    row["seconds"] = round(time.process_time() - began, 2)
    truth, shape = made.truth, (made.spec.matrix, made.spec.matrix)
    cbf, cbv, mtt, tmax = (
        expand(m, found.series.block, shape) for m in (found.cbf, found.cbv, found.mtt_s, found.tmax_s)
    )
    seen = np.isfinite(cbf) & np.isfinite(truth.cbf)
    healthy = seen & ~truth.hypoperfused
    grey, white = healthy & (truth.cbf > 38.0), healthy & (truth.cbf < 32.0)
    row["cbf_grey"] = _ratio(cbf, truth.cbf, grey)
    row["cbf_white"] = _ratio(cbf, truth.cbf, white)
    row["cbv"] = _ratio(cbv, truth.cbv, healthy)
    row["mtt_s"] = round(float(np.median(mtt[healthy]) - np.median(truth.mtt_s[healthy])), 3)
    row["tmax_s"] = round(float(np.median(tmax[healthy] - truth.tmax_s[healthy])), 3)
    late, core = (expand(m, found.series.block, shape) for m in (found.stroke.hypoperfused, found.stroke.core))
    row |= {"late_ml": round(found.stroke.hypoperfused_ml, 2), "late_true_ml": round(truth.hypoperfused_ml, 2)}
    row |= {"core_ml": round(found.stroke.core_ml, 2), "core_true_ml": round(truth.core_ml, 2)}
    if truth.hypoperfused.any():
        row["late_dice"] = _dice(late, truth.hypoperfused)
        row["side_right"] = int(_left_share(late) > 0.5) == int(made.spec.side == "left")
    if truth.core.any():
        row["core_dice"] = _dice(core, truth.core)
    return row


def _ratio(found: np.ndarray, true: np.ndarray, at: np.ndarray) -> float:
    return round(float(found[at].mean() / true[at].mean()), 4)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return round(2.0 * float((one & other).sum()) / max(float(one.sum() + other.sum()), 1.0), 4)


def _left_share(mask: np.ndarray) -> float:
    return float(mask[:, :, mask.shape[2] // 2 :].sum()) / max(float(mask.sum()), 1.0)


def run(split: str, count: int) -> None:
    """Measure the first *count* seeds of a set that have no row yet."""
    rows = _rows()
    done = {int(r["seed"]) for r in rows if r["set"] == split}
    new = not ROWS.exists()
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        for seed in range(SPLITS[split].start, SPLITS[split].start + count):
            if seed not in done:
                writer.writerow(measure(split, seed))
                file.flush()


def card() -> None:
    """Write the tables of evaluation.csv into the card."""
    path = HERE / "model-card.json"
    document = json.loads(path.read_text("utf-8"))
    rows = _rows()
    document["generator"] = GENERATOR_VERSION
    document["metrics"] = {split: summary([r for r in rows if r["set"] == split]) for split in SETS}
    document["by_residue"] = {
        kind: summary([r for r in rows if r["set"] in {"s0", "s3"} and r["residue"] == kind])
        for kind in sorted({r["residue"] for r in rows})
    }
    document["targets"] = {"cbf_error": 0.10, "volume_error": 0.10, "seconds": 20}
    document["commands"] = [
        *(f"python models/perfusion/evaluate.py run --set {s} --n N" for s in SETS),
        "python models/perfusion/evaluate.py card",
    ]
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    (HERE / "README.md").write_text(readme(document), "utf-8")


def readme(document: dict[str, Any]) -> str:
    """Return README.md: the card's figures as a table."""

    def cell(figure: dict[str, Any] | None) -> str:
        return f"{figure['mean']:.2f} ({figure['ci95'][0]:.2f} to {figure['ci95'][1]:.2f})" if figure else "-"

    lines = [
        *heading(document),
        f"Version {document['version']}. Generator {document['generator']}. No network: `detector.py` calls",
        "`wetread.perfusion`; method and what is not claimed: `docs/perfusion.md`.",
        "`wetread detect perfusion FOLDER --out DIR` runs it on a folder.",
        "",
        PHANTOM_FIGURES,
        "Mean (95 % interval). Flow and CBV: measured over true, healthy tissue. Late: Tmax over 6 s.",
        "",
        f"| set | n | refused | {' | '.join(_COLUMNS)} | side right |",
        f"|{'---|' * (len(_COLUMNS) + 4)}",
    ]
    lines += [
        f"| {name} | {part['n']} | {part['refused']} "
        f"| {' | '.join(cell(part[key]) for key in _COLUMNS.values())} | {part['side_right']} |"
        for name, part in document["metrics"].items()
    ]
    flow, volume, seconds = (document["targets"][name] for name in ("cbf_error", "volume_error", "seconds"))
    lines += [
        "",
        f"Targets: flow within {flow:.0%}, volumes within {volume:.0%}, {seconds} s. CPU: one core, {PLANES} planes.",
        "",
        *timing(document),
        "## Limits",
        "",
        *(f"- {text}" for text in document["limits"]),
        "",
        "Generated from model-card.json by `python models/perfusion/evaluate.py card`.",
        "",
    ]
    return "\n".join(lines)


def summary(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the figures of one set, each with a 95 % bootstrap interval over cases."""
    ok = [r for r in rows if not r["reason"]]
    if not ok:
        return {"n": len(rows), "refused": len(rows)}
    late = [r for r in ok if float(r["late_true_ml"]) >= 5.0]
    core = [r for r in ok if float(r["core_true_ml"]) >= 5.0]
    healthy = [r for r in ok if float(r["late_true_ml"]) == 0.0]
    return {
        "n": len(rows),
        "seeds": [int(rows[0]["seed"]), int(rows[-1]["seed"])],
        "refused": len(rows) - len(ok),
        "cbf_grey_ratio": _mean([float(r["cbf_grey"]) for r in ok]),
        "cbf_white_ratio": _mean([float(r["cbf_white"]) for r in ok]),
        "cbv_ratio": _mean([float(r["cbv"]) for r in ok]),
        "tmax_bias_s": _mean([float(r["tmax_s"]) for r in ok]),
        "late_volume_error": _mean([abs(float(r["late_ml"]) / float(r["late_true_ml"]) - 1) for r in late]),
        "late_dice": _mean([float(r["late_dice"]) for r in late]),
        "core_volume_error": _mean([abs(float(r["core_ml"]) / float(r["core_true_ml"]) - 1) for r in core]),
        "core_volume_ratio": _mean([float(r["core_ml"]) / float(r["core_true_ml"]) for r in core]),
        "core_dice": _mean([float(r["core_dice"]) for r in core]),
        "side_right": f"{sum(r['side_right'] == 'True' for r in late)} of {len(late)}",
        "late_ml_without_lesion": [float(r["late_ml"]) for r in healthy],
        "seconds_cpu": _mean([float(r["seconds"]) for r in ok]),
    }


def _mean(values: list[float]) -> dict[str, Any] | None:
    if not values:
        return None
    rng = np.random.default_rng(1)
    array = np.asarray(values)
    means = array[rng.integers(0, len(array), (2000, len(array)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "mean": round(float(array.mean()), 3),
        "ci95": [round(float(low), 3), round(float(high), 3)],
        "n": len(array),
    }


def _rows() -> list[dict[str, str]]:
    if not ROWS.exists():
        return []
    with ROWS.open(encoding="utf-8") as file:
        return sorted(csv.DictReader(file), key=lambda r: (r["set"], int(r["seed"])))


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--set", dest="split", choices=SETS, default="s0")
    running.add_argument("--n", type=int, default=40)
    commands.add_parser("card")
    given = parser.parse_args(arguments)
    if given.command == "run":
        run(given.split, given.n)
    else:
        card()
    return 0


if __name__ == "__main__":
    sys.exit(main())
