"""Which images of a series lie on parallel planes, and how those planes are spaced.

Positions decide (Image Position and Orientation (Patient), PS3.3 C.7.6.2); Spacing Between Slices and Slice
Thickness are never used to place a plane. Works on header facts alone; volume assembly uses the same arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from wetread.core.facts import InstanceFacts, SeriesFacts

Floats = npt.NDArray[np.float64]
Plane = Literal["axial", "coronal", "sagittal"]

ORIENTATION_TOLERANCE: Final = 0.01
"""Largest difference of a direction cosine inside one stack, about half a degree."""
DUPLICATE_MM: Final = 0.01
"""Planes closer than this are the same place (positions are written with a few decimals)."""
HOLE_RATIO: Final = 1.5
"""A step beyond this multiple of the median step is a hole."""
IRREGULAR_RATIO: Final = 1.02
"""Steps that differ by more than this ratio make the sampling irregular."""
ORIGIN_TOLERANCE_MM: Final = 1.0
"""Deviation of a plane's origin from the common (tilted) axis that is worth a flag."""

ENHANCED_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT
        "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR
        "1.2.840.10008.5.1.4.1.1.128.1",  # Legacy Converted Enhanced PET
        "1.2.840.10008.5.1.4.1.1.130",  # Enhanced PET
    }
)
"""Multi-frame classes whose plane positions are in functional groups, which header facts do not show."""

_PROJECTIONS: Final = frozenset(
    {"LOCALIZER", "MIP", "MINIP", "PROJECTION IMAGE", "MAX_IP", "MIN_IP", "VRT", "VOLREN", "SSD", "SCREEN SAVE", "3D"}
)


@dataclass(frozen=True, slots=True)
class StackGeometry:
    """Parallel planes in order along their normal, one per place."""

    order: tuple[int, ...]
    """Indices of the given planes that were kept."""
    positions_mm: Floats
    """[plane] along the normal, rising."""
    tilt_deg: float
    """Angle between the normal and the direction in which the planes are stacked (gantry tilt)."""
    flags: tuple[str, ...]

    @property
    def steps_mm(self) -> Floats:
        """[plane - 1] distances between neighbours along the normal."""
        return np.diff(self.positions_mm)

    @property
    def median_step_mm(self) -> float:
        """Median distance between neighbours; 0 for a single plane."""
        return float(np.median(self.steps_mm)) if len(self.order) > 1 else 0.0

    @property
    def largest_step_mm(self) -> float:
        """Largest distance between neighbours; 0 for a single plane."""
        return float(self.steps_mm.max()) if len(self.order) > 1 else 0.0

    @property
    def gap_free(self) -> bool:
        """Whether no step is a hole."""
        return self.largest_step_mm <= HOLE_RATIO * self.median_step_mm + DUPLICATE_MM

    @property
    def weights_mm(self) -> Floats:
        """[plane] half the distance to both neighbours; a border plane counts its one neighbour twice.

        A single plane stands for no known depth: weight 0.
        """
        steps = self.steps_mm
        if not len(steps):
            return np.zeros(len(self.order))
        padded = np.concatenate([steps[:1], steps, steps[-1:]])
        return np.asarray((padded[:-1] + padded[1:]) / 2, dtype=np.float64)

    @property
    def coverage_mm(self) -> float:
        """Depth that the planes stand for together."""
        return float(self.weights_mm.sum())


@dataclass(frozen=True, slots=True)
class Stack:
    """The part of a series that forms one volume, ``instances`` in order along the normal."""

    series_instance_uid: str
    instances: tuple[InstanceFacts, ...]
    geometry: StackGeometry | None
    """None for enhanced multi-frame objects: their planes are known once the object is opened."""
    plane: Plane | None
    thickness_mm: float | None
    """Median Slice Thickness: for display and preference, never for volumes."""
    numbers_closed: bool
    """Instance Numbers of the series run without holes (False where they are missing)."""

    @property
    def planes(self) -> int:
        """Number of planes, counting frames."""
        return sum(i.number_of_frames for i in self.instances)

    @property
    def original(self) -> bool:
        """Whether every image is an original acquisition (Image Type value 1, PS3.3 C.7.6.1.1.2)."""
        return all(i.image_type[:1] == ("ORIGINAL",) for i in self.instances)


