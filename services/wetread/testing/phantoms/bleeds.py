"""Bleeds: where they lie, how they push tissue aside, which voxels they fill, how dense they are.

A bleed is planned before the brain is rendered, because mass effect moves tissue; it is painted
after it. Plans aim at a volume; the truth is what was painted inside the scanned range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wetread.testing.phantoms.brain import Brain
from wetread.testing.phantoms.fields import NoiseField, paint, soft
from wetread.testing.phantoms.parameters import Draw
from wetread.testing.phantoms.shape import HeadShape, Point
from wetread.testing.phantoms.spec import BleedType, FloatArray

# template sites (mm) of intra-axial bleeds on the left; weight, then centre, then spread
_SITES = (
    (0.34, (25.0, -4.0, 3.0), 5.0),
    (0.2, (11.0, 8.0, 5.0), 3.0),
    (0.30, (36.0, 0.0, 22.0), 18.0),
    (0.1, (24.0, 45.0, -34.0), 8.0),
    (0.06, (0.0, 4.0, -28.0), 3.0),
)

THINNEST_SUBDURAL_MM = 3.0
"""Thinner films beside bone drown in its blur: truth would name voxels that measure as bone and show nothing."""


@dataclass(slots=True)
class Plan:
    """One bleed before rendering: type, side (-1 right, +1 left), centre, size and density."""

    type: BleedType
    side: int
    centre: tuple[float, float, float]
    volume_ml: float
    variant: str
    radius_mm: float
    thickness_mm: float
    hu: float
    mixed: bool
    fluid_level: bool
    mass_effect: float


def plan_bleeds(
    draw: Draw, shape: HeadShape, kinds: tuple[BleedType, ...] | None, volume_ml: float | None
) -> list[Plan]:
    """Draw the bleeds of one head, in the order in which they are painted."""
    rng = draw.rng
    if kinds is None:
        if not draw.coin("bleed"):
            return []
        kinds = (BleedType[str(draw("bleed.kind"))],)
        if draw.coin("bleed.second"):
            partner = {
                BleedType.IPH: (BleedType.IVH, BleedType.SAH, BleedType.IPH),
                BleedType.SDH: (BleedType.SAH, BleedType.IPH, BleedType.EDH),
                BleedType.SAH: (BleedType.IVH, BleedType.SDH, BleedType.IPH),
                BleedType.EDH: (BleedType.SDH, BleedType.SAH, BleedType.IPH),
                BleedType.IVH: (BleedType.SAH, BleedType.IPH, BleedType.IPH),
            }[kinds[0]]
            kinds = (kinds[0], partner[int(rng.integers(0, 3))])
    plans: list[Plan] = []
    for index, kind in enumerate(kinds):
        volume = draw.num("bleed.volume_ml")
        if index == 0 and volume_ml is not None:
            volume = volume_ml
        plans.append(_plan(draw, shape, kind, volume, plans[0] if plans else None))
    return plans


def _plan(draw: Draw, shape: HeadShape, kind: BleedType, volume: float, first: Plan | None) -> Plan:
    rng = draw.rng
    side = int(rng.choice([-1, 1]))
    sx, sy, sz = shape.scale
    mm3 = volume * 1000.0
    variant, thickness = "focal", 0.0
    radius = float((mm3 * 0.75 / np.pi) ** (1 / 3))
    if kind is BleedType.IPH:
        if first is not None and first.type is BleedType.IPH:
            side = first.side
        weights = np.array([site[0] for site in _SITES])
        _, base, spread = _SITES[int(rng.choice(len(_SITES), p=weights / weights.sum()))]
        centre = np.asarray(base) + rng.normal(0, spread, 3)
        limit = np.array([shape.a, shape.b, shape.c]) - 6
        reach = float(np.linalg.norm(centre / limit))
        if reach > 0.85:
            centre *= 0.85 / reach
        place = (side * centre[0] * sx, centre[1] * sy, centre[2] * sz)
    elif kind in (BleedType.EDH, BleedType.SDH):
        polar = float(rng.uniform(-0.5, 0.85))
        azimuth = float(rng.uniform(-1.25, 1.25))
        flat = np.sqrt(1 - polar**2)
        direction = (side * flat * np.cos(azimuth), flat * np.sin(azimuth), polar)
        place = (direction[0] * shape.a, direction[1] * shape.b, direction[2] * shape.c)
        if kind is BleedType.EDH:
            aspect = float(rng.uniform(0.3, 0.7))
            # a lens: V = pi/2 L^2 T
            radius = float((2 * mm3 / np.pi / aspect) ** (1 / 3))
            thickness = aspect * radius
        else:
            variant = str(rng.choice(["convex", "convex", "convex", "falx", "tentorium"]))
            if variant == "convex":
                radius = float(np.clip(rng.uniform(30, 95), None, 12 * volume**0.5 + 14))
                thickness = 1.5 * mm3 / (np.pi * radius**2)
                if thickness < THINNEST_SUBDURAL_MM:
                    thickness, radius = THINNEST_SUBDURAL_MM, float(np.sqrt(1.5 * mm3 / np.pi / THINNEST_SUBDURAL_MM))
                if thickness > 26:
                    thickness, radius = 26.0, float(np.sqrt(1.5 * mm3 / np.pi / 26.0))
            else:
                thickness = float(rng.uniform(2.0, 6.0 if volume < 20 else 9.0))
                radius = float(np.clip(np.sqrt(mm3 / np.pi / thickness), 4, 60))
                place = (
                    (0.0, float(rng.uniform(-50, 60)) * sy, float(rng.uniform(30, 55)) * sz)
                    if variant == "falx"
                    else (side * float(rng.uniform(18, 45)) * sx, float(rng.uniform(30, 60)) * sy, -18.0 * sz)
                )
    elif kind is BleedType.IVH:
        variant = "layer" if volume < 8 or rng.random() < 0.4 else "cast"
        place = (side * 15.0 * sx, 20.0 * sy, 10.0 * sz)
    else:
        variant = str(rng.choice(["convex", "basal", "sylvian", "convex"]))
        # blood fills about a tenth of a convexity region, a third of a cistern
        share = 0.10 if variant == "convex" else 0.3
        radius = float(np.clip((mm3 / share * 0.75 / np.pi) ** (1 / 3), 6, 75))
        polar, azimuth = float(rng.uniform(-0.1, 0.9)), float(rng.uniform(-1.4, 1.4))
        flat = np.sqrt(1 - polar**2)
        place = {
            "convex": (
                side * flat * np.cos(azimuth) * shape.a * 0.93,
                flat * np.sin(azimuth) * shape.b * 0.93,
                polar * shape.c * 0.93,
            ),
            "basal": (0.0, -8.0 * sy, -17.0 * sz),
            "sylvian": (side * 42.0 * sx, -8.0 * sy, -4.0 * sz),
        }[variant]
    old = draw.coin("bleed.subacute")
    return Plan(
        type=kind,
        side=side,
        centre=(float(place[0]), float(place[1]), float(place[2])),
        volume_ml=volume,
        variant=variant,
        radius_mm=radius,
        thickness_mm=thickness,
        hu=draw.num("bleed.subacute_hu") if old else draw.num("bleed.hu"),
        mixed=draw.coin("bleed.mixed"),
        fluid_level=draw.coin("bleed.fluid_level"),
        mass_effect=draw.num("bleed.mass_effect"),
    )


def displacement(plans: list[Plan], point: Point) -> Point:
    """How far (mm) tissue now at `point` was pushed by all bleeds."""
    total = [np.zeros_like(point[0]) for _ in range(3)]
    for plan in plans:
        offset = [p - np.float32(c) for p, c in zip(point, plan.centre, strict=True)]
        if plan.type is BleedType.IPH:
            distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2) + np.float32(1e-3)
            reach = np.maximum(distance, plan.radius_mm)
            inner = np.cbrt(np.clip(reach**3 - plan.mass_effect * 0.8 * plan.radius_mm**3, 0, None))
            amount = (reach - inner) * np.exp(-(((reach - plan.radius_mm) / 45.0) ** 2)) / distance
            for axis in range(3):
                total[axis] += (amount * offset[axis]).astype(np.float32)
        elif plan.type in (BleedType.EDH, BleedType.SDH) and plan.variant in ("focal", "convex"):
            distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2)
            wide = plan.radius_mm * 1.2 + 12
            push = plan.thickness_mm * plan.mass_effect * 0.8 * np.exp(-((distance / wide) ** 2))
            norm = float(np.linalg.norm(plan.centre)) + 1e-3
            # the far side of the head yields less
            push = push * soft(plan.side * point[0] + 18, 50.0)
            for axis in range(3):
                total[axis] -= (push * np.float32(plan.centre[axis] / norm)).astype(np.float32)
    return total[0], total[1], total[2]


def occupancy(draw: Draw, plan: Plan, point: Point, depth: FloatArray, brain: Brain) -> FloatArray:
    """Fraction 0..1 of each point's neighbourhood that the planned bleed fills."""
    rng = draw.rng
    x, y, z = point
    offset = [p - np.float32(c) for p, c in zip(point, plan.centre, strict=True)]
    distance = np.sqrt(offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2)
    rough = NoiseField(rng, max(4.0, plan.radius_mm * 0.6))(x, y, z)
    edge = draw.num("bleed.edge_mm")
    if plan.type is BleedType.IPH:
        stretch = rng.uniform(0.75, 1.35, 3)
        stretch /= np.cbrt(stretch.prod())
        radius = np.sqrt(sum((o / s) ** 2 for o, s in zip(offset, stretch, strict=True)))
        body = plan.radius_mm * (1 + float(rng.uniform(0.03, 0.22)) * rough) - radius
        return soft(body, edge) * soft(depth - 1.5)
    if plan.type is BleedType.EDH:
        lens = plan.thickness_mm * (1 - (distance / plan.radius_mm) ** 2) + 0.4 * rough
        return soft(np.minimum(lens - depth, depth + 0.5), edge) * soft(depth)
    if plan.type is BleedType.SDH:
        return _subdural(plan, depth, distance, rough, brain, edge)
    if plan.type is BleedType.IVH:
        return _ventricular(rng, plan, point, rough, brain)
    film = float(rng.uniform(0.3, 1.5))
    region = soft(plan.radius_mm * (1 + 0.2 * rough) - distance, plan.radius_mm * 0.4)
    space = np.clip(brain.csf * (1 - brain.ventricle) * film * 1.4, 0, 1)
    out: FloatArray = space * region * (1 - 0.85 * brain.dura)
    return out


