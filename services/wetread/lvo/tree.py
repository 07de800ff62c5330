"""The vessel tree: centrelines from the circle of Willis to every tip, over the voxels of the vessel mask.

Shortest ways from the root over neighbouring vessel voxels; tips are where the way is locally longest, and each tip's
way back to the tree is a branch. No skeleton is thinned, so a gap of one voxel costs a branch its mother and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra

LEAST_BRANCH_MM: Final = 5.0
TIP_REACH: Final = 7
"""Voxels across the neighbourhood in which a tip is the farthest point."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
_STEPS: Final = [s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]


@dataclass(frozen=True, slots=True)
class Tree:
    """Centreline points, [n, (z, y, x)] grid indices.

    ``length``: mm of centreline that each point stands for. ``way``: mm from the given root, straight to the part's own
    and along vessel from there. ``tips``: which of the points are tips. ``before``: the point that each follows, -1
    for a root.
    """

    points: Indices
    length: Floats
    way: Floats
    tips: Indices
    before: Indices


def vessel_tree(mask: Mask, root: tuple[float, float, float]) -> Tree:
    """Build the tree of *mask* [z, y, x]; every connected part has its root where it comes nearest to *root*."""
    places = np.argwhere(mask)
    if len(places) == 0:
        return Tree(np.zeros((0, 3), np.intp), np.zeros(0), np.zeros(0), *[np.zeros(0, np.intp)] * 2)
    graph = _graph(mask, places)
    parts = ndimage.label(mask, np.ones((3, 3, 3)))[0][tuple(places.T)]
    far = np.linalg.norm(places - np.asarray(root), axis=1)
    order = np.lexsort((far, parts))
    roots = order[np.flatnonzero(np.r_[True, np.diff(parts[order]) > 0])]
    way, before, source = dijkstra(graph, directed=False, indices=roots, min_only=True, return_predecessors=True)
    return _branches(mask, places, way + far[source], before)


def _graph(mask: Mask, places: Indices) -> sparse.csr_array:
    """Join neighbouring voxels of the mask by their distance."""
    number = np.full(np.add(mask.shape, 2), -1, dtype=np.int32)
    inner = places + 1
    number[tuple(inner.T)] = np.arange(len(places))
    starts, ends, lengths = [], [], []
    for step in _STEPS:
        other = number[tuple((inner + step).T)]
        joined = np.flatnonzero(other >= 0)
        starts.append(joined)
        ends.append(other[joined])
        lengths.append(np.full(len(joined), float(np.linalg.norm(step))))
    edges = (np.concatenate(lengths), (np.concatenate(starts), np.concatenate(ends)))
    return sparse.csr_array(edges, shape=(len(places), len(places)))


def _branches(mask: Mask, places: Indices, way: Floats, before: npt.NDArray[np.int32]) -> Tree:
    field = np.full(mask.shape, -1.0, dtype=np.float32)
    field[tuple(places.T)] = way
    highest = ndimage.maximum_filter(field, TIP_REACH)[tuple(places.T)]
    tips = np.flatnonzero((field[tuple(places.T)] >= highest) & (before >= 0))
    taken = np.zeros(len(places), dtype=bool)
    length = np.zeros(len(places))
    kept_tips = []
    for tip in tips[np.argsort(-way[tips], kind="stable")]:
        path, node = [], int(tip)
        while node >= 0 and not taken[node]:
            path.append(node)
            node = int(before[node])
        end = way[node] if node >= 0 else way[path[-1]] if path else 0.0
        if not path or way[tip] - end < LEAST_BRANCH_MM:
            continue
        steps = way[path] - np.r_[way[path[1:]], end]
        length[path] = steps
        taken[path] = True
        kept_tips.append(int(tip))
    chosen = np.flatnonzero(taken)
    position = np.full(len(places), -1, dtype=np.intp)
    position[chosen] = np.arange(len(chosen))
    upstream = before[chosen]
    return Tree(
        points=places[chosen],
        length=length[chosen],
        way=way[chosen],
        tips=position[np.asarray(kept_tips, dtype=np.intp)],
        before=np.where(upstream >= 0, position[np.maximum(upstream, 0)], -1),
    )
