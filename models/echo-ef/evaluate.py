"""Set the thresholds of `echo-ef` on tuning clips, measure it on held-out ones, and write both into the card.

    python models/echo-ef/evaluate.py tune --set tune --n 36   rows of tuning.csv (resumes); s2, s4 likewise
    python models/echo-ef/evaluate.py fit                      threshold of the view and width of the band from them
    python models/echo-ef/evaluate.py run --set s0 --n 40      rows of cases.csv (resumes); s1 to s5 likewise
    python models/echo-ef/evaluate.py card                     figures of the card and README.md from cases.csv
    python models/echo-ef/evaluate.py speed                    seconds and peak memory of one large clip

The band is to hold where pictures differ from the training phantoms, so it is as wide as the worst of three sets asks
for: tune, and clips of s2 and s4 that no figure is reported on. No clip of s5, the other generator, has a part in it.

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
from math import ceil
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
from wetread.detection.evaluation.overlap import mean_interval
from wetread.detection.registry import companion, load, read_folder
from wetread.echo.analysis import Clip, analyse, prepare
from wetread.echo.beats import ejections, smoothed
from wetread.echo.discs import cut, long_axis
from wetread.echo.sector import to_grid
from wetread.testing.phantoms.echo import EchoPhantom, echo_phantom
from wetread.testing.phantoms.seeds import SPLITS

HERE = Path(__file__).parent
TUNING, CASES = HERE / "tuning.csv", HERE / "cases.csv"
SETS = ("s0", "s1", "s2", "s3", "s4", "s5")
TUNED = {"tune": SPLITS["tune"].start} | {name: SPLITS[name].start + 50_000 for name in ("s2", "s4")}
"""First seeds of the clips that threshold and band follow from."""
COVERED = 0.9
"""Share of the clips of every set of tuning rows whose error lies inside the band."""
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
    at the point that lets the share KEPT of the apical clips pass. It follows from the set tune alone.
    """
    scored = [r for r in rows if r["set"] == "tune" and r.get("apical_score", "") != ""]
    apical = np.array([float(r["apical_score"]) for r in scored if r["apical"]])
    other = np.array([float(r["apical_score"]) for r in scored if not r["apical"]])
    threshold = float(np.quantile(apical, 1 - KEPT))
    if threshold > other.max():
        threshold = (threshold + float(other.max())) / 2
    tuning = {name: tuned([r for r in rows if r["set"] == name]) for name in TUNED}
    known = [float(r[TRUE + EF]) for r in rows if r["set"] == "tune" and r.get(TRUE + EF, "") != ""]
    model = {
        "view_threshold": round(threshold, 4),
        "half_width": max(part["half_width"] for part in tuning.values()),
        "covered": COVERED,
        "constant_ef": round(float(np.mean(known)), 2),
    }
    return {**card, "echo_model": model, "tuning": tuning}


def tuned(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the tuning rows of a set say; ``half_width``: what its errors leave beyond the spread between beats.

    Split conformal: of n exchangeable clips the ceil(0.9 (n + 1))-th smallest of these holds the next one with 90 %.
    """
    errors, spreads = _errors([r for r in rows if r["apical"]])
    left = np.sort(np.sqrt(np.maximum(errors**2 - spreads**2, 0.0)))
    rank = min(ceil(COVERED * (len(left) + 1)), len(left))
    return {
        "n": len(rows),
        "seeds": [min(int(r["seed"]) for r in rows), max(int(r["seed"]) for r in rows)],
        "apical": int(sum(r["apical"] for r in rows)),
        "answered": len(errors),
        "ef_mae": mean_interval(errors.tolist()),
        "half_width": round(float(left[rank - 1]), 2),
    }


def _errors(rows: Sequence[Row], column: str = FOUND + EF) -> tuple[Values, Values]:
    """Return absolute errors of the ejection fraction, and the spread between beats of the same clips."""
    kept = [r for r in rows if r.get(column, "") != "" and r.get(TRUE + EF, "") != ""]
    errors = [abs(float(r[column]) - float(r[TRUE + EF])) for r in kept]
    return np.array(errors), np.array([float(r["spread"]) for r in kept if r.get("spread", "") != ""])


def echo_figures(rows: Sequence[Row], model: Mapping[str, float]) -> dict[str, Any]:
    """Return, per set, errors of the ejection fraction, overlap, refusals of other views, band, and both baselines."""
    out: dict[str, Any] = {}
    constant, still = float(model["constant_ef"]), float(model["half_width"])
    for name in dict.fromkeys(str(r["set"]) for r in rows):
        part = [r for r in rows if r["set"] == name]
        apical, other = [r for r in part if r["apical"]], [r for r in part if not r["apical"]]
        whole = [r for r in apical if int(r["true_beats"]) > 0]
        answered = [r for r in whole if r["state"] == "measured"]
        errors, spreads = _errors(answered)
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
            "ef_mae": mean_interval(errors.tolist()),
            "ef_bias": cls.rounded(float(gaps.mean())) if len(gaps) else None,
            "ef_limits_of_agreement": [
                round(float(gaps.mean() + sign * 1.96 * gaps.std(ddof=1)), 2) for sign in (-1, 1)
            ]
            if len(gaps) > 1
            else None,
            "dice": mean_interval([float(r[f"{DICE}1"]) for r in answered]),
            "inside_band": cls.proportion(int((errors <= np.hypot(still, spreads)).sum()), len(errors)),
            "edv_error": mean_interval([abs(float(r[FOUND + EDV]) / float(r[TRUE + EDV]) - 1) for r in volumes]),
            "baseline_constant_mae": mean_interval([abs(constant - float(r[TRUE + EF])) for r in answered]),
            "baseline_classical_mae": mean_interval(_errors(ruled, "classical_ef")[0].tolist()),
            "network_mae_where_classical_answers": mean_interval(_errors(ruled)[0].tolist()),
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
    figures = echo_figures(rows, card["echo_model"])
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
    for name, sets in (("tune", tuple(TUNED)), ("run", SETS)):
        running = commands.add_parser(name)
        running.add_argument("--set", dest="split", choices=sets, required=True)
        running.add_argument("--n", type=int, required=True)
        running.add_argument("--seconds", type=float, default=float("inf"))
    for name in ("fit", "card", "speed"):
        commands.add_parser(name)
    given = parser.parse_args(arguments)
    if given.command == "tune":
        add_rows(TUNING, given.split, TUNED[given.split], given.n, given.seconds)
    elif given.command == "run":
        add_rows(CASES, given.split, SPLITS[given.split].start, given.n, given.seconds)
    elif given.command == "fit":
        cards.write(HERE, fitted(cards.read(HERE), read_rows(TUNING)))
    elif given.command == "card":
        cards.write(HERE, update(cards.read(HERE), read_rows(CASES)))
    else:
        sys.stdout.write(json.dumps(speed()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
