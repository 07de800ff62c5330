"""Train the haemorrhage network on phantoms and export it to ONNX (extra `torch`; never run by tests).

The exact commands, seeds and budget of the committed weights stand in model-card.json under
`training`. Cases come from the cache that `cases.py` renders; only `train` and `tune` seeds are
read here, the generator refuses to hand out others under these split names.

    python models/ich/cases.py CACHE --split train --count 700
    python models/ich/cases.py CACHE --split tune --count 80
    python models/ich/train.py fit CACHE RUN --minutes 45
    python models/ich/train.py export RUN
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from cases import load_detector_module, read
from scipy import ndimage
from torch import nn
from torch.nn import functional

from wetread.detection.authoring.weights import write_onnx

HERE = Path(__file__).parent
DETECTOR = load_detector_module()
CLASSES = 6
CROP = (slice(16, 240), slice(32, 224))
SLAB_POSITIVE_PIXELS = 20
WIDTHS = (16, 28, 44, 64, 96)


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

    In: [n, 9, 256, 256]. Out: prob [n, 6, 256, 256], case_logit [n, 1], cam [n, 32, 32] where
    case_logit is the log-mean-exp over the strongest part of cam: the map is the evidence.
    """

    def __init__(self) -> None:
        super().__init__()
        w = WIDTHS
        self.stem = Block(9, w[0], 2)
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


