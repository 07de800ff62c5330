"""Shift set s5 of the head CTA phantoms: another generator, with neither head, vessels nor noise of the first.

The head is the second head-CT generator's (``variant``: superquadric skull, warped gyri, falx and sinuses). Vessels
are walks with momentum towards targets, radii by Murray's law; noise is a sum of octaves with rays.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from wetread.testing.phantoms.cta_parameters import CtaSpec, Side
from wetread.testing.phantoms.cta_stamp import Grid
from wetread.testing.phantoms.cta_vessels import SPACING_MM, Branch, VesselTree
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.spec import HeadSpec
from wetread.testing.phantoms.variant import render_variant

RAISED_MM: Final = 18.0
"""The variant's head has its origin this far above the circle of Willis."""
HEAD_MM: Final = (60.0, 76.0, 66.0)
"""The smallest skull that the variant draws: half width, half length, height. Vessels fit into it."""
_STREAM: Final = 20_812
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


def tissue(spec: CtaSpec, grid: Grid, to_head: Floats) -> Singles:
    """Render skull and brain without vessels, HU [plane, row, column]."""
    x, y, z = grid.head_axes(to_head)
    draw = Draw(np.random.default_rng([_STREAM, spec.seed]), "s5")
    return np.asarray(render_variant(draw, HeadSpec(split="s5", bleeds=()), (x, y, z - RAISED_MM)).hu, np.float32)


