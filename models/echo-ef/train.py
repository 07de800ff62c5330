"""Train the network that outlines the left ventricle and names the view (extra `torch`; never run by tests).

The exact commands, seeds and budget of the committed weights stand in model-card.json under `training`. Only seeds of
the split `train` are read here; the generator refuses to hand out others under that name.

    python models/echo-ef/train.py frames CACHE --count 1800
    python models/echo-ef/train.py fit CACHE RUN --minutes 22 --seconds 100
    python models/echo-ef/train.py fit CACHE RUN --minutes 9 --seconds 107
    python models/echo-ef/train.py fit CACHE RUN --minutes 6
    python models/echo-ef/train.py export RUN
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wetread.core.errors import NotProcessable
from wetread.detection.authoring.weights import write_onnx
from wetread.echo.sector import SIDE, find_sector, tensor_of, to_grid
from wetread.testing.phantoms.echo import frame_count, render_echo
from wetread.testing.phantoms.echo_parameters import draw_echo

HERE = Path(__file__).parent
WIDTHS = (8, 16, 28, 40, 56)
FRAMES = 6
"""Frames of a clip that are kept."""
BATCH = 16
VIEWS = {"a4c": 0, "a2c": 1}
"""Everything else is 2."""


def cut(seed: int, folder: Path) -> None:
    """Render some frames of one clip and store them on the network's grid, unless they are there."""
    path = folder / f"train-{seed:07d}.npz"
    if path.exists():
        return
    spec = draw_echo(seed, split="train")
    phases = (np.arange(FRAMES) + np.random.default_rng([seed, 5]).random(FRAMES)) / FRAMES
    made = render_echo(spec, np.unique((phases * frame_count(spec)).astype(int)))
    cine = made.to_cine()
    try:
        square = find_sector(cine).square
    except NotProcessable:
        return
    frames = tensor_of(to_grid(cine.voxels, square))[:, 0]
    masks = to_grid(made.cavity.astype(np.float32), square) > 0.5
    np.savez_compressed(
        path,
        frames=np.rint(frames * 255).astype(np.uint8),
        masks=np.packbits(masks),
        view=VIEWS.get(spec.view, 2),
    )


def load(cache: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """All stored frames, their outlines and views."""
    frames, masks, views = [], [], []
    for path in sorted(cache.glob("train-*[0-9].npz")):
        with np.load(path) as stored:
            shape = stored["frames"].shape
            frames.append(stored["frames"])
            masks.append(np.unpackbits(stored["masks"], count=int(np.prod(shape))).reshape(shape).astype(bool))
            views.append(np.full(shape[0], int(stored["view"]), dtype=np.int64))
    return np.concatenate(frames), np.concatenate(masks), np.concatenate(views)


def network() -> Any:
    """The network: frames [n, 1, 128, 128] -> lv [n, 1, 128, 128] (logits) and view [n, 3] (logits)."""
    import torch
    from torch import nn

    def block(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(
                nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
            )
            self.down = nn.ModuleList([block(a, b) for a, b in pairwise(WIDTHS)])
            self.up = nn.ModuleList(
                [block(b + a, a) for a, b in zip(reversed(WIDTHS[1:-1]), reversed(WIDTHS[2:]), strict=True)]
            )
            self.last = nn.Sequential(
                nn.Conv2d(WIDTHS[1] + WIDTHS[0], WIDTHS[0], 3, 1, 1, bias=False),
                nn.BatchNorm2d(WIDTHS[0]),
                nn.ReLU(inplace=True),
                nn.Conv2d(WIDTHS[0], 1, 1),
            )
            self.view = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * WIDTHS[-1], 3))

        def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            levels = [self.first(frames)]
            for step in self.down:
                levels.append(step(nn.functional.max_pool2d(levels[-1], 2)))
            deep = levels[-1]
            view = self.view(torch.cat([deep.mean(dim=(2, 3)), deep.amax(dim=(2, 3))], dim=1))
            here = deep
            for k, step in enumerate(self.up):
                here = nn.functional.interpolate(here, scale_factor=2.0, mode="nearest")
                here = step(torch.cat([here, levels[-2 - k]], dim=1))
            here = nn.functional.interpolate(here, scale_factor=2.0, mode="nearest")
            return self.last(torch.cat([here, levels[0]], dim=1)), view

    return Network()


