"""Cuts and joins the caller's vessels into branches, each running from one junction to the next.

A child may leave its parent anywhere along it; a vessel given in two pieces is one branch again. So the
result does not depend on how the caller cut the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from .problems import Problem
from .tree import BoolArray, FloatArray, IntArray, Vessel, VesselTree

ATTACH_TOLERANCE_M: Final = 0.5e-3
"""How far a child may start from its parent's centreline, and how near to an end counts as the end."""

_SAME_SAMPLE_M: Final = 1e-9


@dataclass(frozen=True)
class Branch:
    """Lumen samples between two junctions; all arrays (n,), ``s_m`` from 0 at the upstream junction.

    ``parent`` is the index of the upstream branch or -1 at an ostium. ``healthy_given_m`` is NaN where
    the caller gave no healthy radius, ``radius_sd_m`` where no standard deviation.
    """

    parent: int
    s_m: FloatArray
    radius_m: FloatArray
    aspect_ratio: FloatArray
    calcium: BoolArray
    healthy_given_m: FloatArray
    radius_sd_m: FloatArray
    first_vessel: int
    last_vessel: int


@dataclass(frozen=True)
class Placement:
    """Where one vessel's points lie: ``branch`` (n,) and ``sample`` (n,) index of each given point."""

    s_m: FloatArray
    branch: IntArray
    sample: IntArray


@dataclass(frozen=True)
class BranchTree:
    """Branches, parents before children, and the placement of every vessel in the caller's order."""

    branches: tuple[Branch, ...]
    placements: tuple[Placement, ...]

    @property
    def parents(self) -> IntArray:
        """(n_branches,) index of the upstream branch, -1 at an ostium."""
        return np.array([branch.parent for branch in self.branches], dtype=np.int64)


@dataclass
class _Piece:
    """Part of a vessel between two cuts; ``given`` (n,) is the vessel's point index or -1."""

    vessel: int
    start: tuple[int, int]
    end: tuple[int, int]
    samples: FloatArray
    given: IntArray


