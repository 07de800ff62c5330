"""The arteries and veins of a head CTA phantom: centrelines with radii about the circle of Willis, with variants.

Coordinates in mm: x to the patient's left, y to the back, z to the head, origin at the circle of Willis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from wetread.testing.phantoms.cta_parameters import CtaSpec

Floats = NDArray[np.float64]
SPACING_MM = 0.5


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


def build_vessels(spec: CtaSpec) -> VesselTree:
    """Build the tree of *spec*."""
    rng = np.random.default_rng([spec.seed, 92])
    scale = spec.half_width_mm / 66.0
    branches: list[Branch] = []
    stop: Floats | None = None
    for side, sign in (("left", 1.0), ("right", -1.0)):
        size = float(np.exp(rng.normal(0.0, spec.asymmetry)))
        hit = spec.occlusion if side == spec.side else None
        paths = _paired(spec, rng, sign, scale)
        a1_share = 0.45 if spec.hypoplastic_a1 and side == spec.side else 1.0
        for name, points, radii in paths:
            radius = np.linspace(*radii, len(points)) * size * (a1_share if name == "A1" else 1.0)
            if name == "M1" and spec.stenosis > 0 and side == spec.side:
                along = np.arange(len(points)) * SPACING_MM
                middle = spec.at * along[-1]
                radius = radius * (1 - spec.stenosis * np.exp(-0.5 * ((along - middle) / 2.0) ** 2))
            filling, begins = _filling(spec, name, hit, len(points))
            if begins is not None:
                stop = points[begins]
            branches.append(Branch(f"{name}-{side}", points, radius, filling))
    branches += _midline(rng, spec, scale)
    return VesselTree(tuple(branches), stop)


def _filling(spec: CtaSpec, name: str, hit: str | None, count: int) -> tuple[Floats, int | None]:
    """Return the enhancement along a branch and the index at which an occlusion begins in it.

    A segment of clot without enhancement of 8 to 15 mm, then what collaterals bring. M2: the larger branch only.
    """
    full = np.ones(count)
    if hit is None:
        return full, None
    begins = int(spec.at * count)
    behind = {"ICA": ("M1", "A1", "M2a", "M2b", "M2c"), "M1": ("M2a", "M2b", "M2c"), "M2": ()}[hit]
    if name in behind:
        share = np.linspace(0.3, 1.0, count) * spec.collateral if name != "A1" else np.full(count, 0.7)
        if hit == "ICA" and name == "M1":
            share = np.linspace(0.0, 0.6, count) * spec.collateral
        return share, None
    wanted = {"ICA": "ICA", "M1": "M1", "M2": "M2a"}[hit]
    if name != wanted:
        return full, None
    if hit == "ICA":
        begins = int((0.55 + 0.3 * spec.at) * count)
    if hit == "M2":
        begins = int(0.5 * spec.at * count)
    filling = full.copy()
    filling[begins:] = np.linspace(0.0, spec.collateral, count - begins)
    filling[begins : begins + int(10 / SPACING_MM)] = 0.0
    return filling, begins


def _paired(
    spec: CtaSpec, rng: np.random.Generator, sign: float, scale: float
) -> list[tuple[str, Floats, tuple[float, float]]]:
    def path(*knots: tuple[float, float, float], fixed: int = 1) -> Floats:
        points = np.array(knots) * np.array([sign * scale, scale, 1.0])
        moved = points + rng.normal(0, spec.wobble_mm, points.shape) * np.array([1.0, 1.0, 0.7])
        moved[:fixed] = points[:fixed]
        return _spline(moved)

    carotid = path((20, 2, -24), (21, -4, -18), (17, -14, -12), (13, -16, -6), (12, -8, -3), (12, -6, 0), fixed=2)
    terminus = carotid[-1] / np.array([sign * scale, scale, 1.0])
    start = (float(terminus[0]), float(terminus[1]), float(terminus[2]))
    middle = path(start, (20, -8, 2), (28, -9, 3), (35, -7, 4))
    fork = middle[-1] / np.array([sign * scale, scale, 1.0])
    fork_at = (float(fork[0]), float(fork[1]), float(fork[2]))
    anterior = path(start, (8, -16, 2), (3, -22, 4))
    a1_end = anterior[-1] / np.array([sign * scale, scale, 1.0])
    knee = (float(a1_end[0]), float(a1_end[1]), float(a1_end[2]))
    out = [
        ("ICA", carotid, (2.3, 1.9)),
        ("M1", middle, (1.5, 1.25)),
        ("A1", anterior, (1.2, 1.0)),
        ("A2", path(knee, (2.5, -36, 14), (2.5, -44, 32), (3, -30, 48), (4, -8, 56)), (1.1, 0.6)),
        ("M2a", path(fork_at, (42, -4, 10), (47, 8, 20), (52, 22, 32), (56, 34, 44)), (1.15, 0.6)),
        ("M2b", path(fork_at, (42, -14, 12), (47, -22, 24), (50, -28, 38), (50, -30, 50)), (1.05, 0.55)),
    ]
    if spec.trifurcation:
        out.append(("M2c", path(fork_at, (44, -8, 14), (51, -4, 28), (55, 0, 42), (54, 2, 54)), (0.95, 0.55)))
    tip = (0.0, 10.0, 2.0)
    radius = 0.7 if spec.fetal_pca else 1.1
    out.append(("P1", path(tip, (8, 10, 3), (16, 18, 4), (22, 32, 8), (20, 50, 14)), (radius, 0.7)))
    if spec.fetal_pca or rng.random() < 0.5:
        out.append(("PCom", path((12, -4, -1), (12, 4, 1), (13, 14, 3)), (1.0 if spec.fetal_pca else 0.6, 0.9)))
    return out


def _midline(rng: np.random.Generator, spec: CtaSpec, scale: float) -> list[Branch]:
    basilar = _spline(np.array([(1.0, 6, -24), (0.5, 8, -14), (-0.5, 9, -6), (0, 10, 2)]) * np.array([1, scale, 1]))
    out = [Branch("basilar", basilar, np.full(len(basilar), 1.7), np.ones(len(basilar)))]
    back, top = spec.half_length_mm - 5.0, spec.height_mm - 5.0
    sinus = _spline(
        np.array([(0, -0.5 * back, 0.75 * top), (0, 0, top), (0, 0.6 * back, 0.75 * top), (0, back, 0.1 * top)])
    )
    out.append(Branch("sinus", sinus, np.full(len(sinus), 3.5), np.full(len(sinus), spec.veins)))
    for sign in (1.0, -1.0):
        knots = np.array([(sign * 30, -18, 2), (sign * 46, -12, 14), (sign * 54, 4, 30), (sign * 50, 20, 55)])
        vein = _spline(knots * scale + rng.normal(0, 3.0, knots.shape))
        share = spec.veins * rng.uniform(0.6, 1.0)
        out.append(Branch("sylvian", vein, np.full(len(vein), rng.uniform(0.8, 1.2)), np.full(len(vein), share)))
    return out


def _spline(knots: Floats) -> Floats:
    """Return a smooth path through *knots*, every half millimetre."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    curve = CubicSpline(along, knots, axis=0)
    return np.asarray(curve(np.arange(0.0, along[-1], SPACING_MM)), dtype=np.float64)
