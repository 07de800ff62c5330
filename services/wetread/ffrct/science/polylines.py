"""Makes a vessel tree of centrelines that all run from one start, as centreline tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from .branches import ATTACH_TOLERANCE_M, arc_length
from .tree import FloatArray, RadiusKind, Vessel, VesselTree

AORTIC_RADIUS_M: Final = 4e-3
OSTIAL_FLARE: Final = 1.25
OSTIAL_REFERENCE_M: Final = (10e-3, 25e-3)
SHORTEST_VESSEL_M: Final = 1e-3


@dataclass(frozen=True)
class Polyline:
    """One centreline: ``points_m`` (n, 3) and ``radius_m`` (n,), from the aorta or ostium to its end."""

    points_m: FloatArray
    radius_m: FloatArray


def oriented(line: Polyline) -> Polyline:
    """The line with its wider end first."""
    if line.radius_m[0] >= line.radius_m[-1]:
        return line
    return Polyline(line.points_m[::-1], line.radius_m[::-1])


def cut_at_ostium(line: Polyline) -> Polyline:
    """Drop the part inside the aorta and the flare of the ostium; a line that starts thin is kept.

    The vessel begins where, after the radius fell below 4 mm, it is at most 1.25 times the median of the
    stretch 10 to 25 mm further on.
    """
    radius = line.radius_m
    if radius[0] < AORTIC_RADIUS_M or not bool((radius < AORTIC_RADIUS_M).any()):
        return line
    first = int(np.argmax(radius < AORTIC_RADIUS_M))
    s = arc_length(line.points_m)
    near, far = OSTIAL_REFERENCE_M
    for start in range(first, len(s) - 2):
        ahead = (s >= s[start] + near) & (s <= s[start] + far)
        if not ahead.any() or radius[start] <= OSTIAL_FLARE * np.median(radius[ahead]):
            return Polyline(line.points_m[start:], radius[start:])
    return Polyline(line.points_m[first:], radius[first:])


def tree_of_polylines(lines: Sequence[Polyline], radius_kind: RadiusKind, prefix: str = "v") -> VesselTree:
    """Merge what the lines share, the longest being the trunk; each rest becomes a side vessel.

    A line leaves the vessels placed so far where it is first over 0.5 mm away from them; rests shorter
    than 1 mm are dropped. Lines may also begin where their parent lets them off. A line that starts on no
    other becomes a root.
    """
    pending = sorted((cut_at_ostium(oriented(line)) for line in lines), key=lambda x: -arc_length(x.points_m)[-1])
    vessels: list[Vessel] = []
    while pending:
        line, parent, first = _next(pending, vessels)
        if len(line.points_m) - first < 2 or arc_length(line.points_m[first:])[-1] < SHORTEST_VESSEL_M:
            continue
        count = len(line.points_m) - first
        vessels.append(
            Vessel(
                id=f"{prefix}{len(vessels)}",
                parent=parent,
                label="",
                points_m=line.points_m[first:],
                radius_m=line.radius_m[first:],
                aspect_ratio=np.ones(count),
                calcium=np.zeros(count, dtype=bool),
                radius_kind=radius_kind,
            )
        )
    return VesselTree(tuple(vessels))


def _next(pending: list[Polyline], vessels: Sequence[Vessel]) -> tuple[Polyline, str | None, int]:
    """Take the longest line that starts on a placed vessel, else the longest that starts on no other line.

    Returns it with its parent's id (None for a root) and the index of its last common point.
    """
    for place, line in enumerate(pending):
        parent, first = _leaves(line, vessels)
        if parent is not None:
            return pending.pop(place), parent, first
    for place, line in enumerate(pending):
        others = [other for other in pending if other is not line]
        if not any(_on_the_way(line.points_m[0], other) for other in others):
            return pending.pop(place), None, 0
    return pending.pop(0), None, 0


def _on_the_way(point: FloatArray, line: Polyline) -> bool:
    """Tell whether ``point`` lies on a line behind that line's own start."""
    near = np.linalg.norm(line.points_m - point, axis=1) <= ATTACH_TOLERANCE_M
    own_start = arc_length(line.points_m) <= 2.0 * ATTACH_TOLERANCE_M
    return bool((near & ~own_start).any())


def _leaves(line: Polyline, vessels: Sequence[Vessel]) -> tuple[str | None, int]:
    """Vessel that the line leaves and the index of its last common point; (None, 0) if it starts elsewhere."""
    if not vessels:
        return None, 0
    cloud = np.concatenate([vessel.points_m for vessel in vessels])
    owner = np.repeat(np.arange(len(vessels)), [len(vessel.points_m) for vessel in vessels])
    found = cKDTree(cloud).query(line.points_m)
    distance, nearest = np.asarray(found[0]), np.asarray(found[1])
    apart = distance > ATTACH_TOLERANCE_M
    if apart[0]:
        return None, 0
    last = int(np.argmax(apart)) - 1 if apart.any() else len(apart) - 1
    return vessels[int(owner[nearest[last]])].id, last
