"""Train the tile model on synthetic textures and write weights, card and golden values.

    python models/he-tile/train.py            about three minutes on one core; needs the extras torch and pathology

Textures of one stain never appear in two splits: training, choosing and testing use stains drawn from disjoint seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from simplejpeg import decode_jpeg, encode_jpeg
from torch import nn
from torch.nn import functional

from wetread.core.ruo import RUO_STATEMENT
from wetread.detection.authoring.weights import write_onnx
from wetread.testing.phantoms.tissue_texture import CLASSES, Stain, render

HERE = Path(__file__).parent
VERSION = "0.1.0"
TILE, TEXTURE, MPP = 256, 512, 0.5
SPLITS = {"train": (1000, 36), "test": (9000, 24)}
"""First stain seed and number of stains; one texture per class and stain."""
WIDTHS = (32, 64, 96, 128, 128)
EMBEDDING = 64


class Separable(nn.Sequential):
    """Depthwise then pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class Network(nn.Module):
    """In: image uint8 [n, 256, 256, 3]. Out: probability [n, 4], embedding [n, 64]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 5, 4, 2, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.Sequential(*(Separable(a, b, 2 if k < 2 else 1) for k, (a, b) in enumerate(pairwise(WIDTHS))))
        self.embed = nn.Linear(WIDTHS[-1] * 2, EMBEDDING)
        self.head = nn.Linear(EMBEDDING, len(CLASSES))

    def features(self, image: torch.Tensor) -> torch.Tensor:
        x = image.to(torch.float32).permute(0, 3, 1, 2) / 127.5 - 1.0
        x = self.blocks(self.stem(x))
        return torch.tanh(self.embed(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embedding = self.features(image)
        return functional.softmax(self.head(embedding), dim=1), embedding


def textures(split: str) -> np.ndarray:
    """Return uint8[stain, class, row, column, 3]."""
    first, count = SPLITS[split]
    out = np.empty((count, len(CLASSES), TEXTURE, TEXTURE, 3), np.uint8)
    for stain in range(count):
        rng = np.random.default_rng(first + stain)
        drawn = Stain.drawn(rng)
        for kind in range(len(CLASSES)):
            out[stain, kind] = render(kind, TEXTURE, MPP, drawn, rng).rgb
    return out


def crop(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random periodic crop in one of eight orientations."""
    y, x = rng.integers(0, TEXTURE, 2)
    rows, columns = (y + np.arange(TILE)) % TEXTURE, (x + np.arange(TILE)) % TEXTURE
    tile = np.rot90(texture[np.ix_(rows, columns)], int(rng.integers(4)))
    return tile[:, ::-1] if rng.random() < 0.5 else tile


