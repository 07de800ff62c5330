"""T1-weighted brain MR phantoms: tissue fractions with folds, atrophy and lesions, rendered with known volumes.

Anatomy is a label map on a fine grid (millimetres, x to the left, y to the back, z up); each acquired voxel averages
it, so partial volume is exact. Acquisition: spoiled gradient echo contrast by class, coil bias, k-space motion, Rician
noise, any slice thickness. NumPy and SciPy only; a seed gives the same head for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from wetread.core.detector import FrameRef, Volume
from wetread.testing.phantoms.errors import PhantomSpecError
from wetread.testing.phantoms.seeds import require_split
from wetread.testing.phantoms.spec import FloatArray

CLASSES = ("gray_matter", "white_matter", "cerebrospinal_fluid")
GENERATOR = "t1-brain/1"
_AIR, _CSF, _GM, _WM, _SKULL, _FAT, _MUSCLE = range(7)
_T1_SIGNAL = {_AIR: 0.0, _CSF: 0.22, _GM: 0.62, _WM: 0.90, _SKULL: 0.06, _FAT: 1.15, _MUSCLE: 0.50}
_T2_SIGNAL = {_AIR: 0.0, _CSF: 1.20, _GM: 0.70, _WM: 0.50, _SKULL: 0.06, _FAT: 0.80, _MUSCLE: 0.35}
DISTRIBUTIONS: dict[str, Any] = {
    "generator": GENERATOR,
    "base": {
        "scale": [0.92, 1.08],
        "atrophy": [0.2, 1.0],
        "lesions": [0.0, 8.0],
        "pixel_mm": [0.95, 1.24],
        "thickness_mm": [0.95, 1.44],
        "noise": [0.015, 0.05],
        "bias": [0.05, 0.25],
        "motion": [0.0, 0.0],
        "contrast": [1.0, 1.0],
    },
    "sets": {
        "train": {},
        "tune": {},
        "s0": {},
        "s1": {"noise": [0.04, 0.08], "bias": [0.25, 0.45], "thickness_mm": [1.5, 3.0]},
        "s2": {"atrophy": [0.9, 1.8], "scale": [0.84, 1.16], "lesions": [4.0, 20.0]},
        "s4": {"motion": [0.3, 2.0]},
        "s5": {"contrast": [2.5, 2.5]},
    },
}
"""What heads are drawn from, [low, high] each; its YAML is ``models/brain-volumetry/phantom.yaml``."""


@dataclass(frozen=True, slots=True)
class BrainSpec:
    """What to render. None draws from the split's distribution.

    fine_mm: grid of the anatomy. weighting: "T1", or "T2" for images that a T1 detector has to refuse.
    motion: mm of displacement between parts of k-space. noise: share of the white-matter signal.
    """

    split: str = "s0"
    fine_mm: float = 1.2
    pixel_mm: float | None = None
    thickness_mm: float | None = None
    noise: float | None = None
    bias: float | None = None
    motion: float | None = None
    atrophy: float | None = None
    weighting: str = "T1"


@dataclass(frozen=True, slots=True)
class BrainPhantom:
    """A rendered head. ``fractions`` [class, plane, row, column] are the true shares of ``CLASSES`` in each voxel."""

    seed: int
    volume: Volume
    fractions: FloatArray
    volumes_ml: Mapping[str, float]
    tags: Mapping[str, str | float | int | bool] = field(default_factory=dict)


def make_brain(seed: int, spec: BrainSpec | None = None) -> BrainPhantom:
    """Render the head of a seed. Raises PhantomSeedError for another split's seed, PhantomSpecError for a bad spec."""
    spec = spec or BrainSpec()
    require_split(seed, spec.split)
    if spec.weighting not in {"T1", "T2"} or not 0.5 <= spec.fine_mm <= 3.0:
        raise PhantomSpecError("weighting is T1 or T2, the fine grid 0.5 to 3 mm")
    rng = np.random.default_rng([seed, 77])
    drawn = _draw(rng, spec)
    labels = _anatomy(rng, drawn, spec.fine_mm)
    pixel, thick = drawn["pixel_mm"], drawn["thickness_mm"]
    shape = tuple(int(n * spec.fine_mm // step) for n, step in zip(labels.shape, (thick, pixel, pixel), strict=True))
    steps = (thick / spec.fine_mm, pixel / spec.fine_mm, pixel / spec.fine_mm)
    signal = np.zeros(shape, dtype=np.float32)
    contrast = _T1_SIGNAL if spec.weighting == "T1" else _T2_SIGNAL
    fractions = []
    for label, level in contrast.items():
        if label == _AIR:
            continue
        share = _averaged(labels == label, steps, shape)
        varied = level * (1 + drawn["contrast"] * rng.uniform(-0.08, 0.08))
        signal += np.float32(varied) * share
        if label in {_GM, _WM, _CSF}:
            fractions.append((label, share))
    order = {_GM: 0, _WM: 1, _CSF: 2}
    stacked = np.stack([share for _, share in sorted(fractions, key=lambda item: order[item[0]])])
    image = _acquire(rng, signal, drawn, (thick, pixel, pixel))
    voxel_ml = pixel * pixel * thick / 1000
    volumes = {name: float(part.sum(dtype=np.float64)) * voxel_ml for name, part in zip(CLASSES, stacked, strict=True)}
    volume = _volume(seed, image, pixel, thick)
    tags: dict[str, str | float | int | bool] = {k: round(v, 4) for k, v in drawn.items()}
    tags |= {"sex": "FM"[seed % 2], "age": 91 - seed % 60, "field_t": 1.5 if seed % 3 else 3.0}
    return BrainPhantom(seed, volume, stacked, volumes, tags)


def _draw(rng: np.random.Generator, spec: BrainSpec) -> dict[str, float]:
    """Values of one head by ``DISTRIBUTIONS``, what the spec gives over them; every seed uses as many draws."""
    table = DISTRIBUTIONS["base"] | DISTRIBUTIONS["sets"].get(spec.split, {})
    drawn = {}
    for name in sorted(table):
        low, high = table[name]
        drawn[name] = float(rng.uniform(low, high))
    drawn["pixel_mm"] = round(drawn["pixel_mm"], 1)
    drawn["thickness_mm"] = round(drawn["thickness_mm"], 1)
    for name in ("pixel_mm", "thickness_mm", "noise", "bias", "motion", "atrophy"):
        given = getattr(spec, name)
        if given is not None:
            drawn[name] = float(given)
    return drawn


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], length: float) -> FloatArray:
    """A zero-mean, unit-variance random field of correlation *length* voxels, made coarse and read smoothly."""
    coarse = max(1.0, length / 2)
    small = [max(4, int(np.ceil(n / coarse)) + 3) for n in shape]
    field_ = ndimage.gaussian_filter(rng.standard_normal(small).astype(np.float32), length / coarse)
    field_ = (field_ - field_.mean()) / field_.std()
    matrix = np.array([1 / coarse] * 3)
    out: FloatArray = ndimage.affine_transform(field_, matrix, output_shape=shape, order=1, mode="nearest")
    return out