def unit_axes(orientation: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Return row direction, column direction and normal as unit vectors.

    The column direction is made perpendicular to the row direction (written values are rounded).
    A degenerate orientation gives NaN directions; ``valid_orientation`` tells.
    """
    row = np.asarray(orientation[:3], dtype=np.float64)
    column = np.asarray(orientation[3:], dtype=np.float64)
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return row, column, np.cross(row, column)


def valid_orientation(orientation: Sequence[float] | None) -> bool:
    """Return whether six finite numbers name two directions that are unit and perpendicular within 1 %."""
    if orientation is None or len(orientation) != 6:
        return False
    row, column = orientation[:3], orientation[3:]
    lengths = abs(_dot(row, row) - 1) < 0.02 and abs(_dot(column, column) - 1) < 0.02
    return lengths and abs(_dot(row, column)) < 0.01  # a NaN compares as False


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return one[0] * other[0] + one[1] * other[1] + one[2] * other[2]


def plane_of(orientation: Sequence[float]) -> Plane:
    """Return the anatomical plane that the images lie closest to (LPS)."""
    names: tuple[Plane, Plane, Plane] = ("sagittal", "coronal", "axial")
    return names[int(np.argmax(np.abs(unit_axes(orientation)[2])))]


def cluster_orientations(orientations: Sequence[Sequence[float]]) -> list[list[int]]:
    """Group indices of (nearly) equal orientation, largest group first, then by first index."""
    exact: dict[tuple[float, ...], list[int]] = {}
    for index, orientation in enumerate(orientations):
        exact.setdefault(tuple(orientation), []).append(index)
    groups: list[tuple[Sequence[float], list[int]]] = []
    for orientation, indices in exact.items():
        for reference, members in groups:
            if max(abs(a - b) for a, b in zip(reference, orientation, strict=True)) <= ORIENTATION_TOLERANCE:
                members.extend(indices)
                break
        else:
            groups.append((orientation, indices))
    return sorted((members for _, members in groups), key=lambda m: (-len(m), m[0]))


def arrange(origins: Floats, orientation: Sequence[float], recency: Sequence[tuple[int, int, str]]) -> StackGeometry:
    """Order parallel planes along their normal and describe their sampling.

    *origins* is [plane, 3] in LPS mm; *recency* is (acquisition number, instance number, identity) per plane: of
    planes at one place the highest is kept, so the outcome does not depend on the order of arrival.
    """
    row, column, normal = unit_axes(orientation)
    along = origins @ normal
    heights: list[float] = along.tolist()
    newest: list[int] = []
    for index in sorted(range(len(heights)), key=lambda i: (heights[i], recency[i])):
        if newest and heights[index] - heights[newest[-1]] < DUPLICATE_MM:
            newest[-1] = max(newest[-1], index, key=lambda i: recency[i])
        else:
            newest.append(index)
    kept = np.asarray(newest, dtype=np.intp)
    positions = along[kept]
    flags = []
    if len(newest) < len(along):
        flags.append("duplicates_dropped")
    tilt = 0.0
    steps = np.diff(positions)
    if len(steps):
        in_plane = origins[kept] @ np.stack([row, column], axis=1)
        slope = np.median(np.diff(in_plane, axis=0) / steps[:, None], axis=0)
        tilt = float(np.degrees(np.arctan(np.hypot(*slope))))
        residual = in_plane - positions[:, None] * slope
        if np.abs(residual - np.median(residual, axis=0)).max() > ORIGIN_TOLERANCE_MM:
            flags.append("origins_irregular")
        if tilt > 0.1:
            flags.append("gantry_tilt")
        if steps.max() > IRREGULAR_RATIO * steps.min() + DUPLICATE_MM:
            flags.append("irregular_spacing")
        if steps.max() > HOLE_RATIO * float(np.median(steps)) + DUPLICATE_MM:
            flags.append("holes_bridged")
    return StackGeometry(tuple(newest), positions, tilt, tuple(flags))


def is_projection(image_type: Sequence[str]) -> bool:
    """Return whether Image Type names a localizer, a projection or a rendering instead of a section."""
    return _names_projection(tuple(image_type))


@lru_cache(maxsize=1024)
def _names_projection(image_type: tuple[str, ...]) -> bool:
    return bool(_PROJECTIONS & {value.strip().upper() for value in image_type})


def stacks(series: SeriesFacts) -> list[Stack]:
    """Split a series into stacks of parallel planes of one size, the one with most planes first.

    Localizers, projections and images without geometry are left out.
    """
    numbers_closed = _numbers_closed(series.instances)
    found: list[Stack] = []
    placed: dict[tuple[int | None, int | None, tuple[float, ...]], list[InstanceFacts]] = {}
    for instance in sorted(series.instances, key=lambda i: i.sop_instance_uid):
        if is_projection(instance.image_type):
            continue
        if instance.sop_class_uid in ENHANCED_CLASSES and instance.number_of_frames > 1:
            plane = None
            if instance.orientation is not None and valid_orientation(instance.orientation):
                plane = plane_of(instance.orientation)
            thickness = instance.slice_thickness
            found.append(Stack(series.series_instance_uid, (instance,), None, plane, thickness, numbers_closed=True))
        elif (
            instance.position is not None
            and instance.pixel_spacing is not None
            and instance.number_of_frames == 1
            and all(map(math.isfinite, instance.position))
            and valid_orientation(instance.orientation)
        ):
            spacing = tuple(round(value, 4) for value in instance.pixel_spacing)
            placed.setdefault((instance.rows, instance.columns, spacing), []).append(instance)
    for group in placed.values():
        orientations = [i.orientation for i in group if i.orientation is not None]
        found += [
            _stack(series.series_instance_uid, [group[m] for m in members], numbers_closed)
            for members in cluster_orientations(orientations)
        ]
    return sorted(found, key=lambda s: (-s.planes, s.instances[0].sop_instance_uid))


def _stack(series_uid: str, instances: list[InstanceFacts], numbers_closed: bool) -> Stack:
    orientation = instances[0].orientation
    assert orientation is not None
    geometry = arrange(
        np.asarray([i.position for i in instances], dtype=np.float64),
        orientation,
        [(i.acquisition_number or 0, i.instance_number or 0, i.sop_instance_uid) for i in instances],
    )
    thicknesses = [i.slice_thickness for i in instances if i.slice_thickness is not None]
    return Stack(
        series_uid,
        tuple(instances[k] for k in geometry.order),
        geometry,
        plane_of(orientation),
        float(np.median(thicknesses)) if thicknesses else None,
        numbers_closed,
    )


def _numbers_closed(instances: Sequence[InstanceFacts]) -> bool:
    numbers = {i.instance_number for i in instances if i.instance_number is not None}
    return bool(numbers) and len(numbers) == len(instances) and max(numbers) - min(numbers) + 1 == len(numbers)