def scanned(tile: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the tile as a scanner would give it: other light, JPEG of another quality."""
    gain = rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)
    lit = np.ascontiguousarray(np.clip(tile * gain, 0, 255).astype(np.uint8))
    sampling = ("444", "422", "420")[int(rng.integers(3))]
    return decode_jpeg(encode_jpeg(lit, int(rng.integers(60, 95)), "RGB", sampling))


def batch(
    data: np.ndarray, size: int, rng: np.random.Generator, *, mixed: float = 0.4
) -> tuple[np.ndarray, np.ndarray]:
    """Return (images, class shares): some tiles hold two classes side by side, as at a border of tissue."""
    images = np.empty((size, TILE, TILE, 3), np.uint8)
    shares = np.zeros((size, len(CLASSES)), np.float32)
    for k in range(size):
        stain = int(rng.integers(len(data)))
        one, other = rng.integers(0, len(CLASSES), 2)
        tile = crop(data[stain, one], rng).copy()
        shares[k, one] = 1
        if rng.random() < mixed:
            cut = int(rng.integers(1, 4)) * 64
            if rng.random() < 0.5:
                tile[:, cut:] = crop(data[stain, other], rng)[:, cut:]
            else:
                tile[cut:] = crop(data[stain, other], rng)[cut:]
            shares[k] = 0
            shares[k, one] += cut / TILE
            shares[k, other] += 1 - cut / TILE
        images[k] = scanned(tile, rng)
    return images, shares


def train(steps: int, seconds: float) -> tuple[Network, int]:
    """Train for *steps* or *seconds*, whichever ends first."""
    torch.manual_seed(7)
    rng = np.random.default_rng(7)
    data = textures("train")
    network = Network().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    began, step = time.monotonic(), 0
    while step < steps and time.monotonic() - began < seconds:
        images, shares = batch(data, 24, rng)
        logits = network.head(network.features(torch.from_numpy(images)))
        loss = functional.cross_entropy(logits, torch.from_numpy(shares))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        step += 1
        if step % 25 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - began:.0f} s", flush=True)
    return network.eval(), step


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the area under the ROC curve (Mann-Whitney), ties half."""
    ranks = np.searchsorted(np.sort(negative), positive, "left") + np.searchsorted(np.sort(negative), positive, "right")
    return float(ranks.mean() / (2 * len(negative)))


def evaluate(network: Network) -> dict[str, object]:
    """Return accuracy and the AUC of dense tiles on stains the training never saw; CI by resampling stains."""
    rng = np.random.default_rng(11)
    data = textures("test")
    scores, truth, stains = [], [], []
    for stain in range(len(data)):
        for kind in range(len(CLASSES)):
            tiles = np.stack([scanned(crop(data[stain, kind], rng), rng) for _ in range(6)])
            with torch.inference_mode():
                scores.append(network(torch.from_numpy(tiles))[0].numpy())
            truth += [kind] * 6
            stains += [stain] * 6
    probability, kinds, groups = np.concatenate(scores), np.array(truth), np.array(stains)
    dense = kinds == CLASSES.index("dense")

    def area(chosen: np.ndarray) -> float:
        parts = [np.flatnonzero(groups == stain) for stain in chosen]
        index = np.concatenate(parts)
        return auc(probability[index[dense[index]], 3], probability[index[~dense[index]], 3])

    everyone = np.arange(len(data))
    drawn = [area(rng.choice(everyone, len(everyone))) for _ in range(1000)]
    return {
        "tiles": len(kinds),
        "stains": len(data),
        "accuracy": round(float((probability.argmax(1) == kinds).mean()), 4),
        "auc_dense": round(area(everyone), 4),
        "auc_dense_ci95": [round(float(q), 4) for q in np.percentile(drawn, [2.5, 97.5])],
    }


def main() -> None:
    """Train, measure, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network, steps = train(given.steps, given.seconds)
    figures = evaluate(network)
    print(figures)
    image = torch.zeros(2, TILE, TILE, 3, dtype=torch.uint8)
    write_onnx(network, HERE / "tile-model.yaml", {"image": image}, ("probability", "embedding"))
    rng = np.random.default_rng(23)
    images, _ = batch(textures("test")[:2], 4, rng, mixed=0)
    with torch.inference_mode():
        probability, embedding = (value.numpy() for value in network(torch.from_numpy(images)))
    np.savez_compressed(HERE / "golden.npz", image=images, probability=probability, embedding=embedding)
    card = {
        "schema": "wetread.card/1",
        "name": "he-tile",
        "version": VERSION,
        "title": "Texture classes of H&E-like tiles (trained on synthetic texture only)",
        "ruo": RUO_STATEMENT,
        "intended_use": "Shows that slide analysis works from file to DICOM. Research use only.",
        "excluded_use": ["diagnosis", "any statement about a patient's tissue"],
        "performance_on_patients": "unknown: never measured on patients",
        "training": {
            "data": "synthetic textures only (wetread.testing.phantoms.tissue_texture), no patient data",
            "stains": {name: list(seeds) for name, seeds in SPLITS.items()},
            "steps": steps,
            "batch": 24,
            "seed": 7,
            "parameters_count": sum(p.numel() for p in network.parameters()),
        },
        "test": {"data": "textures of stains that were not trained on", **figures},
        "licence": {"code": "Apache-2.0", "weights": "Apache-2.0", "training_data": "synthetic textures"},
    }
    (HERE / "model-card.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
