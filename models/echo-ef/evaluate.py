"""Set the thresholds of `echo-ef` on tuning clips, measure it on held-out ones, and write both into the card.

    python models/echo-ef/evaluate.py run --set tune --n 160   rows of tuning.csv (resumes)
    python models/echo-ef/evaluate.py fit                      threshold of the view and width of the band from them
    python models/echo-ef/evaluate.py run --set s0 --n 80      rows of cases.csv (resumes); s1 to s5 likewise
    python models/echo-ef/evaluate.py card                     figures of the card and README.md from cases.csv
    python models/echo-ef/evaluate.py speed                    seconds and peak memory of one large clip

Every figure is a phantom figure. `--seconds` ends a command after the clip that passes that time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ruamel.yaml import YAML
from scipy import ndimage

from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.errors import NotApplicable, NotProcessable
from wetread.detection.authoring import cards
from wetread.detection.evaluation import classification as cls
from wetread.detection.evaluation.measure import DICE, FACT, FOUND, TRUE, Row, drive, read_rows, write_rows
from wetread.detection.registry import companion, load, read_folder
from wetread.echo.analysis import Clip, analyse, band_of, prepare
from wetread.echo.beats import ejections, smoothed
from wetread.echo.discs import cut, long_axis
from wetread.echo.sector import to_grid
from wetread.testing.phantoms.echo import EchoPhantom, echo_phantom
from wetread.testing.phantoms.seeds import SPLITS

HERE = Path(__file__).parent
TUNING, CASES = HERE / "tuning.csv", HERE / "cases.csv"
SETS = ("s0", "s1", "s2", "s3", "s4", "s5")
COVERED = 0.9
"""Share of tuning clips whose error lies inside the band."""
KEPT = 0.98
"""Share of apical tuning clips that the view threshold lets pass at least."""
EF, EDV, ESV = (
    "left_ventricle.ejection_fraction",
    "left_ventricle_diastole.end_diastolic_volume",
    "left_ventricle_systole.end_systolic_volume",
)
Values = npt.NDArray[np.float64]


def outcome_of(split: str, seed: int, **options: Any) -> Row:
    """Return one row: what the detector says about a clip, beside the truth; tuning rows pass any view."""
    installed = read_folder(HERE)
    made = echo_phantom(seed, split=split, **options)
    case = companion(installed, "cases").case_of(made)
    row: Row = {"set": split, "seed": seed, "truth": "", "score": "", "lesion_scores": "", "false_scores": ""}
    row |= {TRUE + name: round(value, 4) for name, value in case.truth.measures.items()}
    row |= {FACT + name: value for name, value in case.facts.items()}
    row |= {"apical": int(made.spec.apical), "true_beats": made.truth.beats}
    model = (load(installed).card.model_extra or {}).get("echo_model", {})
    threshold = 0.0 if split == "tune" else float(model["view_threshold"])
    began = time.thread_time()
    try:
        clip = prepare(case.volume)
        outputs = _engine(installed).infer(installed.info.name, {"frames": clip.tensor})
        row["apical_score"] = round(_apical(outputs), 5)
        found = analyse(case.volume, clip, outputs, view_threshold=threshold)
    except (NotApplicable, NotProcessable) as refusal:
        return row | {"state": "refused", "reason": refusal.reason, "seconds": ""}
    row |= {"state": "measured", "reason": "", "seconds": round(time.thread_time() - began, 3)}
    row |= {FOUND + EF: round(found.fraction, 3), "beats": len(found.beats)}
    row["band"] = round(band_of(found, model or {"half_width": 0.0}), 3)
    row["spread"] = round(found.spread, 3)
    full, emptied = (
        found.volume_ml(float(np.mean([getattr(beat, name) for beat in found.beats]))) for name in ("full", "emptied")
    )
    if full is not None and emptied is not None:
        row |= {FOUND + EDV: round(full, 2), FOUND + ESV: round(emptied, 2)}
    if made.spec.apical:
        row[f"{DICE}1"] = dice(made, clip, found.probability)
        row["classical_ef"] = classical(clip)
    return row


def dice(made: EchoPhantom, clip: Clip, probability: npt.NDArray[np.float32]) -> float:
    """Return the mean overlap of found and true cavity over the frames that are read, on the grid."""
    true = to_grid(made.cavity[clip.chosen].astype(np.float32), clip.sector.square) > 0.5
    found = probability > 0.5
    both = 2.0 * (true & found).sum(axis=(1, 2)) / np.maximum(true.sum(axis=(1, 2)) + found.sum(axis=(1, 2)), 1)
    return round(float(both.mean()), 4)


def classical(clip: Clip) -> float | str:
    """Return the ejection fraction without a network: the dark region in the middle of the fan, by Otsu's threshold."""
    frames = ndimage.gaussian_filter(clip.tensor[:, 0], (0.7, 2.0, 2.0))
    bright = frames[frames > 0.02]
    if not bright.size:
        return ""
    level = _otsu(bright)
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]]
    middle = ((rows - 58) / 34.0) ** 2 + ((columns - 64) / 22.0) ** 2 < 1
    dark = ((frames < level) & middle[None]).astype(np.float32)
    axis = long_axis(dark)
    if axis is None:
        return ""
    curve = smoothed(cut(dark, axis).volume, clip.times_s)
    beats = ejections(curve, clip.times_s) if curve.max() > 0 else ()
    return round(100 * float(np.mean([b.fraction for b in beats])), 3) if beats else ""


