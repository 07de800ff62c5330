"""Train the haemorrhage network on phantoms and export it to ONNX (extra `torch`; never run by tests).

The exact commands, seeds and budget of the committed weights stand in model-card.json under
`training`. Cases come from the cache that `cases.py` renders; only `train` and `tune` seeds are
read here, the generator refuses to hand out others under these split names.

    python models/ich/cases.py CACHE --split train --count 700 --thickness 5
    python models/ich/cases.py CACHE --split tune --count 160
    python models/ich/train.py fit CACHE RUN --minutes 75 [--start EARLIER]
    python models/ich/train.py export RUN
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from batches import SLAB_POSITIVE_PIXELS, Batches
from cases import in_hu, load_detector_module, read, shown
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from wetread.detection.authoring.weights import write_onnx

HERE = Path(__file__).parent
DETECTOR = load_detector_module()
CLASSES = 6
WIDTHS = (16, 28, 44, 64, 96)
WITHIN = (slice(16, 240), slice(32, 224))
"""Rows and columns of the grid that can hold a head."""
RATE = 1.5e-3
UNSEEN_WEIGHT = 0.1
SMOOTH_CHANNEL, WIDE_CHANNEL = 9, 4
"""Of detector.network_input: the smoothed image, and the slab itself in the second window."""
CHECK_SECONDS = 600.0
LONGEST_STEP_SECONDS = 10.0


class Block(nn.Sequential):
    """Two 3x3 convolutions with batch normalisation; the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Network(nn.Module):
    """U-Net with a stride-2 stem; per-pixel types, and a slab logit pooled from its own map.

    In: [n, 15, 256, 256]. Out: prob [n, 6, 256, 256], case_logit [n, 1], cam [n, 32, 32] where
    case_logit is the log-mean-exp over the strongest part of cam: the map is the evidence.
    """

    def __init__(self) -> None:
        super().__init__()
        w = WIDTHS
        self.stem = Block(DETECTOR.CHANNELS, w[0], 2)
        self.down = nn.ModuleList([Block(a, b, 2) for a, b in pairwise(w)])
        self.up = nn.ModuleList([Block(w[i + 1] + w[i], w[i]) for i in reversed(range(len(w) - 1))])
        self.pixel = nn.Conv2d(w[0], CLASSES, 1)
        self.activation = nn.Sequential(nn.Conv2d(w[2], 32, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(32, 1, 1))

    def logits(self, slabs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixel logits at 2 mm, slab logit and activation map."""
        skips = [self.stem(slabs)]
        for block in self.down:
            skips.append(block(skips[-1]))
        value = skips.pop()
        cam = value
        for level, block in enumerate(self.up):
            value = functional.interpolate(value, scale_factor=2.0, mode="nearest")
            value = block(torch.cat([value, skips.pop()], dim=1))
            if level == len(self.up) - 3:
                cam = self.activation(value)[:, 0]
        pooled = torch.logsumexp(cam.float().flatten(1), dim=1, keepdim=True) - 3.0
        return self.pixel(value), pooled, cam

    def forward(self, slabs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give prob, case_logit and cam."""
        pixels, pooled, cam = self.logits(slabs)
        pixels = functional.interpolate(pixels, scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.softmax(pixels, dim=1), pooled, cam


class Symmetric(nn.Module):
    """The network as shipped: the mean of its answers to the image and to its mirror image.

    A head and its mirror image hold the same blood, so the detector must not care; averaging also thins out marks
    that only one of the two views shows.
    """

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    def forward(self, slabs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give prob, case_logit and cam."""
        prob, logit, cam = self.net(slabs)
        mirrored, logit_mirrored, cam_mirrored = self.net(torch.flip(slabs, (3,)))
        return (
            (prob + torch.flip(mirrored, (3,))) / 2,
            (logit + logit_mirrored) / 2,
            (cam + torch.flip(cam_mirrored, (2,))) / 2,
        )


def loss_of(
    pixels: torch.Tensor,
    pooled: torch.Tensor,
    cam: torch.Tensor,
    label: torch.Tensor,
    smooth: torch.Tensor,
    wide: torch.Tensor,
) -> torch.Tensor:
    """Blood by cross-entropy and Dice, its type where it is, logit and map of the slab.

    Blood that is no brighter than brain (`smooth`) or drowned in bone (`wide`; both are channels of the input) counts
    little and decides on no slab: it can only be learnt as noise.
    """
    seen = (label > 0) & shown(in_hu(smooth, DETECTOR.SMOOTH_WINDOW_HU), in_hu(wide, DETECTOR.WINDOWS_HU[1]))
    blood_pixels, seen_pixels = (label > 0).sum(dim=(1, 2)), seen.sum(dim=(1, 2))
    # the network answers at 2 mm: compare with the type of one of the four pixels that it covers
    label, seen = label[:, ::2, ::2], seen[:, ::2, ::2]
    truth = (label > 0).float()
    weight = torch.where((label > 0) & ~seen, UNSEEN_WEIGHT, 1.0)
    # the logit of blood against none, from the softmax over types
    blood = torch.logsumexp(pixels[:, 1:], dim=1) - pixels[:, 0]
    entropy = functional.binary_cross_entropy_with_logits(blood, truth, reduction="none")
    share = torch.sigmoid(blood) * weight
    dice = 1 - (2 * (share * truth).sum() + 20) / (share.sum() + (truth * weight).sum() + 20)
    named = functional.cross_entropy(pixels[:, 1:], (label - 1).clamp(min=0), reduction="none")
    kind = (named * seen).sum() / seen.sum().clamp(min=1)
    clear = (seen_pixels >= SLAB_POSITIVE_PIXELS) | (blood_pixels == 0)
    target = (seen_pixels >= SLAB_POSITIVE_PIXELS).float()[:, None]
    slab = functional.binary_cross_entropy_with_logits(pooled, target, reduction="none")[clear]
    coarse = functional.adaptive_max_pool2d(seen[:, None].float(), cam.shape[1:])[:, 0]
    focus = functional.binary_cross_entropy_with_logits(cam, coarse, pos_weight=torch.tensor(3.0))
    return 8.0 * (entropy * weight).mean() + dice + 0.15 * kind + 0.5 * slab.mean() + 0.5 * focus


def begin_with(net: Network, start: Path, inputs: torch.Tensor) -> None:
    """Take over weights: best.pt of an earlier run, or an exported network, whose normalisations are unfolded again.

    Channels of the input that they did not have begin with nothing. An exported network answers *inputs* as before.
    """
    if start.suffix == ".onnx":
        unfold(net, start, inputs)
        return
    stored = torch.load(start, weights_only=True)
    stored["stem.0.weight"] = _widened(stored["stem.0.weight"], net)
    net.load_state_dict(stored)


def _widened(first: torch.Tensor, net: Network) -> torch.Tensor:
    wanted = torch.zeros_like(net.stem[0].weight)
    wanted[:, : first.shape[1]] = first
    return wanted


@torch.no_grad()
def unfold(net: Network, weights: Path, inputs: torch.Tensor) -> None:
    """Load an exported network: each normalisation takes the statistics of *inputs*, so that nothing changes."""
    stored = {entry.name: numpy_helper.to_array(entry).copy() for entry in onnx.load(weights).graph.initializer}
    named = {name.removeprefix("net."): torch.from_numpy(stored[name]) for name in stored if name.startswith("net.")}
    folded = iter([torch.from_numpy(stored[name]) for name in stored if name.startswith("onnx::Conv")])
    net.load_state_dict(named, strict=False)
    for block in (net.stem, *net.down, *net.up):
        for index in (0, 3):
            weight = next(folded)
            block[index].weight.copy_(_widened(weight, net) if block is net.stem and index == 0 else weight)
            block[index + 1].bias.copy_(next(folded))

    def normalise(norm: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        spread, mean = torch.std_mean(given[0], dim=(0, 2, 3))
        norm.weight.copy_(spread.clamp(min=1e-3))
        norm.bias.add_(mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(norm.weight**2)

    hooks = [m.register_forward_pre_hook(normalise) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    net.eval()
    net.logits(inputs)
    for hook in hooks:
        hook.remove()


def fit(cache: Path, run: Path, minutes: float, batch: int, seed: int, start: Path | None) -> None:
    """Train for a wall-clock budget; resumes from RUN/last.pt, keeps the best on tune as best.pt."""
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the other core makes the batches
    torch.manual_seed(seed)
    net = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.997), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3)
    state = {"spent": 0.0, "steps": 0, "best": -1.0}
    if (run / "last.pt").exists():
        stored = torch.load(run / "last.pt", weights_only=True)
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimiser.load_state_dict(stored["optimiser"])
        state = {name: stored[name] for name in state}
    loader = torch.utils.data.DataLoader(
        Batches(cache, batch, seed + int(state["steps"])), batch_size=None, num_workers=1, prefetch_factor=4
    )
    source = iter(loader)
    if start is not None and state["steps"] == 0:
        begin_with(net, start, torch.cat([next(source)[0] for _ in range(4)]))
        average.module.load_state_dict(net.state_dict())
    steps, spent, mean = int(state["steps"]), state["spent"], 0.0
    checked, last = spent, time.monotonic()
    while spent < minutes * 60:
        progress = spent / (minutes * 60)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (steps + 1) / 100) * (0.5 * (1 + float(np.cos(np.pi * progress))) + 0.01)
        net.train()
        inputs, label = next(source)
        loss = loss_of(*net.logits(inputs), label, inputs[:, SMOOTH_CHANNEL], inputs[:, WIDE_CHANNEL])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(net)
        steps += 1
        value = float(loss.detach())
        mean = 0.99 * mean + 0.01 * value if mean else value
        now = time.monotonic()
        # a pause of the machine (or of the one who measures something else on it) is no training
        spent, last = spent + min(now - last, LONGEST_STEP_SECONDS), now
        if steps % 100 == 0:
            print(f"{spent / 60:6.1f} min step {steps} loss {mean:.4f}", flush=True)
        if spent - checked > CHECK_SECONDS or spent >= minutes * 60:
            score = tune_score(average.module, cache)
            if score >= state["best"]:
                state["best"] = score
                torch.save(average.module.state_dict(), run / "best.pt")
            state |= {"spent": spent, "steps": steps}
            kept = {"net": net.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save(kept | state, run / "last.pt")
            print(f"tune score {score:.4f} best {state['best']:.4f}", flush=True)
            checked, last = spent, time.monotonic()
    cases = len(list((cache / "train-fast").glob("*[0-9].npz")))
    summary = {"seed": seed, "minutes": minutes, "steps": steps, "batch": batch, "cases": cases, "best": state["best"]}
    (run / "summary.json").write_text(json.dumps(summary))


@torch.no_grad()
def tune_score(net: nn.Module, cache: Path, limit: int = 40) -> float:
    """Case AUC by strongest slabs plus pixel Dice, over cached tuning cases (0..2)."""
    net.eval()
    scores, truths, overlap, total = [], [], 0.0, 0.0
    for path in sorted((cache / "tune-fast").glob("*[0-9].npz"))[:limit]:
        hu, labels, _ = read(path)
        inputs = torch.from_numpy(DETECTOR.network_input(hu.astype(np.float32))[:, :, WITHIN[0], WITHIN[1]])
        prob, logit, _ = net(inputs.contiguous(memory_format=torch.channels_last))
        blood = (prob[:, 0] < 0.5).numpy()
        truth = labels[:, WITHIN[0], WITHIN[1]] > 0
        overlap += 2.0 * float((blood & truth).sum())
        total += float(blood.sum() + truth.sum())
        scores.append(float(torch.sort(logit[:, 0]).values[-3:].mean()))
        truths.append(bool(truth.any()))
    if not scores:
        return 0.0
    positive = np.array(scores)[np.array(truths)]
    negative = np.array(scores)[~np.array(truths)]
    auc = float((positive[:, None] > negative[None, :]).mean()) if len(negative) else 0.0
    print(f"tune AUC of the strongest slabs {auc:.4f}, Dice {overlap / max(total, 1.0):.4f}", flush=True)
    return auc + overlap / max(total, 1.0)


def network() -> nn.Module:
    """The network as it is exported: the mean of a slab and its mirror image."""
    return Symmetric(Network())


def export(run: Path) -> None:
    """Write 1/model.onnx (opset 17) from best.pt and its SHA-256 into detector.yaml."""
    net = Network()
    net.load_state_dict(torch.load(run / "best.pt", weights_only=True))
    outputs = ("prob", "case_logit", "cam")
    digest = write_onnx(
        Symmetric(net), HERE / "detector.yaml", {"slabs": torch.zeros(2, DETECTOR.CHANNELS, 256, 256)}, outputs
    )
    print(f"{sum(p.numel() for p in net.parameters())} parameters, sha256 {digest}")


def main() -> None:
    """Command line: fit CACHE RUN, export RUN."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit")
    fitting.add_argument("cache", type=Path)
    fitting.add_argument("run", type=Path)
    fitting.add_argument("--minutes", type=float, default=75.0)
    fitting.add_argument("--batch", type=int, default=24)
    fitting.add_argument("--seed", type=int, default=7)
    fitting.add_argument("--start", type=Path, help="best.pt of an earlier run, or exported weights, to begin with")
    exporting = commands.add_parser("export")
    exporting.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "fit":
        fit(options.cache, options.run, options.minutes, options.batch, options.seed, options.start)
    else:
        export(options.run)


if __name__ == "__main__":
    main()
