"""How often a series images each of its planes, from header facts: what tells a dynamic series from a stack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wetread.core.dicom.stacking import DUPLICATE_MM, ORIENTATION_TOLERANCE, Stack, unit_axes
from wetread.core.facts import SeriesFacts


@dataclass(frozen=True, slots=True)
class Repeats:
    """All images of a stack's planes. ``most``: images of the plane that was imaged most often."""

    sop_instance_uids: tuple[str, ...]
    planes: int
    most: int
    even: bool
    """Whether every plane was imaged equally often."""
    numbers_closed: bool


def repeats_of(series: SeriesFacts, stack: Stack) -> Repeats:
    """Gather every image of *series* that shows a plane of *stack*.

    An enhanced multi-frame object does not say before it is opened how its frames share planes and times; its number
    of frames bounds both.
    """
    geometry, first = stack.geometry, stack.instances[0]
    if geometry is None or first.orientation is None:
        uids = tuple(i.sop_instance_uid for i in stack.instances)
        return Repeats(uids, stack.planes, stack.planes, even=True, numbers_closed=True)
    reference = np.asarray(first.orientation)
    normal = unit_axes(first.orientation)[2]
    members, heights = [], []
    for instance in sorted(series.instances, key=lambda i: i.sop_instance_uid):
        if instance.position is None or instance.orientation is None or instance.number_of_frames != 1:
            continue
        same_grid = (instance.rows, instance.columns) == (first.rows, first.columns)
        if same_grid and np.abs(np.asarray(instance.orientation) - reference).max() <= ORIENTATION_TOLERANCE:
            members.append(instance.sop_instance_uid)
            heights.append(float(np.asarray(instance.position) @ normal))
    places = np.searchsorted(geometry.positions_mm, np.asarray(heights) - DUPLICATE_MM)
    counts = np.bincount(np.minimum(places, len(geometry.order) - 1), minlength=len(geometry.order))
    return Repeats(
        tuple(members),
        len(geometry.order),
        int(counts.max()),
        even=bool(counts.min() == counts.max()),
        numbers_closed=stack.numbers_closed,
    )
