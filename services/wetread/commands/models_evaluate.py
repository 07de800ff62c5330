"""``wetread models evaluate`` and ``card``: measure a detector on its cases, and write what was measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ruamel.yaml import YAML

from wetread.commands.models import engine
from wetread.core.errors import ConfigurationError, WetreadError
from wetread.detection.authoring import cards
from wetread.detection.evaluation import plots
from wetread.detection.evaluation.classification import reliability, roc_curve
from wetread.detection.evaluation.localisation import CaseMarks, froc_curve
from wetread.detection.evaluation.measure import Row, case_maker, drive, read_rows, run, write_rows
from wetread.detection.evaluation.report import readme
from wetread.detection.evaluation.summary import answered, arrays, gallery, gates_missed
from wetread.detection.registry import InstalledDetector, discover, load
from wetread.settings import Settings
from wetread.testing.phantoms.seeds import SPLITS

EXAMPLES = 4


def run_evaluate(name: str, *, sets: Sequence[str], n: int, seed: int | None, out: Path, gate: bool) -> int:
    """Measure *n* cases of every set, resuming from ``out/cases.csv``. Returns 1 when a gate is missed."""
    unknown = [s for s in sets if s not in SPLITS]
    if unknown:
        print(f"wetread: unknown set {unknown[0]}; known: {', '.join(SPLITS)}", file=sys.stderr)
        return 2
    try:
        installed = _installed(name)
        rows = _measure(installed, sets, n, seed, out)
        card = cards.measured(installed.folder, cards.read(installed.folder), rows)
        (out / "metrics.json").write_text(json.dumps(card["metrics"], indent=2) + "\n", "utf-8")
        (out / "card.md").write_text(readme(card), "utf-8")
        _draw(installed, rows, card, out)
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    print(readme(card))
    missed = _missed(installed.folder, card["metrics"], sets) if gate else []
    if missed:
        print(f"wetread: gates missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


def run_card(name: str, *, cases: Path | None, check: bool) -> int:
    """Write card and README.md of a folder anew from ``cases.csv``, or only check them. Returns the exit code."""
    try:
        installed = _installed(name)
        card = cards.read(installed.folder)
        stored = cases or installed.folder / "cases.csv"
        if stored.is_file():
            card = cards.measured(installed.folder, card, read_rows(stored))
        elif cases is not None:
            raise ConfigurationError(f"{cases.name} cannot be read")
    except WetreadError as error:
        print(f"wetread: {error.detail}", file=sys.stderr)
        return 2
    if not check:
        cards.write(installed.folder, card)
        print(f"{name}: card and README.md written")
        return 0
    same = cards.read(installed.folder) == json.loads(json.dumps(card))
    text = installed.folder / "README.md"
    same = same and text.is_file() and text.read_text("utf-8") == readme(card)
    print(f"{name}: {'the card follows from its cases' if same else 'the card does not follow from its cases'}")
    return 0 if same else 1


def _installed(name: str) -> InstalledDetector:
    found = discover(Settings().detectors).get(name)
    if found is None:
        raise ConfigurationError(f"no detector is called {name!r}")
    return found


def _measure(installed: InstalledDetector, sets: Sequence[str], n: int, seed: int | None, out: Path) -> list[Row]:
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "cases.csv"
    rows = read_rows(stored) if stored.is_file() else []
    client = engine(installed.networks)
    for split in sets:
        first = SPLITS[split].start if seed is None else seed
        wanted = range(first, first + n)
        kept = [r for r in rows if r["set"] != split or int(r["seed"]) not in wanted]
        measured: list[Row] = []
        known = [r for r in rows if r["set"] == split]
        for number, row in enumerate(run(installed, client, split, wanted, known=known), start=1):
            measured.append(row)
            if sys.stderr.isatty():
                print(f"\r{split} {number}/{n}", end="", file=sys.stderr)
            if number % 10 == 0 or number == n:
                write_rows(stored, [*kept, *measured])
        rows = [*kept, *measured]
    return read_rows(stored)


def _draw(installed: InstalledDetector, rows: Sequence[Row], card: dict[str, object], out: Path) -> None:
    """Write ROC, FROC, calibration, and the worst errors as pictures."""
    sets = list(dict.fromkeys(str(r["set"]) for r in rows))
    judged = {s: answered([r for r in rows if r["set"] == s]) for s in sets}
    judged = {s: part for s, part in judged.items() if part}
    if judged:
        (out / "roc.svg").write_text(
            plots.roc_svg({s: roc_curve(*arrays(part)) for s, part in judged.items()}), "utf-8"
        )
        scores, truth = arrays([r for part in judged.values() for r in part])
        (out / "calibration.svg").write_text(plots.calibration_svg(reliability(scores, truth)), "utf-8")
    curves = {}
    for s, part in judged.items():
        marks = [CaseMarks(_numbers(r, "lesion_scores"), _numbers(r, "false_scores")) for r in part]
        if any(m.lesion_scores for m in marks):
            curves[s] = froc_curve(marks)
    if curves:
        (out / "froc.svg").write_text(plots.froc_svg(curves), "utf-8")
    point = next(
        (p for p in card["operating_points"] if p["name"] == card["default_operating_point"]),  # type: ignore[attr-defined]
        None,
    )
    if point is not None and judged:
        worst = gallery([r for part in judged.values() for r in part], point["threshold"])
        for kind, entries in worst.items():
            for entry in entries[:EXAMPLES]:
                _example(
                    installed, str(entry["set"]), int(entry["seed"]), out / f"{kind}-{entry['set']}-{entry['seed']}.png"
                )


def _example(installed: InstalledDetector, split: str, seed: int, path: Path) -> None:
    case = case_maker(installed)(split, seed)
    result = drive(load(installed), engine(installed.networks), case.volume)
    truth, found = case.truth.mask, result.mask
    weight = sum(
        (np.count_nonzero(m, axis=(1, 2)) for m in (truth, found) if m is not None),
        np.zeros(len(case.volume.voxels), int),
    )
    plane = int(np.argmax(weight)) if weight.any() else len(case.volume.voxels) // 2
    score = "-" if result.score is None else f"{result.score:.3f}"
    picture = plots.example_png(
        case.volume.voxels[plane],
        None if found is None else found[plane],
        None if truth is None else truth[plane],
        f"{split} {seed}, plane {plane}, score {score}; red: found, green: truth",
    )
    path.write_bytes(picture)


def _numbers(row: Row, name: str) -> tuple[float, ...]:
    return tuple(float(v) for v in str(row.get(name, "")).split(";") if v)


def _missed(folder: Path, metrics: dict[str, object], sets: Sequence[str]) -> list[str]:
    path = folder / "gates.yaml"
    if not path.is_file():
        raise ConfigurationError(f"{folder.name} has no gates.yaml")
    wanted = YAML(typ="safe").load(path).get("sets", {})
    return gates_missed(metrics, {name: gates for name, gates in wanted.items() if name in sets})
