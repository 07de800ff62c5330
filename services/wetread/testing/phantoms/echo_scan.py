"""From echo strength to pictures: scatterers, point spread function, attenuation, log compression, scan conversion.

In the grid of beams the point spread function is one and the same everywhere; on the screen it widens with depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.testing.phantoms.echo_anatomy import Chance, Grid
from wetread.testing.phantoms.echo_heart import Singles
from wetread.testing.phantoms.echo_parameters import EchoSpec

DEPTHS, BEAMS = 224, 112
TOP_SHARE: Final = 0.06
"""Part of the picture's height above the probe, where text stands."""
BOTTOM_SHARE: Final = 0.92
ELECTRONIC_DB: Final = -58.0
LINEAR_WIDTH_MM: Final = 0.62
"""Width of a linear probe's picture over its depth."""
Bytes = NDArray[np.uint8]


def beam_grid(spec: EchoSpec) -> Grid:
    """Return where the samples lie: along a fan, or side by side for a linear probe (carotid)."""
    depth = np.linspace(0.0, spec.depth_mm, DEPTHS, dtype=np.float32)[:, None]
    if spec.view == "carotid":
        half = np.float32(LINEAR_WIDTH_MM * spec.depth_mm / 2)
        across = np.linspace(-half, half, BEAMS, dtype=np.float32)[None, :]
        x, z = np.broadcast_arrays(across, depth)
        return Grid(x, z, np.zeros_like(x), np.ones_like(x))
    half = np.float32(np.deg2rad(spec.sector_deg / 2))
    angle = np.linspace(-half, half, BEAMS, dtype=np.float32)[None, :]
    sine, cosine = np.sin(angle), np.cos(angle)
    ones = np.ones_like(depth)
    return Grid(depth * sine, depth * cosine, ones * sine, ones * cosine)


def texture(spec: EchoSpec, rng: np.random.Generator, frames: int) -> NDArray[np.complex64]:
    """Return unit speckle [time, depth, beam]: scatterers smeared by the point spread function, fading with time."""
    step = spec.depth_mm / DEPTHS
    beam_deg = spec.sector_deg / BEAMS
    sigma = (0.0, spec.axial_mm / step, spec.lateral_deg / beam_deg)
    memory = float(spec.speckle_memory ** (40.0 / spec.frame_rate))
    field = np.empty((frames, DEPTHS, BEAMS), np.complex64)
    field.real = rng.standard_normal(field.shape, dtype=np.float32)
    field.imag = rng.standard_normal(field.shape, dtype=np.float32)
    fresh = np.float32((1 - memory**2) ** 0.5)
    for k in range(1, frames):
        field[k] *= fresh
        field[k] += np.float32(memory) * field[k - 1]
    for part in (field.real, field.imag):
        part[...] = ndimage.gaussian_filter(part, sigma, mode="nearest", truncate=2.5)
    field /= np.float32(np.sqrt(np.mean(np.abs(field) ** 2)))
    return field


def compress(spec: EchoSpec, echoes: NDArray[np.complex64], gain_db: Singles) -> Bytes:
    """Return 8-bit brightness of the envelope of *echoes* above the electronic noise, by its logarithm."""
    floor = np.float32(10 ** (ELECTRONIC_DB / 20))
    db = np.float32(20 / np.log(10)) * np.log(np.abs(echoes) + floor) + np.float32(spec.gain_db) + gain_db
    level = np.clip((db + np.float32(spec.dynamic_range_db - 12)) / np.float32(spec.dynamic_range_db), 0, 1)
    return np.asarray(level ** np.float32(spec.gamma) * 255, dtype=np.uint8)


def path_gain(spec: EchoSpec, grid: Grid, chance: Chance) -> Singles:
    """Return what attenuation, a rib and the edges of the fan do to echoes, dB [depth, beam]."""
    depth = np.sqrt(grid.x**2 + grid.z**2)
    gain = -np.float32(spec.attenuation_db_cm / 10) * (depth - np.float32(0.4 * spec.depth_mm))
    if spec.rib_db > 0:
        place, wide = chance.between(40, 0.05, 0.95) * BEAMS, chance.between(41, 4, 14)
        beams = np.arange(BEAMS, dtype=np.float32)
        shade = 1 / (1 + np.exp((np.abs(beams - place) - wide) / 1.5))
        gain = gain - np.float32(spec.rib_db) * shade[None, :] * (depth > chance.between(42, 8, 30))
    return np.asarray(gain, dtype=np.float32)