def _anatomy(rng: np.random.Generator, drawn: Mapping[str, float], fine: float) -> np.ndarray:
    """Label map [z, y, x] of head, skull, fluid, folded cortex, white matter, ventricles, deep grey, lesions."""
    half = np.array([78.0, 96.0, 74.0]) * drawn["scale"]  # z, y, x of the scalp
    shape = tuple(int(2 * (h + margin) / fine) for h, margin in zip(half, (6, 18, 10), strict=True))
    axes = [(np.arange(n) - (n - 1) / 2) * fine for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)

    def ellipsoid(rz: float, ry: float, rx: float, cz: float = 0, cy: float = 0, cx: float = 0) -> FloatArray:
        """Signed depth below an ellipsoid's surface, about mm; positive inside."""
        radius = np.sqrt(((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
        return np.asarray((1 - radius) * min(rz, ry, rx), dtype=np.float32)

    scalp_mm, skull_mm = rng.uniform(4, 8), rng.uniform(4, 7)
    wobble = _smooth(rng, shape, 30 / fine) * 1.5
    head = ellipsoid(*half) + wobble
    labels = np.full(shape, _AIR, dtype=np.uint8)
    labels[head > 0] = _FAT
    labels[head > scalp_mm * 0.6] = _MUSCLE
    labels[head > scalp_mm] = _SKULL
    inside = head - scalp_mm - skull_mm
    labels[inside > 0] = _CSF
    fluid_mm = 1.0 + 2.0 * drawn["atrophy"]
    folds = _smooth(rng, shape, rng.uniform(3.4, 4.6) / fine)
    depth = inside - fluid_mm
    # Sulci: fluid where the fold field crosses zero, narrowing with depth; wider in atrophy.
    reach = np.clip(1 - depth / rng.uniform(14, 20), 0, 1)
    brain = (depth > 0) & (np.abs(folds) > (0.05 + 0.13 * drawn["atrophy"]) * reach)
    fissure = (np.abs(x) < 0.6 + 0.6 * drawn["atrophy"]) & (z > 5)
    brain &= ~fissure
    deep = ndimage.distance_transform_edt(brain, sampling=fine).astype(np.float32)
    cortex_mm = rng.uniform(2.4, 3.2)
    labels[brain] = np.where(deep[brain] < cortex_mm, _GM, _WM)
    size = 0.7 + 0.5 * drawn["atrophy"]
    for side in (-1, 1):
        for rz, ry, rx, cz, cy, cx in ((9, 12, 8, 4, -4, 13), (8, 9, 5, 8, -22, 13)):  # thalamus, caudate
            labels[(ellipsoid(rz, ry, rx, cz, cy, side * cx) > 0) & brain] = _GM
        ventricle = ellipsoid(7 * size, 30 * size, 5 * size, 14, 0, side * 7 * size)
        labels[(ventricle > 0) & (inside > 5)] = _CSF
    labels[(ellipsoid(10, 12, 2.0 * size, 2, -2, 0) > 0)] = _CSF
    for _ in range(int(drawn["lesions"])):
        place = rng.uniform(-1, 1, 3) * half * 0.45
        spot = ellipsoid(*rng.uniform(2, 5, 3), *place) > 0
        labels[spot & (labels == _WM)] = _GM  # white-matter disease has grey-matter signal on T1
    return labels


def _averaged(mask: np.ndarray, steps: tuple[float, ...], shape: tuple[int, ...]) -> FloatArray:
    """Share of *mask* in each acquired voxel: the overlap of every output interval with the fine cells, by axis."""
    out = mask.astype(np.float32)
    for axis, (step, count) in enumerate(zip(steps, shape, strict=True)):
        cells, edges = np.arange(out.shape[axis]), np.arange(count + 1) * step
        low = np.maximum(edges[:-1, None], cells[None, :])
        high = np.minimum(edges[1:, None], cells[None, :] + 1)
        weights = (np.clip(high - low, 0, None) / step).astype(np.float32)
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return out


def _acquire(
    rng: np.random.Generator, signal: FloatArray, drawn: Mapping[str, float], steps_mm: tuple[float, ...]
) -> FloatArray:
    """Bias, motion in k-space, Rician noise; 600 units per unit of signal."""
    lengths = [70.0 / step for step in steps_mm]
    small = rng.standard_normal([max(4, int(n / length) + 3) for n, length in zip(signal.shape, lengths, strict=True)])
    zoom = [n / s for n, s in zip(signal.shape, small.shape, strict=True)]
    bias = ndimage.zoom(small, zoom, order=3, mode="nearest", grid_mode=True)[tuple(slice(n) for n in signal.shape)]
    bias = np.exp(drawn["bias"] * bias / max(float(np.abs(bias).max()), 1e-6))
    image = signal * bias.astype(np.float32)
    if drawn["motion"] > 0:
        image = _moved(rng, image, drawn["motion"], steps_mm)
    sigma = drawn["noise"] * _T1_SIGNAL[_WM]
    real = image + sigma * rng.standard_normal(image.shape)
    return np.asarray(600 * np.hypot(real, sigma * rng.standard_normal(image.shape)), dtype=np.float32)


def _moved(rng: np.random.Generator, image: FloatArray, motion_mm: float, steps_mm: tuple[float, ...]) -> FloatArray:
    """Shift the object between bands of phase-encoding lines (axis 1): blur and ghosts along it."""
    k = np.fft.fft(image, axis=1)
    frequency = np.fft.fftfreq(image.shape[1])
    order = np.argsort(np.argsort(frequency))
    band = order * 24 // image.shape[1]
    shift = rng.normal(0, motion_mm / steps_mm[1], 24)
    shift[11:13] = 0  # the centre of k-space says where the head is
    k *= np.exp(-2j * np.pi * frequency * shift[band])[None, :, None]
    return np.abs(np.fft.ifft(k, axis=1)).astype(np.float32)


def _volume(seed: int, image: FloatArray, pixel: float, thick: float) -> Volume:
    count, rows, columns = image.shape
    origin = [-(columns - 1) / 2 * pixel, -(rows - 1) / 2 * pixel]
    heights = (np.arange(count) - (count - 1) / 2) * thick
    return Volume(
        voxels=np.rint(image),
        origins=np.column_stack([np.full((count, 2), origin), heights]),
        row_direction=np.array([1.0, 0, 0]),
        column_direction=np.array([0, 1.0, 0]),
        pixel_spacing=(pixel, pixel),
        weights_mm=np.full(count, thick),
        frames=tuple(FrameRef(f"2.25.{seed + 1}{k + 1:05d}") for k in range(count)),
    )
