"""Training batches of the haemorrhage network: crops of cached heads, varied beyond what the generator draws.

Crops lie where something is to be learnt: on blood, on dense places without blood, anywhere else. Bleeds are pasted
into heads without blood, and heads without blood are brightened the way such heads are bright.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import load_detector_module, read
from scipy import ndimage
from torch.nn import functional

DETECTOR = load_detector_module()
SLAB_POSITIVE_PIXELS = 20
CROP = 128
"""Pixels (mm) of a crop's side; the network is convolutional and sees whole slabs when it is asked."""
SURROUNDINGS = 192
DENSE_HU = (46.0, 110.0)
REFRESH_EVERY = 100


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
    if rng.random() < 0.6:
        strength, reach = float(rng.gamma(1.6, 7.0)), float(rng.uniform(0.7, 5.0))
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


@dataclass
class Head:
    """A cached case: HU, labels, depth and mirror image [slab, 256, 256], and what the detector finds out first."""

    hu: np.ndarray
    labels: np.ndarray
    depth: np.ndarray
    mirror: np.ndarray
    frame: Any
    shift_hu: float
    brain: np.ndarray
    """Slabs with brain, and with blood."""
    bloody: np.ndarray

    @classmethod
    def of(cls, path: Path) -> Head:
        """Read a case of the cache."""
        stored, labels, _ = read(path)
        hu = stored.astype(np.float32)
        depth = DETECTOR.brain_depth(hu)
        frame = DETECTOR.head_frame(depth)
        shift = DETECTOR.BRAIN_HU - DETECTOR.brain_level(hu, depth)
        mirror = DETECTOR.mirrored(DETECTOR.smoothed(hu + np.float32(shift)), frame)
        bloody = np.flatnonzero((labels > 0).sum(axis=(1, 2)) >= SLAB_POSITIVE_PIXELS)
        brain = np.flatnonzero((depth > 0).any(axis=(1, 2)))
        return cls(
            stored,
            labels,
            depth.astype(np.uint8),
            np.rint(127 * mirror).astype(np.int8),
            frame,
            shift,
            brain if brain.size else np.arange(len(hu)),
            bloody,
        )


