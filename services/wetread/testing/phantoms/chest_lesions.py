"""Nodules with known volume, and what is taken for one: granuloma, scar, rib end, plaque, mucus, atelectasis, bullae.

Everything is painted in a box of its own around its centre; centres are (z, y, x) in mm on the 1 mm grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from wetread.testing.phantoms.chest_anatomy import Body, Floats, Trees, paint, smooth_noise, soft
from wetread.testing.phantoms.chest_parameters import ChestDraw
from wetread.testing.phantoms.chest_trees import draw_tubes

Solidity = Literal["solid", "part_solid", "ground_glass"]
Place = Literal["free", "pleural", "vascular"]
Centre = npt.NDArray[np.float64]
FAINT_MM: Final = 6.0
"""Least diameter of what is not solid: below, nobody calls it."""
_TRIES: Final = 60
_APART_MM: Final = 8.0


@dataclass(frozen=True, slots=True)
class NoduleTruth:
    """One nodule as rendered. ``volume_mm3`` counts partial volume; ``centre`` is its centroid, (z, y, x) mm."""

    centre: tuple[float, float, float]
    diameter_mm: float
    """Of the sphere of equal volume."""
    volume_mm3: float
    core_mm3: float
    """Of the solid part."""
    solidity: Solidity
    place: Place
    spiculated: bool


@dataclass(frozen=True, slots=True)
class Occupied:
    """Centres and radii that new lesions keep away from."""

    centres: list[Centre]
    radii: list[float]

    def free(self, centre: Centre, radius: float) -> bool:
        """Whether a lesion fits there."""
        return all(
            float(np.linalg.norm(centre - other)) > radius + own + _APART_MM
            for other, own in zip(self.centres, self.radii, strict=True)
        )

    def take(self, centre: Centre, radius: float) -> None:
        """Note a lesion."""
        self.centres.append(centre)
        self.radii.append(radius)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of the grid: its slices, and the offsets of its voxels from a centre, mm."""

    where: tuple[slice, slice, slice]
    offset: npt.NDArray[np.floating[Any]]
    """[3, z, y, x]"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.offset.shape[1], self.offset.shape[2], self.offset.shape[3]


def box_around(shape: tuple[int, int, int], centre: Centre, reach_mm: float) -> Box:
    """The voxels within *reach_mm* of *centre* along each axis."""
    low = np.maximum(np.floor(centre - reach_mm), 0).astype(int)
    high = np.minimum(np.ceil(centre + reach_mm) + 1, shape).astype(int)
    axes = [np.arange(a, b, dtype=np.float32) - np.float32(c) for a, b, c in zip(low, high, centre, strict=True)]
    offset = np.stack(np.meshgrid(*axes, indexing="ij"))
    return Box((slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])), offset)


def place_for(
    rng: np.random.Generator, body: Body, trees: Trees, place: Place, radius: float, taken: Occupied
) -> Centre | None:
    """A centre of that kind: deep in the lung, at the pleura, or on a vessel; None when there is no room."""
    depth = body.lung[::2, ::2, ::2]
    if place == "free":
        options = np.argwhere(depth > radius + 2.5) * 2.0
    elif place == "pleural":
        # on the costal side or a fissure-free face: the centre lies within the lung, less than its radius deep
        near = (depth > 0.15 * radius) & (depth < 0.65 * radius)
        options = np.argwhere(near & (body.cavity[::2, ::2, ::2] < depth + 1.5)) * 2.0
    else:
        nodes = np.concatenate(
            [tree.nodes[(tree.radii > 0.7) & (tree.radii < 2.5)] for tree in trees.vessels] or [np.empty((0, 3))]
        )
        options = nodes + rng.standard_normal(nodes.shape) * radius * 0.5
        index = np.rint(options).astype(int)
        ok = ((index >= 0) & (index < np.array(body.shape))).all(axis=1)
        options = options[ok]
        options = options[body.lung[tuple(index[ok].T)] > radius + 1.5]
    inner = np.array(body.shape) - 1 - (radius + 3)
    options = options[((options > radius + 3) & (options < inner)).all(axis=1)]
    for _ in range(_TRIES if len(options) else 0):
        centre = options[int(rng.integers(0, len(options)))] + rng.uniform(-0.5, 0.5, 3)
        if taken.free(centre, radius):
            return np.asarray(centre, dtype=np.float64)
    return None


def nodule_shape(rng: np.random.Generator, draw: ChestDraw, box: Box, radius: float) -> Floats:
    """Signed distance (mm, positive inside) of a flattened, lobulated ball."""
    turned = np.tensordot(_rotation(rng), box.offset, axes=1)
    flat = draw.num("nodule.flatness")
    axes = np.array([1.0, np.sqrt(flat), flat]) / flat**0.5
    distance = np.sqrt(((turned / axes[:, None, None, None]) ** 2).sum(axis=0))
    octave = int(np.clip(np.round(np.log2(max(radius, 2.0))), 1, 4))
    bumps = np.float32(draw.num("nodule.lobulation")) * smooth_noise(rng, box.shape, octave)
    return np.asarray(radius * (1 + bumps) - distance, dtype=np.float32)


ShapeMaker = Callable[[np.random.Generator, ChestDraw, Box, float], Floats]


def add_nodule(
    rng: np.random.Generator,
    draw: ChestDraw,
    hu: Floats,
    body: Body,
    trees: Trees,
    taken: Occupied,
    shape_of: ShapeMaker = nodule_shape,
) -> tuple[NoduleTruth, tuple[slice, slice, slice], Floats] | None:
    """Paint a nodule into *hu*; returns its truth and its occupancy in a box. None: no room for it."""
    radius = draw.num("nodule.diameter_mm") / 2
    solidity: Solidity = draw("nodule.solidity")
    if solidity != "solid":
        radius = max(radius, FAINT_MM / 2)
    place: Place = draw("nodule.place")
    centre = place_for(rng, body, trees, place, radius, taken)
    if centre is None:
        return None
    spiculated = draw.coin("nodule.spiculated") and radius > 3.5 and solidity != "ground_glass"
    box = box_around(body.shape, centre, radius * (2.0 if spiculated else 1.5) + 3)
    inside = soft(body.lung[box.where] + 0.7)
    share = soft(shape_of(rng, draw, box, radius)) * inside
    edge = draw.num("nodule.edge_mm")
    if spiculated:
        share = np.maximum(share, _spikes(rng, box, radius) * inside)
    core = np.zeros_like(share)
    dense = draw.num("nodule.solid_hu")
    part = hu[box.where]
    if solidity == "solid":
        core = share
    else:
        haze = draw.num("nodule.ground_glass_hu")
        # ground glass veils what it covers: vessels stay visible through it
        paint(part, np.maximum(np.float32(haze), part), share)
        if solidity == "part_solid":
            inner = radius * draw.num("nodule.core_share")
            off = Box(box.where, box.offset - (rng.uniform(-0.3, 0.3, 3) * (radius - inner))[:, None, None, None])
            core = soft(shape_of(rng, draw, off, inner)) * share
    if core.any():
        paint(part, dense, ndimage.gaussian_filter(core, 0.5 * (edge - 0.7)))
    volume = float(share.sum(dtype=np.float64))
    if volume < 5.0:
        return None
    middle = centre + (box.offset * share).reshape(3, -1).sum(axis=1, dtype=np.float64) / volume
    taken.take(centre, radius)
    z, y, x = (float(v) for v in middle)
    equal = float((6 * volume / np.pi) ** (1 / 3))
    solid_mm3 = float(core.sum(dtype=np.float64))
    return NoduleTruth((z, y, x), equal, volume, solid_mm3, solidity, place, spiculated), box.where, share


def _spikes(rng: np.random.Generator, box: Box, radius: float) -> Floats:
    count = int(rng.integers(8, 20))
    ways = rng.standard_normal((count, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    origin = -box.offset[:, 0, 0, 0].astype(np.float64)
    starts = origin + 0.8 * radius * ways
    ends = origin + radius * rng.uniform(1.3, 1.9, (count, 1)) * ways
    return draw_tubes(box.shape, starts, ends, rng.uniform(0.5, 0.9, count), np.full(count, 0.25), 1.0)


def _rotation(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    matrix, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(matrix, dtype=np.float32)


def add_confounders(
    rng: np.random.Generator, draw: ChestDraw, hu: Floats, body: Body, trees: Trees, taken: Occupied
) -> dict[str, int]:
    """Paint what is no nodule; returns how many of each kind."""
    makers = {
        "granuloma": _granuloma,
        "scar": _scar,
        "rib_end": _rib_end,
        "plaque": _plaque,
        "mucus": _mucus,
        "atelectasis": _atelectasis,
    }
    made = dict.fromkeys(makers, 0)
    for name, maker in makers.items():
        for _ in range(int(draw(f"confounder.{name}"))):
            made[name] += maker(rng, hu, body, trees, taken)
    made["bullae"] = int(draw("confounder.bullae"))
    _bullae(rng, hu, body, made["bullae"])
    return made


def _granuloma(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """A small calcified ball: benign by its density."""
    radius = float(rng.uniform(1.5, 4.5))
    centre = place_for(rng, body, trees, "free" if rng.random() < 0.6 else "pleural", radius, taken)
    if centre is None:
        return False
    box = box_around(body.shape, centre, radius + 3)
    share = soft(radius - np.sqrt((box.offset**2).sum(axis=0))) * soft(body.lung[box.where] + 0.7)
    paint(hu[box.where], float(rng.uniform(250, 900)), share)
    taken.take(centre, radius)
    return True


def _flat(rng: np.random.Generator, box: Box, thick: float, wide: float, deep: float) -> Floats:
    """Signed distance of a slab with rounded ends in a random direction, bent."""
    a, b, c = np.tensordot(_rotation(rng), box.offset, axes=1)
    a = a + np.float32(0.02) * b * b * np.float32(rng.uniform(-1, 1)) + 0.5 * smooth_noise(rng, box.shape, 3)
    return np.asarray(
        np.minimum(thick / 2 - np.abs(a), 0.5 * (1 - np.sqrt((b / wide) ** 2 + (c / deep) ** 2)) * min(wide, deep)),
        dtype=np.float32,
    )


def _scar(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """A thin band in the lung, often to the pleura."""
    centre = place_for(rng, body, trees, "pleural" if rng.random() < 0.7 else "free", 6.0, taken)
    if centre is None:
        return False
    box = box_around(body.shape, centre, 18)
    band = _flat(rng, box, float(rng.uniform(1.2, 3.0)), float(rng.uniform(6, 16)), float(rng.uniform(3, 10)))
    paint(hu[box.where], float(rng.uniform(-250, 40)), soft(band) * soft(body.lung[box.where]))
    taken.take(centre, 8.0)
    return True


def _atelectasis(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """A plate in the lower, posterior lung."""
    centre = place_for(rng, body, trees, "pleural", 8.0, taken)
    if centre is None or centre[0] > 0.5 * body.shape[0]:
        return False
    box = box_around(body.shape, centre, 30)
    band = _flat(rng, box, float(rng.uniform(2.0, 5.0)), float(rng.uniform(15, 28)), float(rng.uniform(8, 20)))
    paint(hu[box.where], float(rng.uniform(-300, 30)), soft(band) * soft(body.lung[box.where]))
    taken.take(centre, 14.0)
    return True


def _wall_point(rng: np.random.Generator, body: Body) -> Centre | None:
    """A point of the pleura on the costal side."""
    depth = body.lung[::2, ::2, ::2]
    options = np.argwhere((np.abs(depth) < 1.2) & (np.abs(body.cavity[::2, ::2, ::2] - depth) < 0.5)) * 2.0
    inner = np.array(body.shape) - 8
    options = options[((options > 7) & (options < inner)).all(axis=1)]
    return options[int(rng.integers(0, len(options)))] if len(options) else None


def _rib_end(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """Cartilage or bone that bulges into the lung at the wall."""
    del trees
    centre = _wall_point(rng, body)
    radius = float(rng.uniform(4, 8))
    if centre is None or not taken.free(centre, radius):
        return False
    box = box_around(body.shape, centre, radius + 6)
    # the ball's centre lies outside the lung by part of its radius
    distance = radius * float(rng.uniform(0.55, 0.85)) - body.lung[box.where]
    share = soft(np.minimum(radius - np.sqrt((box.offset**2).sum(axis=0)), distance))
    paint(hu[box.where], float(rng.uniform(90, 500)), share)
    taken.take(centre, radius)
    return True


def _plaque(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """Flat thickening of the pleura, soft or calcified."""
    del trees
    centre = _wall_point(rng, body)
    wide = float(rng.uniform(8, 20))
    if centre is None or not taken.free(centre, wide / 2):
        return False
    box = box_around(body.shape, centre, wide + 3)
    thick = float(rng.uniform(1.5, 4.5))
    fade = np.clip(1 - np.sqrt((box.offset**2).sum(axis=0)) / wide, 0, 1) ** 0.5
    share = soft(thick * fade - body.lung[box.where] - 0.3) * soft(body.lung[box.where] + 1.5) * (fade > 0)
    paint(hu[box.where], float(rng.choice([30.0, 60.0, 400.0])), share.astype(np.float32))
    taken.take(centre, wide / 2)
    return True


def _mucus(rng: np.random.Generator, hu: Floats, body: Body, trees: Trees, taken: Occupied) -> bool:
    """A run of an airway filled with mucus: branching, dense, beside its artery."""
    airways = [tree for tree in trees.airways if ((tree.radii > 0.9) & (tree.radii < 3)).sum() > 6]
    if not airways:
        return False
    tree = airways[int(rng.integers(0, len(airways)))]
    options = np.flatnonzero((tree.radii > 0.9) & (tree.radii < 3))
    centre = tree.nodes[options[int(rng.integers(0, len(options)))]]
    if not taken.free(centre, 5.0) or not ((centre > 6) & (centre < np.array(body.shape) - 7)).all():
        return False
    starts, ends, first, last = tree.segments(0.7)
    near = np.linalg.norm((starts + ends) / 2 - centre, axis=1) < float(rng.uniform(5, 12))
    swell = float(rng.uniform(1.1, 1.7))
    share = draw_tubes(body.shape, starts[near], ends[near], swell * first[near] + 0.3, swell * last[near] + 0.3, 1.0)
    paint(hu, float(rng.uniform(0, 40)), share * soft(body.lung))
    taken.take(np.asarray(centre, dtype=np.float64), 6.0)
    return True


def _bullae(rng: np.random.Generator, hu: Floats, body: Body, count: int) -> None:
    """Emphysema: holes without tissue, more of them above."""
    options = np.argwhere(body.lung[::3, ::3, ::3] > 3) * 3.0
    if not len(options) or not count:
        return
    weight = options[:, 0] + 10.0
    for centre in options[rng.choice(len(options), count, p=weight / weight.sum())]:
        radius = float(np.exp(rng.uniform(np.log(1.5), np.log(7.0))))
        box = box_around(body.shape, centre, radius + 2)
        part = hu[box.where]
        share = soft(radius - np.sqrt((box.offset**2).sum(axis=0))) * soft(body.lung[box.where])
        paint(part, np.minimum(np.float32(-975), part), share * (part < -700))