def clutter_db(spec: EchoSpec, grid: Grid, chance: Chance) -> Singles:
    """Return near-field clutter, dB [depth, beam]: it stands still while the heart moves."""
    depth = np.sqrt(grid.x**2 + grid.z**2)
    return np.asarray(np.float32(spec.clutter_db) - np.float32(chance.between(43, 0.25, 0.8)) * depth)


@dataclass(frozen=True, slots=True)
class Screen:
    """Which samples make which pixel, [row, column]."""

    rows: int
    columns: int
    mm_per_pixel: float
    inside: NDArray[np.bool_]
    corner: NDArray[np.intp]
    """[pixel inside] index of the sample above left, in [depth, beam] flattened."""
    down: Singles
    across: Singles
    box: tuple[int, int, int, int]
    """Rows and columns that the beams cover: first row, first column, last row, last column."""

    def convert(self, samples: Bytes) -> Bytes:
        """Return [time, row, column] from [time, depth, beam]; black outside."""
        flat = samples.reshape(len(samples), -1)
        out = np.zeros((len(samples), self.rows, self.columns), np.uint8)
        for k, frame in enumerate(flat.astype(np.float32)):
            upper = frame[self.corner] * (1 - self.across) + frame[self.corner + 1] * self.across
            lower = frame[self.corner + BEAMS] * (1 - self.across) + frame[self.corner + BEAMS + 1] * self.across
            out[k][self.inside] = (upper * (1 - self.down) + lower * self.down).astype(np.uint8)
        return out

    def places(self) -> tuple[Singles, Singles]:
        """Return x and depth in mm of every pixel, [row, column]."""
        row, column = np.mgrid[: self.rows, : self.columns].astype(np.float32)
        x = (column - (self.columns - 1) / 2) * np.float32(self.mm_per_pixel)
        return x, (row - np.float32(round(TOP_SHARE * self.rows))) * np.float32(self.mm_per_pixel)


def screen(spec: EchoSpec) -> Screen:
    """Lay the beams out on the picture."""
    columns = round(spec.columns / 4) * 4
    rows = columns * 3 // 4
    mm = spec.depth_mm / ((BOTTOM_SHARE - TOP_SHARE) * rows)
    half = np.deg2rad(spec.sector_deg / 2)
    wide = 2 * spec.depth_mm * (np.sin(half) if spec.view != "carotid" else LINEAR_WIDTH_MM / 2)
    mm = max(mm, wide / (0.96 * columns))
    empty = np.zeros(0, dtype=np.float32)
    bare = Screen(rows, columns, float(mm), np.zeros((0, 0), bool), np.zeros(0, np.intp), empty, empty, (0, 0, 0, 0))
    x, z = bare.places()
    if spec.view == "carotid":
        reach = LINEAR_WIDTH_MM * spec.depth_mm / 2
        depth, beam = z / spec.depth_mm, (x + reach) / (2 * reach)
    else:
        depth = np.sqrt(x**2 + z**2) / np.float32(spec.depth_mm)
        beam = (np.arctan2(x, np.maximum(z, 1e-3)) + half) / (2 * half)
    inside = (depth >= 0) & (depth < 1) & (beam >= 0) & (beam < 1) & (z >= 0)
    at_depth = np.minimum(depth[inside] * (DEPTHS - 1), DEPTHS - 1.001)
    at_beam = np.minimum(beam[inside] * (BEAMS - 1), BEAMS - 1.001)
    corner = np.floor(at_depth).astype(np.intp) * BEAMS + np.floor(at_beam).astype(np.intp)
    rows_in, columns_in = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return Screen(
        rows,
        columns,
        float(mm),
        inside,
        corner,
        (at_depth % 1).astype(np.float32),
        (at_beam % 1).astype(np.float32),
        (int(rows_in[0]), int(columns_in[0]), int(rows_in[-1]), int(columns_in[-1])),
    )