class Pool:
    """All cached training heads in memory."""

    def __init__(self, cache: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        self.folders = [cache / "train-fast", cache / "train-physics"]
        self.seen: set[Path] = set()
        self.heads: list[Head] = []
        self.with_blood: list[int] = []

    def refresh(self, most: int = 80) -> int:
        """Read cases that were rendered since the last call, at most so many; returns how many there are."""
        fresh = [p for f in self.folders for p in sorted(f.glob("*[0-9].npz")) if p not in self.seen]
        for path in self.rng.permuted(fresh)[:most]:
            self.seen.add(path)
            self.heads.append(Head.of(path))
            if self.heads[-1].bloody.size:
                self.with_blood.append(len(self.heads) - 1)
        return len(self.heads)

    def draw(self, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[n, 8, 192, 192]: HU of three slabs, depth, mirror, place; [n, 192, 192] labels; about 60 % hold blood.

        A head is drawn first and one of its slabs then: a small bleed is as frequent as a large one.
        """
        images, labels = [], []
        for kind in rng.choice(["blood", "near", "dense", "any"], size, p=[0.36, 0.06, 0.32, 0.26]):
            wants_blood = kind in ("blood", "near") and self.with_blood
            head = self.heads[int(rng.choice(self.with_blood)) if wants_blood else int(rng.integers(len(self.heads)))]
            slab = int(rng.choice(head.bloody if wants_blood else head.brain))
            if kind == "any" and rng.random() < 0.4:
                slab = int(rng.integers(len(head.hu)))
            if kind == "near":
                slab = int(np.clip(slab + rng.choice([-3, -2, 2, 3]), 0, len(head.hu) - 1))
            image, label, depth, further, told = _around(head, slab, _centre(head, slab, str(kind), rng), rng)
            if rng.random() < 0.45:
                image = confound(image, further, depth, rng)
            if kind != "blood" and rng.random() < 0.4:
                image, label = paste_bleed(image, label, depth, rng)
            image = image + np.float32(head.shift_hu)
            if rng.random() < 0.5:
                image = image[::-1]
            image = np.concatenate([image, told])
            if rng.random() < 0.5:
                image, label = image[..., ::-1], label[..., ::-1]
            images.append(torch.from_numpy(image.copy()))
            labels.append(torch.from_numpy(label.astype(np.int64)))
        return torch.stack(images), torch.stack(labels)


def _centre(head: Head, slab: int, kind: str, rng: np.random.Generator) -> tuple[int, int]:
    """Where a crop lies: on blood, on dense brain without blood, or anywhere in the brain."""
    if kind == "blood":
        where = head.labels[slab] > 0
    else:
        where = head.depth[slab] > 0
        if kind == "dense":
            smooth = ndimage.uniform_filter(head.hu[slab].astype(np.float32), 4)
            dense = where & (smooth > DENSE_HU[0]) & (smooth < DENSE_HU[1]) & (head.labels[slab] == 0)
            where = dense if dense.any() else where
    rows, columns = np.nonzero(where if where.any() else head.hu[slab] > -300)
    if rows.size == 0:
        return DETECTOR.GRID // 2, DETECTOR.GRID // 2
    pick = int(rng.integers(rows.size))
    return int(rows[pick]), int(columns[pick])


def _around(
    head: Head, slab: int, centre: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image [3, 192, 192], label [192, 192], depth (mm), the slabs one further, what is told beside [5, 192, 192]."""
    index = np.clip([slab - 1, slab, slab + 1], 0, len(head.hu) - 1)
    if rng.random() < 0.05:
        index = np.array([slab, slab, slab])
    further = np.clip(index + int(rng.choice([-1, 1])), 0, len(head.hu) - 1)
    aside = CROP // 3
    corner = [int(c + rng.integers(-aside, aside + 1)) - SURROUNDINGS // 2 for c in centre]
    depth = _cut(head.depth[index], corner, 0).astype(np.float32)
    rows, columns = (np.arange(c, c + SURROUNDINGS) for c in corner)
    told = np.concatenate(
        [
            DETECTOR.depth_channel(depth[1:2]),
            _cut(head.mirror[slab][None], corner, -127).astype(np.float32) / 127,
            DETECTOR.places(head.frame, slab, rows, columns),
        ]
    )
    return (
        _cut(head.hu[index], corner, -1000).astype(np.float32),
        _cut(head.labels[slab][None], corner, 0)[0],
        depth,
        _cut(head.hu[further], corner, -1000).astype(np.float32),
        told,
    )


def _cut(stack: np.ndarray, corner: list[int], outside: int) -> np.ndarray:
    """The window of 192 x 192 at a corner, which may lie outside."""
    out = np.full((len(stack), SURROUNDINGS, SURROUNDINGS), outside, dtype=stack.dtype)
    low = [max(c, 0) for c in corner]
    high = [min(c + SURROUNDINGS, size) for c, size in zip(corner, stack.shape[1:], strict=True)]
    target = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, corner, strict=True))
    out[(slice(None), *target)] = stack[:, low[0] : high[0], low[1] : high[1]]
    return out


def augment(image: torch.Tensor, label: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Vary geometry and intensity beyond the generator, and crop to 128: pose, contrast, fields, noise, blur."""
    count, height, width = len(image), CROP, CROP
    angle = torch.from_numpy(np.radians(rng.normal(0, 8, count))).float()
    scale = torch.from_numpy(CROP / SURROUNDINGS * np.exp(rng.normal(0, 0.07, (count, 2)))).float()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.cos(angle) * scale[:, 0]
    theta[:, 0, 1] = -torch.sin(angle) * scale[:, 0]
    theta[:, 1, 0] = torch.sin(angle) * scale[:, 1]
    theta[:, 1, 1] = torch.cos(angle) * scale[:, 1]
    grid = functional.affine_grid(theta, [count, 1, height, width], align_corners=False)
    told = functional.grid_sample(image[:, 3:] + 1, grid, align_corners=False) - 1
    image = functional.grid_sample(image[:, :3] + 1000, grid, align_corners=False) - 1000
    label = functional.grid_sample(label[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0].long()

    def per_case(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).view(count, 1, 1, 1)

    tissue = (image > -200) & (image < 200)
    field = torch.from_numpy(rng.normal(0, 1, (count, 1, 4, 4)).astype(np.float32))
    field = functional.interpolate(field, (height, width), mode="bicubic", align_corners=False)
    gain = per_case(rng.normal(1.0, 0.05, count))
    image = torch.where(
        tissue,
        (image - 30) * gain + 30 + per_case(rng.normal(0, 2, count)) + field * per_case(rng.gamma(1.5, 1.0, count)),
        image,
    )
    for index in np.flatnonzero(rng.random(count) < 0.1):
        low, high = sorted(rng.uniform(0, 80, 2))
        bent = image[index] + float(rng.normal(0, 3)) * torch.exp(-(((image[index] - (low + high) / 2) / 25) ** 2))
        image[index] = bent
    for index in np.flatnonzero(rng.random(count) < 0.15):  # the overshoot of sharp kernels
        soft = functional.avg_pool2d(image[index][None], 3, 1, 1, count_include_pad=False)[0]
        image[index] += float(rng.uniform(0.2, 0.9)) * (image[index] - soft)
    for index in np.flatnonzero(rng.random(count) < 0.3):
        noise = torch.randn(3, height, width)
        if rng.random() < 0.5:
            noise = functional.avg_pool2d(noise[None], 3, 1, 1)[0] * 2.5
        image[index] += float(rng.gamma(2.0, 2.0)) * noise
    for index in np.flatnonzero(rng.random(count) < 0.25):
        share = float(rng.uniform(0.3, 1.0))
        image[index] = (1 - share) * image[index] + share * functional.avg_pool2d(
            image[index][None], 3, 1, 1, count_include_pad=False
        )[0]
    return torch.cat([image, told], dim=1), label


def windows(image: torch.Tensor) -> torch.Tensor:
    """[n, 8, h, w] HU and what is told beside -> [n, 15, h, w], as detector.network_input makes them."""
    hu, told = image[:, :3], image[:, 3:]
    parts = [torch.clamp((hu - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0) for low, high in DETECTOR.WINDOWS_HU]
    soft = torch.clamp(hu, 0.0, 90.0)
    soft = (soft[:, :1] + 2 * soft[:, 1:2] + soft[:, 2:]) / 4
    low, high = DETECTOR.SMOOTH_WINDOW_HU
    smooth = functional.avg_pool2d(functional.pad(soft, (2, 2, 2, 2), mode="replicate"), 5, 1)
    smooth = torch.clamp((smooth - low) * (2.0 / (high - low)) - 1.0, -1.0, 1.0)
    return torch.cat([torch.stack(parts, dim=2).flatten(1, 2), smooth, told], dim=1)


class Batches(torch.utils.data.IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """Endless augmented batches: windows [n, 15, 128, 128] and labels; made in a process of its own."""

    def __init__(self, cache: Path, size: int, seed: int) -> None:
        super().__init__()
        self.cache, self.size, self.seed = cache, size, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        torch.set_num_threads(1)
        rng = np.random.default_rng([self.seed, 71])
        torch.manual_seed(self.seed)
        pool = Pool(self.cache, rng)
        for count in itertools.count():
            if count % REFRESH_EVERY == 0:
                pool.refresh()
            image, label = augment(*pool.draw(rng, self.size), rng)
            yield windows(image).contiguous(memory_format=torch.channels_last), label
