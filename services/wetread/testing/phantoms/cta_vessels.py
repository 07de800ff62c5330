"""The arteries and veins of a head CTA phantom: centrelines with radii about the circle of Willis, with variants.

Coordinates in mm: x to the patient's left, y to the back, z to the head, origin at the circle of Willis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from wetread.testing.phantoms.cta_parameters import CtaSpec, Side

Floats = NDArray[np.float64]
Knot = tuple[float, float, float]
SPACING_MM = 0.5
_REACH = 0.94
"""Share of the way to the skull that vessels stay within."""
_FADE_FROM_MM = 40.0


@dataclass(frozen=True, slots=True)
class Branch:
    """A vessel: [point, 3] centreline every half millimetre, radius and share of the lumen's enhancement there."""

    name: str
    points: Floats
    radius: Floats
    filling: Floats


@dataclass(frozen=True, slots=True)
class VesselTree:
    """All branches, and where the occlusion begins (None without one)."""

    branches: tuple[Branch, ...]
    stop: Floats | None


@dataclass(slots=True)
class _Course:
    """A vessel before it is filled. ``after_mm``: way of the blood from the neck to its first point."""

    name: str
    points: Floats
    radii: tuple[float, float]
    after_mm: float
    parent: str = ""


def build_vessels(spec: CtaSpec) -> VesselTree:
    """Build the tree of *spec*."""
    rng = np.random.default_rng([spec.seed, 92])
    branches: list[Branch] = []
    stop: Floats | None = None
    sides: tuple[Side, Side] = ("left", "right")
    for side in sides:
        size = float(np.exp(rng.normal(0.0, spec.asymmetry)))
        hit = spec.occlusion if side == spec.side else None
        for course in _paired(spec, rng, side):
            radius = np.linspace(*course.radii, len(course.points)) * size
            filling, begins = occluded_filling(spec, course.name, course.parent, hit, len(course.points))
            radius, filling = _spoiled(spec, side, course, radius, filling)
            if begins is not None:
                stop = course.points[begins]
            branches.append(Branch(f"{course.name}-{side}", course.points, radius, filling))
    return VesselTree((*branches, *_midline(rng, spec)), stop)


def occluded_filling(spec: CtaSpec, name: str, parent: str, hit: str | None, count: int) -> tuple[Floats, int | None]:
    """Return the enhancement along a branch and the index at which an occlusion begins in it.

    First the clot, then what collaterals bring: they fill from the far end, so the far end is brighter. An occluded
    M2 is the larger branch of the fork.
    """
    full = np.ones(count)
    behind = {"ICA": ("M1", "A1", "M2a", "M2b", "M2c"), "M1": ("M2a", "M2b", "M2c"), "M2": ()}
    if hit is None:
        return full, None
    if name == "A1" and hit == "ICA":
        return np.full(count, 0.7), None  # across the anterior communicating artery
    if hit == "ICA" and name == "M1":
        return np.linspace(0.0, 0.6, count) * spec.collateral, None
    if name in behind[hit]:
        return np.linspace(0.3, 0.8, count) * spec.collateral, None
    if parent in behind[hit] or (hit == "M2" and parent == "M2a"):
        return np.full(count, 0.9 * spec.collateral), None
    if name != {"ICA": "ICA", "M1": "M1", "M2": "M2a"}[hit]:
        return full, None
    share = {"ICA": 0.7 + 0.2 * spec.at, "M1": spec.at, "M2": 0.5 * spec.at}[hit]
    begins = int(share * count)
    full[begins:] = np.linspace(0.0, spec.collateral, count - begins)
    clot = (spec.clot_hu - 40.0) / max(spec.lumen_hu - 40.0, 1.0)
    full[begins : begins + int(spec.clot_mm / SPACING_MM)] = max(clot, 0.0)
    return full, begins