def depth_map(hu: np.ndarray) -> np.ndarray:
    """Distance (mm, 0 outside, at most 127) of brain from the inner table, slab by slab, at 2 mm."""
    out = np.zeros(hu.shape, dtype=np.uint8)
    for index, slab in enumerate(hu[:, ::2, ::2].astype(np.float32)):
        bone = ndimage.binary_closing(slab > 220)
        smooth = ndimage.uniform_filter(slab, 3)
        brain = ndimage.binary_fill_holes(bone) & ~bone & (smooth > -40) & (smooth < 160)
        parts, count = ndimage.label(ndimage.binary_opening(brain))
        large = np.flatnonzero(np.bincount(parts.ravel(), minlength=count + 1) > 350)
        inside = ndimage.binary_fill_holes(np.isin(parts, large[large > 0]))
        if inside.any():
            mm = np.minimum(2 * ndimage.distance_transform_edt(inside) - 1, 127).clip(0)
            out[index] = mm.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    return out


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> np.ndarray:
    """Unit-variance noise interpolated from a coarse grid; the first axis (slabs) is kept."""
    coarse = rng.standard_normal((1, shape[0], shape[1] // cell + 2, shape[2] // cell + 2))
    fine = functional.interpolate(
        torch.from_numpy(coarse.astype(np.float32)), shape[1:], mode="bilinear", align_corners=False
    )[0].numpy()
    out: np.ndarray = fine / fine.std()
    return out


def paste_bleed(
    image: np.ndarray, label: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one more bleed into three neighbouring slabs [3, h, w] and the middle slab's label.

    Cut-and-paste across anatomies: the same few heads carry endless bleeds. Sizes are drawn where
    they can be seen; the noise of the slab shows through the blood.
    """
    middle = depth[1]
    kind = int(rng.choice([1, 2, 3, 4, 5], p=[0.15, 0.3, 0.3, 0.1, 0.15]))
    space = middle > 0
    if kind in (1, 2):
        space = (middle > 0) & (middle < 3)
    elif kind == 3:
        space = middle > 6
    rows, columns = np.nonzero(space)
    if rows.size < 40:
        return image, label
    pick = int(rng.integers(0, rows.size))
    across = np.arange(image.shape[2], dtype=np.float32)[None, None, :] - columns[pick]
    down = np.arange(image.shape[1], dtype=np.float32)[None, :, None] - rows[pick]
    up = np.array([-5.0, 0.0, 5.0], dtype=np.float32)[:, None, None] - np.float32(rng.normal(0, 3))
    rough = _smooth(rng, image.shape, int(rng.choice([12, 24])))
    smooth = functional.avg_pool2d(torch.from_numpy(np.ascontiguousarray(image))[None], 5, 1, 2)[0].numpy()
    edge = float(rng.uniform(0.8, 2.5))
    if kind in (1, 2):
        reach = float(np.exp(rng.uniform(np.log(10), np.log(42 if kind == 1 else 85))))
        thick = reach * float(rng.uniform(0.3, 0.65)) if kind == 1 else float(rng.uniform(2, 14))
        distance = np.sqrt(across**2 + down**2 + up**2) / reach
        body = thick * (1 - distance ** (2 if kind == 1 else 4)) * (1 + 0.1 * rough) - depth
        side = across * (1 if columns[pick] > image.shape[2] / 2 else -1)
        keep = (depth > 0) & ((side > -abs(columns[pick] - image.shape[2] / 2) + 2) | (kind == 1))
        alpha = np.clip(body / edge + 0.5, 0, 1) * keep
    elif kind == 3:
        radius = float(np.exp(rng.uniform(np.log(4), np.log(28))))
        turn, flat = rng.uniform(0, np.pi), float(rng.uniform(0.6, 1.0))
        one = across * np.cos(turn) + down * np.sin(turn)
        two = (down * np.cos(turn) - across * np.sin(turn)) / flat
        body = radius * (1 + float(rng.uniform(0.03, 0.2)) * rough) - np.sqrt(one**2 + two**2 + up**2)
        alpha = np.clip(body / edge + 0.5, 0, 1) * (depth > 1)
    else:
        fluid = np.clip((24 - smooth) / 8, 0, 1) * (smooth > -25)
        if kind == 4:
            level = float(np.percentile(rows, rng.uniform(20, 85)))
            alpha = fluid * (depth > 18) * np.clip((down + rows[pick] - level) / 2 + 0.5, 0, 1)
        else:
            radius = float(rng.uniform(12, 60))
            region = np.clip((radius * (1 + 0.2 * rough) - np.sqrt(across**2 + down**2 + up**2)) / 6, 0, 1)
            alpha = fluid * region * (depth > 0) * (depth < 45)
    value = float(np.clip(rng.normal(64, 9), 42, 88)) + 2.5 * rough
    if rng.random() < 0.2:
        value = value - float(rng.uniform(5, 20)) * np.clip(_smooth(rng, image.shape, 10), 0, 1)
    if kind == 3 and rng.random() < 0.5:
        halo = np.exp(-np.clip(-body, 0, None) / float(rng.uniform(2, 8))) * (1 - alpha) * (smooth > 15)
        image = image - (float(rng.uniform(3, 12)) * halo * (depth > 1)).astype(np.float32)
    image = image + (alpha * (value - smooth)).astype(np.float32)
    return image, np.where(alpha[1] > 0.5, kind, label).astype(label.dtype)


def confound(image: np.ndarray, beside: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighten three neighbouring slabs [3, h, w] the way blood-free heads are bright.

    `beside` are the same slabs, one further: thick slices mix a slab with its neighbour, so that sloping bone shows
    inside the skull. `depth` (mm from the inner table): partial volume and beam hardening leave a rim that fades
    inwards, stronger here than there. Mildly dense spots stand for cortex, vessels and the sella.
    """
    if rng.random() < 0.5:
        share = float(rng.uniform(0.0, 0.4))
        image = (1 - share) * image + share * beside
    if rng.random() < 0.7:
        strength, reach = float(rng.gamma(1.6, 9.0)), float(rng.uniform(0.7, 3.2))
        where = np.clip(0.7 + 0.6 * _smooth(rng, image.shape, int(rng.choice([12, 24, 48]))), 0, 2)
        image = image + strength * where * np.exp(-(np.maximum(depth, 1) - 1) / reach) * (depth > 0)
    for _ in range(int(rng.integers(0, 3))):
        rows, columns = np.nonzero(depth[1] > 0)
        if rows.size < 40:
            break
        pick = int(rng.integers(0, rows.size))
        across = np.arange(image.shape[2], dtype=np.float32)[None, None, :] - columns[pick]
        down = np.arange(image.shape[1], dtype=np.float32)[None, :, None] - rows[pick]
        spot = np.exp(-(across**2 + down**2) / (2 * float(rng.uniform(2, 7)) ** 2))
        image = image + float(rng.uniform(3, 11)) * spot * (depth > 0)
    return image.astype(np.float32)


class Pool:
    """All cached training slabs in memory, with the index from which batches are drawn."""

    def __init__(self, cache: Path) -> None:
        self.folders = [cache / "train-fast", cache / "train-physics"]
        self.seen: set[Path] = set()
        self.hu: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.depths: dict[int, np.ndarray] = {}
        self.groups: dict[str, list[tuple[int, int]]] = {"blood": [], "near": [], "clean": []}

    def refresh(self) -> int:
        """Read cases that were rendered since the last call."""
        for folder in self.folders:
            for path in sorted(folder.glob("*.npz")) if folder.exists() else []:
                if path in self.seen or path.name.endswith(".part.npz"):
                    continue
                self.seen.add(path)
                hu, labels, _ = read(path)
                case = len(self.hu)
                self.hu.append(hu)
                self.labels.append(labels)
                bloody = (labels > 0).sum(axis=(1, 2)) >= SLAB_POSITIVE_PIXELS
                for slab, blood in enumerate(bloody):
                    group = "blood" if blood else ("near" if bloody.any() else "clean")
                    self.groups[group].append((case, slab))
        return len(self.hu)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, 3, h, w] HU of neighbouring slabs and [n, h, w] labels; about 55 % hold blood."""
        images, labels = [], []
        names = rng.choice(["blood", "near", "clean"], size, p=[0.3, 0.1, 0.6])
        for name in names:
            pairs = self.groups[name] or self.groups["clean"]
            case, slab = pairs[int(rng.integers(0, len(pairs)))]
            stack = self.hu[case]
            index = np.clip([slab - 1, slab, slab + 1], 0, len(stack) - 1)
            if rng.random() < 0.05:
                index = np.array([slab, slab, slab])
            image = stack[index][(slice(None), *CROP)].astype(np.float32)
            label = self.labels[case][slab][CROP]
            if case not in self.depths:
                self.depths[case] = depth_map(stack)
            depth = self.depths[case][index][(slice(None), *CROP)].astype(np.float32)
            if rng.random() < 0.75:
                further = np.clip(index + int(rng.choice([-1, 1])), 0, len(stack) - 1)
                image = confound(image, stack[further][(slice(None), *CROP)].astype(np.float32), depth, rng)
            if name != "blood" and rng.random() < 0.6:
                image, label = paste_bleed(image, label, depth, rng)
            if rng.random() < 0.5:
                image, label = image[..., ::-1], label[..., ::-1]
            if rng.random() < 0.5:
                image = image[::-1]
            images.append(torch.from_numpy(image.copy()))
            labels.append(torch.from_numpy(label.astype(np.int64)))
        return torch.stack(images), torch.stack(labels)


def augment(image: torch.Tensor, label: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Vary geometry and intensity beyond the generator: pose, contrast curves, fields, noise, blur."""
    count, _, height, width = image.shape
    angle = torch.from_numpy(np.radians(rng.normal(0, 8, count))).float()
    scale = torch.from_numpy(np.exp(rng.normal(0, 0.07, (count, 2)))).float()
    move = torch.from_numpy(rng.normal(0, 0.05, (count, 2))).float()
    theta = torch.zeros(count, 2, 3)
    ratio = height / width
    theta[:, 0, 0] = torch.cos(angle) * scale[:, 0]
    theta[:, 0, 1] = -torch.sin(angle) * scale[:, 0] * ratio
    theta[:, 1, 0] = torch.sin(angle) * scale[:, 1] / ratio
    theta[:, 1, 1] = torch.cos(angle) * scale[:, 1]
    theta[:, :, 2] = move
    grid = functional.affine_grid(theta, [count, 1, height, width], align_corners=False)
    image = functional.grid_sample(image + 1000, grid, align_corners=False) - 1000
    label = functional.grid_sample(label[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()

    def per_case(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).view(count, 1, 1, 1)

    tissue = (image > -200) & (image < 200)
    field = torch.from_numpy(rng.normal(0, 1, (count, 1, 4, 4)).astype(np.float32))
    field = functional.interpolate(field, (height, width), mode="bicubic", align_corners=False)
    gain = per_case(rng.normal(1.0, 0.05, count))
    image = torch.where(
        tissue,
        (image - 30) * gain + 30 + per_case(rng.normal(0, 3, count)) + field * per_case(rng.gamma(1.5, 1.0, count)),
        image,
    )
    for index in np.flatnonzero(rng.random(count) < 0.1):
        low, high = sorted(rng.uniform(0, 80, 2))
        bent = image[index] + float(rng.normal(0, 3)) * torch.exp(-(((image[index] - (low + high) / 2) / 25) ** 2))
        image[index] = bent
    for index in np.flatnonzero(rng.random(count) < 0.35):
        noise = torch.randn(3, height, width)
        if rng.random() < 0.5:
            noise = functional.avg_pool2d(noise[None], 3, 1, 1)[0] * 2.5
        image[index] += float(rng.gamma(2.0, 1.5)) * noise
    for index in np.flatnonzero(rng.random(count) < 0.25):
        share = float(rng.uniform(0.3, 1.0))
        image[index] = (1 - share) * image[index] + share * functional.avg_pool2d(
            image[index][None], 3, 1, 1, count_include_pad=False
        )[0]
    return image, label


def windows(image: torch.Tensor) -> torch.Tensor:
    """[n, 3, h, w] HU -> [n, 9, h, w], the channel order of detector.network_input."""
    parts = [torch.clamp((image - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0) for low, high in DETECTOR.WINDOWS_HU]
    return torch.stack(parts, dim=2).flatten(1, 2)


class Batches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Endless augmented batches: bfloat16 windows [n, 9, h, w] and labels; made in a process of its own."""

    def __init__(self, cache: Path, size: int, seed: int) -> None:
        super().__init__()
        self.cache, self.size, self.seed = cache, size, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rng = np.random.default_rng([self.seed, 71])
        torch.manual_seed(self.seed)
        pool = Pool(self.cache)
        for count in itertools.count():
            if count % 250 == 0:
                pool.refresh()
            image, label = augment(*pool.draw(rng, self.size), rng)
            inputs = windows(image).to(torch.bfloat16)
            yield inputs.contiguous(memory_format=torch.channels_last), label


def loss_of(pixels: torch.Tensor, pooled: torch.Tensor, cam: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and Dice on blood, cross-entropy on type within blood, logit and map of the slab."""
    pixels = pixels.float()
    size = (label > 0).sum(dim=(1, 2))
    # the network answers at 2 mm: compare with the type of one of the four pixels that it covers
    label = label[:, ::2, ::2]
    weight = torch.tensor([1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    entropy = functional.cross_entropy(pixels, label, weight=weight)
    prob = torch.softmax(pixels, dim=1)
    blood, truth = 1 - prob[:, 0], (label > 0).float()
    dice = 1 - (2 * (blood * truth).sum() + 20) / (blood.sum() + truth.sum() + 20)
    clear = (size >= SLAB_POSITIVE_PIXELS) | (size == 0)
    target = (size >= SLAB_POSITIVE_PIXELS).float()[:, None]
    slab = functional.binary_cross_entropy_with_logits(pooled, target, reduction="none")[clear]
    coarse = functional.adaptive_max_pool2d(truth[:, None], cam.shape[1:])[:, 0]
    focus = functional.binary_cross_entropy_with_logits(cam.float(), coarse, pos_weight=torch.tensor(3.0))
    return 4.0 * entropy + dice + 0.5 * slab.mean() + 0.5 * focus


def fit(cache: Path, run: Path, minutes: float, batch: int, seed: int) -> None:
    """Train for a wall-clock budget; resumes from RUN/last.pt, keeps the best on tune as best.pt."""
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # on two shared cores a second thread mostly waits for the first
    torch.manual_seed(seed)
    net = Network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    spent, steps, best = 0.0, 0, -1.0
    if (run / "last.pt").exists():
        state = torch.load(run / "last.pt", weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        spent, steps, best = state["spent"], state["steps"], state["best"]
    loader = torch.utils.data.DataLoader(
        Batches(cache, batch, seed + steps), batch_size=None, num_workers=1, prefetch_factor=3
    )
    source = iter(loader)
    budget = minutes * 60
    last = time.monotonic()
    checked, mean = spent, 0.0
    while spent < budget:
        progress = spent / budget
        rate = 2e-3 * min(1.0, (steps + 1) / 100) * (0.5 * (1 + np.cos(np.pi * progress)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = float(rate)
        net.train()
        inputs, label = next(source)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pixels, pooled, cam = net.logits(inputs)
        loss = loss_of(pixels, pooled, cam, label)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        average.update_parameters(net)
        steps += 1
        mean = 0.98 * mean + 0.02 * float(loss.detach()) if steps > 1 else float(loss.detach())
        now = time.monotonic()
        spent, last = spent + now - last, now
        if steps % 50 == 0:
            print(f"{spent / 60:6.1f} min step {steps} loss {mean:.4f}", flush=True)
        if spent - checked > 240 or spent >= budget:
            checked = spent
            score = tune_score(average.module, cache)
            if score >= best:
                best = float(score)
                torch.save(average.module.state_dict(), run / "best.pt")
            torch.save(
                {
                    "net": net.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "spent": spent,
                    "steps": steps,
                    "best": best,
                },
                run / "last.pt",
            )
            print(f"tune score {score:.4f} best {best:.4f}", flush=True)
            last = time.monotonic()
    (run / "summary.json").write_text(
        json.dumps(
            {
                "seed": seed,
                "minutes": minutes,
                "steps": steps,
                "batch": batch,
                "cases": len(list((cache / "train-fast").glob("*[0-9].npz"))),
                "best": best,
            }
        )
    )


@torch.no_grad()
def tune_score(net: nn.Module, cache: Path, limit: int = 60) -> float:
    """Case AUC by strongest slabs plus pixel Dice, over cached tuning cases (0..2)."""
    net.eval()
    scores, truths, overlap, total = [], [], 0.0, 0.0
    for path in sorted((cache / "tune-fast").glob("*.npz"))[:limit]:
        hu, labels, _ = read(path)
        image = torch.from_numpy(hu.astype(np.float32))
        below = torch.cat([image[:1], image[:-1]])
        above = torch.cat([image[1:], image[-1:]])
        inputs = windows(torch.stack([below, image, above], dim=1)[:, :, CROP[0], CROP[1]])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prob, logit, _ = net(inputs.contiguous(memory_format=torch.channels_last))
        blood = (prob[:, 0].float() < 0.5).numpy()
        truth = labels[:, CROP[0], CROP[1]] > 0
        overlap += 2.0 * float((blood & truth).sum())
        total += float(blood.sum() + truth.sum())
        scores.append(float(torch.sort(logit[:, 0].float()).values[-3:].mean()))
        truths.append(bool(truth.any()))
    if not scores:
        return 0.0
    positive = np.array(scores)[np.array(truths)]
    negative = np.array(scores)[~np.array(truths)]
    auc = float((positive[:, None] > negative[None, :]).mean()) if len(negative) else 0.0
    return auc + overlap / max(total, 1.0)


def network() -> nn.Module:
    """The network as it is exported: the mean of a slab and its mirror image."""
    return Symmetric(Network())


def export(run: Path) -> None:
    """Write 1/model.onnx (opset 17) from best.pt and its SHA-256 into detector.yaml."""
    net = Network()
    net.load_state_dict(torch.load(run / "best.pt", weights_only=True))
    outputs = ("prob", "case_logit", "cam")
    digest = write_onnx(Symmetric(net), HERE / "detector.yaml", {"slabs": torch.zeros(2, 9, 256, 256)}, outputs)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, sha256 {digest}")


def main() -> None:
    """Command line: fit CACHE RUN, export RUN."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit")
    fitting.add_argument("cache", type=Path)
    fitting.add_argument("run", type=Path)
    fitting.add_argument("--minutes", type=float, default=45.0)
    fitting.add_argument("--batch", type=int, default=24)
    fitting.add_argument("--seed", type=int, default=7)
    exporting = commands.add_parser("export")
    exporting.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "fit":
        fit(options.cache, options.run, options.minutes, options.batch, options.seed)
    else:
        export(options.run)


if __name__ == "__main__":
    main()
