"""A chest without disease: body, ribs, spine, heart, diaphragm, lungs with fissures, vessels and airways.

Index (z, y, x) on a 1 mm grid: z upwards, y to the back, x to the patient's left. Smooth surfaces are signed distances
(mm, positive inside) computed at 2 mm and interpolated, so that every border carries its partial volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.testing.phantoms.chest_parameters import ChestDraw
from wetread.testing.phantoms.chest_trees import Points, Tree, draw_tubes, grow

Floats = npt.NDArray[np.float32]
Shape = tuple[int, int, int]
HALF_WIDTH, HALF_DEPTH, HEIGHT = 105.0, 76.0, 158.0
"""Of the cavity at scale 1, mm."""
RIB_MM: Final = 24.0


@dataclass(frozen=True, slots=True)
class Body:
    """Surfaces of one chest on the grid: signed distances in mm, positive inside; ``heart`` is with the aorta."""

    shape: Shape
    skin: Floats
    cavity: Floats
    lung: Floats
    rib: Floats
    spine: Floats
    heart: Floats
    fissure: Floats
    wall_mm: float


@dataclass(frozen=True, slots=True)
class Trees:
    """Arteries, veins and airways of both lungs."""

    vessels: tuple[Tree, ...]
    airways: tuple[Tree, ...]


def doubled(values: Floats, times: int = 1) -> Floats:
    """Interpolate linearly to half the step, *times* times: n becomes 2 n - 1 on every axis."""
    for _ in range(times):
        for axis in range(values.ndim):
            values = np.moveaxis(values, axis, 0)
            out = np.empty((2 * len(values) - 1, *values.shape[1:]), dtype=np.float32)
            out[::2] = values
            out[1::2] = (values[1:] + values[:-1]) * np.float32(0.5)
            values = np.moveaxis(out, 0, axis)
    return values


def smooth_noise(rng: np.random.Generator, shape: Shape, octave: int) -> Floats:
    """Zero-mean field of about unit variance whose lattice has a step of 2**octave voxels."""
    coarse = [(n - 1) // 2**octave + 2 for n in shape]
    field = doubled(rng.standard_normal(coarse, dtype=np.float32), octave)
    field = field[tuple(slice(n) for n in shape)]
    return np.asarray(field * np.float32(1.6), dtype=np.float32)


def make_body(rng: np.random.Generator, draw: ChestDraw, coverage_mm: float | None, shrink: float) -> Body:
    """Draw the surfaces of one chest; *shrink* makes everything smaller (quick tests)."""
    scale = draw.num("body.scale") * shrink
    depth = draw.num("body.depth")
    wide, deep = HALF_WIDTH * scale, HALF_DEPTH * scale * depth
    tall = HEIGHT * scale
    wall = draw.num("body.wall_mm") * shrink
    zmax = min(tall + 4, coverage_mm or tall + 4)
    counts = [int(np.ceil(v / 2)) + 1 for v in (zmax, 2 * (deep + wall) + 26, 2 * (wide + wall) + 12)]
    z = (np.arange(counts[0], dtype=np.float32) * 2)[:, None, None]
    y = ((np.arange(counts[1], dtype=np.float32) - (counts[1] - 1) / 2) * 2 + 8)[None, :, None]
    x = ((np.arange(counts[2], dtype=np.float32) - (counts[2] - 1) / 2) * 2)[None, None, :]
    coarse: Shape = (counts[0], counts[1], counts[2])
    wobble = np.float32(draw.num("body.deform_mm") * shrink) * smooth_noise(rng, coarse, 4)
    taper = np.sqrt(np.clip(1 - np.clip((z - 0.5 * tall) / (0.52 * tall), 0, 1) ** 2, 0.02, 1))
    radius = ((np.abs(x) / (wide * taper)) ** 2.3 + (np.abs(y) / (deep * taper)) ** 2.3) ** (1 / 2.3)
    cavity = (1 - radius) * np.float32(min(wide, deep)) * taper + wobble
    outer = np.sqrt(np.maximum(taper, 0.65))
    radius = ((np.abs(x) / ((wide + wall) * outer)) ** 2.3 + (np.abs(y) / ((deep + wall) * outer)) ** 2.3) ** (1 / 2.3)
    skin = np.maximum((1 - radius) * np.float32(deep + wall), cavity + np.float32(min(wall, 10)))
    spine = 20 * shrink - np.hypot(x, y - (deep - 6 * shrink))
    aorta = 11 * shrink - np.hypot(x - 26 * shrink, y - 0.55 * deep)
    size = draw.num("heart.mm") * shrink
    heart = (1 - np.sqrt(((x - 0.35 * size) / size) ** 2 + ((y + 0.3 * deep) / (0.85 * size)) ** 2
                         + ((z - 0.32 * tall) / size) ** 2)) * np.float32(0.85 * size)  # fmt: skip
    heart = np.maximum(heart, aorta)
    middle = np.abs(x) - shrink * (9 + 13 * np.exp(-(((y + 5) / (40 * shrink)) ** 2)))
    dome = draw.num("body.diaphragm_mm") * shrink
    floor = z - dome * (1.25 - ((np.abs(x) - 0.5 * wide) / (0.62 * wide)) ** 2 - (y / (1.0 * deep)) ** 2)
    lung = lowest(cavity, middle + 0.6 * wobble, -heart, -spine, 0.8 * floor + 0.5 * wobble)
    phase = np.mod(z - 0.45 * y + np.float32(rng.uniform(0, RIB_MM)), RIB_MM * shrink) - 0.5 * RIB_MM * shrink
    rib = np.minimum(4.5 * shrink - np.abs(phase), 3.5 * shrink - np.abs(cavity + 6 * shrink))
    rib = np.where(spine > -6, np.maximum(rib, spine - 3), rib)
    tilt = np.float32(rng.uniform(0.6, 1.2))
    bend = 3.0 * smooth_noise(rng, coarse, 4)
    oblique = np.abs(z - 0.45 * tall - tilt * y + bend) / np.sqrt(1 + tilt**2)
    level = np.abs(z - 0.55 * tall + bend)
    above = (x < 0) & (z - 0.45 * tall - tilt * y > 0)
    fissure = np.where(above, np.minimum(oblique, level), oblique)
    return refined(coarse, (skin, cavity, lung, rib, spine, heart, fissure), wall)


def refined(coarse: Shape, surfaces: Sequence[Floats], wall_mm: float) -> Body:
    """The body of surfaces (in the order of ``Body``) on a 2 mm grid of shape *coarse*, which they broadcast to."""
    skin, cavity, lung, rib, spine, heart, fissure = (
        doubled(np.ascontiguousarray(np.broadcast_to(surface, coarse), dtype=np.float32)) for surface in surfaces
    )
    shape = skin.shape[0], skin.shape[1], skin.shape[2]
    return Body(shape, skin, cavity, lung, rib, spine, heart, fissure, wall_mm)


def lowest(*distances: Floats) -> Floats:
    """The intersection of regions given by signed distances of shapes that broadcast."""
    out = distances[0]
    for other in distances[1:]:
        out = np.minimum(out, other)
    return out


def grow_trees(rng: np.random.Generator, draw: ChestDraw, body: Body, shrink: float) -> Trees:
    """Grow arteries with their airways, and veins, in each lung."""
    spacing = draw.num("tree.spacing_mm")
    leaf, exponent, wander = draw.num("tree.leaf_mm"), draw.num("tree.exponent"), draw.num("tree.wander")
    vessels, airways = [], []
    middle = (np.array(body.shape) - 1) / 2
    sparse = body.lung[::3, ::3, ::3]
    places = np.argwhere(sparse > 1.5) * 3.0
    for side in (-1, 1):
        own = places[(places[:, 2] - middle[2]) * side > 0]
        if len(own) < 50:
            continue
        count = int(27 * len(own) / spacing**3)
        for kind in ("artery", "vein"):
            targets = own[rng.choice(len(own), min(count, len(own)), replace=False)] + rng.uniform(-1.5, 1.5, (1, 3))
            root = np.array([(0.5 if kind == "artery" else 0.42) * body.shape[0], middle[1] - 4.0,
                             middle[2] + side * 24.0 * shrink])  # fmt: skip
            tree = grow(rng, root, targets, leaf_mm=leaf, exponent=exponent, wander=wander)
            vessels.append(tree)
            if kind == "artery":
                airways.append(_beside(rng, tree))
    return Trees(tuple(vessels), tuple(airways))


def _beside(rng: np.random.Generator, artery: Tree) -> Tree:
    """An airway along each artery that is wide enough; lumen radii."""
    radii = 0.85 * artery.radii
    away = rng.standard_normal(3)
    away /= np.linalg.norm(away)
    shift = (artery.radii + 1.25 * radii + 0.4)[:, None] * away
    return Tree(artery.nodes + shift, artery.parents, radii)


def soft(distance: Floats, width_mm: float = 1.0) -> Floats:
    """Occupancy 0..1 of where *distance* is positive; the ramp is the partial volume of a voxel."""
    out: Floats = np.clip(distance * np.float32(1 / width_mm) + np.float32(0.5), 0, 1).astype(np.float32)
    return out


def paint(hu: Floats, value: float | Floats, share: Floats) -> None:
    """Mix *value* into *hu* in place by *share*."""
    hu += share * (np.float32(1) * value - hu)


def render_body(rng: np.random.Generator, draw: ChestDraw, body: Body, trees: Trees) -> Floats:
    """HU of the healthy chest on the 1 mm grid."""
    soft_hu, fat_hu = draw.num("body.soft_hu"), draw.num("body.fat_hu")
    hu = np.full(body.shape, -1000.0, dtype=np.float32)
    if draw.coin("scan.table"):
        hu[:, -5:-2] = -250.0
    paint(hu, fat_hu, soft(body.skin))
    paint(hu, soft_hu, soft(body.cavity + np.float32(min(14.0, 0.6 * body.wall_mm))))
    bone = draw.num("body.rib_hu")
    paint(hu, bone, soft(body.rib, 1.5))
    paint(hu, 0.45 * bone, soft(body.rib - 2.0, 1.5))
    enhanced = draw.coin("lung.contrast")
    blood = draw.num("lung.enhanced_hu") if enhanced else draw.num("lung.vessel_hu")
    if enhanced:
        paint(hu, 0.8 * blood, soft(body.heart - 5, 4.0))
    paint(hu, parenchyma(rng, draw, body), soft(body.lung))
    inside = soft(body.lung + 1.0)
    sheet = np.clip(1.0 - body.fissure, 0, 1) * np.float32(draw.num("lung.fissure_hu"))
    hu += sheet * soft(body.lung)
    paint(hu, blood, draw_tubes(body.shape, *_joined(trees.vessels), 1.0) * inside)
    starts, ends, first, last = _joined(trees.airways, 1.1)
    wall = draw_tubes(body.shape, starts, ends, 1.2 * first + 0.3, 1.2 * last + 0.3, 1.0)
    paint(hu, -40.0, wall * inside)
    paint(hu, -985.0, draw_tubes(body.shape, starts, ends, first, last, 1.0))
    _trachea(hu, body, trees)
    return hu


def _joined(trees: Sequence[Tree], thinnest: float = 0.0) -> tuple[Points, Points, Points, Points]:
    """The segments of several trees."""
    parts = [tree.segments(thinnest) for tree in trees]
    if not parts:
        return np.empty((0, 3)), np.empty((0, 3)), np.empty(0), np.empty(0)
    a, b, c, d = (np.concatenate(part) for part in zip(*parts, strict=True))
    return a, b, c, d


def parenchyma(rng: np.random.Generator, draw: ChestDraw, body: Body) -> Floats:
    """HU of lung tissue: level, gravity, texture at two scales."""
    level, gravity = draw.num("lung.hu"), draw.num("lung.gravity_hu")
    ramp = np.linspace(-0.5, 0.5, body.shape[1], dtype=np.float32)[None, :, None]
    texture = np.float32(draw.num("lung.texture_hu"))
    out = texture * (smooth_noise(rng, body.shape, 2) + smooth_noise(rng, body.shape, 4))
    out += np.float32(level) + np.float32(gravity) * ramp
    return np.asarray(np.maximum(out, np.float32(-1000)), dtype=np.float32)


def _trachea(hu: Floats, body: Body, trees: Trees) -> None:
    """Trachea from the top to its fork, and a main airway to each lung."""
    middle = (np.array(body.shape) - 1) / 2
    fork = np.array([0.62 * body.shape[0], middle[1] + 4, middle[2]])
    top = np.array([body.shape[0] + 5.0, middle[1] + 2, middle[2]])
    starts = np.array([top, *(fork for _ in trees.airways)])
    ends = np.array([fork, *(tree.nodes[0] for tree in trees.airways)])
    radii = np.array([8.0, *(5.5 for _ in trees.airways)]) * min(1.0, body.shape[2] / 240)
    paint(hu, -20.0, draw_tubes(body.shape, starts, ends, radii + 1.5, radii + 1.5, 1.0))
    paint(hu, -990.0, draw_tubes(body.shape, starts, ends, radii, radii, 1.0))
