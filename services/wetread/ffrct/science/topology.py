"""Which vessels lie on the way from an inlet to each outlet."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from .problems import Problem
from .tree import FloatArray, IntArray


def outlets_of(parents: IntArray) -> IntArray:
    """Indices of the vessels without a daughter, ascending."""
    has_daughter = np.zeros(len(parents), dtype=bool)
    has_daughter[parents[parents >= 0]] = True
    return np.flatnonzero(~has_daughter)


def path_matrix(parents: IntArray) -> FloatArray:
    """B (n_outlets, n_vessels): 1 where the vessel lies on the way to the outlet.

    ``parents`` (n_vessels,) holds the upstream vessel or -1; outlets are in the order of
    :func:`outlets_of`.
    """
    outlets = outlets_of(parents)
    path = np.zeros((len(outlets), len(parents)))
    for row, outlet in enumerate(outlets):
        vessel = int(outlet)
        while vessel >= 0:
            path[row, vessel] = 1.0
            vessel = int(parents[vessel])
    return path


def orient_edges(tails: Sequence[Hashable], heads: Sequence[Hashable], pointer: str) -> IntArray | Problem:
    """Parents (n_vessels,) of vessels given as edges tail -> head between nodes.

    A node with two ways in is a loop or a confluence and gives ``tree_cyclic``; a vessel that no inlet
    reaches gives ``tree_cyclic`` too, as it then hangs on a ring.
    """
    arriving: dict[Hashable, int] = {}
    for vessel, head in enumerate(heads):
        if head in arriving:
            return Problem("tree_cyclic", pointer, "two vessels lead to one node: loops are refused")
        arriving[head] = vessel
    parents = np.array([arriving.get(tail, -1) for tail in tails], dtype=np.int64)
    for vessel in range(len(parents)):
        current, steps = vessel, 0
        while current >= 0 and steps <= len(parents):
            current, steps = int(parents[current]), steps + 1
        if current >= 0:
            return Problem("tree_cyclic", pointer, "the vessels form a ring without an inlet")
    return parents
