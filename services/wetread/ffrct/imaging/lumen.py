"""Measures the lumen along traced branches: re-centring, contrast along the vessel, radius with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .centreline import Traced
from .curves import arc, even, smooth
from .image import Blood, CtImage, FloatArray, Mask
from .neighbours import Course, clearance
from .sections import LEAST_FREE, Measured, measure, sample

STEP_MM: Final = 0.25
FIRST_SMOOTHING_MM: Final = 1.2
SHIFT_SMOOTHING_MM: Final = 0.9
WINDOW_MM: Final = 1.25
LARGEST_BLUR_MM: Final = 0.5
ROUNDS: Final = 3
WIDE_MM: Final = 1.2
"""Radius from which the middle of a section shows the full contrast."""
STEEPEST_PER_MM: Final = 0.003
LEAST_RADIUS_MM: Final = 0.2
END_RADIUS_MM: Final = 0.45
NOISE_AREA_MM2: Final = 0.7
"""Area over which CT noise is one: turns the noise of a voxel into that of a disc."""
SYSTEMATIC_MM: Final = 0.05
CALCIUM_MM: Final = 0.3
INSIDE_PARENT: Final = 0.8
TIP_MM: Final = 3.0
BEFORE_TIP_MM: Final = 5.0
TIP_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class Lumen:
    """A measured branch: points (n, 3) LPS mm every 0.25 mm; radius, its sd, aspect ratio, calcium (n,).

    ``parent`` -1: starts at an ostium; ``at_mm`` is where it leaves its parent, along the parent.
    """

    parent: int
    at_mm: float
    points: FloatArray
    radius_mm: FloatArray
    radius_sd_mm: FloatArray
    aspect: FloatArray
    calcium: Mask
    hu: FloatArray
    ostium: int

    @property
    def s(self) -> FloatArray:
        """Arc length (n,)."""
        return arc(self.points)


def measure_branches(
    image: CtImage, working: CtImage, traced: Traced, blood: Blood, blur_mm: float
) -> tuple[Lumen, ...]:
    """Measure every branch on the scan itself; *working* is the grid that the branches were traced on.

    *blur_mm* is the sd of the scan's blur, as the aortic wall shows it.
    """
    lines: list[tuple[FloatArray, float]] = []
    rough: list[FloatArray] = []
    courses: list[Course] = []
    for branch in traced.branches:
        points = even(smooth(working.points_of(branch.points), FIRST_SMOOTHING_MM / float(working.step_mm[0])), STEP_MM)
        at = 0.0
        if branch.parent >= 0:
            points, at = _leave(points, lines[branch.parent][0], rough[branch.parent])
        points = _centred(image, points, blood.hu, fixed_start=branch.parent >= 0)
        lines.append((points, at))
        rough.append(measure(sample(image, points), np.full(len(points), blood.hu)).half_radius)
        courses.append(Course(points, rough[-1], branch.parent))
    courses = _apart(image, courses, blood.hu)
    lines = [(course.points, _origin(courses, course)) for course in courses]
    contrast = _contrast(image, traced, lines, [course.radius for course in courses], blood)
    lumens: list[Lumen] = []
    for number, branch in enumerate(traced.branches):
        points, at = lines[number]
        sections = sample(image, points)
        measured = measure(sections, contrast[number], clearance(courses, number, sections))
        lumens.append(_lumen(branch.parent, at, branch.ostium, points, measured, contrast[number], blood, blur_mm))
    return _ends(lumens)


def _apart(image: CtImage, courses: Sequence[Course], lumen_hu: float) -> list[Course]:
    """Centre every artery again where another one meets it, by the part of its wall that the other leaves."""
    out = list(courses)
    for number, course in enumerate(courses):
        points = course.points
        sections = sample(image, points)
        clear = clearance(out, number, sections)
        beside = np.isfinite(clear).any(axis=1)
        if not beside.any():
            continue
        start = points[0]
        if course.parent >= 0:
            host = out[course.parent].points
            start = host[int(cKDTree(host).query(points[0])[1])]
        for _ in range(ROUNDS):
            found = measure(sections, np.full(len(points), lumen_hu), clear)
            known = beside & (found.free >= LEAST_FREE)
            shift = np.where(known[:, None], np.clip(found.shift, -0.6, 0.6), 0.0)
            shift = ndimage.median_filter(shift, size=(5, 1), mode="nearest")
            points = points + smooth(shift, SHIFT_SMOOTHING_MM / STEP_MM, ends=False)
            sections = sample(image, points)
            clear = clearance([*out[:number], replace(course, points=points), *out[number + 1 :]], number, sections)
        if course.parent >= 0:
            points = np.concatenate([start[None], points[1:]])
        radius = measure(sections, np.full(len(points), lumen_hu), clear).half_radius
        out[number] = Course(points, radius, course.parent)
    return out


def _origin(courses: Sequence[Course], course: Course) -> float:
    """Where *course* leaves its parent, along the parent; 0 at an ostium."""
    if course.parent < 0:
        return 0.0
    host = courses[course.parent].points
    return float(arc(host)[int(cKDTree(host).query(course.points[0])[1])])


def _leave(points: FloatArray, parent: FloatArray, radius: FloatArray) -> tuple[FloatArray, float]:
    """Cut off what runs inside the parent's lumen; the branch then starts on the parent's centreline there."""
    distance, nearest = (np.atleast_1d(values) for values in cKDTree(parent).query(points))
    reach = np.maximum(INSIDE_PARENT * radius[nearest], 0.6)
    inside = distance < reach
    outside = np.flatnonzero(~inside)
    if len(outside) == 0:
        return points, float(arc(parent)[nearest[0]])
    # The last leave counts: voxel paths may wander along the wall first.
    first = int(np.flatnonzero(inside)[-1]) + 1 if inside.any() and inside[: len(points) // 2].any() else 0
    first = min(first, len(points) - 2)
    origin = int(nearest[max(first - 1, 0)])
    line = np.concatenate([parent[origin][None], points[first:]])
    return even(line, STEP_MM), float(arc(parent)[origin])


def _centred(image: CtImage, points: FloatArray, lumen_hu: float, *, fixed_start: bool) -> FloatArray:
    """Move the line to the middle of the lumen, a few times; a side branch keeps its first point."""
    for _ in range(ROUNDS):
        found = measure(sample(image, points, 3.6), np.full(len(points), lumen_hu))
        shift = np.clip(found.shift, -0.6, 0.6)
        if fixed_start:
            shift *= np.clip(arc(points) / 2.0, 0.0, 1.0)[:, None]
        shift = ndimage.median_filter(shift, size=(5, 1), mode="nearest")
        points = points + smooth(shift, SHIFT_SMOOTHING_MM / STEP_MM, ends=False)
        points = even(smooth(points, 0.8 / STEP_MM), STEP_MM)
    return points


def _contrast(
    image: CtImage, traced: Traced, lines: Sequence[tuple[FloatArray, float]], radii: Sequence[FloatArray], blood: Blood
) -> list[FloatArray]:
    """HU of a full lumen along every branch: falls linearly from the ostium, fitted where vessels are wide."""
    offset: list[float] = []
    for branch, (_, at) in zip(traced.branches, lines, strict=True):
        offset.append(0.0 if branch.parent < 0 else offset[branch.parent] + at)
    out: list[FloatArray] = []
    fits: dict[int, tuple[float, float]] = {}
    for ostium in {branch.ostium for branch in traced.branches}:
        distance, values = [], []
        for number, branch in enumerate(traced.branches):
            if branch.ostium != ostium:
                continue
            points = lines[number][0]
            hu = sample(image, points, 0.6).hu.mean(axis=(1, 2))
            wide = (radii[number] > WIDE_MM) & (hu < blood.hu + CALCIUM_LIMIT_HU)
            distance.append(offset[number] + arc(points)[wide])
            values.append(hu[wide])
        fits[ostium] = _line(np.concatenate(distance), np.concatenate(values), blood)
    for number, branch in enumerate(traced.branches):
        level, slope = fits[branch.ostium]
        out.append(level + slope * (offset[number] + arc(lines[number][0])))
    return out


CALCIUM_LIMIT_HU: Final = 120.0


def _line(distance: FloatArray, values: FloatArray, blood: Blood) -> tuple[float, float]:
    """Level at the ostium and slope per mm; the aorta's level when there is too little to fit."""
    if len(distance) < 80 or np.ptp(distance) < 15.0:
        return blood.hu, 0.0
    keep = np.ones(len(values), dtype=np.bool_)
    level, slope = blood.hu, 0.0
    for _ in range(3):
        slope, level = np.polyfit(distance[keep], values[keep], 1)
        slope = float(np.clip(slope, -STEEPEST_PER_MM * blood.hu, 0.0))
        level = float(np.median(values[keep] - slope * distance[keep]))
        residual = values - level - slope * distance
        spread = 1.48 * float(np.median(np.abs(residual[keep]))) + 1.0
        keep = np.abs(residual) < 2.5 * spread
    return float(np.clip(level, 0.85 * blood.hu, 1.1 * blood.hu)), slope


