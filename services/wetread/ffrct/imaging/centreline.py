"""Cheapest paths from the aortic wall through tube-like voxels, cut into a tree of branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from .aorta import Aorta
from .image import CtImage, FloatArray, IntArray, Mask
from .vesselness import OSTIUM_ZONE_MM, Candidates

LEAST_TUBE: Final = 0.1
COST_FLOOR: Final = 0.02
SHELL_MM: Final = (0.2, 1.8)
SHORTEST_BRANCH_MM: Final = 8.0
SHORTEST_TREE_MM: Final = 30.0
ABSORB_MM: Final = 3.0
"""Voxels this close to an accepted branch are part of it."""
MOST_BRANCHES: Final = 40
LEAST_PATCH: Final = 5
LONGEST_GAP_MM: Final = 7.0
WEAK_TUBE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch as it was traced: points (n, 3) in working-grid index from its origin outwards.

    ``parent`` is the index of the branch it leaves (-1: an ostium); a side branch starts on a voxel of its parent.
    """

    parent: int
    points: FloatArray
    ostium: int


@dataclass(frozen=True, slots=True)
class Traced:
    """Branches, parents first; ``ostia`` (n, 3) working-grid index."""

    branches: tuple[Branch, ...]
    ostia: FloatArray


def trace(image: CtImage, aorta: Aorta, found: Candidates) -> Traced:
    """Trace the arteries that leave the aorta. No branch: nothing there leads 30 mm away."""
    step = float(image.step_mm[0])
    away = aorta.distance_mm[tuple(found.index.T)]
    bright = found.hu > 0.5 * aorta.blood.hu
    keep = (found.tube > LEAST_TUBE) | ((away < OSTIUM_ZONE_MM) & bright)
    index = found.index[keep]
    tube = np.where(away[keep] < OSTIUM_ZONE_MM, np.maximum(found.tube[keep], 0.3), found.tube[keep])
    starts = _ostia(index, away[keep], bright[keep])
    if len(starts) == 0:
        return Traced((), np.empty((0, 3)))
    graph = _graph(index, np.clip(tube, 0.0, 1.0), image.hu.shape)
    cost, previous, _ = dijkstra(graph, indices=starts, min_only=True, return_predecessors=True)
    before = np.asarray(previous, dtype=np.int64)
    lengths, roots = _lengths(index, cost, before, step)
    return _grow(index, tube, lengths, before, roots, step)


def _graph(index: IntArray, tube: FloatArray, shape: tuple[int, ...]) -> sparse.csr_array:
    """26-neighbour graph; an edge costs its length over the tube measure of its ends."""
    number = np.full(shape, -1, dtype=np.int32)
    number[tuple(index.T)] = np.arange(len(index), dtype=np.int32)
    rows, columns, costs = [], [], []
    offsets = [(a, b, c) for a in (0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1) if (a, b, c) > (0, 0, 0)]
    for offset in offsets:
        # Candidates keep two voxels from the border, so that no neighbour lies outside.
        other = number[tuple((index + np.array(offset)).T)]
        has = np.flatnonzero(other >= 0)
        there = other[has]
        rows.append(has)
        columns.append(there)
        costs.append(float(np.linalg.norm(offset)) / (COST_FLOOR + 0.5 * (tube[has] + tube[there])))
    row, column, cost = np.concatenate(rows), np.concatenate(columns), np.concatenate(costs)
    size = len(index)
    half = sparse.coo_array((cost, (row, column)), shape=(size, size))
    return (half + half.T).tocsr()


def _lengths(index: IntArray, cost: FloatArray, before: IntArray, step: float) -> tuple[FloatArray, IntArray]:
    """Length in mm from the wall along the cheapest path, and its first voxel, per voxel."""
    order = np.argsort(cost)
    order = order[np.isfinite(cost[order])]
    length = np.full(len(index), -1.0)
    root = np.full(len(index), -1, dtype=np.int64)
    hop = np.zeros(len(index))
    linked = before >= 0
    hop[linked] = np.linalg.norm(index[linked] - index[before[linked]], axis=1) * step
    for node, previous in zip(order.tolist(), before[order].tolist(), strict=True):
        if previous < 0:
            length[node], root[node] = 0.0, node
        else:
            length[node], root[node] = length[previous] + hop[node], root[previous]
    return length, root


