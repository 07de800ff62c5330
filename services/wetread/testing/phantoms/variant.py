"""Shift set S5: a second head generator that shares neither shape model nor tissue code.

The skull is a superquadric, gyri are domain-warped stripes, ventricles are bent metaballs, bleeds
are level sets of summed blobs. It is cruder than `brain.py` and different on purpose: a detector
that only learned the habits of the first generator fails here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from wetread.testing.phantoms.bleeds import Plan
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.shape import Point
from wetread.testing.phantoms.spec import BleedType, FloatArray, HeadSpec

if TYPE_CHECKING:
    from wetread.testing.phantoms.head import Anatomy


def _blob(point: Point, centre: FloatArray, radius: float) -> FloatArray:
    square = sum((p - np.float32(c)) ** 2 for p, c in zip(point, centre, strict=True))
    out: FloatArray = np.exp(-np.asarray(square, dtype=np.float32) / np.float32(radius**2))
    return out


def _lattice(rng: np.random.Generator, shape: tuple[int, ...], cell: int) -> FloatArray:
    """Smooth noise on the render grid itself (not in head space): cubic-zoomed random cells."""
    small = rng.standard_normal([max(4, s // cell + 2) for s in shape]).astype(np.float32)
    factors = [s / n for s, n in zip(shape, small.shape, strict=True)]
    out = ndimage.zoom(small, factors, order=1)[: shape[0], : shape[1], : shape[2]]
    result: FloatArray = out / out.std()
    return result


def _level(value: FloatArray, width: float) -> FloatArray:
    """A logistic step, where the first generator uses a linear ramp."""
    out: FloatArray = 1.0 / (1.0 + np.exp(-np.clip(value / np.float32(width), -30, 30)))
    return out


def _gyri(rng: np.random.Generator, point: Point, warp: FloatArray, other: FloatArray) -> FloatArray:
    x, y, z = point
    pitch = float(rng.uniform(0.26, 0.42))
    one = np.sin(pitch * x + 2.2 * warp)
    two = np.sin(pitch * y + 2.2 * other)
    three = np.sin(pitch * z * 1.1 + 1.7 * (warp + other))
    out: FloatArray = (one * two + two * three + three * one).astype(np.float32)
    return out


def render_variant(draw: Draw, spec: HeadSpec, point: Point) -> Anatomy:
    """Render an S5 head on rendered points; same contract as the first generator's."""
    from wetread.testing.phantoms.head import Anatomy

    rng = draw.rng
    x, y, z = point
    a, b, c = rng.uniform(60, 74), rng.uniform(76, 94), rng.uniform(66, 82)
    power = float(rng.uniform(2.0, 2.6))
    lump = _lattice(rng, x.shape, 48)
    radial = (np.abs(x / a) ** power + np.abs(y / b) ** power + np.abs(z / c) ** power) ** (1 / power)
    depth = ((1 - radial) * a * (1 + 0.03 * lump)).astype(np.float32)
    base = z + 42 - 12 * np.tanh((-20 - y) / 8) + 6 * np.cos(x / 14)
    depth = np.minimum(depth, base.astype(np.float32))
    bone_mm = float(rng.uniform(3.5, 9))
    scalp_mm = float(rng.uniform(4, 10))
    warp, other = _lattice(rng, x.shape, 22), _lattice(rng, x.shape, 18)

    white = float(rng.normal(29, 2))
    grey = white + float(rng.uniform(5, 11))
    csf = float(rng.normal(8, 3))
    gyri = _gyri(rng, point, warp, other)
    shrink = float(np.exp(rng.uniform(-0.8, 0.8)))
    hu = (
        white
        + (grey - white)
        * np.maximum(_level(18 - depth, 2.0) * _level(np.abs(gyri) * -6 + 2.2, 0.8), _level(5 - depth, 1.0))
    ).astype(np.float32)
    for side in (-1, 1):
        nucleus = _blob(point, np.array([side * 22.0, 0.0, 4.0]), 13.0)
        hu += (grey - white) * 0.8 * _level(nucleus - 0.45, 0.06)
    sulci = _level((0.25 * shrink - np.abs(gyri)) * 5, 0.5) * _level(15 - depth, 2.0)
    size = float(rng.uniform(0.7, 1.5))
    chambers = np.zeros_like(x)
    for side in (-1, 1):
        tilt = float(rng.uniform(0.8, 1.2))
        for cx, cy, cz, r in ((8, -26, 8, 8), (11, -6, 16, 8), (16, 18, 14, 9), (22, 36, 6, 9)):
            chambers += _blob(point, np.array([side * cx, cy, cz]), r * size * tilt)
    chambers += _blob(point, np.array([0.0, 26.0, -30.0]), 7.0 * size)
    ventricle = _level(chambers - 0.62, 0.06)
    fluid = np.maximum(np.maximum(sulci, ventricle), _level(0.6 + 1.2 * shrink - depth, 0.5))
    hu += (csf - hu) * fluid
    dense = float(rng.normal(52, 7))
    falx = _level(1.0 - np.abs(x + 2 * warp), 0.4) * _level(radial * 60 - 36, 2.0) * (z > -8)
    sheet = z + 6 + 0.3 * np.abs(x) + 0.2 * y
    tent = _level(1.0 - np.abs(sheet), 0.4) * (y > 18) * (np.hypot(x, y) > 26)
    venous = _level(float(rng.uniform(3, 6)) - np.hypot(x, depth - 2), 0.5) * (z > -5)
    for part in (falx, tent, venous):
        hu += (dense - hu) * part

    plans = _plan(draw, spec, a, b, c)
    grids: dict[int, FloatArray] = {}
    for plan in plans:
        alpha = _fill(rng, plan, point, depth, fluid, ventricle, warp, x)
        value = plan.hu + 2 * other - (12 * _level(other - 0.6, 0.2) if plan.mixed else 0)
        hu += (value - hu) * alpha
        grids = {kind: grid * (1 - alpha) for kind, grid in grids.items()}
        grids[plan.type] = np.maximum(grids.get(plan.type, np.zeros_like(alpha)), alpha)
    for _ in range(int(rng.integers(0, 5))):
        spot = np.array([rng.normal(0, 18), rng.normal(15, 22), rng.normal(8, 12)])
        hu += float(rng.uniform(60, 400)) * _level(_blob(point, spot, float(rng.uniform(2, 5))) - 0.5, 0.08)
    hu += float(rng.uniform(0, 12)) * np.exp(-np.clip(depth, 0, None) / 5).astype(np.float32)
    _wrap(rng, hu, depth, point, warp, bone_mm, scalp_mm)
    return Anatomy(hu.astype(np.float32), grids, plans, 0.0)