def _lumen(
    parent: int,
    at: float,
    ostium: int,
    points: FloatArray,
    found: Measured,
    contrast: FloatArray,
    blood: Blood,
    blur_mm: float,
) -> Lumen:
    raw = np.sqrt(ndimage.median_filter(found.area, size=3, mode="nearest") / np.pi)
    joined = _joined(arc(points), raw, found.free < LEAST_FREE)
    area = _unblurred(np.pi * raw**2, blur_mm)
    radius = np.maximum(np.sqrt(np.maximum(area, 0.0) / np.pi), LEAST_RADIUS_MM)
    noise = blood.sd * np.sqrt(np.pi * found.disc**2 * NOISE_AREA_MM2) / np.maximum(contrast - found.background, 50.0)
    # Smoothing along the vessel averages about two independent discs.
    noise_mm = noise / np.sqrt(2.0) / (2.0 * np.pi * radius)
    calcium = ndimage.binary_closing(found.calcium, iterations=2) | found.calcium
    sd = np.sqrt(np.minimum(noise_mm, 0.5 * radius) ** 2 + SYSTEMATIC_MM**2 + np.where(calcium, CALCIUM_MM**2, 0.0))
    aspect = np.where(joined, 1.0, found.aspect)
    aspect = smooth(ndimage.median_filter(aspect, size=9, mode="nearest"), 4.0, ends=False)
    return Lumen(parent, at, points, radius, sd, aspect, calcium, found.centre_hu, ostium)


