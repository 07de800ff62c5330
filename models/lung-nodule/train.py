"""Train the network that tells nodules from vessels, and export it to ONNX (extra `torch`; never run by tests).

The exact commands, seeds and budget of the committed weights stand in model-card.json under `training`. Only seeds of
the split `train` are read here; the generator refuses to hand out others under that name.

    python models/lung-nodule/train.py patches CACHE --count 63
    python models/lung-nodule/train.py fit CACHE RUN --minutes 8
    python models/lung-nodule/train.py export RUN
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wetread.detection.authoring.weights import write_onnx
from wetread.detection.evaluation.localisation import LEAST_RADIUS_MM
from wetread.nodule.patches import SIZE, patches
from wetread.nodule.reading import Reading, read
from wetread.testing.phantoms.chest import ChestPhantom, ChestSpec, make_chest
from wetread.testing.phantoms.seeds import SPLITS

HERE = Path(__file__).parent
WIDTHS = (12, 20, 32, 40)
CENTRES = 4
"""Further patches about each nodule's true centre, moved by up to 2 mm."""
HARDEST, OTHERS = 45, 35
"""Negatives kept of a case: the roundest, and others at random."""
BATCH = 48
COVERAGE_MM = 100.0
"""Part of the chest that a training case shows: more nodules in less time."""
FEATURES = ("log radius", "log response", "log dot", "l3/l1", "l2/l1")


def features(reading: Reading) -> npt.NDArray[np.float64]:
    """[n, 5] what the classical rule knows of a candidate."""
    found = reading.candidates
    return np.column_stack([np.log(found.radius_mm), np.log(found.response_hu), np.log(found.dot_hu), found.roundness])


def labels_of(phantom: ChestPhantom, reading: Reading) -> npt.NDArray[np.int64]:
    """1: within a nodule (at least 3 mm of its centre); 0: further than 3 mm from all of them; -1: in between."""
    places = reading.frame.to_lps(reading.grid.place(reading.candidates.index))
    out = np.zeros(len(places), dtype=np.int64)
    for nodule in phantom.nodules:
        distance = np.linalg.norm(places - np.array(nodule.centre_lps_mm), axis=1)
        radius = max(nodule.truth.diameter_mm / 2, LEAST_RADIUS_MM)
        out[(distance <= radius + 3) & (out == 0)] = -1
        out[distance <= radius] = 1
    return out


def cut(seed: int, folder: Path) -> None:
    """Render one case, cut its patches and store them unless they are there."""
    path = folder / f"train-{seed:07d}.npz"
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    phantom = make_chest(seed, ChestSpec(split="train", coverage_mm=COVERAGE_MM))
    reading = read(phantom.volume)
    truth = labels_of(phantom, reading)
    rng = np.random.default_rng([seed, 3])
    negative = np.flatnonzero(truth == 0)
    chosen = np.concatenate(
        [negative[:HARDEST], rng.permutation(negative[HARDEST:])[:OTHERS], np.flatnonzero(truth == 1)]
    )
    index, marks = reading.candidates.index[chosen], truth[chosen]
    if phantom.nodules:
        centres = np.array([n.centre_lps_mm for n in phantom.nodules]) @ np.linalg.inv(reading.frame.axes)
        centres = (centres - reading.grid.start) / reading.grid.step
        centres = np.repeat(centres, CENTRES, axis=0) + rng.uniform(-2, 2, (CENTRES * len(centres), 3))
        index, marks = np.concatenate([index, centres]), np.concatenate([marks, np.ones(len(centres), dtype=np.int64)])
    cubes = np.rint((patches(reading.grid.values, index) + 1) * 127.5).astype(np.uint8)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part, cubes=cubes, truth=marks, features=features(reading), labels=truth, nodules=len(phantom.nodules)
    )
    part.rename(path)