def _subdural(
    plan: Plan, depth: FloatArray, distance: FloatArray, rough: FloatArray, brain: Brain, edge: float
) -> FloatArray:
    if plan.variant == "convex":
        crescent = plan.thickness_mm * (1 - (distance / plan.radius_mm) ** 4)
        body = np.minimum(crescent * (1 + 0.12 * rough) - depth, depth + 0.5)
        same_side = soft(plan.side * brain.falx_gap - 1.5, 1.5)
        above = soft(brain.tentorium_gap, 2.0) if plan.centre[2] > 0 else 1.0
        out: FloatArray = soft(body, edge) * soft(depth) * same_side * above
        return out
    sheet = plan.side * brain.falx_gap if plan.variant == "falx" else brain.tentorium_gap
    width = plan.thickness_mm * np.clip(1 - (distance / plan.radius_mm) ** 2, 0, 1)
    out = soft(np.minimum(sheet - 0.3, width * (1 + 0.2 * rough) - sheet), edge)
    return out * soft(plan.radius_mm - distance, 3.0) * soft(depth - 0.5)


def _ventricular(rng: np.random.Generator, plan: Plan, point: Point, rough: FloatArray, brain: Brain) -> FloatArray:
    """Fill ventricles up to the planned volume: dependent parts first, or a cast from the centre."""
    inside = brain.ventricle
    where = np.flatnonzero(inside > 0.3)
    if where.size == 0:
        return np.zeros_like(inside)
    x, y, z = (p[where] for p in point)
    if plan.variant == "layer":
        order = y + 0.25 * z * float(rng.uniform(-1, 1)) + plan.side * x * float(rng.uniform(0, 0.6))
        softness = 1.5
    else:
        order = plan.side * x * float(rng.uniform(0, 1.2)) - 0.3 * np.abs(y - plan.centre[1])
        order = order + 4 * rough[where]
        softness = 3.0
    ranked = np.sort(order)[::-1]
    # a point stands for its share of the braincase, which holds about 1350 mL
    each = 1350.0 / inside.size
    count = int(np.clip(plan.volume_ml / each, 1, ranked.size))
    out = np.zeros_like(inside)
    out[where] = inside[where] * soft((order - ranked[count - 1]).astype(np.float32), softness)
    return out