def arc_length(points_m: FloatArray) -> FloatArray:
    """Arc length (n,) along a polyline (n, 3), 0 at the first point."""
    steps = np.linalg.norm(np.diff(points_m, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def build_branches(tree: VesselTree) -> BranchTree | tuple[Problem, ...]:
    """Turn a checked tree into branches, or say which vessels do not touch their parent."""
    index = {vessel.id: position for position, vessel in enumerate(tree.vessels)}
    lengths = [arc_length(vessel.points_m) for vessel in tree.vessels]
    problems: list[Problem] = []
    cuts: list[set[float]] = [{0.0, float(s[-1])} for s in lengths]
    attach: dict[int, tuple[int, float]] = {}
    for child, vessel in enumerate(tree.vessels):
        if vessel.parent is None:
            continue
        parent = index[vessel.parent]
        distance, at = _project(vessel.points_m[0], tree.vessels[parent].points_m, lengths[parent])
        if distance > ATTACH_TOLERANCE_M:
            problems.append(
                Problem(
                    "tree_disconnected",
                    f"/tree/vessels/{child}/points_mm/0",
                    f"starts {distance * 1e3:.1f} mm from its parent; 0.5 mm is allowed",
                )
            )
        cuts[parent].add(at)
        attach[child] = (parent, at)
    if problems:
        return tuple(problems)
    return _join(tree, lengths, [sorted(cut) for cut in cuts], attach)


def _project(point: FloatArray, line: FloatArray, s: FloatArray) -> tuple[float, float]:
    """Distance of ``point`` to a polyline and the arc length of the foot, drawn to samples and ends."""
    start, step = line[:-1], np.diff(line, axis=0)
    squared = np.einsum("ij,ij->i", step, step)
    along = np.einsum("ij,ij->i", point - start, step) / np.where(squared > 0.0, squared, 1.0)
    t = np.clip(along, 0.0, 1.0)
    distances = np.linalg.norm(start + t[:, None] * step - point, axis=1)
    best = int(np.argmin(distances))
    foot = float(s[best] + t[best] * (s[best + 1] - s[best]))
    if s[-1] - foot <= ATTACH_TOLERANCE_M:
        foot = float(s[-1])
    nearest = int(np.argmin(np.abs(s - foot)))
    if abs(s[nearest] - foot) <= _SAME_SAMPLE_M:
        foot = float(s[nearest])
    return float(distances[best]), foot


def _pieces(vessel: Vessel, which: int, s: FloatArray, cuts: list[float]) -> list[_Piece]:
    """Cut one vessel; columns of ``samples``: s, r, aspect, calcium, healthy, sd."""
    healthy = vessel.healthy_radius_m
    spread = vessel.radius_sd_m
    columns = np.column_stack(
        [
            s,
            vessel.radius_m,
            vessel.aspect_ratio,
            vessel.calcium.astype(np.float64),
            np.full(len(s), np.nan) if healthy is None else healthy,
            np.full(len(s), np.nan) if spread is None else spread,
        ]
    )
    pieces = []
    for order, (low, high) in enumerate(pairwise(cuts)):
        first = int(np.searchsorted(s, low, side="left" if order == 0 else "right"))
        last = int(np.searchsorted(s, high, side="right"))
        rows, given = columns[first:last], np.arange(first, last)
        if order > 0:
            rows = np.vstack([_interpolate(columns, low), rows])
            given = np.concatenate([[-1], given])
        if not len(rows) or rows[-1, 0] < high:
            rows = np.vstack([rows, _interpolate(columns, high)])
            given = np.concatenate([given, [-1]])
        pieces.append(_Piece(which, (which, order), (which, order + 1), rows, given))
    return pieces


def _interpolate(columns: FloatArray, at: float) -> FloatArray:
    """Linear interpolation of every column at arc length ``at``; a bool column takes the nearer one."""
    s = columns[:, 0]
    row = np.array([np.interp(at, s, columns[:, c]) for c in range(columns.shape[1])])
    row[3] = columns[int(np.argmin(np.abs(s - at))), 3]
    return row


def _join(
    tree: VesselTree,
    lengths: list[FloatArray],
    cuts: list[list[float]],
    attach: dict[int, tuple[int, float]],
) -> BranchTree:
    """Chain pieces whose end has one follower, and number branches with parents first."""
    pieces = [_pieces(vessel, which, lengths[which], cuts[which]) for which, vessel in enumerate(tree.vessels)]
    followers: dict[tuple[int, int], list[_Piece]] = {}
    for own in pieces:
        for before, next_piece in pairwise(own):
            followers.setdefault(before.end, []).append(next_piece)
    for child in attach:
        parent, at = _node(child, attach)
        followers.setdefault((parent, cuts[parent].index(at)), []).append(pieces[child][0])
    placements = [
        Placement(s, np.full(len(s), -1, dtype=np.int64), np.full(len(s), -1, dtype=np.int64)) for s in lengths
    ]
    queue: list[tuple[int, _Piece]] = []
    for which, vessel in enumerate(tree.vessels):
        if vessel.parent is None:
            # A vessel may leave exactly at the ostium: it is then one more way out of the aorta.
            queue.append((-1, pieces[which][0]))
            queue += [(-1, piece) for piece in followers.get((which, 0), [])]
    branches: list[Branch] = []
    while queue:
        parent_branch, piece = queue.pop(0)
        chain = [piece]
        while len(after := followers.get(chain[-1].end, [])) == 1:
            chain.append(after[0])
        branches.append(_branch(parent_branch, chain, placements, len(branches)))
        queue += [(len(branches) - 1, item) for item in after]
    return BranchTree(tuple(branches), tuple(placements))


def _node(child: int, attach: dict[int, tuple[int, float]]) -> tuple[int, float]:
    """Vessel and arc length where ``child`` begins; the very start of a vessel is a place on its own parent."""
    parent, at = attach[child]
    while at == 0.0 and parent in attach:
        parent, at = attach[parent]
    return parent, at


def _branch(parent: int, chain: list[_Piece], placements: list[Placement], number: int) -> Branch:
    """Concatenate pieces into one branch and note where each given point went."""
    rows: list[FloatArray] = []
    offset, filled = 0.0, 0
    for order, piece in enumerate(chain):
        samples = piece.samples.copy()
        samples[:, 0] += offset - samples[0, 0]
        shift = 0
        if order > 0 and _same(rows[-1][-1], samples[0]):
            samples, shift = samples[1:], 1
        for local, given in enumerate(piece.given):
            if given >= 0:
                placement = placements[piece.vessel]
                placement.branch[given] = number
                placement.sample[given] = filled + local - shift
        rows.append(samples)
        filled += len(samples)
        if len(samples):
            offset = float(samples[-1, 0])
    table = np.vstack(rows)
    return Branch(
        parent=parent,
        s_m=table[:, 0],
        radius_m=table[:, 1],
        aspect_ratio=table[:, 2],
        calcium=table[:, 3] > 0.5,
        healthy_given_m=table[:, 4],
        radius_sd_m=table[:, 5],
        first_vessel=chain[0].vessel,
        last_vessel=chain[-1].vessel,
    )


def _same(before: FloatArray, after: FloatArray) -> bool:
    """Tell whether two samples at one place say the same about the lumen."""
    return bool(np.allclose(before[1:3], after[1:3], rtol=1e-12, atol=0.0))