def load(cache: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All stored patches and their truth."""
    cubes, truth = [], []
    for path in sorted(cache.glob("train-*[0-9].npz")):
        with np.load(path) as stored:
            cubes.append(stored["cubes"])
            truth.append(stored["truth"])
    return np.concatenate(cubes), np.concatenate(truth)


def classical(cache: Path) -> dict[str, Any]:
    """Fit the rule without a network: a logistic regression on the features of the training candidates."""
    rows, truth = [], []
    for path in sorted(cache.glob("train-*[0-9].npz")):
        with np.load(path) as stored:
            known = stored["labels"] >= 0
            rows.append(stored["features"][known])
            truth.append(stored["labels"][known])
    x, y = np.concatenate(rows), np.concatenate(truth).astype(np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    design = _design((x - mean) / spread)
    weights = np.zeros(design.shape[1])
    for _ in range(30):  # Newton's method with a small ridge
        p = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (y - p) - 1e-2 * weights
        curve = (design * (p * (1 - p))[:, None]).T @ design + 1e-2 * np.eye(len(weights))
        weights = weights + np.linalg.solve(curve, slope)
    return {
        "features": list(FEATURES),
        "mean": [round(float(v), 5) for v in mean],
        "spread": [round(float(v), 5) for v in spread],
        "weights": [round(float(v), 5) for v in weights],
        "candidates": len(y),
    }


def _design(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Constant, features and their squares."""
    return np.column_stack([np.ones(len(x)), x, x**2])


def classical_scores(rule: Mapping[str, Sequence[float]], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores 0..1 of the rule without a network."""
    scaled = (x - np.array(rule["mean"])) / np.array(rule["spread"])
    out: npt.NDArray[np.float64] = 1 / (1 + np.exp(-_design(scaled) @ np.array(rule["weights"])))
    return out


def network() -> Any:
    """The network: patches [n, 2, 32, 32, 32] -> logit [n, 1] and cam [n, 8, 8, 8].

    The logit pools the activation map by log-sum-exp, weighted by a learned preference for the centre: the map is the
    evidence.
    """
    import torch
    from torch import nn

    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            a, b, c, d = WIDTHS
            self.body = nn.Sequential(
                block(2, a, 2), block(a, b), block(b, c, 2), block(c, c), block(c, d), nn.Dropout3d(0.1)
            )
            self.head = nn.Conv3d(d, 1, 1)
            nn.init.constant_(self.head.bias, -5.0)  # 512 cells are pooled: start near even odds
            away = (torch.arange(8.0) - 3.5) ** 2
            self.prior = nn.Parameter(-0.15 * (away[:, None, None] + away[None, :, None] + away[None, None, :]))

        def forward(self, cubes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            cam = self.head(self.body(cubes))[:, 0] + self.prior
            return torch.logsumexp(cam.flatten(1), dim=1, keepdim=True), cam

    return Network()


def fit(cache: Path, run: Path, minutes: float, seed: int, seconds: float) -> None:
    """Train for a wall-clock budget of *minutes* in all, at most *seconds* of it now; run again to go on.

    Keeps the state in RUN/state.pt; when the budget is spent the averaged weights are RUN/last.pt.
    """
    import torch
    from torch.nn import functional

    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    cubes, truth = load(cache)
    positive, negative = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    net = network()
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.98), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    spent, steps, mean = 0.0, 0, 0.7
    if (run / "state.pt").exists():
        state = torch.load(run / "state.pt", weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, steps, mean = state["spent"], state["steps"], state["mean"]
    rng = np.random.default_rng([seed, steps])
    began, before = time.monotonic(), spent
    while spent < minutes * 60 and spent - before < seconds:
        rate = 3e-3 * min(1.0, (steps + 1) / 30) * (0.5 * (1 + np.cos(np.pi * spent / (minutes * 60))) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        chosen = np.concatenate([rng.choice(positive, BATCH // 3), rng.choice(negative, BATCH - BATCH // 3)])
        batch = torch.from_numpy(np.stack([augmented(cubes[k], rng) for k in chosen]))
        target = torch.from_numpy(truth[chosen].astype(np.float32))[:, None]
        logit, _ = net(batch)
        loss = functional.binary_cross_entropy_with_logits(logit, 0.96 * target + 0.02)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(net)
        steps += 1
        mean = 0.97 * mean + 0.03 * float(loss.detach())
        spent = before + time.monotonic() - began
        if steps % 25 == 0:
            print(f"{spent:6.0f} s step {steps} loss {mean:.4f}", flush=True)
    torch.save(
        {
            "net": net.state_dict(),
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "spent": spent,
            "steps": steps,
            "mean": mean,
        },
        run / "state.pt",
    )
    if spent < minutes * 60:
        return
    torch.save(average.module.state_dict(), run / "last.pt")
    summary = {
        "seed": seed,
        "minutes": minutes,
        "steps": steps,
        "batch": BATCH,
        "train_cases": len(list(cache.glob("train-*[0-9].npz"))),
        "positives": len(positive),
        "negatives": len(negative),
        "classical": classical(cache),
        "loss": round(mean, 4),
    }
    (run / "summary.json").write_text(json.dumps(summary, indent=1))
    print(summary)


def augmented(cube: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Turn, mirror, shift grey values, blur contrast and add noise: [2, 32, 32, 32], -1 to 1."""
    order = 1 + rng.permutation(3)
    flips = tuple(int(a) for a in 1 + np.flatnonzero(rng.random(3) < 0.5))
    turned = np.flip(np.transpose(cube, (0, *order)), flips).astype(np.float32) / 127.5 - 1
    turned = turned * np.float32(rng.normal(1, 0.06)) + np.float32(rng.normal(0, 0.04))
    if rng.random() < 0.5:
        turned = turned + rng.standard_normal(turned.shape, dtype=np.float32) * np.float32(rng.uniform(0, 0.07))
    return np.clip(turned, -1, 1)


def export(run: Path) -> None:
    """Write 1/model.onnx (opset 17) from the weights of a run, and its SHA-256 into detector.yaml."""
    import torch

    net = network()
    net.load_state_dict(torch.load(run / "last.pt", weights_only=True))
    outputs = ("logit", "cam")
    digest = write_onnx(net, HERE / "detector.yaml", {"patches": torch.zeros(2, 2, SIZE, SIZE, SIZE)}, outputs)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, sha256 {digest}")


def main() -> None:
    """Command line: patches CACHE, fit CACHE RUN, export RUN."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("patches")
    cutting.add_argument("cache", type=Path)
    cutting.add_argument("--first", type=int, default=0)
    cutting.add_argument("--count", type=int, default=90)
    cutting.add_argument("--seconds", type=float, default=1e9, help="stop after this; run again to go on")
    fitting = commands.add_parser("fit")
    fitting.add_argument("cache", type=Path)
    fitting.add_argument("run", type=Path)
    fitting.add_argument("--minutes", type=float, default=12.0)
    fitting.add_argument("--seed", type=int, default=7)
    fitting.add_argument("--seconds", type=float, default=1e9, help="stop after this; run again to go on")
    exporting = commands.add_parser("export")
    exporting.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "patches":
        began = time.monotonic()
        for number in range(options.first, options.first + options.count):
            if time.monotonic() - began > options.seconds:
                break
            cut(SPLITS["train"].start + number, options.cache)
    elif options.command == "fit":
        fit(options.cache, options.run, options.minutes, options.seed, options.seconds)
    else:
        export(options.run)


if __name__ == "__main__":
    main()
