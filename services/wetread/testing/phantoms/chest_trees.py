"""Branching trees of the lung by space colonisation, and fast drawing of tubes into a voxel grid.

Growth after Runions et al. (Eurographics Workshop on Natural Phenomena 2007): points without supply pull the nearest
tips; a point that a tip reaches is supplied. Radii follow Murray's law with a drawn exponent. All lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Points = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
STEP_MM: Final = 4.0
KILL_MM: Final = 6.0
_ROUNDS: Final = 120


@dataclass(frozen=True, slots=True)
class Tree:
    """Nodes [n, 3] (z, y, x), the parent of each (the root's is itself), and radii."""

    nodes: Points
    parents: npt.NDArray[np.int64]
    radii: Points

    def segments(self, thinnest: float = 0.0) -> tuple[Points, Points, Points, Points]:
        """Starts, ends and both radii of the segments that are at least *thinnest* wide at their end."""
        kept = np.flatnonzero((self.parents != np.arange(len(self.nodes))) & (self.radii >= thinnest))
        first = self.parents[kept]
        # a thick parent ends in a thin twig at once: the twig keeps its own width
        return (
            self.nodes[first],
            self.nodes[kept],
            np.minimum(self.radii[first], 1.3 * self.radii[kept]),
            self.radii[kept],
        )


def grow(
    rng: np.random.Generator,
    root: Points,
    targets: Points,
    *,
    leaf_mm: float,
    exponent: float,
    wander: float,
) -> Tree:
    """Grow from *root* until every target is supplied or out of reach."""
    nodes, parents = [root[None]], [np.zeros(1, dtype=np.int64)]
    everything = root[None]
    left = targets
    for _ in range(_ROUNDS):
        if not len(left):
            break
        distance, nearest = cKDTree(everything).query(left)
        keep = distance > KILL_MM
        left, nearest, distance = left[keep], np.asarray(nearest)[keep], np.asarray(distance)[keep]
        if not len(left):
            break
        pull = np.zeros_like(everything)
        np.add.at(pull, nearest, (left - everything[nearest]) / distance[:, None])
        tips = np.unique(nearest)
        direction = pull[tips] / np.maximum(np.linalg.norm(pull[tips], axis=1, keepdims=True), 1e-6)
        direction += wander * rng.standard_normal(direction.shape)
        fresh = everything[tips] + STEP_MM * direction / np.linalg.norm(direction, axis=1, keepdims=True)
        nodes.append(fresh)
        parents.append(tips)
        everything = np.concatenate([everything, fresh])
    parent = np.concatenate(parents)
    return Tree(everything, parent, _murray(parent, leaf_mm, exponent))


def _murray(parents: npt.NDArray[np.int64], leaf_mm: float, exponent: float) -> Points:
    """Radii from the tips to the root: r^k of a branch is the sum over its daughters."""
    power = np.zeros(len(parents))
    leaf = leaf_mm**exponent
    for node in range(len(parents) - 1, 0, -1):
        power[node] = max(power[node], leaf)
        power[parents[node]] += power[node]
    power[0] = max(power[0], leaf)
    return np.asarray(power ** (1 / exponent), dtype=np.float64)


def draw_tubes(
    shape: tuple[int, int, int], starts: Points, ends: Points, first_mm: Points, last_mm: Points, step_mm: float
) -> Floats:
    """Occupancy 0..1 of tubes on a grid of *step_mm*, index (z, y, x) times step = mm.

    Tubes thinner than a voxel keep their share of it.
    """
    out = np.zeros(shape, dtype=np.float32)
    if not len(starts):
        return out
    length = np.linalg.norm(ends - starts, axis=1)
    spacing = np.maximum(0.6 * step_mm, 0.5 * np.minimum(first_mm, last_mm))
    count = np.maximum(2, np.ceil(length / spacing).astype(int) + 1)
    owner = np.repeat(np.arange(len(starts)), count)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    share = (number / np.maximum(count[owner] - 1, 1))[:, None]
    centres = (starts[owner] * (1 - share) + ends[owner] * share) / step_mm
    radii = (first_mm[owner] * (1 - share[:, 0]) + last_mm[owner] * share[:, 0]) / step_mm
    below = 0.0
    for limit in (1.0, 2.0, 3.5, 6.0, 10.0, 16.0):
        chosen = (radii > below) & (radii <= limit)
        below = limit
        draw_balls(out, centres[chosen], radii[chosen], int(np.ceil(limit)) + 1)
    return out


def draw_balls(out: Floats, centres: Points, radii: Points, reach: int) -> None:
    """Raise *out* in place to the occupancy of balls (centres and radii in voxels); boxes of +-reach voxels."""
    shape = np.array(out.shape)
    near = ((centres > -reach) & (centres < shape - 1 + reach)).all(axis=1)
    centres, radii = centres[near].astype(np.float32), radii[near].astype(np.float32)
    if not len(centres):
        return
    wide = np.pad(out, 2 * reach)  # so that no box needs to be cut
    strides = np.array([wide.shape[1] * wide.shape[2], wide.shape[2], 1])
    axis = np.arange(-reach, reach + 1)
    offset = (axis[:, None, None] * strides[0] + axis[None, :, None] * strides[1] + axis[None, None, :]).ravel()
    flat = wide.reshape(-1)
    for part in np.array_split(np.arange(len(centres)), max(1, len(centres) * len(offset) // 1_000_000)):
        whole = np.rint(centres[part]).astype(np.int64)
        square = (axis[None, :, None] - (centres[part] - whole)[:, None, :]) ** 2
        distance = square[:, :, None, None, 0] + square[:, None, :, None, 1] + square[:, None, None, :, 2]
        np.sqrt(distance, out=distance)
        radius = radii[part][:, None, None, None]
        value = np.clip(radius + np.float32(0.5) - distance, 0, 1) * np.minimum(1, np.float32(np.pi) * radius**2)
        index = ((whole + 2 * reach) @ strides)[:, None] + offset[None]
        found = value.reshape(len(part), -1)
        inside = found > 0
        np.maximum.at(flat, index[inside], found[inside])
    inner = slice(2 * reach, -2 * reach)
    out[:] = wide[inner, inner, inner]