def _ostia(index: IntArray, away: FloatArray, bright: Mask) -> IntArray:
    """One voxel per connected bright patch on the aortic wall: the one nearest to the patch's middle."""
    wall = np.flatnonzero((away >= SHELL_MM[0]) & (away <= SHELL_MM[1]) & bright)
    if len(wall) == 0:
        return wall
    low = index[wall].min(axis=0)
    block = np.zeros(index[wall].max(axis=0) - low + 1, dtype=np.bool_)
    block[tuple((index[wall] - low).T)] = True
    labels, count = ndimage.label(block, structure=np.ones((3, 3, 3)))
    patch = labels[tuple((index[wall] - low).T)]
    chosen = []
    for number in range(1, count + 1):
        own = wall[patch == number]
        if len(own) >= LEAST_PATCH:
            middle = index[own].mean(axis=0)
            chosen.append(int(own[np.argmin(np.linalg.norm(index[own] - middle, axis=1))]))
    return np.array(chosen, dtype=np.int64)


def _grow(
    index: IntArray,
    tube: FloatArray,
    length: FloatArray,
    before: IntArray,
    root: IntArray,
    step: float,
) -> Traced:
    """Take the farthest voxel, trace it back to what is there, take in its surroundings; until none is far."""
    trees = [r for r in np.unique(root[root >= 0]) if length[root == r].max() >= SHORTEST_TREE_MM]
    taken = ~np.isin(root, trees)
    beyond = _Beyond(before, length)
    owner = np.full(len(index), -1, dtype=np.int64)
    branches: list[Branch] = []
    ostia: dict[int, int] = {}
    lookup = cKDTree(index)
    reach = ABSORB_MM / step
    for _ in range(4 * MOST_BRANCHES):
        gain = beyond.of(taken)
        tip = int(gain.argmax())
        if gain[tip] < SHORTEST_BRANCH_MM or len(branches) >= MOST_BRANCHES:
            break
        path = _back(tip, before, owner)
        kept = _tube_part(path, tube, length)
        attached = int(owner[path[0]])
        if len(kept) < 3 or length[kept[-1]] - length[path[0]] < SHORTEST_BRANCH_MM:
            taken[_around(lookup, path[len(kept) :] or path[-1:], reach)] = True
            continue
        nodes = np.array(kept)
        ostia.setdefault(int(root[tip]), int(root[tip]))
        owner[nodes[owner[nodes] < 0]] = len(branches)
        branches.append(Branch(attached, index[nodes].astype(np.float64), int(root[tip])))
        taken[_around(lookup, path, reach)] = True
    return Traced(tuple(branches), np.array([index[o] for o in ostia.values()], dtype=np.float64).reshape(-1, 3))


class _Beyond:
    """How far every voxel lies beyond what is taken, along its cheapest path."""

    def __init__(self, before: IntArray, length: FloatArray) -> None:
        order = np.argsort(length, kind="stable")
        self._order = order[length[order] >= 0.0].tolist()
        self._before = before.tolist()
        self._length = length.tolist()
        self._size = len(length)

    def of(self, taken: Mask) -> FloatArray:
        free = (~taken).tolist()
        length, before = self._length, self._before
        base = [0.0] * self._size
        gain = np.zeros(self._size)
        for node in self._order:
            previous = before[node]
            if free[node]:
                base[node] = base[previous] if previous >= 0 else 0.0
                gain[node] = length[node] - base[node]
            else:
                base[node] = length[node]
        return gain


def _around(lookup: cKDTree, nodes: Sequence[int] | IntArray, reach: float) -> IntArray:
    found = lookup.query_ball_point(lookup.data[np.asarray(nodes)], reach)
    return np.unique(np.concatenate([np.asarray(f, dtype=np.int64) for f in found]))


def _back(tip: int, before: IntArray, owner: IntArray) -> list[int]:
    path = [tip]
    while before[path[-1]] >= 0 and owner[path[-1]] < 0:
        path.append(int(before[path[-1]]))
    return path[::-1]


def _tube_part(path: list[int], tube: FloatArray, length: FloatArray) -> list[int]:
    """The path up to where it stays shapeless for 7 mm.

    How bright it is does not matter: a tight lesion of a centimetre is as dark as muscle, and still a tube.
    """
    nodes = np.array(path)
    shapeless = tube[nodes] < WEAK_TUBE
    last_good = 0
    for position in range(len(nodes)):
        if not shapeless[position]:
            last_good = position
        elif length[nodes[position]] - length[nodes[last_good]] > LONGEST_GAP_MM:
            break
    return path[: last_good + 1]
