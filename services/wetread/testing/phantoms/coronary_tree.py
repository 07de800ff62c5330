"""Coronary arteries of a phantom: courses on an ellipsoid heart, radii after junctions, lesions; all analytic.

Patient coordinates in mm: x to the left, y to the back, z up (LPS), the heart's centre at the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from wetread.testing.phantoms.coronary_parameters import CoronarySpec, Profile

FloatArray = npt.NDArray[np.float64]
STEP_MM: Final = 0.25
AXIS: Final = np.array([0.5514, -0.4511, -0.7018])
"""Unit vector from the base of the heart to its apex."""
SEMI_AXES: Final = (40.0, 55.0)
"""Of the epicardial ellipsoid: across and along the axis, mm."""
ABOVE_MM: Final = 2.8
"""Height of the arteries over the myocardium."""
VALVE_PLANE: Final = -25.0
"""Position of the atrioventricular plane along the axis."""
AORTA: Final = np.array([-15.0, 4.0])
AORTA_RADIUS: Final = 14.0
_ANTERIOR: Final = np.array([0.0, -1.0, 0.0])


def frame() -> tuple[FloatArray, FloatArray]:
    """Unit vectors across the axis: along the anterior groove, and to the left."""
    front = _ANTERIOR - AXIS * float(AXIS @ _ANTERIOR)
    front /= np.linalg.norm(front)
    return front, -np.cross(AXIS, front)


@dataclass(frozen=True, slots=True)
class TrueLesion:
    """One lesion as it was put there; positions along the vessel in mm."""

    vessel: str
    profile: Profile
    centre_mm: float
    length_mm: float
    stenosis: float
    calcified: bool


@dataclass(frozen=True, slots=True)
class TrueVessel:
    """One artery: centreline (n, 3), lumen and healthy radius (n,), mm; ``start_mm`` its place on the parent."""

    id: str
    parent: str | None
    label: str
    points: FloatArray
    radius: FloatArray
    healthy: FloatArray
    offset: FloatArray
    """Unit vector (3,) towards the wall that plaque leaves free: eccentric lumens shift along it."""

    @property
    def s(self) -> FloatArray:
        """Arc length (n,)."""
        steps = np.linalg.norm(np.diff(self.points, axis=0), axis=1)
        return np.concatenate([[0.0], np.cumsum(steps)])


@dataclass(frozen=True, slots=True)
class TrueTree:
    """All arteries and their lesions."""

    vessels: tuple[TrueVessel, ...]
    lesions: tuple[TrueLesion, ...]


@dataclass(frozen=True, slots=True)
class _Course:
    """A vessel before radii: control directions on the heart, (azimuth, polar angle from the apex) in degrees."""

    id: str
    parent: str | None
    label: str
    points: FloatArray
    at: float = 1.0
    """Where it leaves its parent, as a fraction of the parent's length."""


def build_tree(spec: CoronarySpec) -> TrueTree:
    """Grow the arteries of *spec*; deterministic."""
    rng = np.random.default_rng([spec.seed, 62])
    courses = _tiny(rng) if spec.size == "tiny" else _courses(spec, rng)
    radii = _radii(spec, courses, rng)
    return _with_lesions(spec, courses, radii, np.random.default_rng([spec.seed, 63]))


def _tiny(rng: np.random.Generator) -> list[_Course]:
    """One vessel through a small block of tissue."""
    t = np.linspace(-1.0, 1.0, 9)
    bend = rng.uniform(1.0, 3.0)
    points = np.stack([17.0 * t, bend * np.cos(2.0 * t), bend * np.sin(2.0 * t)], axis=1)
    return [_Course("rca", None, "RCA", _resampled(points))]


def _surface(azimuth: float, polar: float, above: float) -> FloatArray:
    """Point *above* mm over the epicardium at (azimuth from the anterior groove to the left, polar from apex)."""
    front, left = frame()
    a, p = np.radians(azimuth), np.radians(polar)
    across = SEMI_AXES[0] * np.sin(p)
    base = np.cos(p) * SEMI_AXES[1] * AXIS + across * (np.cos(a) * front + np.sin(a) * left)
    normal = np.cos(p) / SEMI_AXES[1] * AXIS + np.sin(p) / SEMI_AXES[0] * (np.cos(a) * front + np.sin(a) * left)
    return np.asarray(base + above * normal / np.linalg.norm(normal), dtype=np.float64)


