"""The chest of set s5: another shape model, another tree and other nodules, for a test of what training fits to.

Lungs are bent ellipsoids, trees fork by rule instead of growing to targets, nodules are heaps of balls; the scan
gets smoothed white noise (``chest_scan.acquire`` with *rough*).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from wetread.testing.phantoms.chest_anatomy import (
    Body,
    Floats,
    Shape,
    Trees,
    lowest,
    refined,
    smooth_noise,
)
from wetread.testing.phantoms.chest_lesions import Box
from wetread.testing.phantoms.chest_parameters import ChestDraw
from wetread.testing.phantoms.chest_trees import Points, Tree

_TURN: Final = (0.45, 0.95)
_MOST_NODES: Final = 2500


def make_body(rng: np.random.Generator, draw: ChestDraw, coverage_mm: float | None, shrink: float) -> Body:
    """Two bent ellipsoids for lungs in an elliptic body."""
    scale = draw.num("body.scale") * shrink
    half = np.array([84.0, 80.0 * draw.num("body.depth"), 50.0]) * scale  # z, y, x of one lung
    wall = draw.num("body.wall_mm") * shrink
    tall = min(1.75 * half[0], coverage_mm or 1e9)
    counts = [int(np.ceil(v / 2)) + 1 for v in (tall, 2 * (half[1] + wall) + 24, 2 * (2.1 * half[2] + wall) + 24)]
    coarse: Shape = (counts[0], counts[1], counts[2])
    z = (np.arange(counts[0], dtype=np.float32) * 2)[:, None, None]
    y = ((np.arange(counts[1], dtype=np.float32) - (counts[1] - 1) / 2) * 2 + 6)[None, :, None]
    x = ((np.arange(counts[2], dtype=np.float32) - (counts[2] - 1) / 2) * 2)[None, None, :]
    wobble = np.float32(1.5 * draw.num("body.deform_mm") * shrink) * smooth_noise(rng, coarse, 4)
    bend = (y / half[1]) ** 2 * 10 * shrink
    offset = np.abs(x) - 1.12 * half[2] + bend
    low = 0.25 * half[0]
    radius = np.sqrt((offset / half[2]) ** 2 + (y / half[1]) ** 2 + ((z - 0.75 * half[0]) / half[0]) ** 2)
    shell = (1 - radius) * np.float32(half[2]) + wobble
    heart_mm = draw.num("heart.mm") * shrink
    centre = (x - 0.3 * heart_mm, y + 0.25 * half[1], z - low)
    heart = 0.8 * heart_mm - np.sqrt(centre[0] ** 2 + centre[1] ** 2 + centre[2] ** 2)
    floor = z - draw.num("body.diaphragm_mm") * shrink * np.cos(np.clip(offset / half[2], -1.5, 1.5))
    lung = lowest(shell, -heart, 0.8 * floor, np.abs(x) - 10 * shrink)
    width, deep = 2.1 * half[2], 1.03 * half[1]
    ring = np.sqrt((x / width) ** 2 + (y / deep) ** 2)
    cavity = np.maximum((1 - ring) * np.float32(deep), shell)
    skin = (1 - np.sqrt((x / (width + wall)) ** 2 + (y / (deep + wall)) ** 2)) * np.float32(deep + wall)
    skin = np.maximum(skin, cavity + 8 * shrink)
    spine = 19 * shrink - np.hypot(x, y - deep)
    phase = np.mod(z - 0.3 * y + float(rng.uniform(0, 20)), 20 * shrink) - 10 * shrink
    rib = np.minimum(4 * shrink - np.abs(phase), 3.5 * shrink - np.abs(cavity + 5 * shrink))
    rib = np.where(spine > -6, np.maximum(rib, spine - 3), rib)
    fissure = np.abs(z - 0.8 * half[0] - 0.7 * y + 4 * smooth_noise(rng, coarse, 4)) / 1.2
    return refined(coarse, (skin, cavity, lung, rib, spine, heart, fissure), wall)


def grow_trees(rng: np.random.Generator, draw: ChestDraw, body: Body, shrink: float) -> Trees:
    """Trees that fork in two again and again until they leave the lung or become too thin."""
    draw.num("tree.wander")
    leaf = draw.num("tree.leaf_mm")
    middle = (np.array(body.shape) - 1) / 2
    vessels, airways = [], []
    for side in (-1, 1):
        for kind in range(2):
            root = np.array([(0.5 - 0.1 * kind) * body.shape[0], middle[1], middle[2] + side * 24 * shrink])
            tree = _forked(rng, body, root, np.array([0.0, 0.0, float(side)]), leaf)
            vessels.append(tree)
            if kind == 0:
                shift = (1.9 * tree.radii + 0.4)[:, None] * np.array([0.6, 0.6, 0.5])
                airways.append(Tree(tree.nodes + shift, tree.parents, 0.8 * tree.radii))
    return Trees(tuple(vessels), tuple(airways))


def _forked(rng: np.random.Generator, body: Body, root: Points, direction: Points, leaf: float) -> Tree:
    nodes, parents, radii = [root], [0], [4.5]
    start = [np.array([a, b, 0.4 * direction[2]]) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    tips = [(0, way + 0.4 * direction, 2.6) for way in start]
    while tips and len(nodes) < _MOST_NODES:
        parent, way, radius = tips.pop(0)
        end = _inside(rng, body, nodes[parent], way, radius)
        if end is None:
            continue
        places = np.linspace(nodes[parent], end, 4)[1:] + rng.normal(0, 0.4, (3, 3))
        for number, place in enumerate(places):
            nodes.append(place)
            parents.append(parent if number == 0 else len(nodes) - 2)
            radii.append(radius)
        if 0.8 * radius < leaf:
            continue
        way = end - nodes[parent]
        across = np.cross(way, rng.standard_normal(3))
        way, across = way / np.linalg.norm(way), across / np.linalg.norm(across)
        share = float(rng.uniform(0.3, 0.5))
        for sign, part in ((1, share), (-1, 1 - share)):
            turn = float(rng.uniform(*_TURN)) * (1 - 0.5 * part)
            tips.append((len(nodes) - 1, np.cos(turn) * way + sign * np.sin(turn) * across, radius * part ** (1 / 2.8)))
    return Tree(np.array(nodes), np.array(parents), np.array(radii))


def _inside(rng: np.random.Generator, body: Body, start: Points, way: Points, radius: float) -> Points | None:
    """The end of a branch that stays in the lung, turning away where it would leave it; None: there is none."""
    limit = np.array(body.shape) - 1
    for turn in range(5):
        turned = way / np.linalg.norm(way) + 0.35 * turn * rng.standard_normal(3)
        end = start + turned / np.linalg.norm(turned) * (float(rng.uniform(3.0, 5.0)) * radius + 5.0)
        index = np.rint(end).astype(int)
        if ((index >= 0) & (index <= limit)).all() and body.lung[tuple(index)] > 0.5:
            return np.asarray(end, dtype=np.float64)
    return None


def nodule_shape(rng: np.random.Generator, draw: ChestDraw, box: Box, radius: float) -> Floats:
    """Signed distance (mm, positive inside) of a heap of balls about one centre."""
    draw.num("nodule.flatness")
    out = 0.82 * radius - np.sqrt((box.offset**2).sum(axis=0))
    for _ in range(int(rng.integers(3, 7))):
        own = float(rng.uniform(0.45, 0.7)) * radius
        at = rng.standard_normal(3)
        at *= (radius - own) / np.linalg.norm(at)
        out = np.maximum(out, own - np.sqrt(((box.offset - at[:, None, None, None]) ** 2).sum(axis=0)))
    return np.asarray(out, dtype=np.float32)
