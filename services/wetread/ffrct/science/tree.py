"""The vessel tree as the caller gives it, and the checks that it must pass before any number is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from .problems import Problem

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
RadiusKind = Literal["area", "inscribed"]

MAX_RADIUS_M: Final = 10e-3
MIN_MEDIAN_RADIUS_M: Final = 0.2e-3
MAX_EXTENT_M: Final = 0.5
MIN_EXTENT_M: Final = 5e-3


@dataclass(frozen=True)
class Vessel:
    """One vessel: centreline samples from its origin to its end.

    ``points_m`` (n, 3) in LPS; ``radius_m`` (n,) area-equivalent lumen radius (or inscribed, see
    ``radius_kind``); ``aspect_ratio`` (n,) long over short axis; the optional arrays are (n,).
    """

    id: str
    parent: str | None
    label: str
    points_m: FloatArray
    radius_m: FloatArray
    aspect_ratio: FloatArray
    calcium: BoolArray
    healthy_radius_m: FloatArray | None = None
    radius_sd_m: FloatArray | None = None
    radius_kind: RadiusKind = "area"


@dataclass(frozen=True)
class VesselTree:
    """Vessels of one patient; every vessel without a parent starts at an ostium."""

    vessels: tuple[Vessel, ...]


def check_tree(tree: VesselTree) -> tuple[Problem, ...]:
    """Return every reason why ``tree`` cannot be computed, the gravest first; empty when it can."""
    arrays = tuple(
        problem
        for index, vessel in enumerate(tree.vessels)
        for problem in _check_arrays(vessel, f"/tree/vessels/{index}")
    )
    topology = tuple(_check_topology(tree))
    if arrays or topology:
        return topology + arrays
    return tuple(_check_units(tree))


def _check_arrays(vessel: Vessel, pointer: str) -> Iterator[Problem]:
    count = len(vessel.points_m)
    per_point = {
        "radius_mm": vessel.radius_m,
        "aspect_ratio": vessel.aspect_ratio,
        "calcium": vessel.calcium,
        "healthy_radius_mm": vessel.healthy_radius_m,
        "radius_sd_mm": vessel.radius_sd_m,
    }
    if count < 2:
        yield Problem("too_few_points", f"{pointer}/points_mm", "a vessel needs two points or more")
    for name, values in per_point.items():
        if values is not None and len(values) != count:
            yield Problem("points_mismatch", f"{pointer}/{name}", f"{len(values)} values for {count} points")
    numbers = {"points_mm": vessel.points_m, **per_point}
    for name, values in numbers.items():
        if values is not None and not bool(np.all(np.isfinite(values))):
            yield Problem("nonfinite", f"{pointer}/{name}", "values must be finite numbers")
    for name in ("radius_mm", "healthy_radius_mm", "aspect_ratio"):
        values = per_point[name]
        if values is not None and bool(np.any(values <= 0.0)):
            yield Problem(
                "radius_nonpositive",
                f"{pointer}/{name}",
                "values must be positive; mark a closed vessel by a very small radius",
            )
    if vessel.radius_sd_m is not None and bool(np.any(vessel.radius_sd_m < 0.0)):
        yield Problem("radius_nonpositive", f"{pointer}/radius_sd_mm", "a standard deviation is not negative")


def _check_topology(tree: VesselTree) -> Iterator[Problem]:
    parents: dict[str, str | None] = {}
    for index, vessel in enumerate(tree.vessels):
        if vessel.id in parents:
            yield Problem("tree_disconnected", f"/tree/vessels/{index}/id", "the same id is used twice")
        parents[vessel.id] = vessel.parent
    for index, vessel in enumerate(tree.vessels):
        pointer = f"/tree/vessels/{index}/parent"
        if vessel.parent is not None and vessel.parent not in parents:
            yield Problem("tree_disconnected", pointer, "the parent is not in the tree")
        elif _on_cycle(vessel.id, parents):
            yield Problem("tree_cyclic", pointer, "following the parents never reaches an ostium")


def _on_cycle(start: str, parents: dict[str, str | None]) -> bool:
    seen = {start}
    current = parents[start]
    while current is not None and current in parents:
        if current in seen:
            return True
        seen.add(current)
        current = parents[current]
    return False


def _check_units(tree: VesselTree) -> Iterator[Problem]:
    if not tree.vessels:
        yield Problem("tree_disconnected", "/tree/vessels", "the tree holds no vessel")
        return
    radii = np.concatenate([vessel.radius_m for vessel in tree.vessels])
    points = np.concatenate([vessel.points_m for vessel in tree.vessels])
    extent = float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))
    advice = "lengths and radii are expected in millimetres"
    if float(radii.max()) > MAX_RADIUS_M:
        index = next(i for i, v in enumerate(tree.vessels) if float(v.radius_m.max()) > MAX_RADIUS_M)
        yield Problem("units_suspect", f"/tree/vessels/{index}/radius_mm", f"a radius above 10 mm; {advice}")
    if float(np.median(radii)) < MIN_MEDIAN_RADIUS_M:
        yield Problem("units_suspect", "/tree/vessels", f"median radius below 0.2 mm; {advice}")
    if not MIN_EXTENT_M <= extent <= MAX_EXTENT_M:
        yield Problem("units_suspect", "/tree/vessels", f"the tree spans less than 5 or over 500 mm; {advice}")