def _spoiled(spec: CtaSpec, side: Side, course: _Course, radius: Floats, filling: Floats) -> tuple[Floats, Floats]:
    """Apply stenosis, low output, hypoplasia and old infarct: what makes an open vessel look worse than it is."""
    along = np.arange(len(radius)) * SPACING_MM
    here = side == spec.other_side
    if course.name == "M1" and spec.stenosis > 0 and here:
        radius = radius * (1 - spec.stenosis * np.exp(-0.5 * ((along - spec.at * along[-1]) / 2.0) ** 2))
    if here and course.name not in {"P1", "PCom"}:
        filling = filling * spec.carotid_share
    if course.name == "A1" and spec.hypoplastic_a1 and here:
        radius = radius * 0.45
    if spec.old_infarct and here and "M2b" in {course.name, course.parent}:
        late = np.ones_like(along) if course.parent else np.clip(along / along[-1] * 2 - 0.8, 0.0, 1.0)
        radius, filling = radius * (1 - 0.35 * late), filling * (1 - 0.5 * late)
    way = np.maximum(course.after_mm + along - _FADE_FROM_MM, 0.0)
    return radius, filling * np.exp(-spec.fade * way / 100.0)


def _paired(spec: CtaSpec, rng: np.random.Generator, side: Side) -> list[_Course]:
    sign, scale = (1.0 if side == "left" else -1.0), spec.half_width_mm / 66.0

    def path(*knots: Knot, fixed: int = 1) -> Floats:
        points = np.array(knots) * np.array([sign * scale, scale, 1.0])
        moved = points + rng.normal(0, spec.wobble_mm, points.shape) * np.array([1.0, 1.0, 0.7])
        moved[:fixed] = points[:fixed]
        return within(spline(moved), spec)

    def end(points: Floats) -> Knot:
        x, y, z = (float(v) for v in points[-1] / np.array([sign * scale, scale, 1.0]))
        return x, y, z

    below = -spec.below_mm - 12.0
    carotid = path(
        (24, -5, below), (23, -5, -26), (21, -6, -18), (17, -14, -12), (13, -16, -6), (12, -8, -3), (12, -6, 0), fixed=2
    )
    neck = len(carotid) * SPACING_MM
    shorter = spec.early_fork_mm if side == spec.other_side else 0.0
    middle = path(end(carotid), (20, -8, 2), (28 - shorter, -9, 3), (35 - shorter, -7, 4))
    fork, fork_mm = end(middle), neck + len(middle) * SPACING_MM
    anterior = path(end(carotid), (8, -16, 2), (3, -22, 4))
    knee = end(anterior)
    out = [
        _Course("ICA", carotid, (2.4, 1.9), 0.0),
        _Course("M1", middle, (1.5, 1.25), neck),
        _Course("A1", anterior, (1.2, 1.0), neck),
        _Course(
            "A2",
            path(knee, (2.5, -36, 14), (2.5, -44, 32), (3, -30, 48), (4, -8, 56)),
            (1.1, 0.6),
            neck + 25.0,
        ),
    ]
    forks = [
        ("M2a", ((42, -4, 10), (47, 8, 20), (52, 22, 32), (54, 32, 42)), (1.15, 0.6)),
        ("M2b", ((42, -14, 12), (47, -22, 24), (50, -28, 38), (48, -30, 48)), (1.05, 0.55)),
    ]
    if spec.trifurcation:
        forks.append(("M2c", ((44, -8, 14), (51, -4, 28), (54, 0, 42), (52, 2, 54)), (0.95, 0.55)))
    for name, knots, radii in forks:
        way = path(fork, *[(float(x), float(y), float(z)) for x, y, z in knots])
        out.append(_Course(name, way, radii, fork_mm))
        out += _cortical(spec, rng, out[-1], sign)
    tip = (0.0, 10.0, 2.0)
    fetal = spec.fetal_pca and side == spec.other_side
    first = (0.5 if fetal else 1.1, 0.7)
    out.append(_Course("P1", path(tip, (8, 10, 3), (16, 18, 4), (22, 32, 8), (20, 50, 14)), first, neck))
    if fetal or spec.posterior_communicating:
        out.append(_Course("PCom", path((12, -4, -1), (12, 4, 1), (13, 14, 3)), (1.0 if fetal else 0.6, 0.9), neck))
    return out