def _path(
    spec: CoronarySpec, rng: np.random.Generator, start: FloatArray | None, *stations: tuple[float, float]
) -> FloatArray:
    """Smooth course over the stations (azimuth, polar), with bends in proportion to the tortuosity."""
    points = [] if start is None else [start]
    for index, (azimuth, polar) in enumerate(stations):
        last = index == len(stations) - 1
        wander = 0.0 if last else spec.tortuosity * 5.0
        points.append(
            _surface(azimuth + rng.uniform(-wander, wander), polar + rng.uniform(-wander, wander) * 0.7, ABOVE_MM)
        )
    return _resampled(np.array(points))


def _resampled(points: FloatArray) -> FloatArray:
    """Chord-length cubic spline through the points, at steps of 0.25 mm."""
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    spline = CubicSpline(chord, points)
    fine = spline(np.linspace(0.0, chord[-1], 2000))
    s = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    even = np.linspace(0.0, s[-1], round(s[-1] / STEP_MM) + 1)
    return np.stack([np.interp(even, s, fine[:, axis]) for axis in range(3)], axis=1)


def _wall(angle: float, z: float) -> FloatArray:
    """Point on the aortic wall at an angle from the left towards the front (degrees) and a height."""
    a = np.radians(angle)
    return np.array([AORTA[0] + AORTA_RADIUS * np.cos(a), AORTA[1] - AORTA_RADIUS * np.sin(a), z])


def _courses(spec: CoronarySpec, rng: np.random.Generator) -> list[_Course]:
    fork = _surface(50.0, 117.0, ABOVE_MM)
    left = _wall(float(rng.uniform(25.0, 40.0)), 37.0 + float(rng.uniform(-2.0, 2.0)))
    middle = 0.5 * (left + fork) + np.array([0.0, -1.0, 1.0])
    main = _resampled(np.array([left, middle, fork]))
    lad = _path(spec, rng, fork, (38.0, 106.0), (24.0, 90.0), (14.0, 72.0), (8.0, 54.0), (4.0, 36.0), (0.0, 24.0))
    lcx = _path(spec, rng, fork, (64.0, 114.0), (86.0, 112.0), (110.0, 112.0), (134.0, 111.0), (156.0, 108.0))
    right = _wall(float(rng.uniform(125.0, 145.0)), 31.0 + float(rng.uniform(-2.0, 2.0)))
    rca = _path(
        spec,
        rng,
        right,
        (-36.0, 112.0),
        (-56.0, 112.0),
        (-82.0, 112.0),
        (-110.0, 112.0),
        (-138.0, 111.0),
        (-164.0, 109.0),
    )
    courses = [
        _Course("lm", None, "LM", main),
        _Course("lad", "lm", "LAD", lad),
        _Course("lcx", "lm", "LCx", lcx),
        _Course("rca", None, "RCA", rca),
    ]
    by_id = {course.id: course for course in courses}
    sides = [
        ("d1", "lad", "D1", 0.28, ((46.0, 78.0), (52.0, 62.0), (56.0, 48.0))),
        ("om1", "lcx", "OM1", 0.4, ((96.0, 92.0), (96.0, 74.0), (95.0, 58.0))),
        ("rv", "rca", "RV", 0.52, ((-66.0, 88.0), (-60.0, 70.0), (-54.0, 54.0))),
        ("d2", "lad", "D2", 0.55, ((34.0, 52.0), (44.0, 42.0), (52.0, 34.0))),
    ]
    for name, parent, label, at, stations in sides[: spec.side_branches]:
        trunk = by_id[parent].points
        index = round((at + float(rng.uniform(-0.04, 0.04))) * (len(trunk) - 1))
        points = _path(spec, rng, trunk[index], *stations)
        courses.append(_Course(name, parent, label, points, at=index / (len(trunk) - 1)))
    return courses