def _unblurred(area: FloatArray, blur_mm: float) -> FloatArray:
    """Area by local quadratics along the vessel, less what blur along the vessel adds to second order.

    Averaging would fill short throats: a quadratic keeps their curvature, and blur of sd b adds b^2/2 of it.
    """
    from scipy.signal import savgol_filter  # brings scipy.stats: not into every process that knows this detector

    window = min(2 * round(WINDOW_MM / STEP_MM) + 1, len(area) - 1 + len(area) % 2)
    if window < 5:
        return area
    value = savgol_filter(area, window, 2, mode="nearest")
    bend = savgol_filter(area, window, 2, deriv=2, delta=STEP_MM, mode="nearest")
    sharp = value - 0.5 * min(blur_mm, LARGEST_BLUR_MM) ** 2 * bend
    return np.asarray(np.clip(sharp, 0.5 * value, 1.5 * value), dtype=np.float64)


def _joined(s: FloatArray, radius: FloatArray, open_wall: Mask) -> Mask:
    """Bridge *radius*, in place, where too little of the wall is an artery's own; an origin holds its first good value.

    Before anything is fitted along the vessel: what is no section of this artery must not reach those beside it.
    """
    gap = ndimage.binary_dilation(open_wall) if open_wall.any() else open_wall
    labels, count = ndimage.label(gap)
    for part in range(1, count + 1):
        _bridge(s, radius, labels == part)
    return np.asarray(gap)


def _ends(lumens: Sequence[Lumen]) -> tuple[Lumen, ...]:
    """Hold the first good value at an ostium, where the aorta opens, and cut off what tapers out at the far end."""
    out = list(lumens)
    for number, lumen in enumerate(lumens):
        radius, s = lumen.radius_mm.copy(), lumen.s
        if lumen.parent < 0:
            _bridge(s, radius, s < min(0.8 * float(np.median(radius[:24])) + 0.4, 0.3 * s[-1]))
        last = _tip(radius)
        keep = slice(0, last)
        out[number] = replace(
            lumen,
            points=lumen.points[keep],
            radius_mm=radius[keep],
            radius_sd_mm=lumen.radius_sd_mm[keep],
            aspect=lumen.aspect[keep],
            calcium=lumen.calcium[keep],
            hu=lumen.hu[keep],
        )
    return tuple(out)


def _tip(radius: FloatArray) -> int:
    """How many samples count: the far end is cut where the lumen is gone, and where blur rounds it off.

    A section through the rounded end holds too little contrast; read as a narrowing it would cost static pressure.
    """
    last = len(radius)
    tip, before = round(TIP_MM / STEP_MM), round(BEFORE_TIP_MM / STEP_MM)
    if last > tip + before:
        full = float(np.median(radius[last - tip - before : last - tip]))
        rounded = np.flatnonzero(radius[last - tip :] < TIP_SHARE * full)
        if len(rounded) and rounded[-1] == tip - 1:
            firm = np.flatnonzero(radius[last - tip :] >= TIP_SHARE * full)
            last += -tip + (int(firm[-1]) + 1 if len(firm) else 0)
    while last > 12 and radius[last - 1] < END_RADIUS_MM:
        last -= 1
    return last


def _bridge(s: FloatArray, radius: FloatArray, gap: Mask) -> None:
    """Replace *radius* on the gap: linear in area between medians of 1.5 mm on its two sides, in place."""
    at = np.flatnonzero(gap)
    if len(at) == 0 or gap.all():
        return
    low, high = at[0], at[-1]
    reach = round(1.5 / STEP_MM)
    before = radius[max(0, low - reach) : low]
    after = radius[high + 1 : high + 1 + reach]
    if len(before) == 0 or len(after) == 0:
        radius[low : high + 1] = float(np.median(after if len(before) == 0 else before))
        return
    ends = [float(np.median(before)) ** 2, float(np.median(after)) ** 2]
    radius[low : high + 1] = np.sqrt(np.interp(s[low : high + 1], [s[low], s[high]], ends))