def _cortical(spec: CtaSpec, rng: np.random.Generator, mother: _Course, sign: float) -> list[_Course]:
    """Two daughters of an M2 branch that run over the convexity."""
    out = []
    for share, lean in ((0.45, -1.0), (0.75, 1.0)):
        start = mother.points[int(share * len(mother.points))]
        heading = np.array([sign * 6.0, lean * 14.0, 10.0]) + rng.normal(0.0, 4.0, 3)
        knots = np.array([start, start + 0.6 * heading, start + heading + [0, lean * 6, 8], start + 2 * heading])
        after = mother.after_mm + share * len(mother.points) * SPACING_MM
        out.append(_Course(f"M3{'ab'[lean > 0]}", within(spline(knots), spec), (0.75, 0.45), after, mother.name))
    return out


def _midline(rng: np.random.Generator, spec: CtaSpec) -> list[Branch]:
    scale = spec.half_width_mm / 66.0
    low = -spec.below_mm - 12.0
    basilar = spline(np.array([(1.0, 4, low), (0.5, 8, -14), (-0.5, 9, -6), (0, 10, 2)]) * np.array([1, scale, 1]))
    out = [Branch("basilar", basilar, np.full(len(basilar), 1.7), np.ones(len(basilar)))]
    back, top = spec.half_length_mm - 5.0, spec.height_mm - 5.0
    sagittal = [(0, -0.5 * back, 0.75 * top), (0, 0, top), (0, 0.6 * back, 0.75 * top), (0, back, 0.1 * top)]
    straight = [(0.0, 26.0 * scale, 16.0), (0.0, 50.0 * scale, 14.0), (0.0, back, 0.1 * top)]
    for name, course, radius in (("sagittal", sagittal, 3.5), ("straight", straight, 2.0)):
        sinus = spline(np.array(course, dtype=np.float64))
        out.append(Branch(name, sinus, np.full(len(sinus), radius), np.full(len(sinus), spec.veins)))
    for sign in (1.0, -1.0):
        knots = np.array([(sign * 30, -18, 2), (sign * 46, -12, 14), (sign * 54, 4, 30), (sign * 50, 20, 55)])
        vein = within(spline(knots * scale + rng.normal(0, 3.0, knots.shape)), spec)
        share = spec.veins * rng.uniform(0.6, 1.0)
        out.append(Branch("sylvian", vein, np.full(len(vein), rng.uniform(0.8, 1.2)), np.full(len(vein), share)))
        deep = spline(np.array([(sign * 2.0, -4.0, 16.0), (sign * 2.0, 12.0, 18.0), (0.0, 26.0 * scale, 16.0)]))
        out.append(Branch("deep", deep, np.full(len(deep), 0.9), np.full(len(deep), spec.veins)))
        if spec.below_mm > 20:
            side = np.array([(0, back, 0.1 * top), (sign * 34, 0.8 * back, 0), (sign * 50, 0.35 * back, -8)])
            transverse = within(spline(side), spec)
            thick = rng.uniform(1.5, 3.2)
            out.append(
                Branch("transverse", transverse, np.full(len(transverse), thick), np.full(len(transverse), spec.veins))
            )
    return out


def skull_radius(points: Floats, spec: CtaSpec) -> Floats:
    """Return where points [..., 3] lie between the middle of the head (0) and the inner table (1)."""
    rise = np.maximum(points[..., 2] - 10.0, 0.0) / (spec.height_mm - 10.0)
    low = np.maximum(-points[..., 2] - 6.0, 0.0) / 90.0
    square = (points[..., 0] / spec.half_width_mm) ** 2 + (points[..., 1] / spec.half_length_mm) ** 2
    return np.asarray(np.sqrt(square + rise**2 + low**2), dtype=np.float64)


def within(points: Floats, spec: CtaSpec) -> Floats:
    """Pull points that lie too near to the skull, or beyond it, back towards the axis of the head."""
    ratio = np.minimum(_REACH / np.maximum(skull_radius(points, spec), 1e-6), 1.0)
    out = points.copy()
    out[:, :2] *= ratio[:, None]
    high = out[:, 2] > 10.0
    out[high, 2] = 10.0 + (out[high, 2] - 10.0) * ratio[high]
    return out


def spline(knots: Floats) -> Floats:
    """Return a smooth path through *knots*, every half millimetre."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    curve = CubicSpline(along, knots, axis=0)
    return np.asarray(curve(np.arange(0.0, along[-1], SPACING_MM)), dtype=np.float64)