def _radii(spec: CoronarySpec, courses: list[_Course], rng: np.random.Generator) -> dict[str, FloatArray]:
    """Healthy radius along every vessel: linear taper, and Murray-type steps over 3 mm where a daughter leaves."""
    x = spec.junction_exponent
    healthy: dict[str, FloatArray] = {}
    starts: dict[str, float] = {}
    for course in courses:
        count = len(course.points)
        s = np.arange(count) * STEP_MM
        if course.parent is None:
            start = 0.5 * (spec.ostium_mm[1] if course.id == "rca" else spec.ostium_mm[0])
        else:
            start = starts[course.id]
        radius = start * (1.0 - spec.taper * s / s[-1])
        daughters = sorted((c for c in courses if c.parent == course.id), key=lambda c: c.at)
        through = [c for c in daughters if c.at < 1.0]
        for daughter in through:
            at = daughter.at * s[-1]
            before = float(np.interp(at, s, radius))
            ratio = float(rng.uniform(0.55, 0.85))
            after = before / (1.0 + ratio**x) ** (1.0 / x)
            starts[daughter.id] = ratio * after
            fade = np.clip((s - at) / 3.0, 0.0, 1.0)
            radius = radius * (1.0 - fade * (1.0 - after / before))
        ends = [c for c in daughters if c.at >= 1.0]
        if ends:
            ratio = float(rng.uniform(0.8, 1.0))
            large = float(radius[-1]) / (1.0 + ratio**x) ** (1.0 / x)
            starts[ends[0].id], starts[ends[1].id] = large, ratio * large
        healthy[course.id] = radius
    return healthy


def _with_lesions(
    spec: CoronarySpec, courses: list[_Course], healthy: dict[str, FloatArray], rng: np.random.Generator
) -> TrueTree:
    hosts = [c for c in courses if c.id in ("lad", "lcx", "rca", "d1", "om1")]
    order = [hosts[i] for i in rng.permutation(min(3, len(hosts)))] + [hosts[i] for i in range(3, len(hosts))]
    factor = {c.id: np.ones(len(c.points)) for c in courses}
    shift = {c.id: np.zeros(len(c.points)) for c in courses}
    lesions: list[TrueLesion] = []
    for number in range(spec.stenoses):
        host = order[number % len(order)]
        length = (len(host.points) - 1) * STEP_MM
        profile = spec.profiles[int(rng.integers(len(spec.profiles)))]
        stenosis = float(rng.uniform(*spec.severity))
        extent = float(rng.uniform(5.0, 18.0))
        place = float(rng.uniform(0.18, 0.62)) * length
        extent = min(extent, 0.45 * length)
        s: FloatArray = np.arange(len(host.points), dtype=np.float64) * STEP_MM
        own = _profile(s, profile, place, extent, stenosis)
        factor[host.id] = np.minimum(factor[host.id], own)
        if profile == "eccentric":
            shift[host.id] = np.maximum(shift[host.id], 0.8 * (1.0 - own) * healthy[host.id])
        lesions.append(TrueLesion(host.id, profile, place, extent, stenosis, spec.calcium))
    vessels = []
    for course in courses:
        direction = _across(course.points, rng)
        points = course.points + shift[course.id][:, None] * direction
        own = healthy[course.id]
        vessels.append(
            TrueVessel(course.id, course.parent, course.label, points, own * factor[course.id], own, direction)
        )
    return TrueTree(tuple(vessels), tuple(lesions))


def _across(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A random unit vector across the vessel's general direction."""
    along = points[-1] - points[0]
    along /= np.linalg.norm(along)
    side = rng.normal(size=3)
    side -= along * float(side @ along)
    return np.asarray(side / np.linalg.norm(side), dtype=np.float64)


def _profile(s: FloatArray, profile: Profile, centre: float, length: float, stenosis: float) -> FloatArray:
    """Lumen over healthy radius along ``s``."""
    z = np.clip((s - centre) / (0.5 * length), -1.0, 1.0)
    bell = 0.5 * (1.0 + np.cos(np.pi * z))
    if profile == "blunt":
        edge = np.clip((1.0 - np.abs(z)) / 0.45, 0.0, 1.0)
        bell = edge * edge * (3.0 - 2.0 * edge)
    elif profile == "serial":
        first = np.clip((s - (centre - 0.3 * length)) / (0.2 * length), -1.0, 1.0)
        second = np.clip((s - (centre + 0.3 * length)) / (0.2 * length), -1.0, 1.0)
        bell = 0.5 * (1.0 + np.cos(np.pi * first)) + 0.8 * 0.5 * (1.0 + np.cos(np.pi * second))
    elif profile == "diffuse":
        edge = np.clip((1.0 - np.abs(z)) / 0.3, 0.0, 1.0)
        bell = edge * (0.75 + 0.25 * np.cos(np.pi * z) ** 2)
    return np.asarray(1.0 - stenosis * bell, dtype=np.float64)