def noise(spec: CtaSpec, hu: Singles) -> Singles:
    """Noise in octaves, stronger along dense rays, of the wanted standard deviation over the image."""
    rng = np.random.default_rng([_STREAM, spec.seed, 1])
    out = np.zeros(hu.shape, dtype=np.float32)
    for octave, weight in ((1, 1.0), (2, 0.8), (4, 0.4)):
        small = rng.standard_normal([hu.shape[0], *(n // octave + 2 for n in hu.shape[1:])], dtype=np.float32)
        large = small.repeat(octave, axis=1).repeat(octave, axis=2) if octave > 1 else small
        out += np.float32(weight) * large[:, : hu.shape[1], : hu.shape[2]]
    out = ndimage.uniform_filter(out, (0, 2, 2))
    dense = np.clip(hu, -1000, 1500) / 1000 + 1
    load = dense.sum(axis=1, keepdims=True) + dense.sum(axis=2, keepdims=True)
    out *= np.exp((load - load.mean()) / (load.std() + 1e-3) * 0.2)
    return np.asarray(out * np.float32(spec.noise_hu / max(float(out.std()), 1e-9)), dtype=np.float32)


def build_vessels(spec: CtaSpec) -> VesselTree:
    """Build arteries and veins with the variants and confounders of *spec*."""
    rng = np.random.default_rng([_STREAM, spec.seed, 2])
    branches: list[Branch] = []
    stop: Floats | None = None
    sides: tuple[Side, Side] = ("left", "right")
    for side in sides:
        made, found = _carotid_side(spec, rng, side)
        branches += made
        stop = stop if found is None else found
    basilar = _walk(rng, (0.5, 6.0, -spec.below_mm - 10.0), [(0.0, 9.0, -6.0), (0.0, 11.0, 3.0)])
    branches.append(Branch("basilar", basilar, np.full(len(basilar), 1.6), np.ones(len(basilar))))
    for sign in (1.0, -1.0):
        back = _walk(rng, (0.0, 11.0, 3.0), [(sign * 15.0, 18.0, 5.0), (sign * 21.0, 40.0, 10.0)])
        branches.append(Branch("PCA", back, np.linspace(1.0, 0.6, len(back)), np.ones(len(back))))
        vein = _walk(rng, (sign * 32.0, -12.0, 4.0), [(sign * 43.0, 2.0, 20.0), (sign * 40.0, 20.0, 42.0)])
        share = spec.veins * rng.uniform(0.5, 1.0)
        branches.append(Branch("vein", vein, np.full(len(vein), rng.uniform(0.7, 1.3)), np.full(len(vein), share)))
    length = HEAD_MM[1] - 6.0
    sinus = _walk(rng, (0.0, 0.0, 74.0), [(0.0, 0.6 * length, 56.0), (0.0, length, 16.0)])
    branches.append(Branch("sinus", sinus, np.full(len(sinus), 3.0), np.full(len(sinus), spec.veins)))
    return VesselTree(tuple(branches), stop)


def _carotid_side(spec: CtaSpec, rng: np.random.Generator, side: Side) -> tuple[list[Branch], Floats | None]:
    """Return the branches of one carotid from the neck on, and where an occlusion begins in them."""
    sign, here = (1.0 if side == "left" else -1.0), side == spec.other_side
    hit = spec.occlusion if side == spec.side else None
    size = float(np.exp(rng.normal(0.0, spec.asymmetry)))
    level = spec.carotid_share if here else 1.0
    bend = rng.normal(0.0, 1.5, 3)
    fork_x = 32.0 - (spec.early_fork_mm if here else 0.0) + rng.normal(0, 1.5)
    ends = _walk(
        rng,
        (sign * 21.0, -6.0, -spec.below_mm - 10.0),
        [(sign * 19.0, -8.0, -20.0), (sign * (14.0 + bend[0]), -15.0 + bend[1], -9.0), (sign * 11.0, -7.0, 1.0)],
    )
    trunk = _walk(rng, ends[-1], [(sign * 21.0, -9.0 + bend[2], 3.0), (sign * fork_x, -8.0, 4.0)])
    front = _walk(rng, ends[-1], [(sign * 3.0, -20.0, 4.0), (sign * 2.0, -42.0, 30.0), (sign * 3.0, -14.0, 54.0)])
    m1 = 1.4 * size
    upper = m1 * float(rng.uniform(0.75, 0.88))
    lower = float(np.cbrt(m1**3 - upper**3))
    courses = [("ICA", ends, 2.1 * size, 1.8 * size), ("M1", trunk, m1, 0.9 * m1)]
    a1 = (0.5 if spec.hypoplastic_a1 and here else 1.1) * size
    for name, radius, aim in (("M2a", upper, (47.0, 12.0, 22.0)), ("M2b", lower, (45.0, -18.0, 24.0))):
        turn = rng.normal(0, 3.0, 3)
        target = tuple(np.array([sign * aim[0], aim[1], aim[2]]) + turn)
        way = _walk(rng, trunk[-1], [target])
        courses.append((name, way, radius, 0.7 * radius))
        for lean in (-14.0, 16.0):
            cortex = (sign * 44.0, target[1] + lean, target[2] + rng.uniform(10, 20))
            small = radius * 0.62
            courses.append((f"{name}x", _walk(rng, way[-1], [cortex]), small, 0.6 * small))
    out, stop = [Branch(f"A1-{side}", front, np.linspace(a1, 0.6 * a1, len(front)), np.full(len(front), level))], None
    dark = False
    for name, points, first, last in courses:
        filling: Floats
        filling, along = np.full(len(points), level), np.arange(len(points)) * SPACING_MM
        taper: Floats = np.linspace(first, last, len(points))
        if name == "M1" and spec.stenosis > 0 and here:
            narrowed = spec.stenosis * np.exp(-(((along - spec.at * along[-1]) / 2.5) ** 2))
            taper = np.asarray(taper * (1 - narrowed), dtype=np.float64)
        struck = (hit == "M2" and name == "M2a") or (hit == name and name in {"ICA", "M1"})
        if struck:
            share = {"ICA": 0.82, "M1": spec.at, "M2a": 0.4 * spec.at}[name]
            begins = int(share * len(points))
            beyond = along - along[begins] - spec.clot_mm
            filling[begins:] = np.where(beyond < 0, 0.05, spec.collateral * (1 - np.exp(-beyond / 12.0)))[begins:]
            stop, dark = points[begins], True
        elif dark and (hit != "M2" or name == "M2ax"):
            filling[:] = 0.8 * spec.collateral
        passed = {"ICA": 0.0, "M1": 50.0}.get(name, 80.0) + along
        faded = np.asarray(filling * np.exp(-spec.fade * passed / 120.0), dtype=np.float64)
        out.append(Branch(f"{name}-{side}", points, taper, faded))
    return out, stop


def _walk(rng: np.random.Generator, start: object, targets: list[tuple[float, ...]]) -> Floats:
    """Walk from *start* through *targets* with momentum and a trembling hand, half a millimetre a step."""
    at = np.asarray(start, dtype=np.float64).copy()
    points = [at.copy()]
    heading = np.asarray(targets[0]) - at
    heading /= np.linalg.norm(heading)
    for target in targets:
        goal = np.asarray(target, dtype=np.float64)
        for _ in range(int(3 * np.linalg.norm(goal - at) / SPACING_MM) + 1):
            wish = goal - at
            far = float(np.linalg.norm(wish))
            if far < 1.5:
                break
            heading = 0.88 * heading + 0.12 * wish / far + rng.normal(0.0, 0.06, 3)
            if far < 6.0:
                heading = wish / far
            heading /= np.linalg.norm(heading)
            at = at + SPACING_MM * heading
            points.append(at.copy())
    return np.asarray(points)