def paint_bleed(draw: Draw, plan: Plan, point: Point, alpha: FloatArray, hu: FloatArray, csf_hu: float) -> None:
    """Give the filled voxels their density: clot, swirl, fluid level, oedema around clots."""
    rng = draw.rng
    x, y, z = point
    touched = alpha > 0.01
    if plan.type is BleedType.IPH:
        distance = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(point, plan.centre, strict=True)))
        rim = draw.num("bleed.oedema_mm")
        if rim > 0.5:
            halo = np.exp(-((np.clip(distance - plan.radius_mm, 0, None) / np.float32(rim)) ** 2))
            hu -= np.float32(draw.num("bleed.oedema_drop_hu")) * halo * (1 - alpha) * (hu > 15)
    if not touched.any():
        return
    sub = (x[touched], y[touched], z[touched])
    blood = plan.hu + 2.5 * NoiseField(rng, 5.0)(*sub)
    if plan.mixed:
        blood -= float(rng.uniform(6, 22)) * soft(NoiseField(rng, 9.0)(*sub) - 0.3, 0.8)
    if plan.fluid_level:
        blood -= float(rng.uniform(10, 30)) * soft(np.float32(plan.centre[1]) - sub[1], 2.0)
    if plan.type in (BleedType.SAH, BleedType.IVH):
        share = float(rng.uniform(0.55, 1.0))
        blood = csf_hu + share * (blood - csf_hu)
        blood = np.maximum(blood, 36.0)
    local = hu[touched]
    paint(local, blood, alpha[touched])
    hu[touched] = local
