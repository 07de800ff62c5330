"""Stained tissue as texture: eosin ground, fibres and haematoxylin nuclei with known places (Beer-Lambert colours).

Synthetic: it has the colours, sizes and densities of H&E and none of its anatomy. What is measured on it says that
code works, never how well anything reads tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

FloatArray = npt.NDArray[np.float32]
CLASSES: Final = ("background", "fibrous", "sparse", "dense")
BACKGROUND, FIBROUS, SPARSE, DENSE = range(4)


@dataclass(frozen=True, slots=True)
class Stain:
    """How a slide was stained and scanned. Vectors are optical densities of R, G, B per unit of stain."""

    haematoxylin: tuple[float, float, float] = (0.65, 0.70, 0.29)
    eosin: tuple[float, float, float] = (0.07, 0.99, 0.11)
    strength: float = 1.0
    illumination: float = 0.95
    """Glass, as a share of white."""
    blur_px: float = 0.6
    nucleus_um: float = 7.5
    """Mean diameter of a nucleus."""
    density: float = 1.0
    """Factor on the nuclei per area of every class."""

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Stain:
        """Return a stain as one laboratory of many would give it."""

        def near(vector: tuple[float, float, float]) -> tuple[float, float, float]:
            turned = np.clip(np.array(vector) + rng.normal(0, 0.05, 3), 0.01, None)
            red, green, blue = (turned / np.linalg.norm(turned)).tolist()

            return red, green, blue

        return cls(
            haematoxylin=near(cls().haematoxylin),
            eosin=near(cls().eosin),
            strength=float(rng.uniform(0.75, 1.3)),
            illumination=float(rng.uniform(0.88, 0.98)),
            blur_px=float(rng.uniform(0.3, 1.1)),
            nucleus_um=float(rng.uniform(6.2, 8.8)),
            density=float(rng.uniform(0.8, 1.25)),
        )


NUCLEI_PER_MM2: Final = {BACKGROUND: 0.0, FIBROUS: 350.0, SPARSE: 1600.0, DENSE: 6500.0}


@dataclass(frozen=True, slots=True)
class Texture:
    """A periodic piece of one class: it continues at its opposite border."""

    rgb: npt.NDArray[np.uint8]
    nuclei: FloatArray
    """[n, 2] centres (x, y) in pixels."""


def render(kind: int, size: int, mpp: float, stain: Stain, rng: np.random.Generator) -> Texture:
    """Return *size* pixels square of class *kind* at *mpp* micrometres per pixel."""
    eosin = _eosin(kind, size, mpp, rng)
    haematoxylin, centres = _nuclei(kind, size, mpp, stain, rng)
    if stain.blur_px > 0:
        eosin = ndimage.gaussian_filter(eosin, stain.blur_px, mode="wrap")
        haematoxylin = ndimage.gaussian_filter(haematoxylin, stain.blur_px, mode="wrap")
    density = (
        haematoxylin[..., None] * np.array(stain.haematoxylin, dtype=np.float32)
        + eosin[..., None] * np.array(stain.eosin, dtype=np.float32)
    ) * np.float32(stain.strength)
    light = 255.0 * stain.illumination * np.exp(-density)
    light += rng.normal(0, 1.5, light.shape).astype(np.float32)
    return Texture(np.clip(np.rint(light), 0, 255).astype(np.uint8), centres)


def _smooth(size: int, length_px: tuple[float, float], rng: np.random.Generator) -> FloatArray:
    field = ndimage.gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), length_px, mode="wrap")
    out: FloatArray = (field / max(float(field.std()), 1e-6)).astype(np.float32)
    return out


def _eosin(kind: int, size: int, mpp: float, rng: np.random.Generator) -> FloatArray:
    if kind == BACKGROUND:
        return np.zeros((size, size), dtype=np.float32)
    ground = {FIBROUS: 0.55, SPARSE: 0.42, DENSE: 0.30}[kind]
    field = ground * (1 + 0.12 * _smooth(size, (6 / mpp, 6 / mpp), rng))
    if kind == FIBROUS:
        fibres = _smooth(size, (1.0 / mpp, 14 / mpp), rng)
        field = field + 0.18 * np.clip(np.roll(fibres, size // 3, axis=0), -1.5, 2)
    else:
        field = field + 0.05 * _smooth(size, (2 / mpp, 2 / mpp), rng)
    out: FloatArray = np.clip(field, 0.05, None).astype(np.float32)
    return out


def _nuclei(kind: int, size: int, mpp: float, stain: Stain, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    canvas = np.zeros((size, size), dtype=np.float32)
    area_mm2 = (size * mpp / 1000) ** 2
    wanted = int(rng.poisson(NUCLEI_PER_MM2[kind] * stain.density * area_mm2))
    if not wanted:
        return canvas, np.zeros((0, 2), dtype=np.float32)
    centres = _apart(wanted, size, 0.82 * stain.nucleus_um / mpp, rng)
    reach = int(np.ceil(1.1 * stain.nucleus_um / mpp)) + 2
    offsets = np.arange(-reach, reach + 1)
    ys, xs = np.meshgrid(offsets, offsets, indexing="ij")
    for x, y in centres:
        radius = stain.nucleus_um / 2 / mpp * float(rng.uniform(0.85, 1.15))
        flat = float(rng.uniform(0.72, 1.0)) if kind != FIBROUS else float(rng.uniform(0.45, 0.7))
        turn = float(rng.uniform(0, np.pi))
        column, row = int(np.floor(x)), int(np.floor(y))
        dx, dy = xs - (x - column), ys - (y - row)
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        distance = np.sqrt((along / radius) ** 2 + (across / (radius * flat)) ** 2)
        stamp = np.clip((1.0 - distance) * radius * 0.8 + 0.5, 0, 1) * float(rng.uniform(0.75, 1.15))
        rows, columns = (row + offsets) % size, (column + offsets) % size
        part = canvas[np.ix_(rows, columns)]
        canvas[np.ix_(rows, columns)] = np.maximum(part, stamp.astype(np.float32))
    grain = 1 + 0.15 * _smooth(size, (0.8 / mpp, 0.8 / mpp), rng)
    return (canvas * grain).astype(np.float32), centres


def _apart(wanted: int, size: int, distance_px: float, rng: np.random.Generator) -> FloatArray:
    """Return up to *wanted* points of the torus, no two closer than *distance_px* (random sequential placing)."""
    cell = max(distance_px, 1.0)
    cells = max(int(size / cell), 1)
    grid: dict[tuple[int, int], list[tuple[float, float]]] = {}
    points: list[tuple[float, float]] = []
    for x, y in rng.uniform(0, size, (wanted * 3, 2)).tolist():
        if len(points) == wanted:
            break
        home = (int(x / size * cells), int(y / size * cells))
        near = [
            other
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for other in grid.get(((home[0] + i) % cells, (home[1] + j) % cells), ())
        ]
        if all(_torus(x - u, size) ** 2 + _torus(y - v, size) ** 2 >= distance_px**2 for u, v in near):
            grid.setdefault(home, []).append((x, y))
            points.append((x, y))
    return np.array(points, dtype=np.float32).reshape(-1, 2)


def _torus(step: float, size: int) -> float:
    return (step + size / 2) % size - size / 2