def _otsu(values: npt.NDArray[np.float32]) -> float:
    counts, edges = np.histogram(values, 64, (0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (sums[-1] * below / total - sums) ** 2 / (below * (total - below))
    return float(middles[int(np.nanargmax(between[:-1]))])


def _apical(outputs: Mapping[str, npt.NDArray[Any]]) -> float:
    views = np.exp(outputs["view"] - outputs["view"].max(axis=1, keepdims=True))
    return float((views / views.sum(axis=1, keepdims=True))[:, :2].sum(axis=1).mean())


_CLIENTS: dict[str, OnnxRuntimeClient] = {}


def _engine(installed: Any) -> OnnxRuntimeClient:
    if installed.info.model_digest not in _CLIENTS:
        _CLIENTS[installed.info.model_digest] = OnnxRuntimeClient(installed.networks)
    return _CLIENTS[installed.info.model_digest]


def fitted(card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the card with the view threshold and the width of the band from tuning rows.

    The threshold lies half way between the surest other view and the least sure apical one where they do not meet, else
    at the point that lets the share KEPT of the apical clips pass.
    """
    scored = [r for r in rows if r.get("apical_score", "") != ""]
    apical = np.array([float(r["apical_score"]) for r in scored if r["apical"]])
    other = np.array([float(r["apical_score"]) for r in scored if not r["apical"]])
    threshold = float(np.quantile(apical, 1 - KEPT))
    if threshold > other.max():
        threshold = (threshold + float(other.max())) / 2
    errors, spreads = _errors([r for r in rows if r["apical"]])
    judged = np.sqrt(np.maximum(errors**2 - spreads**2, 0.0))
    model = {
        "view_threshold": round(threshold, 4),
        "half_width": round(float(np.quantile(judged, COVERED)), 2),
        "covered": COVERED,
        "constant_ef": round(float(np.mean([float(r[TRUE + EF]) for r in rows if r.get(TRUE + EF, "") != ""])), 2),
    }
    tuning = {
        "n": len(rows),
        "seeds": [min(int(r["seed"]) for r in rows), max(int(r["seed"]) for r in rows)],
        "apical": int(sum(r["apical"] for r in rows)),
        "answered": len(errors),
        "ef_mae": mean_entry(errors),
    }
    return {**card, "echo_model": model, "tuning": tuning}


def _errors(rows: Sequence[Row], column: str = FOUND + EF) -> tuple[Values, Values]:
    """Return absolute errors of the ejection fraction, and the spread between beats of the same clips."""
    kept = [r for r in rows if r.get(column, "") != "" and r.get(TRUE + EF, "") != ""]
    errors = [abs(float(r[column]) - float(r[TRUE + EF])) for r in kept]
    return np.array(errors), np.array([float(r["spread"]) for r in kept if r.get("spread", "") != ""])


def mean_entry(values: Values) -> dict[str, Any]:
    """Return a mean with its 95 % interval by 2,000 bootstraps over clips."""
    if not len(values):
        return {"value": None, "ci95": [None, None], "n": 0}
    rng = np.random.default_rng(1)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {
        "value": cls.rounded(float(values.mean())),
        "ci95": [round(float(low), 3), round(float(high), 3)],
        "n": len(values),
    }


def echo_figures(rows: Sequence[Row], constant: float) -> dict[str, Any]:
    """Return, per set, errors of the ejection fraction, overlap, refusals of other views, band, and both baselines."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(str(r["set"]) for r in rows):
        part = [r for r in rows if r["set"] == name]
        apical, other = [r for r in part if r["apical"]], [r for r in part if not r["apical"]]
        whole = [r for r in apical if int(r["true_beats"]) > 0]
        answered = [r for r in whole if r["state"] == "measured"]
        errors, _ = _errors(answered)
        gaps = np.array([float(r[FOUND + EF]) - float(r[TRUE + EF]) for r in answered])
        ruled = [r for r in answered if r.get("classical_ef", "") != ""]
        volumes = [r for r in answered if r.get(FOUND + EDV, "") != ""]
        out[name] = {
            "n": len(part),
            "apical": len(apical),
            "apical_with_a_full_beat": len(whole),
            "answered": cls.proportion(len(answered), len(whole)),
            "apical_refused": dict(
                sorted(Counter(str(r["reason"]) for r in apical if r["state"] == "refused").items())
            ),
            "other_views_refused": cls.proportion(sum(r["state"] == "refused" for r in other), len(other)),
            "other_views_answered": sorted(str(r[FACT + "view"]) for r in other if r["state"] == "measured"),
            "ef_mae": mean_entry(errors),
            "ef_bias": cls.rounded(float(gaps.mean())) if len(gaps) else None,
            "ef_limits_of_agreement": [
                round(float(gaps.mean() + sign * 1.96 * gaps.std(ddof=1)), 2) for sign in (-1, 1)
            ]
            if len(gaps) > 1
            else None,
            "dice": mean_entry(np.array([float(r[f"{DICE}1"]) for r in answered])),
            "inside_band": cls.proportion(
                sum(abs(float(r[FOUND + EF]) - float(r[TRUE + EF])) <= float(r["band"]) for r in answered),
                len(answered),
            ),
            "edv_error": mean_entry(np.array([abs(float(r[FOUND + EDV]) / float(r[TRUE + EDV]) - 1) for r in volumes])),
            "baseline_constant_mae": mean_entry(np.array([abs(constant - float(r[TRUE + EF])) for r in answered])),
            "baseline_classical_mae": mean_entry(_errors(ruled, "classical_ef")[0]),
            "network_mae_where_classical_answers": mean_entry(_errors(ruled)[0]),
        }
    return out


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the limits of gates.yaml that the figures do not meet."""
    limits = YAML(typ="safe").load(HERE / "gates.yaml")["limits"]
    out = []
    for name, wanted in limits.items():
        found = figures.get(name, {})
        for key, limit in wanted.items():
            value = found.get(key, {}).get("value")
            enough = value is not None and (value <= limit if key.endswith("_mae") else value >= limit)
            # A set without other views has none to refuse.
            if not enough and not (key == "other_views_refused" and found.get(key, {}).get("n") == 0):
                out.append(f"{name}: {key}")
    return out


def update(card: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """Return the card with every figure of the rows; a missed limit means shadow, and so does a reason on the card."""
    figures = echo_figures(rows, float(card["echo_model"]["constant_ef"]))
    out = cards.measured(HERE, {**card, "shadow": bool(card.get("shadow_reason"))}, rows)
    gates = missed(figures)
    return {**out, "echo": figures, "gates_missed": gates, "shadow": bool(gates or card.get("shadow_reason"))}


def add_rows(path: Path, split: str, first: int, count: int, seconds: float) -> None:
    """Add the rows of *count* seeds from *first* on that have none yet, until the time is up."""
    rows = read_rows(path) if path.exists() else []
    done, end = {int(r["seed"]) for r in rows if r["set"] == split}, time.monotonic() + seconds
    for seed in range(first, first + count):
        if seed not in done and time.monotonic() < end:
            rows.append(outcome_of(split, seed))
            if seed % 10 == 9:
                write_rows(path, sorted(rows, key=lambda r: (r["set"], int(r["seed"]))))
    write_rows(path, sorted(rows, key=lambda r: (r["set"], int(r["seed"]))))


def speed() -> dict[str, Any]:
    """Time the detector alone on a clip of 800 x 600 pixels and 180 frames; the peak is that of the process."""
    installed = read_folder(HERE)
    options = {"view": "a4c", "columns": 800.0, "frame_rate": 60.0, "duration_s": 3.0}
    volume = companion(installed, "cases").case("s0", 2_900_002, **options).volume
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = OnnxRuntimeClient(installed.networks, threads=2)
    engine.warm_up()
    began, cpu = time.perf_counter(), time.process_time()
    result = drive(load(installed), engine, volume)
    return {
        "shape": list(volume.voxels.shape),
        "state": result.state,
        "wall_seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_mb_before": round(before / 1024),
        "command": "python models/echo-ef/evaluate.py speed",
    }


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--set", dest="split", choices=("tune", *SETS), required=True)
    running.add_argument("--n", type=int, required=True)
    running.add_argument("--first", type=int)
    running.add_argument("--rows", type=Path)
    running.add_argument("--seconds", type=float, default=float("inf"))
    for name in ("fit", "card", "speed"):
        commands.add_parser(name)
    given = parser.parse_args(arguments)
    if given.command == "run":
        rows = given.rows or (TUNING if given.split == "tune" else CASES)
        first = SPLITS[given.split].start if given.first is None else given.first
        add_rows(rows, given.split, first, given.n, given.seconds)
    elif given.command == "fit":
        cards.write(HERE, fitted(cards.read(HERE), read_rows(TUNING)))
    elif given.command == "card":
        cards.write(HERE, update(cards.read(HERE), read_rows(CASES)))
    else:
        sys.stdout.write(json.dumps(speed()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