def augmented(frames: Any, masks: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """Turn, stretch, shift and mirror; bend the contrast, add haze, noise and blur. Tensors [n, 1, SIDE, SIDE]."""
    import torch
    from torch.nn import functional

    n = len(frames)
    angle, zoom = rng.normal(0, 0.14, n), np.exp(rng.normal(0, 0.09, (n, 2)))
    mirror = np.where(rng.random(n) < 0.3, -1.0, 1.0)
    shift = rng.normal(0, 0.06, (n, 2))
    theta = np.stack(
        [
            np.stack([mirror * np.cos(angle) * zoom[:, 0], -np.sin(angle) * zoom[:, 1], shift[:, 0]], 1),
            np.stack([mirror * np.sin(angle) * zoom[:, 0], np.cos(angle) * zoom[:, 1], shift[:, 1]], 1),
        ],
        1,
    )
    places = functional.affine_grid(torch.from_numpy(theta.astype(np.float32)), [n, 1, SIDE, SIDE], align_corners=False)
    both = functional.grid_sample(torch.cat([frames, masks], 1), places, align_corners=False)
    picture, outline = both[:, :1], (both[:, 1:] > 0.5).float()
    field = torch.from_numpy(rng.normal(0, 1, (n, 1, 4, 4)).astype(np.float32))
    field = functional.interpolate(field, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    strength = torch.from_numpy(np.abs(rng.normal(0, 0.22, (n, 1, 1, 1))).astype(np.float32))
    picture = picture * (1 + strength * field).clamp(0.15, 2.2)
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.28, (n, 1, 1, 1))).astype(np.float32))
    gain = torch.from_numpy(rng.normal(1, 0.12, (n, 1, 1, 1)).astype(np.float32))
    lift = torch.from_numpy(np.maximum(rng.normal(0, 0.03, (n, 1, 1, 1)), -0.06).astype(np.float32))
    picture = picture.clamp(0, 1) ** gamma * gain + lift * (picture > 0)
    if rng.random() < 0.4:
        picture = functional.avg_pool2d(picture, 3, 1, 1)
    if rng.random() < 0.4:
        noise = torch.from_numpy(rng.standard_normal(tuple(picture.shape), dtype=np.float32))
        picture = picture + float(rng.uniform(0, 0.08)) * noise
    return picture.clamp(0, 1), outline