def _wrap(
    rng: np.random.Generator,
    hu: FloatArray,
    depth: FloatArray,
    point: Point,
    warp: FloatArray,
    bone_mm: float,
    scalp_mm: float,
) -> None:
    """Bone, scalp, face and air around the brain, in place."""
    y, z = point[1], point[2]
    out = -depth
    face = (z < -25) & (np.hypot(point[0] / 68, (y + 4) / 92) < 1)
    soft_tissue = np.where(warp > 0, 50, -90).astype(np.float32)
    hollow = face & (np.abs(warp - 0.9) < 0.3) & (y < 10)
    shell = np.where(np.abs(out / bone_mm - 0.5) < 0.2, rng.uniform(500, 900), rng.uniform(1200, 1700))
    beyond = np.where(out < bone_mm, shell, np.where(out < bone_mm + scalp_mm, soft_tissue, -1000))
    beyond = np.where((out >= bone_mm) & face, soft_tissue, beyond)
    beyond = np.where((out >= bone_mm) & hollow, -1000, beyond)
    plates = face & (np.abs(warp) < 0.12) & (out >= bone_mm)
    beyond = np.where(plates, 800, beyond)
    hu += (beyond.astype(np.float32) - hu) * _level(out, 0.4)


def _plan(draw: Draw, spec: HeadSpec, a: float, b: float, c: float) -> list[Plan]:
    rng = draw.rng
    kinds = spec.bleeds
    if kinds is None:
        kinds = (BleedType[str(draw("bleed.kind"))],) if draw.coin("bleed") else ()
    plans = []
    for kind in kinds:
        volume = spec.volume_ml or draw.num("bleed.volume_ml")
        direction = rng.normal(0, 1, 3)
        direction[2] = abs(direction[2])
        direction /= np.linalg.norm(direction)
        reach = 0.95 if kind in (BleedType.EDH, BleedType.SDH, BleedType.SAH) else 0.5
        centre = direction * np.array([a, b, c]) * reach
        radius = float((volume * 1000 * 0.75 / np.pi) ** (1 / 3))
        plans.append(
            Plan(
                type=kind,
                side=1 if centre[0] > 0 else -1,
                centre=(float(centre[0]), float(centre[1]), float(centre[2])),
                volume_ml=volume,
                variant="blob",
                radius_mm=radius,
                thickness_mm=0.0,
                hu=draw.num("bleed.hu"),
                mixed=draw.coin("bleed.mixed"),
                fluid_level=False,
                mass_effect=0.0,
            )
        )
    return plans


def _fill(
    rng: np.random.Generator,
    plan: Plan,
    point: Point,
    depth: FloatArray,
    fluid: FloatArray,
    ventricle: FloatArray,
    warp: FloatArray,
    x: FloatArray,
) -> FloatArray:
    """Occupancy of a bleed: the level set, inside the space of its type, of the planned volume."""
    centre = np.asarray(plan.centre)
    near = np.zeros_like(x)
    for _ in range(5):
        near += _blob(point, centre + rng.normal(0, 0.35 * plan.radius_mm, 3), plan.radius_mm)
    score = np.log(near + 1e-6) + 0.15 * warp
    space: FloatArray = _level(depth - 1.0, 0.4)
    if plan.type in (BleedType.EDH, BleedType.SDH):
        # the thinner, the further it spreads
        score = score - depth / np.float32(rng.uniform(2.0, 5.0))
        space = _level(depth - 0.3, 0.3)
    elif plan.type is BleedType.IVH:
        space = ventricle
        score = point[1] * np.float32(0.08) + 0.2 * warp
    elif plan.type is BleedType.SAH:
        space = np.clip(fluid - ventricle, 0, 1) * _level(depth - 0.5, 0.3)
    inside = space > 0.4
    cell_ml = abs(float(np.ptp(point[2][:, 0, 0]))) / max(1, x.shape[0] - 1)
    cell_ml *= float(np.hypot(x[0, 0, 1] - x[0, 0, 0], point[1][0, 0, 1] - point[1][0, 0, 0])) ** 2
    cell_ml /= 1000.0
    count = min(int(plan.volume_ml / max(cell_ml, 1e-6)), int(inside.sum()))
    if count < 1:
        return np.zeros_like(x)
    values = score[inside]
    level = np.partition(values, -count)[-count]
    return space * _level(score - level, 0.06)