def fit(cache: Path, run: Path, minutes: float, seed: int, seconds: float) -> None:
    """Train for a budget of *minutes* of processor time in all, *seconds* of it now at most; run again to go on.

    Keeps the state in RUN/state.pt; when the budget is spent the averaged weights are RUN/last.pt.
    """
    import torch
    from torch.nn import functional

    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    frames, masks, views = load(cache)
    by_view = [np.flatnonzero(views == view) for view in range(3)]
    net = network().to(memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    spent, steps, mean = 0.0, 0, np.array([0.7, 0.5, 1.0])
    if (run / "state.pt").exists():
        state = torch.load(run / "state.pt", weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, steps = state["spent"], state["steps"]
    rng = np.random.default_rng([seed, steps])
    began, before = time.process_time(), spent
    while spent < minutes * 60 and spent - before < seconds:
        rate = 3e-3 * min(1.0, (steps + 1) / 100) * (0.5 * (1 + np.cos(np.pi * spent / (minutes * 60))) + 0.005)
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        kinds = rng.choice(3, BATCH, p=(0.4, 0.4, 0.2))
        chosen = np.array([rng.choice(by_view[kind]) for kind in kinds])
        picture = torch.from_numpy(frames[chosen].astype(np.float32) / 255)[:, None]
        outline = torch.from_numpy(masks[chosen].astype(np.float32))[:, None]
        picture, outline = augmented(picture, outline, rng)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            lv, view = net(picture.contiguous(memory_format=torch.channels_last))
        lv, view = lv.float(), view.float()
        wanted = torch.from_numpy(views[chosen])
        apical = wanted < 2
        edges = functional.binary_cross_entropy_with_logits(lv, outline)
        seen = torch.sigmoid(lv[apical])
        true = outline[apical]
        overlap = 1 - (2 * (seen * true).sum((1, 2, 3)) + 1) / (seen.sum((1, 2, 3)) + true.sum((1, 2, 3)) + 1)
        named = functional.cross_entropy(view, wanted, label_smoothing=0.02)
        loss = edges + overlap.mean() + 0.25 * named
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(net)
        steps += 1
        now = np.array([float(edges.detach()), float(overlap.mean().detach()), float(named.detach())])
        mean = 0.98 * mean + 0.02 * now
        spent = before + time.process_time() - began
        if steps % 100 == 0:
            print(
                f"{spent:6.0f} s step {steps} edges {mean[0]:.4f} overlap {mean[1]:.4f} view {mean[2]:.4f}", flush=True
            )
        if steps % 500 == 0:
            _keep(run, net, average, optimiser, spent, steps)
    _keep(run, net, average, optimiser, spent, steps)
    if spent < minutes * 60:
        return
    torch.save(average.module.state_dict(), run / "last.pt")
    summary = {
        "seed": seed,
        "cpu_minutes": minutes,
        "steps": steps,
        "batch": BATCH,
        "train_clips": len(list(cache.glob("train-*[0-9].npz"))),
        "train_frames": len(frames),
        "loss": [round(float(value), 4) for value in mean],
    }
    (run / "summary.json").write_text(json.dumps(summary, indent=1))
    print(summary)


def _keep(run: Path, net: Any, average: Any, optimiser: Any, spent: float, steps: int) -> None:
    import torch

    state = {
        "net": net.state_dict(),
        "average": average.state_dict(),
        "optimiser": optimiser.state_dict(),
        "spent": spent,
        "steps": steps,
    }
    torch.save(state, run / "state.part")
    (run / "state.part").rename(run / "state.pt")


def export(run: Path) -> None:
    """Write 1/model.onnx (opset 17) from the weights of a run, and its SHA-256 into detector.yaml."""
    import torch

    net = network()
    net.load_state_dict(torch.load(run / "last.pt", weights_only=True))
    digest = write_onnx(net, HERE / "detector.yaml", {"frames": torch.zeros(2, 1, SIDE, SIDE)}, ("lv", "view"))
    print(f"{sum(p.numel() for p in net.parameters())} parameters, sha256 {digest}")


def main() -> None:
    """Command line: frames CACHE, fit CACHE RUN, export RUN."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cutting = commands.add_parser("frames")
    cutting.add_argument("cache", type=Path)
    cutting.add_argument("--first", type=int, default=0)
    cutting.add_argument("--count", type=int, default=1800)
    fitting = commands.add_parser("fit")
    fitting.add_argument("cache", type=Path)
    fitting.add_argument("run", type=Path)
    fitting.add_argument("--minutes", type=float, default=9.0)
    fitting.add_argument("--seed", type=int, default=7)
    fitting.add_argument("--seconds", type=float, default=1e9, help="stop after this; run again to go on")
    exporting = commands.add_parser("export")
    exporting.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "frames":
        options.cache.mkdir(parents=True, exist_ok=True)
        for seed in range(options.first, options.first + options.count):
            cut(seed, options.cache)
    elif options.command == "fit":
        fit(options.cache, options.run, options.minutes, options.seed, options.seconds)
    else:
        export(options.run)


if __name__ == "__main__":
    main()
